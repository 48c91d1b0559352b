"""Names of quantizations and models in the spellings people use."""

import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pintpot.errors import UsageError
from pintpot.quants.names import ModelName, QuantName, parse_model_name, parse_quant
from pintpot.quants.recipes import ALIASES, RECIPES

Q4_K_M = QuantName("Q", 4, "K", "M")
IQ4_XS = QuantName("IQ", 4, "", "XS")


@pytest.mark.parametrize("text", ["q4_k_m", "Q4_K_M", "Q4KM", "q4-k-m", " Q4_KM "])
def test_spellings_of_one_quantization(text: str) -> None:
    assert parse_quant(text) == Q4_K_M


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("fp16", "F16"), ("bf16", "BF16"), ("iq4xs", "IQ4_XS"), ("IQ4_NL", "IQ4_NL"),
        ("mxfp4-moe", "MXFP4_MOE"), ("Q8_0", "Q8_0"), ("q80", "Q8_0"), ("Q6K", "Q6_K"),
        ("q3_k_l", "Q3_K_L"), ("Q2_K_S", "Q2_K_S"),
        ("iq2_xxs", "IQ2_XXS"), ("Q4_K_XL", "Q4_K_XL"), ("tq1_0", "TQ1_0"),
    ],
)  # fmt: skip
def test_quantizations(text: str, name: str) -> None:
    assert str(parse_quant(text)) == name


@pytest.mark.parametrize("text", ["", "Q", "Q4", "Q4_K_MM", "Q9_K", "F8", "K_M", "Q4_K_M extra", "copy"])
def test_no_quantization(text: str) -> None:
    assert parse_quant(text) is None


def test_every_recipe_parses_as_itself() -> None:
    for name in {*RECIPES, *ALIASES} - {"COPY"}:
        assert str(parse_quant(name)) == name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gemma-4:4b-q4_k_m", ModelName("gemma-4", "4b", "", Q4_K_M)),
        ("gemma-4:4b", ModelName("gemma-4", "4b")),
        ("qwen3:latest", ModelName("qwen3")),
        ("hf.co/user/repo:Q4_K_M", ModelName("repo", "", "", Q4_K_M, "hf.co/user/repo")),
        (
            "unsloth/Qwen3-8B-GGUF",
            ModelName("qwen3", "8b", "", None, "unsloth/Qwen3-8B-GGUF"),
        ),
        ("Qwen3.5-35B-A3B-Q6_K.gguf", ModelName("qwen3.5", "35b-a3b", "", QuantName("Q", 6, "K"))),
        ("mistral-7b-instruct-v0.2.Q4_K_M.gguf", ModelName("mistral", "7b", "instruct-v0.2", Q4_K_M)),
        ("/models/llama-3.1-8b.f16.gguf", ModelName("llama-3.1", "8b", "", QuantName("F", 16))),
        (
            "gpt-oss-20b-mxfp4-00001-of-00003.gguf",
            ModelName("gpt-oss", "20b", "", QuantName("MXFP", 4)),
        ),
        ("Mixtral-8x7B-Instruct-IQ4_XS", ModelName("mixtral", "8x7b", "instruct", IQ4_XS)),
        ("gemma-4-E2B-it", ModelName("gemma-4", "e2b", "it")),
        ("model.gguf", ModelName("model")),
    ],
)  # fmt: skip
def test_model_names(text: str, expected: ModelName) -> None:
    assert parse_model_name(text) == expected
    assert parse_model_name(str(expected)) == expected


@pytest.mark.parametrize("text", ["", ".gguf", "Q4_K_M.gguf", ":latest", "//"])
def test_no_model_name(text: str) -> None:
    with pytest.raises(UsageError, match="holds no model's name"):
        parse_model_name(text)


QUANTS = st.sampled_from([parse_quant(name) for name in RECIPES if name != "COPY"])
WORD = st.text(string.ascii_lowercase + string.digits + ".", min_size=1, max_size=8).filter(
    lambda w: w[0].isalpha() and w[-1] != "." and w not in ("gguf", "latest")
)
SIZE = st.sampled_from(["", "4b", "0.6b", "35b-a3b", "8x7b", "e4b", "270m"])


@given(
    base=st.lists(WORD, min_size=1, max_size=3), size=SIZE, variant=st.lists(WORD, max_size=2), quant=QUANTS
)
def test_round_trip(base: list[str], size: str, variant: list[str], quant: QuantName) -> None:
    """A name is written in the one spelling and read back, unless a word only looks like another part."""
    name = ModelName("-".join(base), size, "-".join(variant) if size else "", quant)
    words = [*base, *variant]
    assume(not any(w.endswith(("b", "m", "k", "t")) and any(c.isdigit() for c in w) for w in words))
    assert parse_model_name(str(name)) == name
    assert parse_model_name(str(name).replace(":", "-").upper() + ".gguf") == name


@given(st.text(max_size=40))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        name = parse_model_name(text)
    except UsageError:
        return
    assert name.base


@given(quant=QUANTS, owner=WORD, repo=WORD)
def test_repository_round_trip(quant: QuantName, owner: str, repo: str) -> None:
    assume(parse_quant(repo) is None and "." not in owner)
    text = f"hf.co/{owner}/{repo}:{quant}"
    name = parse_model_name(text)
    assert (name.repository, name.quant) == (f"hf.co/{owner}/{repo}", quant)
    assert parse_model_name(str(name)) == name
