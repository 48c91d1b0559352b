"""Jinja for templates nobody has vetted: a sandbox whose templates cannot run, or grow, without bound.

Jinja's own sandbox keeps a template away from Python's internals. What it leaves open is time and memory:
nested loops, doubling strings, wide formats, lists that hold themselves many times over. Here every loop
turn, call, filter and operator passes through a Budget, and every string or list a template can make is
measured before or as it is made. The invariant that carries this: no value is ever larger than
`Budget.max_size`, shared parts counted each time they occur, so that any one step is short.

This module imports jinja2; import it where a template is compiled.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import Any, Final
from warnings import catch_warnings, simplefilter

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.visitor import NodeTransformer

from pintpot.tokenizer.budget import Budget, LimitExceededError

_FILTERS: Final = (
    "abs batch capitalize center count d default dictsort e escape first float forceescape format groupby"
    " indent int items join last length list lower map max min reject rejectattr replace reverse round safe"
    " select selectattr slice sort string sum title trim truncate unique upper urlencode wordcount"
)
_ANY_NUMBERS: Final = "d default float int map max min reject rejectattr select selectattr sum"
_GLOBALS: Final = frozenset({"range", "dict", "namespace"})
_PADDING: Final = frozenset({"center", "ljust", "rjust", "zfill", "to_bytes"})
_REFUSED: Final = frozenset({"expandtabs", "maketrans", "translate"})
_MAX_NODES: Final = 20_000  # the largest templates in use have some 1,300
_MAX_WIDTH: Final = 10_000
_MAX_BITS: Final = 20_000
_WIDE_PERCENT: Final = re.compile(r"\d{4}|\*")
_WIDE_BRACES: Final = re.compile(r"\{[^}]*(?:\d{4}|\{)")


class RefusedError(jinja2.TemplateError):
    """The template called raise_exception."""


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """`budget` is that of the rendering in progress: one at a time."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        self.budget = Budget(0)
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[GenerationTag, loopcontrols],
            finalize=self._output,
        )
        self.filters = {name: self._guarded(name, self.filters[name]) for name in _FILTERS.split()}
        self.filters["join"] = self._guarded("join", self._join)
        self.filters["tojson"] = self._guarded("tojson", self._tojson)
        self.globals = {name: self.globals[name] for name in _GLOBALS}
        self.globals["raise_exception"] = _raise_exception

    def compile_guarded(self, source: str) -> jinja2.Template:
        """Raises jinja2.TemplateSyntaxError, RecursionError for nesting beyond reason, LimitExceededError
        for a template of too many parts."""
        tree = self.parse(source)
        if sum(1 for _ in tree.find_all(nodes.Node)) > _MAX_NODES:
            raise LimitExceededError(f"has more than {_MAX_NODES} parts")
        tree = _Guards().visit(tree)
        tree.set_environment(self)
        with catch_warnings():  # Python's, about the code a silly template compiles to
            simplefilter("ignore", SyntaxWarning)
            code = self.compile(tree)
        return self.template_class.from_code(self, code, self.make_globals(None))

    # --- called from compiled templates ----------------------------------------------------------

    def tick(self) -> bool:
        self.budget.tick()
        return True

    def measured(self, value: Any) -> Any:
        return self.budget.made(value)

    def concatenated(self, *values: Any) -> str:
        """The ~ operator."""
        return self.concat(list(map(str, values)))

    def concat(self, parts: Iterable[str]) -> str:  # jinja2's is "".join
        parts = list(parts)
        self.budget.make(sum(map(len, parts)))
        return "".join(parts)

    def _output(self, value: Any) -> Any:
        text = value if isinstance(value, str) else str(value)
        self.budget.write(len(text))
        return text

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805  # as jinja2
        budget = __self.budget
        budget.tick()
        owner = getattr(__obj, "__self__", None)
        if owner is __self:
            return super().call(__context, __obj, *args, **kwargs)
        if isinstance(owner, str | bytes | int):
            args = __self._check_method(owner, __obj.__name__, args)
        return budget.made(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        self.budget.tick()
        if operator == "%" and isinstance(left, str | bytes):
            self._check_percent(str(left), right)
        elif operator == "+" and _sized(left) and _sized(right):
            self.budget.fit(len(left) + len(right))
        elif operator == "*" and isinstance(left, int) and _sized(right):
            self.budget.fit(max(left, 0) * self.budget.size(right))
        elif operator == "*" and isinstance(right, int) and _sized(left):
            self.budget.fit(max(right, 0) * self.budget.size(left))
        elif isinstance(left, int) and isinstance(right, int) and operator in ("*", "**"):
            bits = left.bit_length() + right.bit_length()
            if (max(right, 0) * left.bit_length() if operator == "**" else bits) > _MAX_BITS:
                raise LimitExceededError("computes with numbers of thousands of digits")
        return self.budget.made(super().call_binop(context, operator, left, right))

    def getattr(self, obj: Any, attribute: str) -> Any:
        return self._format_of(obj, attribute) or super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        return self._format_of(obj, argument) or super().getitem(obj, argument)

    # --- guards ----------------------------------------------------------------------------------

    def _format_of(self, obj: Any, attribute: Any) -> Callable[..., str] | None:
        """str.format and str.format_map, sandboxed and measured."""
        if isinstance(obj, str) and attribute in ("format", "format_map"):
            by_map = attribute == "format_map"
            return lambda *args, **kwargs: self._format(obj, *args, **(args[0] if by_map else kwargs))
        return None

    def _format(self, template: str, /, *args: Any, **kwargs: Any) -> str:
        if _WIDE_BRACES.search(template.replace("{{", "")):
            raise LimitExceededError("formats with a width of thousands of characters or of another value")
        self.budget.fit(template.count("{") * (self.budget.size((args, kwargs)) + 1000) + len(template))
        return SandboxedFormatter(self).vformat(template, args, kwargs)

    def _check_percent(self, template: str, values: Any) -> None:
        # Where exactly a directive ends is not worth parsing: no long number after the first one.
        if _WIDE_PERCENT.search(template.partition("%")[2]):
            raise LimitExceededError("formats with a width of thousands of characters or of another value")
        self.budget.fit(template.count("%") * (self.budget.size(values) + 1000) + len(template))

    def _check_method(self, owner: str | bytes | int, name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Arguments for the method `name` of a string or number, once its result is known to fit."""
        if name in _REFUSED:
            raise LimitExceededError(f"calls {name}(), which is not available")
        if name in _PADDING:
            _check_widths(args)
        elif name == "join" and args and isinstance(owner, str | bytes):
            items = list(self._counted(args[0]))
            self.budget.fit(sum(len(item) for item in items if _sized(item)) + len(items) * len(owner))
            return (items, *args[1:])
        elif name == "replace" and len(args) > 1:
            self._check_replace(owner, args[0], args[1])
        return args

    def _check_replace(self, text: Any, old: Any, new: Any) -> None:
        if _sized(text) and _sized(old) and _sized(new):
            found = text.count(old) if type(old) is type(text) else len(text)
            self.budget.fit(len(text) + found * max(0, len(new) - len(old)))

    def _guarded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The filter `name`, with its arguments checked and its result measured."""

        any_numbers = name in _ANY_NUMBERS.split()

        @wraps(function)  # keeps jinja2's mark of what the filter wants as its first argument
        def filtered(*args: Any, **kwargs: Any) -> Any:
            self.budget.tick()
            values = args[1:] if args and isinstance(args[0], _PASSED) else args
            options = (*values[1:], *kwargs.values())
            if not any_numbers:
                _check_widths(options)
            if name == "format":
                self._check_percent(str(values[0]), options)
            elif name == "replace" and len(options) > 1:
                self._check_replace(str(values[0]), str(options[0]), str(options[1]))
            elif name == "indent":
                width = max(
                    (v if isinstance(v, int) else len(v) for v in options if _sized_or_int(v)), default=4
                )
                self.budget.fit((str(values[0]).count("\n") + 1) * width)
            return self.budget.made(function(*args, **kwargs))

        return filtered

    def _counted(self, values: Iterable[Any]) -> Iterator[Any]:
        """`values`, of which a template may have made far too many."""
        total = 0
        for value in values:
            self.budget.tick()
            total += 1 + (len(value) if isinstance(value, str) else 0)
            self.budget.fit(total)
            yield value

    def _join(self, value: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
        if attribute is not None:
            path = str(attribute).split(".")
            value = (self._dig(item, path) for item in value)
        items = [str(item) for item in self._counted(value)]
        self.budget.fit(sum(map(len, items)) + len(items) * len(str(d)))
        return str(d).join(items)

    def _dig(self, item: Any, path: list[str]) -> Any:
        for part in path:
            item = self.getitem(item, int(part) if part.isdigit() else part)
        return item

    def _tojson(
        self,
        x: Any,
        ensure_ascii: bool = False,
        indent: int | str | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        """As transformers defines it: plain JSON, nothing escaped for HTML."""
        if separators is not None and max(map(len, separators)) > 16:
            raise LimitExceededError("writes JSON with long separators")
        encoder = json.JSONEncoder(
            ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )
        return "".join(self._counted(encoder.iterencode(x)) if indent is not None else [encoder.encode(x)])


_PASSED: Final = (Context, nodes.EvalContext, jinja2.Environment)


def _raise_exception(message: Any) -> None:
    raise RefusedError(str(message))


def _sized(value: Any) -> bool:
    return isinstance(value, str | bytes | list | tuple)


def _sized_or_int(value: Any) -> bool:
    return isinstance(value, str | int)


def _check_widths(values: Iterable[Any]) -> None:
    if any(isinstance(value, int) and abs(value) > _MAX_WIDTH for value in values):
        raise LimitExceededError(f"asks for a width of more than {_MAX_WIDTH}")


class GenerationTag(Extension):
    """`{% generation %}...{% endgeneration %}` marks what the model wrote, for training; here it only is
    its contents, in a scope of their own."""

    tags = {"generation"}  # noqa: RUF012  # as jinja2 declares it

    def parse(self, parser: Parser) -> nodes.Node:
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(lineno)


class _Guards(NodeTransformer):
    """Puts the environment's hooks where jinja2 compiles to plain Python."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802  # node class names, as jinja2
        self.generic_visit(node)
        tick = _hook("tick", [], node)
        node.body.insert(0, nodes.ExprStmt(tick).set_lineno(node.lineno))
        if node.test is not None:
            node.test = nodes.And(_hook("tick", [], node), node.test).set_lineno(node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _hook("concatenated", node.nodes, node)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _hook("measured", [node], node) if isinstance(node.arg, nodes.Slice) else node

    def visit_Name(self, node: nodes.Name) -> nodes.Node:  # noqa: N802
        collected = node.ctx == "load" and node.name in ("varargs", "kwargs")
        return _hook("measured", [node], node) if collected else node

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _hook("measured", [node], node) if node.ctx == "load" else node

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _hook("measured", [node], node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _hook("measured", [node], node)


def _hook(name: str, arguments: list[nodes.Expr], at: nodes.Node) -> nodes.Call:
    attribute = nodes.EnvironmentAttribute(name).set_lineno(at.lineno)
    call = nodes.Call(attribute, arguments, [], None, None)
    call.set_lineno(at.lineno)
    return call
