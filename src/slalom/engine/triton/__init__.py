"""The executor on GPUs: a plan written as Triton, run over all tensors of a group, with no wait for the device."""
