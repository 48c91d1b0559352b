"""Headers of GGUF files on the Hugging Face hub, read without downloading the files.

`GET /api/models/REPO/tree/main?recursive=true` lists files, `GET /REPO/resolve/main/PATH` is one; of it range
requests that grow fetch the header, until it parses. `GET /api/models?filter=TAG` lists repositories. No
credentials are sent.
"""

from __future__ import annotations

import http.client
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from pintpot.errors import ModelFileError, PintpotError, UnsupportedError, UsageError
from pintpot.gguf import GGUFFile
from pintpot.gguf.header import MAGIC
from pintpot.gguf.metadata import show
from pintpot.quants.names import parse_model_name, parse_quant

HUB_URL: Final = "https://huggingface.co"
DEFAULT_QUANT: Final = "Q4_K_M"

_ADDRESS: Final = re.compile(
    r"(?:https://)?(?:hf\.co|huggingface\.co)/(?P<repo>[\w.-]+/[\w.-]+)(?::(?P<quant>[\w.-]+))?/?"
)
_REPO: Final = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_GROWTH: Final = 4  # a vocabulary of 250,000 tokens takes 11 MiB: three requests
_MAX_HEADER_BYTES: Final = 256 << 20
_LIST_BYTES: Final = 16 << 20
_SPLIT: Final = re.compile(r"-(?P<no>\d{5})-of-(?P<count>\d{5})\.gguf$")
_NOT_A_MODEL: Final = re.compile(r"mmproj|imatrix", re.IGNORECASE)
_NEXT: Final = re.compile(r'<(?P<url>[^>]+)>;\s*rel="next"')
_MAX_PAGES: Final = 20


class HubError(PintpotError):
    """The hub cannot be reached, or has not what was asked for."""


