"""Files that are there whole or not at all, and whose damage is noticed. Nothing here knows what they hold."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

DRAFT: Final = ".part"
_BLOCK: Final = 1 << 20


class Digesting:
    """A file for writing that knows the SHA-256 and the number of the bytes that went through it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        """Write all of the bytes."""
        self._digest.update(data)
        self.size += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        """Hand what is buffered to the system."""
        self._file.flush()

    def sha256(self) -> str:
        """Return the digest of everything so far."""
        return self._digest.hexdigest()


def write_durably(path: Path, fill: Callable[[Digesting], object]) -> Digesting:
    """Write a file so that after a crash at any moment its name shows the old content, the new, or nothing else.

    The bytes go to a draft in the same folder; file and folder are synchronised, and what lies on the disk is read
    back, before anybody hears that it worked.

    Args:
        path: the file; one that exists is replaced.
        fill: writes the content.

    Returns:
        What was written, as size and digest.

    Raises:
        OSError: if it cannot be written; then the draft is gone, and the old content is there unless all that failed
            was to make the new name last.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}{DRAFT}")
    try:
        # O_EXCL: a file or link that somebody else put there is never written through.
        with open(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), "w+b") as file:
            written = Digesting(file)
            fill(written)
            file.flush()
            os.fsync(file.fileno())
            _confirm(file, written)
        os.replace(draft, path)
        sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
    return written


def _confirm(file: BinaryIO, written: Digesting) -> None:
    if digest(file) != written.sha256():
        raise OSError(f"{file.name} does not read back as it was written")


def digest(file: BinaryIO) -> str:
    """Return the SHA-256 of a whole open file, and leave it at its beginning."""
    file.seek(0)
    found = hashlib.sha256()
    while block := file.read(_BLOCK):
        found.update(block)
    file.seek(0)
    return found.hexdigest()


def sync_folder(folder: Path) -> None:
    """Make names in a folder survive a loss of power, where the system can do that."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
