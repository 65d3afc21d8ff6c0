"""Checkpoints of a whole training run, from which it goes on to the same bits: saved durably, loaded whole or not.

A checkpoint is two files: ``checkpoint-000007.pt`` with tensors and plain values, and ``checkpoint-000007.json``, its
manifest, written last, which states the digest of the first. Without a manifest there is no checkpoint; a file that is
not what its manifest states is damaged, and the one before it is used.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import hashlib
import json
import os
import pickle
import platform
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import torch
from torch import nn

from slalom.checkpoint.durable import DRAFT, digest, sync_folder, write_durably
from slalom.checkpoint.runstate import (
    Piece,
    Stateful,
    capture,
    describe,
    differences,
    gpus_in_use,
    plain,
    random_states,
    remember,
    restore,
    set_random_states,
)
from slalom.errors import ran_out_of_memory

FORMAT: Final = 1
_NAME: Final = re.compile(r"checkpoint-(\d{6,12})\.(pt|json)")
_MANIFEST_BYTES: Final = 1 << 20
_LINES: Final = 12


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was loaded.

    Attributes:
        file: the file with the tensors.
        position: what was given when it was saved: where in the data the run goes on.
        saved: when it was saved, as ISO 8601 in UTC.
        environment: versions, thread count and processor that it was saved with.
    """

    file: Path
    position: Any
    saved: str
    environment: Mapping[str, Any]


class _Damaged(Exception):  # noqa: N818
    """A checkpoint is not what it was when it was saved."""


def save_checkpoint(
    folder: str | os.PathLike[str],
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | None = None,
    scheduler: Stateful | Sequence[Stateful] | None = None,
    scaler: torch.amp.GradScaler | None = None,
    others: Mapping[str, Piece] | None = None,
    position: Any = None,
    keep: int = 2,
) -> Path:
    """Save everything that a training run needs to go on to the same bits. Call it between two steps.

        slalom.save_checkpoint("runs/a", model=model, optimizer=optimizer, scheduler=schedule, position={"step": step})

    Beside what is given, the random states of Python, numpy and torch are saved, and which layers are frozen or
    evaluating. Gradients are not: a run that accumulates saves after its step. A process that is killed, a full disk or
    a loss of power at any moment leaves the checkpoints that were there. A folder belongs to one writer: of several
    ranks, let one save, or give each its own folder.

    Where the system asks a process to end (SIGTERM), let the handler only set a flag and look at it between steps, then
    save. A handler that raises is survived while saving, but in the middle of a step it leaves half of one.

    Args:
        folder: where the run's checkpoints lie; made if it is not there.
        model: the model.
        optimizer: the optimizer, or several; averages live in its state.
        scheduler: the learning rate schedule, or several.
        scaler: the gradient scaler.
        others: more pieces by name: anything with ``state_dict`` and ``load_state_dict``, such as a second model or a
            sampler, and generators of torch or numpy.
        position: where in the data the run stands, in plain values; `load_checkpoint` returns it. A run that saves
            within an epoch puts in it the state that the shuffling generator had when the epoch began, and how many
            batches are done; resumed, it sets the one and skips the others.
        keep: how many checkpoints stay, this one included; older ones go once this one has been read back.

    Returns:
        The file with the tensors.

    Raises:
        OSError: if it cannot be written, memory being short among the reasons; the checkpoints that were there are
            untouched.
        TypeError: for a value that only unpickling could bring back; the sentence says where it stands.
        ValueError: for ``keep`` below 1.
    """
    if keep < 1:
        raise ValueError(f"keep={keep}: at least the checkpoint that is saved must stay; give 1 or more.")
    folder = Path(folder)
    pieces = _pieces(model, optimizer, scheduler, scaler, others)
    content = {
        "format": FORMAT,
        "pieces": {name: plain(capture(piece), name) for name, piece in pieces.items()},
        "described": {name: describe(piece) for name, piece in pieces.items()},
        "random": random_states(),
        "position": plain(position, "position"),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        serial = max(_serials(folder), default=0) + 1
        data, manifest = _files(folder, serial)
        try:
            written = write_durably(data, lambda file: torch.save(content, cast(BinaryIO, file)))
            facts = {
                "format": FORMAT,
                "serial": serial,
                "sha256": written.sha256(),
                "bytes": written.size,
                "saved": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "pieces": list(pieces),
                "position": repr(content["position"])[:200],
                "environment": _environment(),
            }
            text = json.dumps({**facts, "seal": _seal(facts)}, indent=2).encode()
            write_durably(manifest, lambda file: file.write(text))
        except BaseException:
            _delete(data, manifest)
            raise
    except (OSError, RuntimeError, MemoryError) as error:  # torch says RuntimeError when the disk is full
        number, reason = _cause(error)
        raise OSError(
            number, f'cannot save a checkpoint in "{folder}" ({reason}); those that were there are untouched.'
        ) from error
    _prune(folder, keep)
    return data


def load_checkpoint(
    folder: str | os.PathLike[str],
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer] | None = None,
    scheduler: Stateful | Sequence[Stateful] | None = None,
    scaler: torch.amp.GradScaler | None = None,
    others: Mapping[str, Piece] | None = None,
    partial: bool = False,
) -> Checkpoint | None:
    """Restore a run from the newest checkpoint that is whole, or change nothing.

        resumed = slalom.load_checkpoint("runs/a", model=model, optimizer=optimizer, scheduler=schedule)
        first = resumed.position["step"] if resumed else 0

    Build everything anew, as at the start of the run, and give it here. A checkpoint that is damaged is passed over
    with a warning that says what is wrong with it; one that does not fit is refused as a whole. Where thread count,
    versions or processor are others than at saving, the run goes on but perhaps not to the same bits, and a warning
    says so.

    Args:
        folder: where `save_checkpoint` put them.
        model: the model, of the same shapes and dtypes.
        optimizer: the optimizer or several, of the same class, recipe and parameters.
        scheduler: the schedule or several; make them before loading, since they set rates when they are made.
        scaler: the gradient scaler.
        others: what was saved under these names.
        partial: restore only what is given here, such as the model alone, and leave random states and the model's
            modes as they are.

    Returns:
        What was loaded; None if the folder has no checkpoint yet.

    Raises:
        ValueError: if the checkpoint does not fit, with the differences, or if none of those there is whole.
        MemoryError: if there is not enough of it; nothing was changed.
    """
    folder = Path(folder)
    pieces = _pieces(model, optimizer, scheduler, scaler, others)
    serials = _serials(folder)
    damage: list[str] = []
    for serial in sorted(serials, reverse=True):
        try:
            content, facts = _read(folder, serial)
        except _Damaged as error:
            damage.append(str(error))
            continue
        file = _files(folder, serial)[0]
        if damage:
            _warn(f"{'; '.join(damage)}. Going on from {file.name}, saved {facts['saved']} at {facts['position']}.")
        _check_fit(file.name, pieces, content, partial)
        _restore_all(file.name, pieces, content, partial)
        changed = _changed_since(facts["environment"])
        if changed and not partial:
            _warn(f"the run goes on, but perhaps not to the same bits: {changed}.")
        return Checkpoint(file, content["position"], facts["saved"], facts["environment"])
    if any(_files(folder, serial)[1].exists() for serial in serials):
        raise ValueError(f'no checkpoint in "{folder}" is whole: {"; ".join(damage)}.')
    if damage:  # killed while the first one was saved
        _warn(f"{'; '.join(damage)}. There is no other: the run starts from its beginning.")
    return None


