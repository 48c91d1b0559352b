"""Exported settings say the placement they come from, in the words of each tool."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace

import pytest

from pintpot.hardware.words import describe
from pintpot.planner.export import ExpertLayers, Tool, export, layers_pattern
from pintpot.planner.limits import Limits, parse_tensor_rules
from pintpot.planner.placement import solve
from pintpot.planner.plan import Plan, plan_entry
from pintpot.planner.profile import LLAMA_CPP
from pintpot.spec.cache import KVType
from pintpot.store import catalog

MOE, DENSE = "qwen3.5:35b-a3b", "qwen3:8b"


def plan(name: str = MOE, quant: str = "Q4_K_M", gpu: str = "RTX 5060 Ti 16GB", **limits) -> Plan:
    entry, _ = catalog.find(name)
    hardware = describe(gpu, None, "64GiB", "60GB/s", 8, None)
    return plan_entry(entry, quant, hardware, Limits(**limits), LLAMA_CPP)


def flags(text: str) -> dict[str, str]:
    """Option to value of a llama-server command line."""
    words = shlex.split(text.split("llama-server", 1)[1].replace("\\\n", " "))
    return dict(zip(words[::2], words[1::2], strict=True))


def test_llama_cpp_settings_reproduce_the_placement() -> None:
    exported = plan(ctx_tokens=65_536)
    found = flags(export(exported, Tool.LLAMA_CPP))
    assert found["-hf"] == f"{exported.repo}:Q4_K_M"
    assert (found["-c"], found["-ngl"], found["-t"]) == ("65536", "41", "8")
    n = int(found["--n-cpu-moe"])
    again = replace(exported.problem, limits=Limits(ctx_tokens=65_536, n_cpu_moe=n))
    resident = solve(again).placement.resident
    assert [r == 0 for r in resident] == [i < n for i in range(40)]
    one_less = replace(again, limits=replace(again.limits, n_cpu_moe=n - 1))
    assert solve(one_less).placement.resident.count(0) >= n  # no more layers fit
    assert solve(again).token.tokens_s > 0.95 * exported.solution.token.tokens_s


def test_a_quantized_value_cache_turns_flash_attention_on() -> None:
    plain = flags(export(plan(type_k=KVType.Q8_0, type_v=KVType.F16), Tool.LLAMA_CPP))
    assert (plain["-ctk"], plain["-ctv"], "-fa" in plain) == ("q8_0", "f16", False)
    quantized = flags(export(plan(type_k=KVType.F16, type_v=KVType.Q8_0), Tool.LLAMA_CPP))
    assert (quantized["-ctv"], quantized["-fa"]) == ("q8_0", "on")


def test_dense_models_have_no_expert_settings() -> None:
    for tool in Tool:
        text = export(plan(DENSE), tool)
        assert not re.search(r"moe|exps|experts", text, re.IGNORECASE)
    assert flags(export(plan(DENSE), Tool.LLAMA_CPP))["-ngl"] == "37"


def test_without_a_gpu_nothing_is_offloaded() -> None:
    assert flags(export(plan(gpu="none"), Tool.LLAMA_CPP))["-ngl"] == "0"
    assert "PARAMETER num_gpu 0\n" in export(plan(gpu="none"), Tool.OLLAMA)
    assert re.search(r"GPU Offload +0 of 40", export(plan(gpu="none"), Tool.LM_STUDIO))


def test_layers_that_are_not_the_first_ones_get_a_pattern() -> None:
    """Rules that pin the first layers' experts to the GPU leave others to go to RAM."""
    problem = plan().problem
    layers = tuple(
        replace(layer, experts=layer.experts * (3 if i in (20, 30) else 1))
        for i, layer in enumerate(problem.model.layers)
    )
    problem = replace(problem, model=replace(problem.model, layers=layers))
    total = sum(layer.experts for layer in layers)
    fixed = solve(replace(problem, limits=Limits(n_cpu_moe=99))).vram.total
    big = layers[20].experts + layers[30].experts
    hardware = describe("RTX 4090", "80GiB", "64GiB", "60GB/s", 8, None)
    limits = Limits(vram_bytes=fixed + total - big)
    problem = replace(problem, hardware=hardware, limits=limits)
    found = ExpertLayers.of(problem, solve(problem))
    assert (found.in_ram, found.first) == ((20, 30), None)
    text = export(replace(plan(), problem=problem), Tool.LLAMA_CPP)
    assert flags(text)["-ot"] == layers_pattern((20, 30)) + "=CPU"


