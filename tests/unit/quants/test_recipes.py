"""Recipes against llama-quantize's own answers (ask_llama_quantize.py), and how they read."""

import json
import re
from pathlib import Path

import pytest
from recipe_cases import SHAPES, case, our_types, questions, summarize

from pintpot.errors import UsageError
from pintpot.gguf import GGMLType, TensorDecl
from pintpot.quants.choice import Overrides, Why, choose_types, parse_tensor_type, traits_of
from pintpot.quants.recipes import ALIASES, RECIPES, Traits, find_recipe, find_type

ANSWERS = json.loads(Path(__file__).with_name("recipes_expected.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("shape", SHAPES)
def test_types_are_those_of_llama_quantize(shape: str) -> None:
    model, expected = case(shape), ANSWERS["models"][shape]
    for key, recipe, flags, importance in questions(shape):
        theirs = expected.get(key, expected.get(key.removesuffix(" with importance"), ""))
        lines = [ANSWERS["lines"][int(i)] for i in theirs.split()]
        assert summarize(our_types(model, recipe, flags, importance=importance)) == lines, key


def test_an_importance_matrix_changes_some_recipes() -> None:
    changed = {k.split()[0] for found in ANSWERS["models"].values() for k in found if "importance" in k}
    assert changed == {"Q4_0", "Q5_0", "IQ4_NL", "IQ4_XS"}


def test_what_decides_is_told() -> None:
    tensors = [
        TensorDecl("token_embd.weight", GGMLType.F16, (256, 300)),
        TensorDecl("output.weight", GGMLType.F16, (256, 300)),
        TensorDecl("blk.0.attn_norm.weight", GGMLType.F32, (256,)),
        TensorDecl("blk.0.attn_q.weight", GGMLType.F16, (256, 256)),
        TensorDecl("blk.0.ffn_down.weight", GGMLType.F16, (96, 256)),
        TensorDecl("blk.0.ffn_up.weight", GGMLType.F16, (256, 96)),
    ]
    overrides = Overrides(tensor_types=(parse_tensor_type("attn_q=Q8_0"),))
    chosen = choose_types(find_recipe("q4_k"), Traits("llama", 1), tensors, overrides)
    assert {n.removesuffix(".weight"): (GGMLType(c.ggml_type).name, c.why) for n, c in chosen.items()} == {
        "token_embd": ("Q4_K", Why.BASE),
        "output": ("Q6_K", Why.RULE),
        "blk.0.attn_norm": ("F32", Why.KEPT),
        "blk.0.attn_q": ("Q8_0", Why.FLAG),
        "blk.0.ffn_down": ("Q8_0", Why.FALLBACK),
        "blk.0.ffn_up": ("Q4_K", Why.BASE),
    }


def test_a_recipe_can_be_read() -> None:
    assert str(RECIPES["Q4_K_S"]).splitlines() == [
        "Q4_K_S: Q4_K",
        "  head: Q8_0 if it is a Falcon",
        "  head: Q6_K",
        "  attn_k, attn_v: Q8_0 if it has 8 experts",
        "  attn_v in the first 4: Q5_K",
        "  attn_v: Q5_K if it is a 70B",
        "  ffn_down in the first eighth: Q5_K if it is no Falcon",
        "  attn_output: Q5_K if it is no Falcon and it has 8 experts",
    ]
    assert str(RECIPES["COPY"]) == "COPY: every tensor as it is"
    assert "every tensor of experts: MXFP4" in str(RECIPES["MXFP4_MOE"])


@pytest.mark.parametrize("spelling", ["q4_k_m", "Q4KM", "q4-k-m", "Q4_K", " q4k "])
def test_recipes_are_found_in_any_spelling(spelling: str) -> None:
    assert find_recipe(spelling) is RECIPES["Q4_K_M"]


def test_every_recipe_and_alias_is_found() -> None:
    assert [find_recipe(name.lower()).name for name in RECIPES] == list(RECIPES)
    assert [find_recipe(name).name for name in ALIASES] == list(ALIASES.values())


@pytest.mark.parametrize(
    ("name", "says"),
    [("Q4_K_X", "did you mean Q4_K"), ("Q4_K_XL", "did you mean Q4_K"), ("whatever", "choose one of: F32")],
)
def test_unknown_types_suggest_near_ones(name: str, says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        find_recipe(name)


def test_tensor_types() -> None:
    assert find_type("bf16", "--x") is GGMLType.BF16
    with pytest.raises(UsageError, match="--x Q4_K_M is no tensor type; did you mean Q4_K"):
        find_type("Q4_K_M", "--x")
    pattern, kind = parse_tensor_type(r"blk\.(1|2)\.attn=q8_0")
    assert (bool(pattern.search("blk.2.attn_q.weight")), kind) == (True, GGMLType.Q8_0)
    for text, says in (
        ("attn", "expected PATTERN=TYPE"),
        ("(=q8_0", "in the pattern"),
        ("a=q9", "no tensor type"),
    ):
        with pytest.raises(UsageError, match=says):
            parse_tensor_type(text)


def test_traits_survive_odd_metadata() -> None:
    odd = {"general.architecture": 3, "x.block_count": "many"}
    assert traits_of(odd, importance=False) == Traits("", 0)
    heads = {
        "general.architecture": "x",
        "x.attention.head_count": [8, 4],
        "x.attention.head_count_kv": [0, 2],
    }
    assert traits_of(heads, importance=True).gqa == 0
