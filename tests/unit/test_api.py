"""The Python API on toy models: the same answers however a text is fed, and clear refusals."""

import gc

import numpy as np
import pytest

import pintpot
from pintpot.synth.synthesize import synthesize

ARCHS = ["llama", "qwen35moe", "gemma4", "gpt-oss"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api")

    def make(arch):
        path = folder / f"{arch}.gguf"
        if not path.exists():
            synthesize(path, arch, preset="toy", quant="F32")
        return path

    return make


@pytest.mark.parametrize("arch", ARCHS)
def test_generate_follows_the_logits(models, arch):
    llm = pintpot.load(models(arch), ctx=256, threads=2, cache_type_k="f32", cache_type_v="f32")
    prompt = list(range(20, 60))
    generation = llm.generate(prompt, max_tokens=8, temperature=0, ignore_eos=True)
    text = "".join(generation)
    assert text == generation.text
    assert len(generation.tokens) == 8
    logits = llm.logits(prompt + generation.tokens[:-1])
    assert logits.dtype == np.float32
    assert logits[len(prompt) - 1 :].argmax(axis=1).tolist() == generation.tokens


@pytest.mark.parametrize("arch", ARCHS)
def test_slots_and_chunks_do_not_change_answers(models, arch):
    alone = pintpot.load(models(arch), ctx=256, threads=1, cache_type_k="f32", cache_type_v="f32")
    many = pintpot.load(
        models(arch), ctx=256, threads=2, batch=9, slots=3, cache_type_k="f32", cache_type_v="f32"
    )
    prompts = [list(range(10 + 7 * i, 50 + 5 * i)) for i in range(3)]
    options = {"max_tokens": 6, "temperature": 0, "ignore_eos": True}
    expected = []
    for prompt in prompts:
        generation = alone.generate(prompt, **options)
        list(generation)
        expected.append((generation.tokens, generation.text))
    generations = [many.generate(prompt, **options) for prompt in prompts]
    while [g for g in generations if g.step() is not None]:
        pass
    assert [(g.tokens, g.text) for g in generations] == expected


def test_an_abandoned_generation_frees_its_slot(models):
    llm = pintpot.load(models("llama"), ctx=256)
    for _ in llm.generate([20, 30, 40], temperature=0, ignore_eos=True):
        break
    gc.collect()
    again = llm.generate([50, 60], max_tokens=3, temperature=0, ignore_eos=True)
    again.step()
    assert len(again.tokens) == 1


def test_chat_renders_the_template_and_reuses_the_past(models):
    llm = pintpot.load(models("llama"), ctx=256)
    messages = [{"role": "user", "content": "hi"}]
    first = llm.chat(messages, max_tokens=4, temperature=0, ignore_eos=True)
    list(first)
    again = llm.chat(messages, max_tokens=4, temperature=0, ignore_eos=True)
    list(again)
    assert again.tokens == first.tokens
    assert again.timings.cached_tokens == again.timings.prompt_tokens - 1


def test_refusals(models):
    llm = pintpot.load(models("llama"), ctx=64)
    with pytest.raises(pintpot.ContextLengthError, match="64"):
        llm.generate([1] * 65)
    with pytest.raises(pintpot.UsageError, match="unknown sampling parameter temprature"):
        llm.generate("x", temprature=1)
    with pytest.raises(pintpot.UsageError, match="not both"):
        llm.generate("x", params=pintpot.SamplingParams(), temperature=1)
    for wrong in ([1.5], ["1"]):
        with pytest.raises(pintpot.UsageError, match="whole numbers"):
            llm.generate(wrong)
        with pytest.raises(pintpot.UsageError, match="whole numbers"):
            llm.logits(wrong)
    with pytest.raises(pintpot.UsageError, match="threads is 0"):
        pintpot.load(models("llama"), threads=0)
    with pytest.raises(pintpot.ModelFileError, match="no such file"):
        pintpot.load("nosuch.gguf")


def test_public_names_exist():
    for name in pintpot.__all__:
        assert getattr(pintpot, name) is not None
    with pytest.raises(AttributeError, match="nosuch"):
        pintpot.nosuch  # noqa: B018
