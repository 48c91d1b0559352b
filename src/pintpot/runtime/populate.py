"""Weights mapped into memory ahead of the tokens that need them.

Otherwise each page of the mapped file costs a fault in the middle of the first tokens, and a file that is not
in the page cache yet is read from the disk in the order in which experts happen to be chosen.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from pintpot.gguf import GGUFFile, Part
from pintpot.hardware.memory import read_memory
from pintpot.hardware.tree import Tree

_POPULATE_READ: Final = 22  # MADV_POPULATE_READ of Linux 5.14, which the mmap module does not name yet
_CHUNK_BYTES: Final = 32 << 20  # some milliseconds, after which a model that is gone is noticed
_NICE: Final = 10  # a tenth of a core beside threads that compute: the first token must not wait
HEADROOM_BYTES: Final = 1 << 30  # of available memory, left to others


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes [start, stop) of a file's part, from and to whole pages."""

    part: int
    start: int
    stop: int


def spans(file: GGUFFile, names: Iterable[str]) -> list[Span]:
    """Where tensors lie, in the order of the file; neighbours are one."""
    page = mmap.PAGESIZE
    found: list[Span] = []
    for info in sorted((file.tensors[name] for name in names), key=lambda info: (info.part, info.offset)):
        start = info.offset // page * page
        stop = min(-(-(info.offset + info.nbytes) // page) * page, file.parts[info.part].nbytes)
        if found and found[-1].part == info.part and start <= found[-1].stop:
            start = found.pop().start
        found.append(Span(info.part, start, stop))
    return found


def populate(file: GGUFFile, names: Iterable[str], other_bytes: int) -> threading.Thread | None:
    """Begins to map tensors in a thread of its own, which ends with `file`.

    None where memory does not hold them and the `other_bytes` that will be needed beside, where the system
    cannot, and where there is nothing to do.
    """
    wanted = spans(file, names)
    room = read_memory(Tree(), []).available_bytes - other_bytes - HEADROOM_BYTES
    if not wanted or sum(span.stop - span.start for span in wanted) > room:
        return None
    try:
        madvise = ctypes.CDLL(None, use_errno=True).madvise
    except (AttributeError, OSError, TypeError):  # no Linux
        return None
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    thread = threading.Thread(
        target=_populate, args=(madvise, weakref.ref(file), wanted), name="populate", daemon=True
    )
    thread.start()
    return thread


def _populate(
    madvise: Callable[[int, int, int], int], file: weakref.ref[GGUFFile], wanted: list[Span]
) -> None:
    with contextlib.suppress(OSError):  # of this thread alone, as Linux counts
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
    for span in wanted:
        for start, stop in _chunks(span):
            alive = file()
            if alive is None:
                return
            # The call gives the interpreter free. An error (an older kernel, a file cut short) costs nothing
            # but what would have been gained.
            if madvise(_address(alive.parts[span.part]) + start, stop - start, _POPULATE_READ):
                return
            del alive


def _chunks(span: Span) -> Iterator[tuple[int, int]]:
    for start in range(span.start, span.stop, _CHUNK_BYTES):
        yield start, min(start + _CHUNK_BYTES, span.stop)


def _address(part: Part) -> int:
    address: int = part.bytes.ctypes.data
    return address
