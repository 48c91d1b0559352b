"""Machines described in words, and the errors of those who describe them."""

import pytest
from machines import GIB, FakeNVML

from pintpot.errors import UsageError
from pintpot.hardware.words import describe, parse_bytes, parse_rate


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("32GiB", 32 * GIB),
        ("24GB", 24 * 10**9),
        ("1.5 gib", 3 * GIB // 2),
        ("512MiB", 512 << 20),
        (" 2tb ", 2 * 10**12),
        ("64KB", 64_000),
    ],
)
def test_sizes(text, nbytes):
    assert parse_bytes("--ram", text) == nbytes


@pytest.mark.parametrize(
    "text", ["", "32", "32G", "GiB", "-1GiB", "0GiB", "1e3GiB", "32GiB/s", "3٣GiB", "1,5GB"]
)
def test_sizes_that_are_none(text):
    with pytest.raises(UsageError, match=r"^--ram .*expected a size such as 32GiB") as error:
        parse_bytes("--ram", text)
    assert "\n" not in str(error.value)


def test_rates():
    assert parse_rate("--ram-bandwidth", "60GB/s") == 60e9
    assert parse_rate("--ram-bandwidth", "1.5 GiB/s") == 1.5 * GIB
    for text in ("60GB", "60", "60Gb/h", "/s", "0GB/s"):
        with pytest.raises(UsageError, match=r"^--ram-bandwidth .*expected a rate such as 60GB/s"):
            parse_rate("--ram-bandwidth", text)


def test_a_machine_from_nothing():
    h = describe(gpu="RTX 5060 Ti 16GB", ram="32GiB", ram_bandwidth="60GB/s", cores=6)
    (gpu,) = h.gpus
    assert gpu.vram_free_bytes == gpu.vram_total_bytes == 16 * GIB
    assert (h.memory.total_bytes, h.memory.available_bytes) == (32 * GIB, 30 * GIB)
    assert (h.ram_bandwidth_bytes_s, h.ram_bandwidth_source) == (60e9, "flag")
    assert (h.cpu.cores, h.notes) == (6, ())


def test_what_is_assumed_is_said():
    h = describe(gpu="none", ram="16GiB")
    assert h.gpus == ()
    assert "assumed" in h.ram_bandwidth_source
    assert any("--cores" in note for note in h.notes)


def test_a_machine_from_another(probed):
    base = probed(nvml=FakeNVML())
    assert describe(base=base) == base
    assert describe(gpu="none", base=base).gpus == ()
    other = describe(gpu="4090", base=base)
    assert other.gpus[0].vram_total_bytes == 24 * GIB
    assert other.memory == base.memory
    assert describe(vram="8GiB", base=base).gpus[0].vram_free_bytes == 8 * GIB
    assert describe(vram="8GiB", base=base).gpus[0].name == base.gpus[0].name
    small = describe(ram="8GiB", base=base)
    assert small.processes == ()
    assert small.ram_bandwidth_bytes_s == base.ram_bandwidth_bytes_s


def test_vram_tells_variants_apart():
    assert describe(gpu="5060 Ti", vram="16GiB", ram="8GiB").gpus[0].name == "5060 Ti"
    assert describe(gpu="4090", vram="48GiB", ram="8GiB").gpus[0].vram_total_bytes == 48 * GIB


def test_unified_memory_is_ram_and_vram():
    h = describe(gpu="Apple M4 Max 64GB")
    assert h.memory.total_bytes == 64 * GIB
    assert h.gpus[0].vram_total_bytes == 48 * GIB
    assert h.ram_bandwidth_bytes_s == h.gpus[0].bandwidth_bytes_s == 546e9


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"ram": "32"}, "--ram '32': expected"),
        ({"ram": "8GiB", "vram": "x"}, "--vram 'x': expected"),
        ({"ram": "8GiB", "ram_bandwidth": "60"}, "--ram-bandwidth '60': expected"),
        ({"ram": "8GiB", "cores": 0}, "--cores 0: expected"),
        ({"ram": "8GiB", "gpu": "RTX 4900"}, "--gpu: GPU 'RTX 4900' is not in the catalog"),
        ({"ram": "8GiB", "gpu": "5060 Ti"}, "--gpu: GPU '5060 Ti' could be any of"),
        ({"ram": "8GiB", "gpu": "5060 Ti", "vram": "12GiB"}, "--gpu: GPU '5060 Ti' could be any of"),
        ({"ram": "8GiB", "gpu": "none", "vram": "8GiB"}, "--vram 8GiB: there is no GPU"),
        ({"ram": "8GiB", "vram": "8GiB"}, "--vram 8GiB: there is no GPU"),
        ({"gpu": "4090"}, "--ram: needed"),
    ],
)
def test_errors_are_one_line_that_names_the_flag(words, message):
    with pytest.raises(UsageError) as error:
        describe(**words)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
