"""What probe makes of a machine, whole and broken."""

import subprocess
import sys
from pathlib import Path

import pytest
from machines import GIB, FakeNVML, NVMLError

from pintpot.hardware.cpu import default_threads
from pintpot.hardware.machine import Process
from pintpot.hardware.memory import memory_limit_bytes
from pintpot.hardware.probe import probe, probe_below
from pintpot.hardware.tree import Tree

GROUP = "/sys/fs/cgroup/user.slice"


def test_a_desktop(probed):
    h = probed()
    assert h.notes == ()
    assert h.cpu.name == "AMD Ryzen 9 7950X 16-Core Processor"
    assert (h.cpu.cores, h.cpu.threads, h.cpu.isa, h.cpu.numa_nodes) == (4, 8, "avx512", 1)
    assert (h.cpu.l2_bytes, h.cpu.l3_bytes) == (4 << 20, 64 << 20)
    assert (h.memory.total_bytes, h.memory.available_bytes, h.memory.limit_bytes) == (
        64 * GIB,
        48 * GIB,
        None,
    )
    assert (h.memory.swap_total_bytes, h.memory.swap_used_bytes) == (8 * GIB, 2 * GIB)
    assert h.memory.swap_rotational is False
    assert h.processes == (Process("firefox", 4242, 3 * GIB + (1 << 20)),)  # files it maps do not count
    assert (h.gpus, h.wsl) == ((), False)
    assert h.ram_bandwidth_bytes_s == pytest.approx(0.8 * 83.2e9)
    assert "DDR5-5200" in h.ram_bandwidth_source
    assert "assumed" in h.ram_bandwidth_source


def test_only_the_cpus_it_may_use_count(probed):
    h = probed(cpus=[0, 1, 4])
    assert (h.cpu.cores, h.cpu.threads, h.cpu.l2_bytes, h.cpu.l3_bytes) == (2, 3, 2 << 20, 32 << 20)


@pytest.mark.parametrize(
    ("flags", "isa"),
    [
        ("avx2 fma f16c bmi2 avx512f avx512bw avx512dq avx512vl", "avx2"),
        ("avx2 fma f16c", "scalar"),
        ("sse2", "scalar"),
    ],
)
def test_instruction_sets_are_those_the_kernels_ask_for(probed, flags, isa):
    assert probed({"/proc/cpuinfo": f"model name : x\nflags : {flags}\n"}).cpu.isa == isa


def test_nothing_to_read(tmp_path):
    h = probe_below(Tree(tmp_path), None, frozenset({0, 1}), tmp_path)
    assert (h.cpu.cores, h.cpu.threads, h.cpu.isa) == (2, 2, "scalar")
    assert h.cpu.l3_bytes is None
    assert h.memory.limit_bytes is None
    assert h.gpus == h.processes == ()
    assert any("/proc/cpuinfo" in note for note in h.notes)
    assert any("/proc/meminfo" in note for note in h.notes)


def test_memory_of_unknown_size_says_what_to_do(probed, monkeypatch):
    monkeypatch.setattr("os.sysconf", lambda name: (_ for _ in ()).throw(ValueError(name)))
    h = probed({"/proc/meminfo": None})
    assert h.memory.total_bytes == 0
    assert any("--ram" in note for note in h.notes)


@pytest.mark.parametrize("text", ["", "nonsense", "MemTotal: x kB\n", "MemTotal:\n"])
def test_meminfo_that_says_nothing(probed, text):
    h = probed({"/proc/meminfo": text})
    assert any("/proc/meminfo" in note for note in h.notes)


def test_old_kernels_have_no_available_memory(probed):
    h = probed({"/proc/meminfo": f"MemTotal: {8 << 20} kB\n"})
    assert h.memory.available_bytes == 8 * GIB
    assert len(h.notes) == 1


# --- control groups ------------------------------------------------------------------------------
def test_the_tightest_group_above_limits(probed):
    h = probed(
        {
            f"{GROUP}/me/memory.max": "max\n",
            f"{GROUP}/memory.max": f"{8 * GIB}\n",
            f"{GROUP}/memory.current": f"{5 * GIB}\n",
            f"{GROUP}/memory.stat": f"anon 1\ninactive_file {2 * GIB}\n",
            "/sys/fs/cgroup/memory.max": f"{32 * GIB}\n",
        }
    )
    assert h.memory.limit_bytes == 8 * GIB
    assert h.memory.available_bytes == 5 * GIB


def test_a_container_sees_its_own_group_as_the_root(probed):
    changes = {"/proc/self/cgroup": "0::/../other\n", "/sys/fs/cgroup/memory.max": f"{3 * GIB}\n"}
    h = probed(changes)
    assert (h.memory.limit_bytes, h.memory.available_bytes) == (3 * GIB, 3 * GIB)


@pytest.mark.parametrize("damage", ["", "nonsense", "-1", None])
def test_a_group_whose_limit_cannot_be_read_is_said(probed, tmp_path, damage):
    """None: reading fails, as without permission."""
    name = f"{GROUP}/memory.max"
    if damage is None:
        (tmp_path / "root" / name.lstrip("/")).mkdir(parents=True)
    h = probed({} if damage is None else {name: damage})
    assert (h.memory.limit_bytes, h.memory.available_bytes) == (None, 48 * GIB)
    assert [note for note in h.notes if name in note and "not readable" in note]


