"""The executor on CPUs: a plan written as C, built by the system's compiler, run over all tensors of a group."""
