"""Findings of the doctor: each problem a machine can have is seen, and says what to do."""

from dataclasses import replace
from pathlib import Path

import pytest
from machines import GIB, FakeNVML, write

from pintpot.hardware.disk import Disk, read_disk
from pintpot.hardware.health import Status, examine
from pintpot.hardware.machine import Process
from pintpot.hardware.paging import Paging, Run, watch_paging
from pintpot.hardware.tree import Tree

DISK = Disk("/data", 500 * GIB, 3e9, "ext4", False)
STILL = Paging(0, 0, ())


@pytest.fixture
def findings(machine, probed):
    """A function: the findings on the desktop with something other, those that are not OK by name."""

    def examine_(change=None, files=None, paging=STILL, disk=DISK, nvml=None):
        hardware = probed(files, nvml=nvml)
        checks = examine(change(hardware) if change else hardware, paging, disk, machine(files))
        assert all(check.fix for check in checks if check.status is not Status.OK and check.name != "note")
        return {check.name: check for check in checks if check.status is not Status.OK}

    return examine_


def memory(**changes):
    return lambda h: replace(h, memory=replace(h.memory, **changes))


def test_a_healthy_machine(findings):
    assert findings(memory(swap_used_bytes=0)) == {}


@pytest.mark.parametrize(
    ("name", "status", "case"),
    [
        ("RAM", "warn", {"change": memory(available_bytes=10 * GIB)}),
        ("RAM", "problem", {"change": memory(available_bytes=GIB)}),
        ("memory limit", "warn", {"change": memory(limit_bytes=8 * GIB)}),
        ("swap", "warn", {"change": memory(swap_rotational=True)}),
        ("swap", "warn", {"change": memory(swap_used_bytes=5 * GIB)}),
        ("programs", "warn", {"change": lambda h: replace(h, processes=(Process("vm", 1, 20 * GIB),))}),
        ("CPU", "warn", {"files": {"/proc/cpuinfo": "model name : old\nflags : sse2\n"}}),
        ("huge pages", "warn", {"files": {"/sys/kernel/mm/transparent_hugepage/enabled": "always [never]"}}),
        ("disk", "warn", {"disk": replace(DISK, read_bytes_s=0.2e9)}),
        ("disk", "warn", {"disk": replace(DISK, free_bytes=GIB)}),
        ("WSL", "warn", {"files": {"/proc/sys/kernel/osrelease": "5.15-microsoft-standard-WSL2"}}),
        ("swapping", "warn", {"paging": Paging(5e6, 0, ())}),
        ("swapping", "problem", {"paging": Paging(500e6, 0, ())}),
        ("spilling", "warn", {"paging": Paging(0, 0, (Run("llama-server", 9, 100),))}),
        ("spilling", "problem", {"paging": Paging(0, 0, (Run("pintpot", 9, 5000),))}),
        ("VRAM", "warn", {"nvml": FakeNVML()}),
        ("note", "warn", {"files": {"/proc/driver/nvidia/version": "NVRM"}}),
    ],
)
def test_what_is_wrong_is_found(findings, name, status, case):
    assert findings(**case)[name].status == status


def test_full_vram_is_a_problem(findings):
    def fill(h):
        return replace(h, gpus=(replace(h.gpus[0], vram_free_bytes=10 << 20),), wsl=True)

    check = findings(fill, nvml=FakeNVML())["VRAM"]
    assert check.status is Status.PROBLEM
    assert "moves what does not fit to RAM" in check.text


def test_findings_name_programs(findings):
    assert "firefox (pid 4242) 1.0 GiB" in findings(nvml=FakeNVML())["VRAM"].text


def test_a_system_that_tells_nothing(machine, probed, tmp_path):
    disk = Disk("/", None, None, None, None)
    checks = examine(probed(), None, disk, Tree(tmp_path / "nothing"))
    assert {c.name for c in checks} >= {"GPU", "CPU", "RAM", "disk", "spilling"}


# --- paging --------------------------------------------------------------------------------------
def stat(name, majflt):
    return f"9 ({name}) R 1 9 9 0 -1 4194560 500 0 {majflt} 0 100 10\n"


def test_paging_is_the_difference_of_two_looks(machine):
    files = {
        "/proc/9/cmdline": "/usr/bin/python3\0/home/me/bin/pintpot\0run\0m.gguf",
        "/proc/9/stat": stat("a) (b", 1000),
        "/proc/10/cmdline": "/opt/llama-server\0-m\0x",
        "/proc/10/stat": stat("llama-server", 7),
        "/proc/11/cmdline": "vim\0pintpot",
        "/proc/11/stat": stat("vim", 7),
        "/proc/12/cmdline": "python\0-m\0pintpot",
        "/proc/12/stat": stat("python", 7),
        "/proc/13/cmdline": "/opt/llama-bench",
        "/proc/13/stat": "13 (cut",
    }
    tree = machine(files)

    def sleep(seconds):
        write(tree.root, {"/proc/9/stat": stat("a) (b", 1600), "/proc/vmstat": "pswpin 300\npswpout 200\n"})
        (tree.root / "proc/12/stat").unlink()

    paging = watch_paging(tree, own_pid=77, seconds=2, sleep=sleep)
    assert paging.runs == (Run("llama-server", 10, 0), Run("pintpot", 9, 300))
    assert paging.swap_in_bytes_s == 200 * 4096 / 2
    assert paging.swap_out_bytes_s == 0


def test_the_process_itself_is_no_run(machine):
    tree = machine({"/proc/9/cmdline": "pintpot\0doctor", "/proc/9/stat": stat("pintpot", 1)})
    assert watch_paging(tree, own_pid=9, seconds=1, sleep=lambda s: None).runs == ()


def test_kernels_that_do_not_count(tmp_path):
    assert watch_paging(Tree(tmp_path), 1, sleep=lambda s: None) is None


# --- disk ----------------------------------------------------------------------------------------
def test_a_disk_is_read_and_left_as_it_was(tmp_path):
    notes = []
    disk = read_disk(Tree(tmp_path / "nothing"), tmp_path, notes, test_bytes=8 << 20)
    assert notes == []
    assert disk.read_bytes_s > 0
    assert disk.free_bytes > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error_in", "words"), [("mkstemp", "not measured"), ("fsync", "not measured"), ("disk_usage", "gone")]
)
def test_a_disk_that_fails(tmp_path, monkeypatch, error_in, words):
    module = {"mkstemp": "tempfile", "fsync": "os", "disk_usage": "shutil"}[error_in]

    def fail(*args, **kwargs):
        raise OSError(5, "gone")

    monkeypatch.setattr(f"{module}.{error_in}", fail)
    notes = []
    disk = read_disk(Tree(tmp_path / "nothing"), tmp_path, notes, test_bytes=8 << 20)
    assert disk.read_bytes_s is None
    assert words in notes[0]
    assert list(tmp_path.iterdir()) == []


def test_memory_is_no_disk(machine):
    tree = machine({"/proc/self/mountinfo": "22 1 0:1 / / rw - tmpfs tmpfs rw\n"})
    notes = []
    assert read_disk(tree, Path("/"), notes).read_bytes_s is None
    assert "lies in memory" in notes[0]


def test_too_little_room(tmp_path):
    notes = []
    assert read_disk(Tree(tmp_path / "nothing"), tmp_path, notes, test_bytes=1 << 60).read_bytes_s is None
    assert "too little room" in notes[0]
