"""Reading data sets that lie on this machine, for workloads of your own; nothing is ever downloaded.

    from slalom.race import Workload
    from slalom.race.loaders import read_cifar10

    class Cifar(Workload):
        def batches(self, generator):
            images, labels = read_cifar10("/data/cifar-10-batches-bin", train=True)
            ...

Each reader checks what it reads, and an error says which file and what is wrong with it.
"""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from slalom.errors import UsageError, reason

# The IDX format's codes of element types, all of them big-endian.
_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_CIFAR_RECORD = 1 + 3 * 32 * 32


def read_idx(file: str | Path) -> Tensor:
    """Read a tensor in the IDX format, as MNIST and its relatives come, also gzipped.

    Raises:
        UsageError: if the file is missing, is not in that format, or is shorter or longer than it says.
    """
    raw = _read(Path(file))
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in _IDX_TYPES:
        raise UsageError(f'"{file}" is not in the IDX format: it does not begin with two zeros and a known type.')
    kind, dimensions = np.dtype(_IDX_TYPES[raw[2]]), raw[3]
    start = 4 + 4 * dimensions
    if len(raw) < start:
        raise UsageError(f'"{file}" ends within its own header.')
    shape = struct.unpack(f">{dimensions}I", raw[4:start])
    expected = start + math.prod(shape) * kind.itemsize
    if len(raw) != expected:
        raise UsageError(f'"{file}" says that it has {expected} bytes and has {len(raw)}; is it cut off?')
    values = np.frombuffer(raw, kind, offset=start).reshape(shape)
    return torch.from_numpy(values.astype(kind.newbyteorder("=")))


def read_cifar10(folder: str | Path, *, train: bool) -> tuple[Tensor, Tensor]:
    """Read CIFAR-10's binary version: images as bytes of shape (n, 3, 32, 32), and classes.

    Args:
        folder: with ``data_batch_1.bin`` to ``data_batch_5.bin`` and ``test_batch.bin``.
        train: whether to read the former or the latter.

    Raises:
        UsageError: if a file is missing or is not a whole number of records.
    """
    names = [f"data_batch_{index}.bin" for index in range(1, 6)] if train else ["test_batch.bin"]
    parts = []
    for name in names:
        raw = _read(Path(folder) / name)
        if not raw or len(raw) % _CIFAR_RECORD:
            raise UsageError(f'"{Path(folder) / name}" is not a whole number of records of {_CIFAR_RECORD} bytes.')
        parts.append(np.frombuffer(raw, np.uint8).reshape(-1, _CIFAR_RECORD))
    records = torch.from_numpy(np.concatenate(parts))
    if int(records[:, 0].max()) > 9:
        raise UsageError(f'"{folder}": a class above 9; this is not CIFAR-10.')
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].long()


def read_text(file: str | Path) -> Tensor:
    """Read a file of any text as bytes, one number from 0 to 255 each.

    Raises:
        UsageError: if it is missing or empty.
    """
    raw = _read(Path(file))
    if not raw:
        raise UsageError(f'"{file}" is empty.')
    return torch.from_numpy(np.frombuffer(raw, np.uint8).copy())


def _read(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError) as error:
        raise UsageError(f'cannot read "{path}": {reason(error)}.') from None