def v1(path):
    mounts = "31 22 0:30 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    cpu = "32 22 0:31 /docker/abc /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    text = f"4:memory:{path}\n3:cpu,cpuacct:{path}\n"
    return {"/proc/self/mountinfo": mounts + cpu, "/proc/self/cgroup": text}


def test_version_1_groups(probed):
    h = probed(
        v1("/docker/abc/inner")
        | {
            "/sys/fs/cgroup/memory/inner/memory.limit_in_bytes": f"{0x7FFFFFFFFFFFF000}\n",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes": f"{4 * GIB}\n",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes": f"{GIB}\n",
            "/sys/fs/cgroup/cpu,cpuacct/inner/cpu.cfs_quota_us": "-1\n",
            "/sys/fs/cgroup/cpu,cpuacct/inner/cpu.cfs_period_us": "100000\n",
            "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "350000\n",
            "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        }
    )
    assert (h.memory.limit_bytes, h.memory.available_bytes) == (4 * GIB, 3 * GIB)
    assert h.cpu.cores == 3


@pytest.mark.parametrize("quota", ["max 100000", "", "nonsense", "5", "0 100000", "100000 0"])
def test_no_cpu_quota(machine, quota):
    tree = machine({"/sys/fs/cgroup/cpu.max": quota})
    assert default_threads(tree, frozenset(range(8))) == 4


@pytest.mark.parametrize(
    ("quota", "threads"), [("150000 100000", 1), ("50000 100000", 1), ("300000 100000", 3)]
)
def test_cpu_quota(machine, quota, threads):
    tree = machine({f"{GROUP}/cpu.max": quota})
    assert default_threads(tree, frozenset(range(8))) == threads


def test_memory_and_swap_that_a_process_could_have(machine):
    assert memory_limit_bytes(machine()) == 72 * GIB
    limits = {f"{GROUP}/memory.max": f"{3 * GIB}", f"{GROUP}/memory.swap.max": "0"}
    assert memory_limit_bytes(machine(limits)) == 3 * GIB


def test_version_1_limits_memory_and_swap_together(machine):
    both = {"/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes": f"{5 * GIB}"}
    assert memory_limit_bytes(machine(v1("/docker/abc") | both)) == 5 * GIB


@pytest.mark.parametrize("text", ["", "nonsense", "MemTotal: x kB\nSwapTotal: y kB\n", "MemTotal: 5 kB\n"])
def test_memory_that_is_unknown_is_no_limit(machine, text):
    assert memory_limit_bytes(machine({"/proc/meminfo": text})) is None


# --- swap, WSL, processes ------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("swaps", "rotational"),
    [
        ("/data/swap file 1 0 -2", True),
        ("/dev/zram0 partition 1 0 100\n/dev/sda1 partition 1 0 -2", True),
        ("/dev/zram0 partition 1 0 100", False),
        ("/dev/unknown partition 1 0 -2", None),
        ("", None),
    ],
)
def test_swap_on_a_disk_that_turns(probed, swaps, rotational):
    h = probed(
        {
            "/proc/swaps": f"Filename Type Size Used Priority\n{swaps}\n",
            "/sys/class/block/zram0/queue/rotational": "0\n",
            "/sys/class/block/sda1/queue/rotational": "1\n",
        }
    )
    assert h.memory.swap_rotational is rotational


def test_wsl(probed):
    assert probed({"/proc/sys/kernel/osrelease": "5.15.153.1-microsoft-standard-WSL2\n"}).wsl


def test_a_process_that_ends_while_it_is_read(probed):
    h = probed({"/proc/4242/status": None, "/proc/5/status": "", "/proc/6/status": "Name:\tx\nRssAnon:\n"})
    assert h.processes == ()


# --- NVIDIA --------------------------------------------------------------------------------------
def test_an_nvidia_card(probed):
    h = probed(nvml=FakeNVML())
    assert h.notes == ()
    (gpu,) = h.gpus
    assert (gpu.name, gpu.driver) == ("NVIDIA GeForce RTX 5060 Ti", "580.65.06")
    assert (gpu.vram_total_bytes, gpu.vram_free_bytes) == (16311 << 20, 14 * GIB)
    assert gpu.bandwidth_bytes_s == pytest.approx(448e9, rel=1e-3)
    assert gpu.bandwidth_source == "driver"
    assert gpu.f16_flops == pytest.approx(47.4e12)
    assert (gpu.pcie_gen, gpu.pcie_width) == (4, 8)  # what this slot gives, not the card's 5.0
    assert gpu.pcie_bytes_s == pytest.approx(1.969e9 * 8 * 0.82)
    assert gpu.processes == (Process("firefox", 4242, GIB), Process("?", 1, 0))


def all_calls():
    nvml = FakeNVML()
    probe_below(Tree(Path("/nosuch")), nvml, frozenset({0}))
    return len(nvml.calls)


