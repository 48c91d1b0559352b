"""Machines made of files, and an NVML that fails on demand."""

import types

GIB = 1 << 30

CPUINFO = """processor\t: 0
model name\t: AMD Ryzen 9 7950X 16-Core Processor
flags\t\t: fpu avx avx2 fma f16c bmi2 avx512f avx512bw avx512dq avx512vl avx512_vnni
"""
MEMINFO = f"""MemTotal: {64 << 20} kB
MemFree: 1024 kB
MemAvailable: {48 << 20} kB
SwapTotal: {8 << 20} kB
SwapFree: {6 << 20} kB
"""
MOUNTS = """22 1 259:2 / / rw - ext4 /dev/nvme0n1p2 rw
30 22 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
40 22 8:1 / /data rw - xfs /dev/sda1 rw
"""


def write(root, files):
    """Writes {path below root: text}."""
    for name, text in files.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def desktop():
    """4 cores, 8 threads, 64 GiB, two L3 caches, swap on an NVMe drive, one browser."""
    files = {
        "/proc/cpuinfo": CPUINFO,
        "/proc/meminfo": MEMINFO,
        "/proc/self/mountinfo": MOUNTS,
        "/proc/self/cgroup": "0::/user.slice/me\n",
        "/proc/sys/kernel/osrelease": "6.8.0-generic\n",
        "/proc/swaps": "Filename Type Size Used Priority\n/swap\\040file file 8388608 2097152 -2\n",
        "/proc/vmstat": "pgfault 10\npswpin 100\npswpout 200\n",
        "/sys/dev/block/259:2/queue/rotational": "0\n",
        "/sys/dev/block/8:1/queue/rotational": "1\n",
        "/sys/devices/system/node/node0/cpulist": "0-7\n",
        "/sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
        "/proc/4242/status": f"Name:\tfirefox\nRssAnon:\t{3 << 20} kB\nRssFile:\t{9 << 20} kB\n"
        "VmSwap:\t1024 kB\n",
        "/proc/4242/comm": "firefox\n",
        "/proc/77/status": "Name:\tbash\nRssAnon:\t4096 kB\n",
    }
    for cpu in range(8):
        core, sibling = cpu % 4, cpu % 4 + 4
        base = f"/sys/devices/system/cpu/cpu{cpu}"
        files[f"{base}/topology/thread_siblings_list"] = f"{core},{sibling}\n"
        die = core // 2
        caches = [
            (1, "32K", f"{core},{sibling}"),
            (2, "1024K", f"{core},{sibling}"),
            (3, "32768K", f"die{die}"),
        ]
        for index, (level, size, shared) in enumerate(caches):
            files[f"{base}/cache/index{index}/level"] = f"{level}\n"
            files[f"{base}/cache/index{index}/size"] = f"{size}\n"
            files[f"{base}/cache/index{index}/shared_cpu_list"] = f"{shared}\n"
    return files


class NVMLError(Exception):
    """As in pynvml."""


class FakeNVML:
    """One RTX 5060 Ti of 16 GiB. Call number `fail_at`, or the function named `fail`, raises `error`."""

    NVMLError = NVMLError
    NVML_CLOCK_MEM = 2

    def __init__(self, fail_at=None, fail=None, error=None):
        self.calls = []
        self.fail_at, self.fail = fail_at, fail
        self.error = error or NVMLError("Not Supported")
        gib = GIB
        self.answers = {
            "nvmlInit": lambda: None,
            "nvmlShutdown": lambda: None,
            "nvmlSystemGetDriverVersion": lambda: b"580.65.06",
            "nvmlDeviceGetCount": lambda: 1,
            "nvmlDeviceGetHandleByIndex": lambda i: f"gpu{i}",
            "nvmlDeviceGetName": lambda h: "NVIDIA GeForce RTX 5060 Ti",
            "nvmlDeviceGetMemoryInfo": lambda h: types.SimpleNamespace(
                total=16311 << 20, free=14 * gib, used=2 * gib
            ),
            "nvmlDeviceGetMaxPcieLinkGeneration": lambda h: 4,
            "nvmlDeviceGetMaxPcieLinkWidth": lambda h: 8,
            "nvmlDeviceGetMemoryBusWidth": lambda h: 128,
            "nvmlDeviceGetMaxClockInfo": lambda h, kind: 14001,
            "nvmlDeviceGetComputeRunningProcesses": lambda h: [
                types.SimpleNamespace(pid=4242, usedGpuMemory=gib)
            ],
            "nvmlDeviceGetGraphicsRunningProcesses": lambda h: [
                types.SimpleNamespace(pid=4242, usedGpuMemory=None),
                types.SimpleNamespace(pid=1, usedGpuMemory=None),
            ],
        }

    def __getattr__(self, name):
        if name not in self.answers:
            raise AttributeError(name)

        def call(*args):
            self.calls.append(name)
            if len(self.calls) == self.fail_at or name == self.fail:
                raise self.error
            return self.answers[name](*args)

        return call
