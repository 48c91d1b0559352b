"""The type stub of the native module names what the module has."""

from __future__ import annotations

import ast
from pathlib import Path

import pintpot
from pintpot import _native


def public(names: list[str]) -> set[str]:
    return {name for name in names if not name.startswith("_")}


def test_stub_matches_the_module() -> None:
    tree = ast.parse((Path(pintpot.__file__).parent / "_native.pyi").read_text())
    stub = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assert set(stub) == public(dir(_native))
    for name, node in stub.items():
        if isinstance(node, ast.ClassDef) and name != "Isa":
            members = [item.name for item in node.body if isinstance(item, ast.FunctionDef)]
            assert public(members) == public(dir(getattr(_native, name))), name
