"""`pintpot plan` as a user sees it."""

from __future__ import annotations

import json

import pytest

MACHINE = ("--ram", "64GiB", "--ram-bandwidth", "60GB/s", "--cores", "8")
BIG = "qwen3.5:35b-a3b-q6_k"


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
    ("args", "code", "says"),
    [
        ((BIG, "--gpu", "RTX 9999"), 2, "RTX 9999"),
        ((BIG, "--ram", "lots"), 2, "--ram 'lots': expected a size"),
        ((BIG, "-ctk", "q3"), 2, "-ctk q3: expected f32, f16, q8_0"),
        ((BIG, "--gpu", "none", "--ram", "16GiB"), 1, "GiB may be used"),
        (("qwen3.5:35c",), 2, "qwen3.5"),
        (("nothing.gguf",), 1, "nothing.gguf: no such file"),
    ],
)
def test_refusals_are_one_line(pintpot, args, code, says):
    result = pintpot("plan", *args)
    assert (result.code, result.out) == (code, "")
    assert says in result.err
    assert result.err.count("\n") == 1
