"""A machine in a temporary folder."""

import pytest
from machines import desktop, write

from pintpot.hardware.probe import probe_below
from pintpot.hardware.tree import Tree


@pytest.fixture
def machine(tmp_path):
    """A function: the desktop with some files other (None: absent), as a Tree."""

    def make(changes=None):
        files = desktop() | (changes or {})
        write(tmp_path / "root", {name: text for name, text in files.items() if text is not None})
        return Tree(tmp_path / "root")

    return make


@pytest.fixture
def probed(machine, tmp_path):
    """A function: probes the desktop with some files other, without what was measured before."""

    def probe(changes=None, nvml=None, cpus=range(8)):
        return probe_below(machine(changes), nvml, frozenset(cpus), tmp_path / "cache")

    return probe
