"""`pintpot recommend` as a user sees it."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from pintpot.hardware.probe import probe
from pintpot.store.hub import Hub, HubError, HubFile

MACHINE = ("--gpu", "RTX 4060 Ti 8GB", "--ram", "32GiB", "--ram-bandwidth", "60GB/s", "--cores", "8")


@pytest.fixture(autouse=True)
def readable(monkeypatch):
    """This machine, without what cannot be read of it."""
    here = replace(probe(), notes=())
    monkeypatch.setattr("pintpot.hardware.probe.probe", lambda: here)


def test_picture_at_80_columns(pintpot, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    result = pintpot("recommend", *MACHINE, "--top", "3")
    assert result.code == 0, result.err
    assert all(len(line) <= 80 for line in result.out.splitlines())
    text = " ".join(result.out.split())
    for words in (
        "balanced on NVIDIA GeForce RTX 4060 Ti",
        "score = worth x v / (v + 20)",
        "quick answer for 8 GB of VRAM: Q4_K_M",
        "mixtures of experts",
        "dense",
        "of experts in RAM",
        "where the quick answer is not the plan's",
        "a proxy of quality",
    ):
        assert words in text


@pytest.mark.parametrize("goal", ["quality", "balanced", "speed", "long-context"])
def test_json(pintpot, goal):
    result = pintpot("recommend", "--for", goal, *MACHINE, "--top", "2", "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert found["for"] == goal
    assert len(found["moe"]) == len(found["dense"]) == 2
    for row in (*found["moe"], *found["dense"]):
        assert row["decode_tokens_s"] >= found["floor_tokens_s"]
        assert row["ctx_tokens"] == found["ctx_tokens"] <= row["ctx_fits"]
        assert row["vram_bytes"] < 8 << 30
        assert row["ram_bytes"] < 32 << 30
    assert found["machine"]["gpu"] == "NVIDIA GeForce RTX 4060 Ti 8 GB"


def test_limits_are_those_of_plan(pintpot):
    args = ("-c", "65536", "-ctk", "q8_0", "-ctv", "q8_0", "--engine", "llama.cpp", "--top", "1", "--json")
    found = json.loads(pintpot("recommend", *MACHINE, *args).out)
    row = found["moe"][0]
    assert (row["ctx_tokens"], row["cache_type_k"], row["engine"]) == (65_536, "q8_0", "llama.cpp")
    model = f"{row['model']}-{row['quant'].lower()}"
    depth = ("--depth", str(65_536 // 4))
    plan = json.loads(pintpot("plan", model, *MACHINE, *args[:-3], *depth, "--json").out)
    assert plan["decode_tokens_s"] == row["decode_tokens_s"]
    assert plan["vram"]["total"] == row["vram_bytes"]


def test_refresh(pintpot, monkeypatch):
    monkeypatch.setattr(Hub, "gguf_repo_of", lambda self, repo: f"{repo}-GGUF")
    monkeypatch.setattr(Hub, "files", lambda self, model: (HubFile("m-Q4_K_S.gguf", 1000),))
    result = pintpot("recommend", "--refresh", *MACHINE, "--top", "2", "--json")
    assert result.code == 0, result.err
    assert re.search(r"\d+ models asked for, \d+ changed, 0 failed", result.err)
    found = json.loads(pintpot("recommend", *MACHINE, "--top", "2", "--json").out)
    assert found == json.loads(result.out)
    assert {row["quant"] for row in (*found["moe"], *found["dense"])} == {"Q4_K_S"}


def test_refresh_without_a_hub(pintpot, monkeypatch):
    def unreachable(self, *_):
        raise HubError("hf.co cannot be reached")

    monkeypatch.setattr(Hub, "gguf_repo_of", unreachable)
    monkeypatch.setattr(Hub, "files", unreachable)
    result = pintpot("recommend", "--refresh", *MACHINE)
    assert (result.code, result.out, result.err) == (1, "", "pintpot: hf.co cannot be reached\n")


def test_quick(pintpot):
    result = pintpot("recommend", "--quick", *MACHINE)
    assert result.code == 0, result.err
    assert [line for line in result.out.splitlines() if "this machine" in line] == [
        "    8 GB  Q4_K_M   <- this machine"
    ]
    found = json.loads(pintpot("recommend", "--quick", *MACHINE, "--json").out)
    assert found["rule_of_thumb"] == {"gb": 8, "memory": "VRAM", "quants": ["Q4_K_M"]}
    assert [line["gb"] for line in found["table"]] == [4, 8, 16, 32]


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("--gpu", "none", "--ram", "1GiB"), 1, "nothing of the catalog fits: the smallest, "),
        (("--gpu", "RTX 9999"), 2, "RTX 9999"),
        (("-ctk", "q3"), 2, "-ctk 'q3': expected f32, f16, q8_0"),
        (("-c", "99999999"), 2, "no model of the catalog was trained for so much context"),
    ],
)
def test_refusals_are_one_line(pintpot, args, code, says):
    result = pintpot("recommend", *args)
    assert (result.code, result.out) == (code, "")
    assert says in result.err
    assert result.err.count("\n") == 1


def test_an_objective_nobody_knows(pintpot):
    result = pintpot("recommend", "--for", "fame")
    assert result.code == 2
    assert "long-context" in result.err
