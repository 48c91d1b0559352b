"""Coverage-guided fuzzing of opening a GGUF file and reading its ModelSpec, with atheris.

    pip install atheris && PYTHONPATH=src python tests/fuzz/fuzz_gguf.py CORPUS [libFuzzer flags]

Fills CORPUS with toy files first when it is empty. Whatever escapes as another exception than
ModelFileError is a finding; add the reproducer to tests/unit/gguf/corpus as a .bin file.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["pintpot"]):
    from pintpot.errors import ModelFileError
    from pintpot.gguf import GGUFFile
    from pintpot.spec import ModelSpec, measure, summarize_types

sys.path.insert(0, str(Path(__file__).parent.parent / "unit"))

_SHARED_MEMORY = Path("/dev/shm")
_FOLDER = tempfile.TemporaryDirectory(dir=_SHARED_MEMORY if _SHARED_MEMORY.exists() else None)
_FILE = Path(_FOLDER.name) / "model-00001-of-00002.gguf"


def read_everything(path: Path) -> None:
    """What every command does with a file before it touches a weight."""
    try:
        file = GGUFFile.open(path)
        for key in file.metadata:
            file.metadata[key]
        for name in file.tensors:
            if file.data(name).nbytes != file.tensors[name].nbytes:
                raise AssertionError(f"{name} does not lie in the file")
        summarize_types(file)
        measure(file, ModelSpec.from_gguf(file))
    except ModelFileError as error:
        if "\n" in str(error) or len(str(error)) > 1000:
            raise AssertionError(f"no clear line: {error}") from error


def one_input(data: bytes) -> None:
    _FILE.write_bytes(data)
    read_everything(_FILE)


def main() -> None:
    corpus = Path(sys.argv[1])
    corpus.mkdir(parents=True, exist_ok=True)
    if not any(corpus.iterdir()):
        from toy_files import METADATA, write_toy

        for kind in METADATA:
            write_toy(corpus / kind, kind)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
