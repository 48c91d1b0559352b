"""Recommendations: bounds that bound, a search that finds what planning everything finds, a stated order."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pintpot.errors import UsageError
from pintpot.hardware.machine import Hardware
from pintpot.hardware.words import describe
from pintpot.planner import recommend as recommending
from pintpot.planner.bounds import least_weights_bytes, most_tokens_s
from pintpot.planner.counted import counted_spec, spec_of
from pintpot.planner.limits import Limits
from pintpot.planner.memory import CacheSettings, cache_bytes, step_bytes
from pintpot.planner.placement import DoesNotFitError, Problem, solve
from pintpot.planner.plan import plan_entry, weigh_entry
from pintpot.planner.profile import LLAMA_CPP, PINTPOT
from pintpot.planner.quality import format_share
from pintpot.planner.recommend import OBJECTIVES, Recommendation, rank, rule_of_thumb
from pintpot.planner.speed import rates
from pintpot.planner.worth import dense_params, model_worth, months
from pintpot.store import catalog

GIB = 1 << 30
ENTRIES = catalog.entries()
PICKED = tuple(
    catalog.find(name)[0]
    for name in (
        "qwen3.5:4b", "qwen3.5:9b", "qwen3.5:27b", "qwen3.6:27b", "qwen3.6:35b-a3b", "gpt-oss:20b",
        "gemma4:e4b", "gemma4:26b-a4b", "gemma3:12b", "nemotron-3-nano:30b-a3b", "glm-4.7-flash:30b-a3b",
        "llama3.1:70b", "lfm2:8b-a1b", "mixtral:8x7b", "phi4:14b",
    )
)  # fmt: skip
MACHINES = {
    "no GPU": ("none", "16GiB"),
    "4 GB": ("RTX 3050 4GB", "16GiB"),
    "8 GB": ("RTX 4060 Ti 8GB", "32GiB"),
    "24 GB": ("RTX 4090", "64GiB"),
}


def machine(name: str) -> Hardware:
    gpu, ram = MACHINES[name]
    return describe(gpu, None, ram, "60GB/s", 8, None)


# --- counting


@pytest.mark.parametrize(
    "entry", [e for e in ENTRIES if e.runnable and e.arch != "gemma4"], ids=lambda e: e.name
)
def test_a_shape_counts_as_the_file_s_spec_does(entry: catalog.Entry) -> None:
    spec, counted = entry.spec(), counted_spec(entry.shape)
    for settings in (CacheSettings(4096), CacheSettings(65_536, n_batch=128)):
        assert cache_bytes(counted, settings) == cache_bytes(spec, settings)
    assert step_bytes(counted, 256) == step_bytes(spec, 256)
    assert counted.tied_output == spec.tied_output
    assert [type(layer.ffn) for layer in counted.layers] == [type(layer.ffn) for layer in spec.layers]


def test_states_and_latents_count_as_llama_cpp_allocates_them() -> None:
    """n_embd_r and n_embd_s of llama-hparams.cpp, float32; of latents keys alone (llama-kv-cache.cpp)."""
    settings = CacheSettings(8192)
    granite = catalog.find("granite4:tiny-h")[0]
    cache = cache_bytes(counted_spec(granite.shape), settings)
    inner, state, group = 48 * 64, 128, 1
    assert set(cache.state) == {0, 4 * (3 * (inner + 2 * group * state) + inner * state)}
    assert sum(map(bool, cache.kv)) == granite.shape.mixers.count("A")
    lfm = counted_spec(catalog.find("lfm2:1.2b")[0].shape)
    assert set(cache_bytes(lfm, settings).state) == {0, 4 * 2 * lfm.n_embd}
    glm = cache_bytes(counted_spec(catalog.find("glm-4.7-flash")[0].shape), settings)
    assert set(glm.kv) == {8192 * (512 + 64) * 2}
    nemotron = catalog.find("nemotron-3-nano")[0]
    kept = cache_bytes(counted_spec(nemotron.shape), settings)
    keeps = "".join("A" if kv else "M" if s else "E" for kv, s in zip(kept.kv, kept.state, strict=True))
    assert keeps == nemotron.shape.mixers


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.name)
def test_every_model_of_the_catalog_can_be_weighed(entry: catalog.Entry) -> None:
    spec = spec_of(entry)
    for quant in (entry.quants[0], "Q8_0"):
        model = weigh_entry(entry, spec, quant, Limits())
        assert model.total == entry.weights_bytes(quant)
        assert (model.experts > 0) == (entry.shape.experts is not None)
        assert least_weights_bytes(entry, quant) <= model.total


def test_what_pintpot_does_not_run_is_planned_for_llama_cpp() -> None:
    entry = catalog.find("gemma3:4b")[0]
    hardware = machine("8 GB")
    with pytest.raises(UsageError, match=r"gemma3:4b: pintpot does not run .* --engine llama.cpp"):
        plan_entry(entry, "Q4_K_M", hardware, Limits(), PINTPOT)
    assert plan_entry(entry, "Q4_K_M", hardware, Limits(), LLAMA_CPP).solution.token.tokens_s > 0


# --- bounds and search


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("profile", [PINTPOT, LLAMA_CPP], ids=lambda p: p.name)
def test_no_plan_is_faster_than_its_bound(name: str, profile) -> None:
    hardware = replace(machine(name), memory=replace(machine(name).memory, available_bytes=512 * GIB))
    limits = Limits(ctx_tokens=4096, depth_tokens=0)
    for entry in PICKED:
        spec = spec_of(entry)
        for quant in {entry.quants[0], "Q8_0"}:
            model = weigh_entry(entry, spec, quant, Limits())
            problem = Problem(spec, model, hardware, limits, profile)
            most = most_tokens_s(entry, quant, problem.vram_bytes, rates(hardware, profile, None), profile)
            assert solve(problem).token.tokens_s <= most


@pytest.mark.parametrize(
    ("name", "goal"),
    [("no GPU", "balanced"), ("4 GB", "speed"), ("8 GB", "quality"), ("24 GB", "long-context")],
)
def test_the_search_finds_what_planning_everything_finds(monkeypatch, name: str, goal: str) -> None:
    def ask() -> Recommendation:
        return rank(PICKED[::2], machine(name), Limits(), PINTPOT, OBJECTIVES[goal], n_rows=2)

    def names(found: Recommendation) -> list[tuple[str, str, float]]:
        return [(r.candidate.entry.name, r.candidate.quant, r.score) for r in (*found.moe, *found.dense)]

    quick = ask()
    monkeypatch.setattr(recommending, "least_weights_bytes", lambda *_: 0.0)
    monkeypatch.setattr(recommending, "most_tokens_s", lambda *_: 1e12)
    assert names(quick) == names(ask())
    assert names(quick)


# --- what is recommended


@pytest.mark.parametrize(
    ("name", "goal"),
    [("no GPU", "quality"), ("4 GB", "long-context"), ("8 GB", "speed"), ("24 GB", "balanced")],
)
def test_recommendations_keep_to_objective_and_machine(name: str, goal: str) -> None:
    objective = OBJECTIVES[goal]
    found = rank(ENTRIES, machine(name), Limits(), PINTPOT, objective)
    assert not found.below_floor
    for rows, moe in ((found.moe, True), (found.dense, False)):
        assert [r.score for r in rows] == sorted((r.score for r in rows), reverse=True)
        assert len({r.candidate.entry.name for r in rows}) == len(rows) <= 5
        for row in rows:
            entry, s = row.candidate.entry, row.solution
            assert (entry.shape.experts is not None) is moe
            assert s.token.tokens_s >= objective.floor
            assert s.vram.total <= row.problem.vram_bytes
            assert s.ram.total <= row.problem.ram_bytes
            assert objective.ctx_tokens == s.settings.ctx_tokens <= row.ctx_fits <= entry.ctx_train
            assert row.candidate.profile is (PINTPOT if entry.runnable else LLAMA_CPP)
            assert row.why


def test_speed_is_worth_more_to_who_asks_for_it() -> None:
    best = {
        goal: rank(ENTRIES, machine("24 GB"), Limits(), PINTPOT, OBJECTIVES[goal], n_rows=1).dense[0]
        for goal in ("quality", "balanced", "speed")
    }
    speeds = [row.solution.token.tokens_s for row in best.values()]
    worths = [row.candidate.worth for row in best.values()]
    assert speeds == sorted(speeds)
    assert worths == sorted(worths, reverse=True)


def test_models_of_one_shape_are_one_row() -> None:
    found = rank(PICKED, machine("24 GB"), Limits(), PINTPOT, OBJECTIVES["quality"])
    row = next(r for r in found.dense if r.candidate.entry.name == "qwen3.6:27b")
    assert row.same_shape == ("qwen3.5:27b",)
    assert "qwen3.5:27b" not in [r.candidate.entry.name for r in found.dense]


def test_the_rule_of_thumb_is_held_against_the_plan() -> None:
    """Experts in RAM: a format finer than the card's size says still reaches the floor."""
    found = rank(PICKED, machine("8 GB"), Limits(), PINTPOT, OBJECTIVES["balanced"])
    row = next(r for r in found.moe if r.candidate.entry.name == "qwen3.6:35b-a3b")
    assert found.rule.quants == ("Q4_K_M",)
    assert row.problem.model.total > 3 * row.problem.vram_bytes
    assert "the rule's Q4_K_M" in row.rule
    assert row.rule.endswith("its experts lie in RAM")
    native = next(r for r in found.moe if r.candidate.entry.name == "gpt-oss:20b")
    assert native.rule == "published in MXFP4_MOE, whatever the memory"


