"""Chat templates: what they may use, which one is taken, and templates that are broken or mean harm."""

# ruff: noqa: E501  # templates on one line each

from __future__ import annotations

from datetime import datetime
from threading import Thread

import pytest
from small_vocabs import add_tokens

from pintpot.errors import ModelFileError, TemplateError
from pintpot.tokenizer import CHATML, ChatTemplate, Tokenizer

HI = [{"role": "user", "content": "hi"}]


def render(source: str, messages: list | None = None, **options: object) -> str:
    template = ChatTemplate(source, bos_token="<s>", eos_token="</s>", name="m.gguf")
    return template.render(HI if messages is None else messages, **options)


class TestRendering:
    def test_chatml(self) -> None:
        messages = [{"role": "system", "content": "Be <b>brief</b>."}, *HI]
        start = "<|im_start|>system\nBe <b>brief</b>.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
        assert render(CHATML, messages) == start + "<|im_start|>assistant\n"
        assert render(CHATML, messages, add_generation_prompt=False) == start

    def test_blocks_are_trimmed_as_transformers_does(self) -> None:
        source = (
            "{% for m in messages %}\n    {% if true %}\n{{ m.content }}\n    {% endif %}\n{% endfor %}\n"
        )
        assert render(source) == "hi\n"

    @pytest.mark.parametrize(
        ("source", "text"),
        [
            ("{{ bos_token }}|{{ eos_token }}", "<s>|</s>"),
            ("{{ tools is none }}{{ documents is none }}{{ nothing }}", "TrueTrue"),
            ("{{ {'ä<&>\"': [1, none, true]} | tojson }}", '{"ä<&>\\"": [1, null, true]}'),
            ("{{ {'b': 1, 'a': [2]} | tojson(indent=1, sort_keys=true) }}", '{\n "a": [\n  2\n ],\n "b": 1\n}'),
            ("{{ [1, 2] | tojson(separators=(',', ':')) }}", "[1,2]"),
            ("{% for i in range(9) %}{% if i == 2 %}{% continue %}{% elif i > 3 %}{% break %}{% endif %}{{ i }}{% endfor %}", "013"),
            ("{% generation %}{% set a = 1 %}{{ a }}{% endgeneration %}{{ a }}", "1"),
            ("{% set ns = namespace(x='') %}{% for c in 'abc' %}{% set ns.x = c ~ ns.x ~ loop.index %}{% endfor %}{{ ns.x }}", "cba123"),
            ("{{ messages[-1:] | length }}{{ 'hello'[1:3] }}{{ messages[0]['role'] | upper }}", "1elUSER"),
            ("{% macro m(a, b=[1]) %}{{ a }}{{ b }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, c=4) }}", "12(3,){'c': 4}"),
            ("{% for k, v in {'b': 1, 'a': 2} | dictsort %}{{ k }}{{ v }}{{ loop.last }}{% endfor %}", "a2Falseb1True"),
            ("{{ [3, 1] | sort | join('-') }}{{ [{'a': 'x'}, {'a': 'y'}] | map(attribute='a') | join }}", "1-3xy"),
            ("{{ [{'a': {'b': 5}}] | join(', ', attribute='a.b') }}", "5"),
            ("{{ '%s is %d' % ('x', 3) }}{{ '%s' | format('y') }}{{ '{:>3}{a}{{}}'.format(1, a=2) }}", "x is 3y  12{}"),
            ("{{ 'a b'.split(' ') | list }}{{ ', '.join(['a', 'b']) }}{{ 'aXb'.replace('X', '-') }}", "['a', 'b']a, ba-b"),
            ("{{ 7 * 6 }}{{ 2 ** 10 }}{{ 7 % 4 }}{{ 'ab' * 2 }}{{ [1] + [2] }}{{ 1 + 2 }}{{ 'a' + 'b' }}", "4210243abab[1, 2]3ab"),
            ("{% for x in [1, [2, [3]]] recursive %}{{ loop(x) if x is sequence else x }}{% endfor %}", "123"),
            ("{% for x in [1, 2, 3, 4] if x is odd %}{{ x }}{{ loop.length }}{% endfor %}", "1232"),
            ("{% set x %}a{{ 1 }}{% endset %}{{ x | trim | default('z') }}{{ nope | default(100000) }}", "a1100000"),
            ("{{ messages | selectattr('role', 'equalto', 'user') | list | length }}", "1"),
            ("{{ 'a\nb' | indent(2) }}{{ ' x ' | trim }}{{ [1, 2, 3] | batch(2) | list }}", "a\n  bx[[1, 2], [3]]"),
            ("{{ '<' | e }}{{ '<' | safe }}", "&lt;<"),
        ],
    )  # fmt: skip
    def test_what_templates_use(self, source: str, text: str) -> None:
        assert render(source) == text

    def test_strftime_now(self) -> None:
        before, text, after = datetime.now(), render("{{ strftime_now('%Y %B') }}"), datetime.now()
        assert text in {before.strftime("%Y %B"), after.strftime("%Y %B")}

    def test_further_variables(self) -> None:
        assert render("{{ enable_thinking }}{{ x.y }}", enable_thinking=False, x={"y": 1}) == "False1"

    def test_large_conversations_are_fine(self) -> None:
        messages = [{"role": "user", "content": "word " * 2000}, *HI * 2000]
        source = "{% for m in messages %}{{ '[' ~ m.role ~ '] ' + m['content'] | trim }}\n{% endfor %}"
        assert render(source, messages).count("\n") == 2001
        assert (
            len(render("{{ messages | tojson }}", [{"role": "user", "content": "x" * 6_000_000}])) > 6_000_000
        )

    def test_from_many_threads(self) -> None:
        template = ChatTemplate(CHATML, bos_token=None, eos_token=None, name="m.gguf")
        results: list[str] = []

        def work(i: int) -> None:
            results.append(template.render([{"role": "user", "content": str(i)}]))

        threads = [Thread(target=work, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(results) == [template.render([{"role": "user", "content": str(i)}]) for i in range(8)]


class TestChoice:
    def test_the_file_s_own(self, gemma_metadata: dict, gemma: Tokenizer) -> None:
        metadata = {**gemma_metadata, "tokenizer.chat_template": "{{ bos_token }}{{ messages[0].content }}"}
        template = ChatTemplate.from_metadata(metadata, gemma)
        assert template is not None
        assert template.render(HI) == "<bos>hi"

    def test_tool_use_and_named_variants(self, bpe_metadata: dict, bpe: Tokenizer) -> None:
        metadata = {
            **bpe_metadata,
            "tokenizer.chat_template": "plain",
            "tokenizer.chat_template.tool_use": "tools: {{ tools[0].name }}",
            "tokenizer.chat_template.rag": "rag",
        }
        template = ChatTemplate.from_metadata(metadata, bpe)
        assert template is not None
        assert template.render(HI) == template.render(HI, tools=[]) == "plain"
        assert template.render(HI, tools=[{"name": "f"}]) == "tools: f"
        rag = ChatTemplate.from_metadata(metadata, bpe, variant="rag")
        assert rag is not None
        assert rag.render(HI, tools=[{"name": "f"}]) == "rag"
        with pytest.raises(TemplateError, match=r"^bpe\.gguf: has no chat template named 'x'$"):
            ChatTemplate.from_metadata(metadata, bpe, variant="x")

    def test_without_one(
        self, bpe_metadata: dict, bpe: Tokenizer, spm_metadata: dict, spm: Tokenizer
    ) -> None:
        chatml = ChatTemplate.from_metadata(bpe_metadata, bpe)  # its vocabulary has ChatML's tokens
        assert chatml is not None
        assert chatml.source == CHATML
        assert ChatTemplate.from_metadata(spm_metadata, spm) is None
        text_only = Tokenizer.from_metadata(
            add_tokens(spm_metadata, normal=["<|im_start|>", "<|im_end|>"]), "x"
        )
        assert ChatTemplate.from_metadata(spm_metadata, text_only) is None

    def test_one_that_is_no_text(self, bpe_metadata: dict, bpe: Tokenizer) -> None:
        with pytest.raises(ModelFileError, match=r"^bpe\.gguf: tokenizer\.chat_template is an array"):
            ChatTemplate.from_metadata({**bpe_metadata, "tokenizer.chat_template": ["x"]}, bpe)


def failure(source: str) -> str:
    with pytest.raises(TemplateError) as caught:
        render(source)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith("m.gguf: the chat template ")
    return text.removeprefix("m.gguf: the chat template ")


class TestBroken:
    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("{% for %}", "does not compile at line 1: Expected an expression"),
            ("\n\n{{ x | nosuch }}", "does not compile at line 3: No filter named 'nosuch'"),
            ("{% if a %}", "does not compile at line 1"),
            ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "does not compile: it nests too deeply"),
            ("{% for a in [1] %}" * 40 + "{% endfor %}" * 40, "does not compile"),
            ("x" * 300_000, "is larger than 200000 characters"),
            ("{{ 1 ~ 2 }}" * 9000, "has more than 20000 parts"),
            (
                "{{ raise_exception('roles must\nalternate') }}",
                "refuses this conversation: roles must alternate",
            ),
            ("{{ a.b }}", "failed: 'a' is undefined"),
            ("{{ 1 / 0 }}", "failed: division by zero"),
            ("{{ 1[0:] }}", "failed: 'int' object is not subscriptable"),
            ("{{ 'a' + 1 }}", "failed: can only concatenate str"),
            ("{{ nothing | tojson }}", "failed: Object of type Undefined is not JSON serializable"),
            ("{% include 'x' %}", "failed: no loader"),
        ],
    )
    def test_one_clear_line(self, source: str, message: str) -> None:
        assert failure(source).startswith(message)

    def test_check_compiles_only(self) -> None:
        ChatTemplate("{{ a.b }}", bos_token=None, eos_token=None, name="x").check()
        with pytest.raises(TemplateError):
            ChatTemplate("{% if %}", bos_token=None, eos_token=None, name="x").check()

    @pytest.mark.parametrize(
        "source",
        [
            "{{ ''.__class__.__mro__ }}",
            "{{ messages.append(1) }}",
            "{{ messages[0].update({}) }}",
            "{{ messages | attr('append') }}",
            "{{ raise_exception.__globals__.json }}",
            "{{ range.__class__.__mro__ }}",
            "{{ '{0.__class__.__mro__}'.format(1) }}",
            "{{ ['{0.__class__.__mro__}'] | map(attribute='format') | first('') }}",
            "{{ self.__init__.__globals__ }}",
        ],
    )
    def test_the_sandbox_holds(self, source: str) -> None:
        failure(source)