# --- pieces -----------------------------------------------------------------------------------------------------


def _pieces(model: nn.Module, optimizer: Any, scheduler: Any, scaler: Any, others: Any) -> dict[str, Piece]:
    """Return everything that was given, by name."""
    pieces: dict[str, Piece] = {"model": model}
    for name, given in (("optimizer", optimizer), ("scheduler", scheduler), ("scaler", scaler)):
        if isinstance(given, (list, tuple)):
            pieces |= {f"{name}[{place}]": piece for place, piece in enumerate(given)}
        elif given is not None:
            pieces[name] = given
    for name, piece in (others or {}).items():
        if name in pieces:
            raise ValueError(f'others has a "{name}", which has an argument of its own; choose another name.')
        pieces[name] = piece
    return pieces


def _check_fit(name: str, pieces: Mapping[str, Piece], content: Mapping[str, Any], partial: bool) -> None:
    saved, described = content["pieces"], content["described"]
    lines = [f"the checkpoint has no {piece}" for piece in pieces if piece not in saved]
    if not partial:
        lines += [f"the checkpoint also has {piece}, which was not given" for piece in saved if piece not in pieces]
    for piece in (piece for piece in pieces if piece in saved):
        lines += differences(piece, pieces[piece], saved[piece], described[piece])
    if lines:
        shown = lines[:_LINES] + ([f"and {len(lines) - _LINES} more"] if len(lines) > _LINES else [])
        raise ValueError("\n  ".join([f"{name} does not fit, and nothing was changed:", *shown]))


def _restore_all(name: str, pieces: Mapping[str, Piece], content: Mapping[str, Any], partial: bool) -> None:
    """Restore every piece, or none: whatever fails on the way, all are put back."""
    undo: dict[str, Callable[[], None]] = {}
    states = random_states()
    try:
        for piece in pieces:
            undo[piece] = remember(pieces[piece])
        for piece in pieces:
            restore(pieces[piece], content["pieces"][piece], modes=not partial)
        if not partial:
            set_random_states(content["random"])
    except BaseException as error:
        stuck = _put_back(undo)
        set_random_states(states)
        if not isinstance(error, Exception):
            raise
        kept = f"{', '.join(stuck)} could not be put back" if stuck else "nothing was changed"
        if ran_out_of_memory(error):
            raise MemoryError(f"there is no memory to restore {piece} from {name}; {kept}.") from error
        raise ValueError(f"{name} does not fit, and {kept}:\n  {piece}: {error}") from error