@pytest.mark.parametrize(
    ("gpu", "ram", "gb", "memory"),
    [
        ("none", "16GiB", 16, "RAM"),
        ("none", "2GiB", 4, "RAM"),
        ("RTX 3050 4GB", "64GiB", 4, "VRAM"),
        ("RTX 4060 Ti 8GB", "64GiB", 8, "VRAM"),
        ("RTX 4090", "64GiB", 16, "VRAM"),
        ("RTX 5090", "64GiB", 32, "VRAM"),
    ],
)
def test_rule_of_thumb(gpu: str, ram: str, gb: int, memory: str) -> None:
    rule = rule_of_thumb(describe(gpu, None, ram, "60GB/s", 8, None))
    assert (rule.gb, rule.memory) == (gb, memory)


# --- machines that are too small


def test_nothing_is_fast_enough() -> None:
    slow = describe("none", None, "64GiB", "1GB/s", 1, None)
    found = rank(PICKED, slow, Limits(), PINTPOT, OBJECTIVES["speed"], n_rows=2)
    assert found.below_floor
    assert len(found.moe) == len(found.dense) == 2
    assert all(row.solution.token.tokens_s < OBJECTIVES["speed"].floor for row in found.dense)


def test_nothing_fits_names_the_smallest_and_what_it_needs() -> None:
    def ask(ram_bytes: int) -> Recommendation:
        return rank(PICKED, machine("no GPU"), Limits(ram_bytes=ram_bytes), PINTPOT, OBJECTIVES["balanced"])

    with pytest.raises(
        DoesNotFitError, match=r"the smallest, qwen3.5:4b Q2_K, needs (\d+\.\d+) GiB"
    ) as error:
        ask(GIB)
    need = float(str(error.value).split("needs ")[1].split()[0])
    assert ask(int((need + 0.01) * GIB)).dense[0].candidate.entry.name == "qwen3.5:4b"
    with pytest.raises(DoesNotFitError):
        ask(int((need - 0.02) * GIB))