@dataclass(frozen=True, slots=True)
class HubModel:
    """A model on the hub: `user/name`, and the quantization that was asked for ("" for none)."""

    repo: str
    quant: str = ""

    @classmethod
    def parse(cls, text: str) -> HubModel | None:
        """What `hf.co/user/repo[:QUANT]` says; None for a text that is no such address.

        Raises UsageError for a quantization that is none.
        """
        match = _ADDRESS.fullmatch(text.strip())
        if match is None:
            return None
        wanted = match["quant"] or ""
        named = (
            parse_quant(wanted.removeprefix("UD-")) if wanted else None
        )  # Unsloth's mixes of the same name
        if wanted and named is None:
            raise UsageError(
                f"{text}: {show(wanted)} is no quantization, expected one such as {DEFAULT_QUANT}"
            )
        return cls(match["repo"], str(named) if named else "")

    def __str__(self) -> str:
        return f"hf.co/{self.repo}"


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository."""

    path: str
    nbytes: int

    @property
    def quant(self) -> str:
        """The quantization its name says; "" for none."""
        stem = _SPLIT.sub(".gguf", self.path.rsplit("/", 1)[-1]).removesuffix(".gguf")
        quant = parse_quant(stem) or parse_model_name(stem + ".gguf").quant
        return str(quant) if quant else ""


@dataclass(frozen=True, slots=True)
class Hub:
    """A hub to ask. Every method raises HubError, one line, when it cannot be reached or answers oddly."""

    base_url: str = HUB_URL
    timeout_s: float = 10.0
    first_bytes: int = 1 << 20  # of the first range request

    def files(self, model: HubModel) -> tuple[HubFile, ...]:
        """GGUF models of the repository, without projectors and importance matrices."""
        url: str | None = f"{self.base_url}/api/models/{quote(model.repo)}/tree/main?recursive=true"
        found: list[HubFile] = []
        for _ in range(_MAX_PAGES):
            if url is None:
                break
            raw, headers = self._get(url, str(model), None, _LIST_BYTES)
            found += _gguf_files(model, raw)
            following = _NEXT.search(headers.get("Link", ""))
            url = following["url"] if following and following["url"].startswith(self.base_url) else None
        return tuple(found)

    def gguf_repo_of(self, repo: str) -> str:
        """The most downloaded GGUF repository that names `repo` as the model it was quantized from."""
        tags = f"filter={quote(f'base_model:quantized:{repo}', safe='')}&filter=gguf"
        url = f"{self.base_url}/api/models?{tags}&sort=downloads&direction=-1&limit=1"
        raw, _ = self._get(url, f"hf.co/{repo}", None, _LIST_BYTES)
        try:
            found = [str(item["id"]) for item in json.loads(raw)]
        except (ValueError, KeyError, TypeError) as error:
            raise HubError(
                f"hf.co/{repo}: the server's list of repositories is none that this version can read"
            ) from error
        if not found or _REPO.fullmatch(found[0]) is None:
            raise HubError(f"hf.co/{repo}: the hub knows no GGUF repository of it")
        return found[0]

    def choose(self, model: HubModel) -> tuple[str, tuple[HubFile, ...]]:
        """(quantization, its files in the order of parts): the one asked for, else the only one, else Q4_K_M.

        Raises UsageError for one that is not there.
        """
        files = self.files(model)
        if not files:
            raise HubError(f"{model}: holds no .gguf file; look for a repository of the model's GGUF files")
        kinds = {file.quant for file in files}
        wanted = model.quant or (next(iter(kinds)) if len(kinds) == 1 else DEFAULT_QUANT)
        chosen = [file for file in files if file.quant == wanted]
        if not chosen:
            listed = ", ".join(sorted(kind for kind in kinds if kind))
            raise UsageError(
                f"{model}: has no {wanted} file, but {listed or 'files that name no quantization'}"
            )
        return wanted, parts_of(model, chosen)

    def open_header(self, model: HubModel) -> tuple[str, GGUFFile]:
        """(quantization, model of which only the header exists) by range requests of a few MiB.

        Raises ModelFileError for a damaged header, UsageError for a quantization that is not there.
        """
        wanted, parts = self.choose(model)
        headers = [self._header(model, part) for part in parts]
        for file in headers:
            for tensor in file.tensors.values():
                if tensor.type is None:
                    raise UnsupportedError(
                        f"{file.path}: tensor {show(tensor.name)} is of {tensor.type_name}, whose "
                        "size this version does not know"
                    )
        return wanted, GGUFFile.joined(headers)

    def _header(self, model: HubModel, file: HubFile) -> GGUFFile:
        where = f"{model}/{file.path}"
        url = f"{self.base_url}/{quote(model.repo)}/resolve/main/{quote(file.path)}"
        known, most, end = b"", min(file.nbytes, _MAX_HEADER_BYTES), self.first_bytes
        while True:
            stop = min(end, most)
            if stop > len(known):
                known += self._get(url, where, (len(known), stop), stop - len(known))[0]
            try:
                return GGUFFile.from_header(Path(where), known)
            except ModelFileError:
                # Too short a piece cannot be told from damage until there is no more to come.
                if known[:4] != MAGIC or stop == most:
                    raise
            end *= _GROWTH

    def _get(
        self, url: str, where: str, span: tuple[int, int] | None, most: int
    ) -> tuple[bytes, http.client.HTTPMessage]:
        """(body, headers) of at most `most` bytes; `span`: bytes [start, stop) only."""
        request = Request(url, headers={"User-Agent": "pintpot"})
        if span is not None:
            request.add_header("Range", f"bytes={span[0]}-{span[1] - 1}")
        try:
            with urlopen(request, timeout=self.timeout_s) as answer:
                if span is not None and answer.status != http.client.PARTIAL_CONTENT:
                    raise HubError(
                        f"{where}: the server sends whole files only; download it and give its path"
                    )
                body: bytes = answer.read(most)
                if span is not None and len(body) < most:
                    raise HubError(f"{where}: the server sent {len(body)} of {most} bytes; try again")
                return body, answer.headers
        except HTTPError as error:
            raise HubError(_refusal(where, error)) from error
        except TimeoutError as error:
            raise HubError(f"{where}: no answer within {self.timeout_s:g} s; try again") from error
        except (URLError, OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            if isinstance(reason, TimeoutError):
                raise HubError(f"{where}: no answer within {self.timeout_s:g} s; try again") from error
            raise HubError(
                f"{where}: {self.base_url} cannot be reached ({reason}); offline, give the path of a GGUF "
                "file or a model of the catalog"
            ) from error


def _refusal(where: str, error: HTTPError) -> str:
    with error:
        if error.code in (401, 403, 404):
            return f"{where}: is not there, or not public (HTTP {error.code}); check the name"
        return f"{where}: the server answers HTTP {error.code} {error.reason}; try again later"


def _gguf_files(model: HubModel, raw: bytes) -> list[HubFile]:
    try:
        items: Any = json.loads(raw)
        found = [
            HubFile(str(item["path"]), int(item["size"]))
            for item in items
            if item.get("type") == "file" and str(item["path"]).lower().endswith(".gguf")
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HubError(f"{model}: the server's list of files is none that this version can read") from error
    return [file for file in found if not _NOT_A_MODEL.search(file.path)]


def parts_of(model: HubModel, files: list[HubFile]) -> tuple[HubFile, ...]:
    """One model's files among those of a quantization: the first by name, and if it is a part, all parts.

    Raises HubError where a part is missing.
    """
    files = sorted(files, key=lambda file: (file.path.count("/"), file.path))
    split = _SPLIT.search(files[0].path)
    if split is None:
        return (files[0],)
    stem, count = files[0].path[: split.start()], int(split["count"])
    by_path = {file.path: file for file in files}
    names = [f"{stem}-{i + 1:05}-of-{count:05}.gguf" for i in range(count)]
    missing = next((name for name in names if name not in by_path), None)
    if missing is not None:
        raise HubError(f"{model}/{missing}: this part of the model is missing")
    return tuple(by_path[name] for name in names)
