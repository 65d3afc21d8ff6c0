"""From C to a loaded library: compiler, flags, and a cache on disk that is private to its owner and verified."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

# No flag here may assume nan or infinity away; contraction to fused multiply-add is welcome.
_FLAGS = ("-O3", "-march=native", "-std=gnu11", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-w")


class CompileError(RuntimeError):
    """The compiler failed, or there is none. The message says which and where the source was kept."""


@functools.cache
def compiler() -> tuple[str, ...] | None:
    """Return the command that compiles C: ``$CC``, cc, gcc or clang, else the ziglang wheel; None if there is none."""
    for name in (os.environ.get("CC"), "cc", "gcc", "clang"):
        found = shutil.which(name) if name else None
        if found:
            return (found,)
    try:
        import ziglang  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return None
    return (sys.executable, "-m", "ziglang", "cc") if ziglang else None


@functools.cache
def openmp() -> tuple[str, ...]:
    """Return the flags that link torch's own OpenMP runtime: a second one in the process would fight it for cores."""
    folder = Path(torch.__file__).parent
    for place in (folder / "lib", folder.parent / "torch.libs"):
        found = sorted(place.glob("libgomp*.so*"))
        if found:
            return ("-fopenmp-simd", "-DSLALOM_GOMP", str(found[0]), "-lm")
    return ("-fopenmp-simd", "-lm")


@functools.cache
def identity() -> str:
    """Return what a library depends on beside its source: compiler, flags, processor."""
    command = compiler() or ("none",)
    binary = Path(command[0]).resolve()
    stamp = f"{binary}:{binary.stat().st_size}:{binary.stat().st_mtime_ns}" if binary.exists() else str(command)
    try:
        features = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags"))
    except (OSError, StopIteration):
        features = platform.processor()
    return "\n".join((stamp, " ".join(command), " ".join(_FLAGS), " ".join(openmp()), platform.machine(), features))


def cache_folder() -> Path:
    """Return the folder for compiled kernels: ``$SLALOM_CACHE``, the user's cache, or a temporary one if that fails."""
    chosen = os.environ.get("SLALOM_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(chosen) if chosen else Path(home) / "slalom"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if _is_private(folder) and os.access(folder, os.W_OK | os.X_OK):
            return folder
    except OSError:
        pass
    return _temporary_folder()


@functools.cache
def _temporary_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="slalom-"))


def _is_private(path: Path) -> bool:
    """Return whether nobody else can have written this."""
    if not hasattr(os, "getuid"):
        return True
    status = path.stat()
    return status.st_uid == os.getuid() and not status.st_mode & 0o022


def load(source: str) -> ctypes.CDLL:
    """Return the library of a C source, compiled unless a verified copy is in the cache.

    Raises:
        CompileError: if there is no compiler or it fails.
    """
    name = hashlib.sha256(f"{identity()}\n{source}".encode()).hexdigest()[:32]
    folder = cache_folder()
    library, seal = folder / f"{name}.so", folder / f"{name}.sha256"
    if not _is_sealed(library, seal):
        _compile(source, library, seal)
    return ctypes.CDLL(str(library))


def _is_sealed(library: Path, seal: Path) -> bool:
    """Return whether a cached library is whole and ours."""
    try:
        if not (_is_private(library) and _is_private(seal)):
            return False
        return hashlib.sha256(library.read_bytes()).hexdigest() == seal.read_text()
    except OSError:
        return False


def _compile(source: str, library: Path, seal: Path) -> None:
    command = compiler()
    if command is None:
        raise CompileError("there is no C compiler: install gcc or clang, or `pip install ziglang`.")
    with tempfile.TemporaryDirectory(dir=library.parent, prefix=".build-") as folder:
        text, made = Path(folder) / "kernel.c", Path(folder) / "kernel.so"
        text.write_text(source)
        done = subprocess.run(
            [*command, *_FLAGS, "-o", str(made), str(text), *openmp()], capture_output=True, text=True, check=False
        )
        if done.returncode:
            kept = library.with_suffix(".c")
            kept.write_text(source)
            first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr[:200])
            raise CompileError(f"the C compiler failed: {first.strip()} (the source is kept in {kept}).")
        made.chmod(0o700)
        digest = Path(folder) / "digest"
        digest.write_text(hashlib.sha256(made.read_bytes()).hexdigest())
        digest.chmod(0o600)
        # The library first: a seal without its library, or with another one, only means a rebuild.
        os.replace(made, library)
        os.replace(digest, seal)