def _put_back(undo: Mapping[str, Callable[[], None]]) -> list[str]:
    """Put all pieces back; return the names of those whose own loader fails at that too."""
    stuck = []
    for name, put_back in undo.items():
        try:
            with torch.no_grad():
                put_back()
        except Exception:
            stuck.append(name)
    return stuck


# --- files ------------------------------------------------------------------------------------------------------


def _files(folder: Path, serial: int) -> tuple[Path, Path]:
    return folder / f"checkpoint-{serial:06}.pt", folder / f"checkpoint-{serial:06}.json"


def _serials(folder: Path) -> set[int]:
    """Return the numbers of all checkpoints in a folder, whole or not."""
    names = os.listdir(folder) if folder.is_dir() else []
    return {int(found[1]) for found in map(_NAME.fullmatch, names) if found}


def _read(folder: Path, serial: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return content and manifest of a checkpoint.

    Raises:
        _Damaged: if it is not what was saved; the message names the file.
        ValueError: if it is whole but of a later format.
    """
    data, manifest = _files(folder, serial)
    facts = _read_manifest(manifest, serial)
    if facts["format"] != FORMAT:
        raise ValueError(
            f"{manifest.name} has format {facts['format']}, this slalom reads {FORMAT}: use the one that wrote it."
        )
    try:
        with data.open("rb") as file:
            if digest(file) != facts["sha256"]:
                raise _Damaged(f"{data.name} is damaged: it is not what its manifest states")
            content = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise _Damaged(f"{data.name} cannot be read ({error.strerror or error})") from None
    except (MemoryError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        if ran_out_of_memory(error):  # no damage: the one before is no smaller, only older
            raise MemoryError(f"there is no memory to read {data.name}; nothing was changed.") from error
        raise _Damaged(f"{data.name} holds no checkpoint ({str(error).splitlines()[0]})") from None
    if not isinstance(content, dict) or not {"format", "pieces", "described", "random", "position"} <= content.keys():
        raise _Damaged(f"{data.name} holds no checkpoint")
    return content, facts


def _read_manifest(manifest: Path, serial: int) -> dict[str, Any]:
    try:
        with manifest.open("rb") as file:
            facts = json.loads(file.read(_MANIFEST_BYTES))
        seal = facts.pop("seal")
    except FileNotFoundError:
        raise _Damaged(f"{manifest.name} is not there: saving it was never finished, or it was deleted") from None
    except OSError as error:
        raise _Damaged(f"{manifest.name} cannot be read ({error.strerror or error})") from None
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise _Damaged(f"{manifest.name} is damaged: it is no manifest") from None
    if seal != _seal(facts):
        raise _Damaged(f"{manifest.name} is damaged: it is not what was written")
    if facts["serial"] != serial:
        raise _Damaged(f"{manifest.name} is the manifest of checkpoint {facts['serial']}: files were renamed")
    return dict(facts)


def _seal(facts: Mapping[str, Any]) -> str:
    """Return the digest of a manifest's own facts. It shows damage; it is no signature."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _prune(folder: Path, keep: int) -> None:
    """Delete what is older than the newest ``keep`` checkpoints, and what killed processes left behind."""
    with contextlib.suppress(OSError, MemoryError):  # what cannot be deleted now is tried again next time
        serials = sorted(_serials(folder))
        complete = [serial for serial in serials if _files(folder, serial)[1].exists()]
        for serial in serials:
            if serial not in complete[-keep:]:
                _delete(*_files(folder, serial))
        for draft in folder.glob(f".checkpoint-*{DRAFT}"):
            draft.unlink(missing_ok=True)
        sync_folder(folder)


def _delete(data: Path, manifest: Path) -> None:
    """Delete a checkpoint if the system lets us; the manifest first, since one without its data looks like damage."""
    for path in (manifest, data):
        with contextlib.suppress(OSError):
            path.unlink()


def _cause(error: OSError | RuntimeError | MemoryError) -> tuple[int, str]:
    """Return number and reason of what the system said, also where torch hid it."""
    if ran_out_of_memory(error):
        return errno.ENOMEM, os.strerror(errno.ENOMEM)
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError):
            return found.errno or 5, found.strerror or str(found)
        found = found.__cause__ or found.__context__
    return 5, str(error).splitlines()[0]


# --- surroundings -----------------------------------------------------------------------------------------------


def _environment() -> dict[str, Any]:
    """Return what the bits of a run depend on beside its checkpoint."""
    import slalom

    return {
        "slalom": slalom.__version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if gpus_in_use() else "",
    }


def _changed_since(then: Mapping[str, Any]) -> str:
    """Say what is not as it was when a checkpoint was saved."""
    now = _environment()
    keys = [key for key in ("torch", "threads", "deterministic", "processor", "gpu") if then.get(key) != now[key]]
    return ", ".join(f"{key} was {then.get(key)!r}, is {now[key]!r}" for key in keys)


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=3)  # whoever called `load_checkpoint`
