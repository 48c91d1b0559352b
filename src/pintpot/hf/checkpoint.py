"""The weights of a Hugging Face folder: one safetensors file, or shards with an index."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from pintpot.errors import ModelFileError
from pintpot.hf.config import read_json
from pintpot.hf.safetensors import SafetensorsFile, StoredTensor

_SINGLE: Final = "model.safetensors"
_INDEX: Final = "model.safetensors.index.json"
_PART: Final = re.compile(r"model-\d{5}-of-(\d{5})\.safetensors")


class Checkpoint:
    """Every tensor of the folder by name."""

    def __init__(self, folder: Path) -> None:
        """Raises ModelFileError for a folder without weights, a missing shard, or a wrong index."""
        self.folder = folder
        index = folder / _INDEX
        listed = _read_index(index) if index.exists() else None
        names = sorted(set(listed.values())) if listed is not None else _parts(folder)
        self._files = {name: self._open(name) for name in names}
        found: dict[str, StoredTensor] = {}
        for name, file in self._files.items():
            for tensor in file.tensors.values():
                if tensor.name in found:
                    raise ModelFileError(
                        f"{file.path}: tensor {tensor.name} is in {found[tensor.name].file.path.name} too"
                    )
                if listed is not None and listed.get(tensor.name) != name:
                    raise ModelFileError(
                        f"{file.path}: tensor {tensor.name} is not where {_INDEX} says"
                        f" ({listed.get(tensor.name, 'nowhere')}): files of different downloads are mixed"
                    )
                found[tensor.name] = tensor
        missing = next((name for name in listed or () if name not in found), None)
        if missing is not None and listed is not None:
            raise ModelFileError(
                f"{folder / listed[missing]}: tensor {missing} is missing, {_INDEX} lists it:"
                " download the file again"
            )
        self.tensors: Mapping[str, StoredTensor] = MappingProxyType(found)

    def release(self) -> None:
        """See `SafetensorsFile.release`."""
        for file in self._files.values():
            file.release()

    def _open(self, name: str) -> SafetensorsFile:
        path = self.folder / name
        if not path.exists():
            raise ModelFileError(f"{path}: is missing, other files of the model need it: download it too")
        return SafetensorsFile(path)


def _read_index(path: Path) -> dict[str, str]:
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelFileError(f"{path}: weight_map is missing or no object: download the file again")
    for tensor, name in weight_map.items():
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise ModelFileError(f"{path}: tensor {tensor} is said to be in {name!r}, no .safetensors file")
    return weight_map


def _parts(folder: Path) -> list[str]:
    """File names where no index lists them."""
    if (folder / _SINGLE).exists():
        return [_SINGLE]
    totals = {match[1] for path in folder.iterdir() if (match := _PART.fullmatch(path.name))}
    if len(totals) == 1:
        total = totals.pop()
        return [f"model-{i:05}-of-{total}.safetensors" for i in range(1, int(total) + 1)]
    raise ModelFileError(
        f"{folder}: has neither {_SINGLE} nor {_INDEX}: only safetensors weights are converted"
    )