def test_a_context_nobody_was_trained_for() -> None:
    with pytest.raises(UsageError, match=r"-c 99999999: .* the most is 262,144 tokens"):
        rank(PICKED, machine("8 GB"), Limits(ctx_tokens=99_999_999), PINTPOT, OBJECTIVES["quality"])


# --- the proxy


def test_finer_formats_leave_more() -> None:
    order = ("Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "IQ4_XS", "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K")
    shares = [format_share(quant) for quant in (*order, "Q8_0", "BF16")]
    assert None not in shares
    assert shares == sorted(shares)
    assert shares[-1] == format_share("MXFP4_MOE") == 1.0
    assert format_share("TQ1_0") is None


def test_every_format_of_the_catalog_is_measured() -> None:
    assert all(format_share(quant) is not None for entry in ENTRIES for quant in entry.quants)


def test_worth_follows_size_age_and_what_is_read() -> None:
    newest = max(map(months, ENTRIES))
    old, new = (catalog.find(name)[0] for name in ("qwen3.5:27b", "qwen3.6:27b"))
    assert model_worth(old, newest) < model_worth(new, newest) <= dense_params(new)
    moe = catalog.find("qwen3.6:35b-a3b")[0]
    assert 3e9 < dense_params(moe) < moe.n_params_published
    looked_up = catalog.find("gemma4:e2b")[0]
    assert dense_params(looked_up) < 0.6 * looked_up.n_params_published
    assert model_worth(old, months(old) + 16) == pytest.approx(dense_params(old) / 2)