@pytest.mark.parametrize("error", [NVMLError("Unknown Error"), OSError("gone"), AttributeError("too old")])
@pytest.mark.parametrize("fail_at", range(1, all_calls() + 1))
def test_a_driver_that_fails_half_way(probed, fail_at, error):
    nvml = FakeNVML(fail_at=fail_at, error=error)
    h = probed({"/proc/driver/nvidia/version": "NVRM"}, nvml=nvml)
    failed = nvml.calls[fail_at - 1]
    assert any(str(error) in note for note in h.notes), failed
    # Without its memory it could be either of two cards.
    lost = failed in (
        "nvmlInit",
        "nvmlDeviceGetCount",
        "nvmlDeviceGetHandleByIndex",
        "nvmlDeviceGetMemoryInfo",
    )
    assert len(h.gpus) == (0 if lost else 1)
    if failed != "nvmlInit":
        assert nvml.calls[-1] == "nvmlShutdown"


def test_every_call_but_the_first_fails(probed):
    class Broken(FakeNVML):
        def __getattr__(self, name):
            if name == "nvmlInit":
                return lambda: None
            raise AttributeError(name)

    assert probed(nvml=Broken()).gpus == ()


def test_a_card_whose_memory_only_the_catalog_knows(probed):
    nvml = FakeNVML(fail="nvmlDeviceGetMemoryInfo")
    nvml.answers["nvmlDeviceGetName"] = lambda h: b"NVIDIA GeForce RTX 4090"
    (gpu,) = probed(nvml=nvml).gpus
    assert gpu.vram_total_bytes == gpu.vram_free_bytes == 24 * GIB


def test_an_ambiguous_card_without_memory_is_left_out(probed):
    nvml = FakeNVML(fail="nvmlDeviceGetMemoryInfo")
    nvml.answers["nvmlDeviceGetName"] = lambda h: "NVIDIA Unheard Of"
    h = probed(nvml=nvml)
    assert h.gpus == ()
    assert any("left out" in note for note in h.notes)


def test_a_clock_that_makes_no_sense_yields_to_the_catalog(probed):
    nvml = FakeNVML()
    nvml.answers["nvmlDeviceGetMaxClockInfo"] = lambda h, kind: 405
    (gpu,) = probed(nvml=nvml).gpus
    assert (gpu.bandwidth_bytes_s, gpu.bandwidth_source) == (448e9, "catalog")


def test_a_driver_that_python_cannot_ask(probed):
    h = probed({"/proc/driver/nvidia/version": "NVRM"})
    assert any("pip install nvidia-ml-py" in note for note in h.notes)


# --- AMD, Intel ----------------------------------------------------------------------------------
CARD = "/sys/class/drm/card1/device"
AMD = {
    f"{CARD}/vendor": "0x1002\n",
    f"{CARD}/device": "0x744c\n",
    f"{CARD}/revision": "0xc8\n",
    f"{CARD}/mem_info_vram_total": f"{24 * GIB - (16 << 20)}\n",
    f"{CARD}/mem_info_vram_used": f"{GIB}\n",
    f"{CARD}/max_link_speed": "16.0 GT/s PCIe\n",
    f"{CARD}/max_link_width": "16\n",
    "/usr/share/libdrm/amdgpu.ids": "# ids\n744C,\tCC,\tAMD Radeon RX 7900 XT\n"
    "744C,\tC8,\tAMD Radeon RX 7900 XTX\n",
    "/sys/class/drm/card1-DP-1/status": "connected\n",
}


def test_an_amd_card(probed):
    h = probed(AMD)
    (gpu,) = h.gpus
    assert h.notes == ()
    assert gpu.name == "AMD Radeon RX 7900 XTX"
    assert gpu.vram_total_bytes - gpu.vram_free_bytes == GIB
    assert (gpu.bandwidth_bytes_s, gpu.pcie_gen, gpu.pcie_width) == (960e9, 4, 16)


@pytest.mark.parametrize("missing", sorted(n for n in AMD if n.startswith(CARD)))
def test_an_amd_card_with_a_file_missing(probed, missing):
    h = probed(AMD | {missing: None})
    if missing.endswith("mem_info_vram_total"):
        assert h.gpus == ()
        assert h.notes
    elif not missing.endswith("vendor"):
        assert len(h.gpus) == 1


def test_integrated_graphics_are_left_out(probed):
    h = probed(AMD | {f"{CARD}/mem_info_vram_total": f"{512 << 20}\n"})
    assert h.gpus == ()
    assert any("integrated" in note for note in h.notes)


def test_an_intel_card_is_named(probed):
    h = probed({f"{CARD}/vendor": "0x8086\n", f"{CARD}/class": "0x038000\n"})
    assert any("--gpu" in note for note in h.notes)


# --- for real ------------------------------------------------------------------------------------
def test_this_machine():
    h = probe()
    assert h.cpu.cores >= 1
    assert h.ram_bandwidth_bytes_s > 0


def test_importing_takes_no_heavy_module():
    code = (
        "import sys, pintpot.hardware.probe, pintpot.hardware.words, pintpot.hardware.health\n"
        "heavy = {'torch', 'numpy', 'rich', 'pintpot._native'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