@pytest.mark.parametrize(
    "name", ["ffn_up_exps", "ffn_gate_exps", "ffn_down_exps", "ffn_gate_up_exps", "ffn_up_chexps"]
)
def test_the_pattern_finds_every_spelling_of_experts(name: str) -> None:
    pattern = re.compile(layers_pattern((2, 13)))
    assert pattern.search(f"blk.2.{name}.weight")
    assert pattern.search(f"blk.13.{name}.weight")
    assert not pattern.search(f"blk.3.{name}.weight")
    assert not pattern.search(f"blk.12.{name}.weight")
    assert not pattern.search("blk.2.ffn_up_shexp.weight")
    assert not pattern.search("blk.2.ffn_gate_inp.weight")


def test_rules_come_first_and_only_llama_cpp_has_them() -> None:
    rules = parse_tensor_rules([r"blk\.39\.ffn_.*_exps=CPU,blk\.0\.ffn_.*_exps=GPU"])
    ruled = plan(override_tensors=rules)
    text = export(ruled, Tool.LLAMA_CPP)
    given = re.findall(r"-ot '([^']*)'", text)
    assert given == [r"blk\.39\.ffn_.*_exps=CPU", r"blk\.0\.ffn_.*_exps=CUDA0"]
    assert text.index("-ot") < text.index("--n-cpu-moe")
    for tool in (Tool.LM_STUDIO, Tool.OLLAMA):
        bare, remark = export(plan(), tool), "# -ot: there is no such setting here, the rules are left out\n"
        assert export(ruled, tool).replace(remark, "") == bare


def test_lm_studio_counts_layers_and_explains_where_to_start() -> None:
    planned = plan(quant="Q6_K", ctx_tokens=131_072, type_k=KVType.F16, type_v=KVType.F16)
    text = export(planned, Tool.LM_STUDIO)
    n = int(flags(export(planned, Tool.LLAMA_CPP))["--n-cpu-moe"])
    assert re.search(rf"force MoE weights onto CPU +{n}\n", text)
    assert re.search(r"GPU Offload +40 of 40 layers", text)
    assert "start between 20 and 35" in " ".join(text.replace("#", " ").split())
    assert re.search(r"K Cache Quantization Type +off \(F16\)", text)


def test_ollama_places_whole_layers_and_says_so() -> None:
    exported = plan(quant="Q6_K", ctx_tokens=65_536, type_k=KVType.Q8_0, type_v=KVType.Q8_0)
    text = export(exported, Tool.OLLAMA)
    n = int(re.search(r"PARAMETER num_gpu (\d+)", text)[1]) - 1  # the output head counts
    weights = exported.problem.model.layers[40 - n :]
    assert 0 < n < 40
    assert sum(layer.dense + layer.experts for layer in weights) < exported.problem.vram_bytes
    assert f"FROM hf.co/{exported.repo}:Q6_K\n" in text
    assert "PARAMETER num_ctx 65536\n" in text
    for words in (
        "OLLAMA_FLASH_ATTENTION=1 OLLAMA_KV_CACHE_TYPE=q8_0",
        "whole layers only",
        "llama.cpp, which can",
    ):
        assert words in text
    f16 = export(plan(type_k=KVType.F16, type_v=KVType.F16), Tool.OLLAMA)
    assert "OLLAMA_KV_CACHE_TYPE" not in f16


def test_files_are_named_as_they_are() -> None:
    local = replace(plan(), repo="", path="/models/my model.gguf")
    assert "-m '/models/my model.gguf' " in export(local, Tool.LLAMA_CPP)
    assert "FROM /models/my model.gguf\n" in export(local, Tool.OLLAMA)
    unnamed = replace(plan(), repo="")
    assert "-m qwen3.5-35b-a3b-Q4_K_M.gguf " in export(unnamed, Tool.LLAMA_CPP)


@pytest.mark.parametrize("tool", Tool)
def test_no_line_is_wider_than_a_terminal(tool: Tool) -> None:
    limits = {"type_k": KVType.Q8_0, "type_v": KVType.Q8_0, "ctx_tokens": 131_072}
    assert max(map(len, export(plan(quant="Q8_0", **limits), tool).splitlines())) <= 80
