"""From what a user types as MODEL to a file."""

from __future__ import annotations

from pathlib import Path

from pintpot.errors import ModelFileError

DEMO = "demo"


def resolve_model(name: str | Path) -> Path:
    """The GGUF file for a path or the name `demo`. Raises ModelFileError when there is none."""
    if name == DEMO:
        from pintpot.demo import demo_model_path

        return demo_model_path()
    path = Path(name).expanduser()
    if path.is_dir():
        files = sorted(p.name for p in path.glob("*.gguf"))
        hint = f"it holds {', '.join(files[:3])}" if files else "it holds no .gguf file"
        raise ModelFileError(f"{path}: is a folder; name a GGUF file ({hint})")
    if not path.exists():
        raise ModelFileError(
            f"{path}: no such file; give the path of a GGUF file, or `{DEMO}` for the built-in model"
        )
    if not path.is_file():
        raise ModelFileError(f"{path}: is not a regular file; give the path of a GGUF file")
    return path
