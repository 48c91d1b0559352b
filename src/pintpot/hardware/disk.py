"""How much room a folder's disk has, and how fast it is read."""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from pintpot.hardware.memory import mount_of, rotational
from pintpot.hardware.tree import Tree

_TEST_BYTES = 128 << 20
_BLOCK_BYTES = 4 << 20
_IN_MEMORY = frozenset({"tmpfs", "ramfs", "rootfs"})


@dataclass(frozen=True)
class Disk:
    """The disk below a folder; None where it could not be told."""

    folder: str
    free_bytes: int | None
    read_bytes_s: float | None  # sequential, from the device rather than the page cache
    filesystem: str | None
    rotational: bool | None

    @property
    def in_memory(self) -> bool:
        return self.filesystem in _IN_MEMORY


def read_disk(tree: Tree, folder: Path, notes: list[str], test_bytes: int = _TEST_BYTES) -> Disk:
    """Writes a temporary file of test_bytes there, reads it past the page cache and removes it.

    Less than four times test_bytes of room, a folder that cannot be written, or memory instead of a disk: no
    test, and a note.
    """
    folder = folder.resolve()
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        notes.append(f"{folder}: {error.strerror}")
        return Disk(str(folder), None, None, None, None)
    mount = mount_of(tree, str(folder))
    disk = Disk(str(folder), free, None, mount[1] if mount else None, rotational(tree, str(folder)))
    if disk.in_memory:
        notes.append(f"{folder}: lies in memory ({disk.filesystem}), its speed was not measured")
        return disk
    if free < 4 * test_bytes:
        notes.append(f"{folder}: too little room to measure its speed")
        return disk
    try:
        rate = _read_rate(folder, test_bytes)
    except OSError as error:
        notes.append(f"{folder}: its speed was not measured ({error.strerror})")
        return disk
    return Disk(disk.folder, free, rate, disk.filesystem, disk.rotational)


def _read_rate(folder: Path, n_bytes: int) -> float:
    """Bytes a second, sequential."""
    handle, name = tempfile.mkstemp(dir=folder, prefix=".pintpot-doctor-")
    try:
        with os.fdopen(handle, "wb", buffering=0) as file:
            # Random, so that a file system that compresses has nothing to gain.
            for _ in range(n_bytes // _BLOCK_BYTES):
                file.write(os.urandom(_BLOCK_BYTES))
            os.fsync(file.fileno())
        return _timed_read(name, n_bytes)
    finally:
        Path(name).unlink()


def _timed_read(name: str, n_bytes: int) -> float:
    # Blocks in mapped memory are page-aligned, as direct reads want them.
    with os.fdopen(_open_direct(name), "rb", buffering=0) as file, mmap.mmap(-1, _BLOCK_BYTES) as block:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        start, done = time.perf_counter(), 0
        while done < n_bytes and (got := file.readinto(block)):
            done += got
        return done / (time.perf_counter() - start)


def _open_direct(name: str) -> int:
    """Past the page cache where the file system allows it (ZFS, NFS and others may not)."""
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0)
    with contextlib.suppress(OSError):
        return os.open(name, flags | getattr(os, "O_DIRECT", 0))
    return os.open(name, flags)
