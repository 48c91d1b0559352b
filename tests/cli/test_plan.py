"""`pintpot plan` as a user sees it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pintpot.gguf import GGUFFile
from pintpot.hardware.probe import probe
from pintpot.store.hub import Hub

MACHINE = ("--ram", "64GiB", "--ram-bandwidth", "60GB/s", "--cores", "8")
BIG = "qwen3.5:35b-a3b-q6_k"


@pytest.fixture(autouse=True)
def readable(monkeypatch):
    """This machine, without what cannot be read of it."""
    here = replace(probe(), notes=())
    monkeypatch.setattr("pintpot.hardware.probe.probe", lambda: here)


def test_a_model_bigger_than_the_card(pintpot):
    result = pintpot("plan", BIG, "--gpu", "RTX 5060 Ti 16GB", *MACHINE, "-c", "131072", "--json")
    assert result.code == 0, result.err
    plan = json.loads(result.out)
    assert (plan["quant"], plan["ctx_tokens"], plan["n_gpu_layers"]) == ("Q6_K", 131_072, 40)
    assert plan["weights_bytes"] > plan["vram"]["total"]
    assert plan["vram"]["total"] <= plan["vram"]["allowed"] < 16 << 30
    assert 0 < min(plan["experts_in_vram"]) <= max(plan["experts_in_vram"]) < 256
    assert [a["label"] for a in plan["contexts"]][-1] == "256K"
    speeds = [a["decode_tokens_s"] for a in plan["quants"]]
    assert speeds == sorted(speeds)  # from Q8_0 down to Q2_K


def test_the_same_machine_without_its_card_is_slower(pintpot):
    with_gpu, without = (
        json.loads(pintpot("plan", BIG, "--gpu", gpu, *MACHINE, "--json").out)
        for gpu in ("RTX 5060 Ti 16GB", "none")
    )
    assert with_gpu["decode_tokens_s"] > without["decode_tokens_s"]
    assert without["vram"]["total"] == 0


def test_picture(pintpot):
    result = pintpot("plan", BIG, "--gpu", "RTX 4060 Ti 8GB", *MACHINE, "--engine", "llama.cpp")
    assert result.code == 0, result.err
    for words in ("VRAM", "RAM", "experts", "tok/s", "format", "Q4_K_M", "as llama.cpp would run it"):
        assert words in " ".join(result.out.split())


def test_the_demo_on_this_machine(pintpot):
    plan = json.loads(pintpot("plan", "demo", "--gpu", "none", "--json").out)
    assert plan["weights_bytes"] == plan["ram"]["dense"] + plan["ram"]["experts"]
    assert plan["quants"] == []


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        ("llama.cpp", ("llama-server -hf ", "--n-cpu-moe ", "-ngl 41", "-c 32768")),
        ("lmstudio", ("GPU Offload", "40 of 40 layers", "force MoE weights onto CPU")),
        ("ollama", ("FROM hf.co/", "PARAMETER num_gpu ", "whole layers only")),
    ],
)
def test_settings_for_other_tools(pintpot, tool, words):
    result = pintpot("plan", BIG, "--gpu", "RTX 5060 Ti 16GB", *MACHINE, "--as", tool)
    assert (result.code, result.err) == (0, "")
    for word in words:
        assert word in result.out


def test_files_are_exported_by_their_path(pintpot, toy):
    result = pintpot("plan", toy(), "--gpu", "RTX 4090", *MACHINE, "--as", "llama.cpp")
    assert f"llama-server -m {toy()} " in result.out


def test_what_would_help_and_quality(pintpot):
    machine = ("--gpu", "RTX 4060 Ti 8GB", "--ram", "32GiB", "--ram-bandwidth", "60GB/s", "--cores", "8")
    picture = " ".join(pintpot("plan", BIG, *machine).out.split())
    for words in (
        "what would help",
        "a card of 10 GiB",
        "as good as F16",
        "large loss",
        "of Llama 3 8B, measured by llama.cpp's authors",
    ):
        assert words in picture
    plan = json.loads(pintpot("plan", BIG, *machine, "--json").out)
    assert plan["quants"][-1]["quality"] == "large loss"
    assert plan["quants"][1]["bits_per_weight"] == pytest.approx(6.6, abs=0.1)
    (card,) = [a for a in plan["advice"] if a["kind"] == "gpu"]
    assert card["tokens_s"] == pytest.approx(plan["decode_tokens_s"] * (1 + card["gain"]))
    assert card["text"] in picture


def test_rules_for_tensors(pintpot):
    args = ("plan", BIG, "--gpu", "RTX 5060 Ti 16GB", *MACHINE, "--json")
    plan = json.loads(pintpot(*args, "-ot", r"blk\.(0|39)\..*exps=CPU", "--override-tensor", "x=GPU").out)
    assert [i for i, n in enumerate(plan["experts_in_vram"]) if n == 0] == [0, 39]


def test_a_model_on_the_hub(pintpot, monkeypatch, toy):
    """The hub itself is tested with a server of its own (tests/unit/store)."""
    monkeypatch.setattr(Hub, "open_header", lambda self, model: ("Q8_0", GGUFFile.open(toy())))
    args = ("plan", "hf.co/someone/Toy-GGUF:Q8_0", "--gpu", "none", *MACHINE)
    plan = json.loads(pintpot(*args, "--json").out)
    assert (plan["model"], plan["quant"]) == ("someone/Toy-GGUF", "Q8_0")
    assert "llama-server -hf someone/Toy-GGUF:Q8_0 " in pintpot(*args, "--as", "llama.cpp").out


def test_what_cannot_be_read_of_the_machine_is_said(pintpot, monkeypatch):
    here = probe()
    broken = replace(here, gpus=(), notes=("NVIDIA driver: nvmlInit failed (Unknown Error)",))
    monkeypatch.setattr("pintpot.hardware.probe.probe", lambda: broken)
    result = pintpot("plan", "demo")
    assert (result.code, result.err) == (0, f"{broken.notes[0]}\n")
    assert "layers on the GPU" not in result.out
    named = pintpot("plan", "demo", "--gpu", "RTX 4090")
    assert "nvmlInit" not in named.err


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        ((BIG, "--gpu", "RTX 5060 Tii"), 2, "did you mean NVIDIA GeForce RTX 5060 Ti 16 GB"),
        (
            (BIG, "--gpu", "banana"),
            2,
            "'banana' is not in the catalog; write it as in `RTX 5060 Ti 16GB`",
        ),
        ((BIG, "--ram", "lots"), 2, "--ram 'lots': expected a size"),
        ((BIG, "-ctk", "q3"), 2, "-ctk 'q3': expected f32, f16, q8_0"),
        ((BIG, "--gpu", "none", "--ram", "16GiB"), 1, "or with the smaller format Q2_K"),
        ((BIG, "--gpu", "none", "--ram", "16GiB"), 1, "16 GiB more RAM (32 GiB in all)"),
        (("qwen3:235b-a22b", "--gpu", "none", "--ram", "16GiB"), 1, "that fits is qwen3:14b in Q5_K_M"),
        ((BIG, "-ot", "exps=DISK"), 2, "-ot 'exps=DISK': expected PATTERN=CPU or PATTERN=GPU"),
        ((BIG, "--as", "ollama", "--json"), 2, "--as prints settings and --json a plan: choose one"),
        (("hf.co/u/r:tiny",), 2, "tiny is no quantization"),
        (("qwen3.5:35c",), 2, "qwen3.5"),
        (("nothing.gguf",), 1, "nothing.gguf: no such file"),
    ],
)
def test_refusals_are_one_line(pintpot, args, code, says):
    result = pintpot("plan", *args)
    assert (result.code, result.out) == (code, "")
    assert says in result.err
    assert result.err.count("\n") == 1
