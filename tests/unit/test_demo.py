"""The shipped demo: its files, its metadata, and the parts of the script that made it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pintpot import demo
from pintpot.errors import ModelFileError
from pintpot.gguf import GGMLType, GGUFFile

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

PAGE = """<html><body><div class="body" role="main"><section id="module-cups"><h1><code>cups</code> — Cups
<a class="headerlink" href="#module-cups">¶</a></h1>
<p><strong>Source code:</strong> Lib/cups.py</p><hr>
<p>This module&rsquo;s cups hold <em>tea</em>.</p>
<dl class="py function"><dt class="sig sig-object py" id="cups.fill">
<span class="descclassname">cups.</span><span class="descname">fill</span>(<em>cup</em>, <em>level=1</em>)
<a class="headerlink" href="#cups.fill">¶</a></dt>
<dd><p>Fill <em>cup</em> up to
<code>level</code>.</p><div class="highlight"><pre>&gt;&gt;&gt; fill(c)
'full'
</pre></div><div class="versionadded"><p><span>New in version 3.2.</span></p></div></dd></dl>
<dl class="py class"><dt id="cups.Mug">class cups.Mug</dt><dd><p>A mug.</p>
<dl class="py method"><dt id="cups.Mug.drink">drink()</dt><dd><p>Empty it.</p></dd></dl></dd></dl>
</section></div></body></html>"""


@pytest.fixture
def training(monkeypatch):
    """Makes `demo.*` of examples/ importable."""
    monkeypatch.syspath_prepend(str(EXAMPLES))


@pytest.fixture(scope="module")
def model():
    return GGUFFile.open(demo.demo_model_path())


class TestShippedFiles:
    def test_model_is_a_small_mixture_of_experts(self, model):
        metadata = model.metadata
        assert metadata["general.architecture"] == "qwen3moe"
        assert metadata["qwen3moe.expert_count"] > metadata["qwen3moe.expert_used_count"] > 1
        assert 10_000_000 < sum(t.n_values for t in model.tensors.values()) < 16_000_000

    def test_every_k_quant_applies_to_every_matrix(self, model):
        matrices = [t for t in model.tensors.values() if t.ggml_type == GGMLType.F16]
        assert matrices
        assert all(t.ne[0] % 256 == 0 for t in matrices)

    def test_others_are_float32(self, model):
        names = {n for n, t in model.tensors.items() if t.ggml_type == GGMLType.F32}
        assert all("norm" in n or "ffn_gate_inp" in n for n in names)
        assert len(names) + sum(t.ggml_type == GGMLType.F16 for t in model.tensors.values()) == len(
            model.tensors
        )

    def test_weights_are_finite_and_trained(self, model):
        router = model.data("blk.0.ffn_gate_inp.weight").view(np.float32)
        assert np.isfinite(router).all()
        assert router.std() > 0.021  # initialized with 0.02
        for name, tensor in model.tensors.items():
            if tensor.ggml_type == GGMLType.F16:
                assert np.isfinite(model.data(name).view(np.float16)).all(), name

    def test_tokenizer_and_chat_template(self, model):
        metadata = model.metadata
        tokens = metadata["tokenizer.ggml.tokens"]
        assert len(tokens) == model.tensors["token_embd.weight"].ne[1]
        assert tokens[metadata["tokenizer.ggml.eos_token_id"]] == "<|im_end|>"
        assert metadata["tokenizer.ggml.add_bos_token"] is False
        assert "<|im_start|>" in metadata["tokenizer.chat_template"]

    def test_heldout_text(self):
        text = demo.demo_text_path().read_text(encoding="utf-8")
        assert 200_000 < len(text.encode()) < 500_000
        assert text.startswith("# ")

    def test_licence_is_recorded(self):
        folder = demo.demo_model_path().parent
        assert "python3.11-doc" in (folder / "demo.md").read_text(encoding="utf-8")
        notice = (folder / "NOTICE").read_text(encoding="utf-8")
        assert "PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2" in notice

    def test_missing_file_is_one_clear_line(self, monkeypatch, tmp_path):
        monkeypatch.setattr(demo, "DATA", tmp_path)
        with pytest.raises(ModelFileError, match=r"demo\.gguf: the demo is not part"):
            demo.demo_model_path()


@pytest.mark.usefixtures("training")
class TestDocumentation:
    @pytest.fixture
    def page(self, tmp_path):
        from demo.docs_text import read_page

        (tmp_path / "cups.html").write_text(PAGE, encoding="utf-8")
        return read_page(tmp_path, "cups.html")

    def test_text(self, page):
        assert page.text == (
            "# `cups` — Cups\n\nSource code: Lib/cups.py\n\nThis module's cups hold tea.\n\n"
            "`cups.fill(cup, level=1)`\n\nFill cup up to `level`.\n\n```\n>>> fill(c)\n'full'\n```\n\n"
            "New in version 3.2.\n\n`class cups.Mug`\n\nA mug.\n\n`drink()`\n\nEmpty it.\n"
        )

    def test_entries(self, page):
        assert [(e.kind, e.name, e.signature) for e in page.entries] == [
            ("module", "cups", "cups"),
            ("function", "cups.fill", "cups.fill(cup, level=1)"),
            ("class", "cups.Mug", "cups.Mug"),
            ("method", "cups.Mug.drink", "cups.Mug.drink()"),
        ]

    def test_answer_is_signature_and_description(self, page):
        from demo.chat import answer

        assert answer(page.entries[1]) == (
            "`cups.fill(cup, level=1)`\n\nFill cup up to `level`.\n\n```\n>>> fill(c)\n'full'\n```"
        )
        assert answer(page.entries[0]) == "The `cups` module. This module's cups hold tea."

    def test_conversation_is_what_the_template_writes(self, page):
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        from demo.chat import CHAT_TEMPLATE, answer, conversation

        text = conversation([page.entries[3]], np.random.default_rng(5))
        question = text.split("<|im_start|>user\n")[1].split("<|im_end|>")[0]
        messages = [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer(page.entries[3])},
        ]
        assert ImmutableSandboxedEnvironment().from_string(CHAT_TEMPLATE).render(messages=messages) in text

    def test_split_keeps_pages_whole_and_apart(self):
        from demo.corpus import split_pages
        from demo.docs_text import Page

        pages = [Page(f"library/m{i}.html", "x" * 1000, ()) for i in range(50)]
        pages.append(Page("library/json.html", "x" * 1000, ()))
        train, heldout = split_pages(pages, 5000)
        assert len(heldout) == 5
        assert not {p.path for p in train} & {p.path for p in heldout}
        assert len(train) + len(heldout) == len(pages)
        assert "library/json.html" in {p.path for p in train}


@pytest.mark.usefixtures("training")
class TestRows:
    @pytest.fixture
    def stream(self):
        from demo.corpus import RowStream, train_tokenizer
        from demo.docs_text import Entry

        tokenizer = train_tokenizer(["What does a cup do? It holds tea.\n"] * 20, 300)
        entries = [Entry("function", f"f{i}", f"f{i}()", f"Number {i}.") for i in range(9)]
        return lambda: RowStream(tokenizer, np.arange(1000, dtype=np.int32), entries, seed=1, chat_share=0.5)

    def test_resumes_where_it_stopped(self, stream):
        whole, cut = stream(), stream()
        expected = [whole.batch(4, 31) for _ in range(3)]
        cut.batch(4, 31)
        resumed = stream()
        resumed.restore(cut.state())
        np.testing.assert_array_equal(resumed.batch(4, 31), expected[1])
        np.testing.assert_array_equal(resumed.batch(4, 31), expected[2])

    def test_text_pass_covers_every_window_once(self, stream):
        rows = stream()
        rows.chat_share = 0.0
        starts = sorted(rows.batch(30, 31)[:, 0].tolist())  # (1000 - 32) // 32 windows a pass
        assert np.unique(np.diff(starts)).tolist() == [32]


@pytest.mark.usefixtures("training")
def test_export_holds_the_weights(tmp_path):
    from demo.corpus import train_tokenizer
    from demo.export import export_gguf
    from demo.model import DemoConfig, DemoModel

    cfg = DemoConfig(n_vocab=300, n_layer=1, n_expert=3, n_ff=32, n_embd=64, head_dim=16)
    net = DemoModel(cfg)
    net.init_weights(0)
    state = net.state_dict()
    export_gguf(tmp_path / "m.gguf", state, cfg, train_tokenizer(["some text, some more"] * 9, cfg.n_vocab))
    file = GGUFFile.open(tmp_path / "m.gguf")
    up = file.tensors["blk.0.ffn_up_exps.weight"]
    assert up.shape == (3, 32, 64)
    expected = state["blocks.0.experts.gate_up"][:, 32:].numpy().astype(np.float16)
    np.testing.assert_array_equal(file.data(up.name).view(np.float16).reshape(up.shape), expected)
    router = file.data("blk.0.ffn_gate_inp.weight").view(np.float32).reshape(3, 64)
    np.testing.assert_array_equal(router, state["blocks.0.experts.router.weight"].numpy())
