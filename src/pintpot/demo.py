"""Where the built-in demo model and its held-out text lie (`pintpot/data/demo.md` says what they are)."""

from __future__ import annotations

from pathlib import Path

from pintpot.errors import ModelFileError

DATA = Path(__file__).parent / "data"


def demo_model_path() -> Path:
    """The demo model, an F16 GGUF. Raises ModelFileError where the installation lacks it."""
    return _data_file("demo.gguf")


def demo_text_path() -> Path:
    """The held-out text: documentation pages the demo model was not trained on, UTF-8.

    Raises ModelFileError where the installation lacks it.
    """
    return _data_file("demo-heldout.txt")


def _data_file(name: str) -> Path:
    path = DATA / name
    if not path.is_file():
        raise ModelFileError(f"{path}: the demo is not part of this installation; install pintpot again")
    return path
