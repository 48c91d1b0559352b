"""Templates that loop, grow or nest without bound are stopped. Each of these would run for hours or fill any
memory; the tests end because the limits work."""

# ruff: noqa: E501  # templates on one line each

from __future__ import annotations

import pytest

from pintpot.errors import TemplateError
from pintpot.tokenizer import ChatTemplate, budget

LOOPS = {
    "nested": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "filtered": "{% for a in range(99999) %}{% for b in range(99999) if false %}{% endfor %}{% endfor %}",
    "recursive": "{% for a in range(99999) recursive %}{% if loop.depth < 3 %}{{ loop(range(99999)) }}{% endif %}"
    "{% endfor %}",
    "macros": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "filters": "{% for i in range(99999) %}{% set x = range(99999) | map('string') | map('upper') | list %}"
    "{% endfor %}",
    "captured": "{% filter upper %}{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}"
    "{% endfilter %}",
}
TEXTS = {
    "output": "{% for a in range(99999) %}" + "x" * 500 + "{% endfor %}",
    "times": "{{ 'a' * 10 ** 9 }}",
    "times_left": "{{ 1000000000 * 'a' }}",
    "plus": "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "tilde": "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "blocks": "{% set x = 'aaaa' %}" + "{% set x %}{{ x }}{{ x }}{% endset %}" * 60,
    "macros": "{% macro m(x) %}{{ x }}{{ x }}{% endmacro %}{% set x = 'aaaa' %}" + "{% set x = m(x) %}" * 60,
    "callers": "{% macro m() %}{{ caller() }}{{ caller() }}{% endmacro %}"
    + "{% call m() %}" * 18
    + "a" * 64
    + "{% endcall %}" * 18,
    "buffers": "{% set s = 'a' * 3000000 %}{% macro m() %}{% for i in range(99999) %}{{ s ~ i }}{% endfor %}"
    "{% endmacro %}{{ m() | length }}",
    "copies": "{% set s = 'a' * 3900000 %}{% for i in range(99999) %}{% set x = s[i:] %}{% endfor %}",
    "join": "{{ range(99999) | join('x' * 100000) }}",
    "join_method": "{{ ('x' * 100000).join(range(999) | map('string')) }}",
    "replace": "{{ ('a' * 100000) | replace('a', 'b' * 100000) }}",
    "replace_method": "{{ ('a' * 100000).replace('', 'b' * 100000) }}",
    "indent": "{{ ('\n' * 100000) | indent('a' * 100000) }}",
    "escape": "{{ ('&' * 1000000) | escape }}",
    "center": "{{ 'a' | center(1000000000) }}",
    "ljust": "{{ 'a'.ljust(1000000000) }}",
    "zfill": "{{ '1'.zfill(1000000000) }}",
    "tabs": "{{ ('\t' * 100000).expandtabs(100000) }}",
    "translate": "{{ ('a' * 100000).translate({97: 'b' * 100000}) }}",
    "json_indent": "{{ [1] | tojson(indent=1000000000) }}",
    "json_indent_text": "{{ ([[1]] * 1000) | tojson(indent='x' * 100000) }}",
    "json_separators": "{{ [1, 2] | tojson(separators=('x' * 1000000, 'y')) }}",
    "date": "{{ strftime_now('%Y' * 100000) }}",
}
FORMATS = {
    "percent": "{{ '%1000000000d' % 1 }}",
    "precision": "{{ '%.1000000000f' % 1 }}",
    "star": "{{ '%*d' % (1000000000, 1) }}",
    "name": "{{ '%(a()999999999d' % {'a(': 1} }}",
    "filter": "{{ '%1000000000d' | format(1) }}",
    "braces": "{{ '{:1000000000}'.format(1) }}",
    "braces_nested": "{{ '{:{}}'.format(1, '1000000000') }}",
    "braces_map": "{{ '{a:1000000000}'.format_map({'a': 1}) }}",
    "subscript": "{{ '{:1000000000}'['format'](1) }}",
    "attribute": "{% for f in ['{:1000000000}'] | map(attribute='format') %}{{ f(1) }}{% endfor %}",
    "repeated": "{{ ('{0}' * 10000).format('a' * 10000) }}",
    "repeated_percent": "{{ ('%(a)s' * 10000) % {'a': 'a' * 10000} }}",
}
CONTAINERS = {
    "times": "{{ [1] * 1000000000 }}",
    "plus": "{% set x = [1] %}" + "{% set x = x + x %}" * 60,
    "lists": "{% set x = [1] %}" + "{% set x = [x, x] %}" * 60,
    "tuples": "{% set x = (1,) %}" + "{% set x = (x, x) %}" * 60 + "{% set d = {x: 1} %}",
    "dicts": "{% set x = {} %}" + "{% set x = {'a': x, 'b': x} %}" * 60,
    "dict_calls": "{% set x = {} %}" + "{% set x = dict(a=x, b=x) %}" * 60,
    "arguments": "{% set ns = namespace(v=1) %}{% macro m() %}{% set ns.v = varargs %}{% endmacro %}"
    + "{{ m(ns.v, ns.v) }}" * 60,
    "namespaces": "{% set n0 = namespace() %}"
    + "".join(f"{{% set n{i + 1} = namespace(a=[n{i}, n{i}]) %}}" for i in range(60)),
    "repeated_text": "{{ ['x' * 100000] * 1000 }}",
    "batch": "{{ [1] | batch(1000000000, 'x') | list }}",
    "slice": "{{ [1] | slice(1000000000) | list }}",
    "split": "{{ ('a ' * 1000000).split() }}",
    "characters": "{{ ('ab' * 2000000) | list }}",
    "range": "{{ range(1000000000) | list }}",
}
NUMBERS = {
    "power": "{{ 10 ** (10 ** 10) }}",
    "squares": "{% set ns = namespace(x=7) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "round": "{{ 1.5 | round(1000000000, 'ceil') }}",
    "bytes": "{{ (1).to_bytes(1000000000, 'big') }}",
}
ALL = {"loop": LOOPS, "text": TEXTS, "format": FORMATS, "container": CONTAINERS, "number": NUMBERS}
CASES = {f"{group}_{name}": source for group, sources in ALL.items() for name, source in sources.items()}


@pytest.mark.parametrize("source", CASES.values(), ids=CASES.keys())
def test_stopped(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "_SECONDS", 0.1)
    template = ChatTemplate(source, bos_token=None, eos_token=None, name="m.gguf")
    with pytest.raises(TemplateError) as caught:
        template.render([{"role": "user", "content": "hi"}])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["nested", "captured"])
def test_the_message_says_why(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "_SECONDS", 0.05)
    template = ChatTemplate(LOOPS[name], bos_token=None, eos_token=None, name="m.gguf")
    with pytest.raises(TemplateError, match=r"^m\.gguf: the chat template takes too long: stopped$"):
        template.render([])


def test_a_stopped_template_can_render_again() -> None:
    source = "{{ messages[0].content * messages[0].n }}"
    template = ChatTemplate(source, bos_token=None, eos_token=None, name="m.gguf")
    for _ in range(2):
        with pytest.raises(TemplateError, match="too large"):
            template.render([{"content": "ab", "n": 10**9}])
        assert template.render([{"content": "ab", "n": 2}]) == "abab"
