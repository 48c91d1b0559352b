"""Names of quantizations and models, in any usual spelling.

A quantization: `Q4_K_M`, `q4_k_m`, `Q4-K-M`, `Q4KM`, `fp16`. A model: what people type or find on disk,

    gemma-4:4b-q4_k_m                           Ollama's name:tag
    hf.co/user/Qwen3-8B-GGUF:Q4_K_M             a repository and a quantization
    Qwen3.5-35B-A3B-Instruct-Q6_K.gguf          a file, also model.Q6_K.gguf and ...-00001-of-00003.gguf
    /models/llama-3.1-8b.f16.gguf               a path

Rules. A path counts by its last part; an address that starts with a host (a name with a dot, then a slash)
or has the form owner/name is a repository and kept verbatim. `.gguf`, the number of a split file, the word
GGUF and the tag `latest` say nothing about the model and are dropped. A quantization is looked for at the
end, after `-`, `_`, `.` or `:`. What remains is words between `-` or `:`; the first, from the second on, that
looks like a size (4b, 0.6b, 35b-a3b, 8x7b, e4b, 270m) is the size; words before it are the base name, those
after it the variant. Case does not matter: names are lower case, quantizations upper case.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from pintpot.errors import UsageError
from pintpot.gguf.metadata import show

# kind, bits, family (what follows in the type's name), level (how many tensors get more bits)
_FORMS: Final = (
    r"(?P<kind>Q)(?P<bits>[2-8])[_-]?(?P<family>K)(?:[_-]?(?P<level>XL|XS|S|M|L))?",
    r"(?P<kind>Q)(?P<bits>[1-8])[_-]?(?P<family>[01])",
    r"(?P<kind>IQ)(?P<bits>4)[_-]?(?P<family>NL)",
    r"(?P<kind>IQ)(?P<bits>[1-4])[_-]?(?P<level>XXS|XS|S|M)",
    r"(?P<kind>TQ)(?P<bits>[12])[_-]?(?P<family>0)",
    r"(?P<kind>MXFP|NVFP)(?P<bits>4)(?:[_-]?(?P<family>MOE))?",
    r"(?P<kind>BF)(?P<bits>16)",
    r"(?P<kind>F)P?(?P<bits>16|32)",
)
_QUANTS: Final = tuple(re.compile(form, re.IGNORECASE) for form in _FORMS)
_AT_END: Final = tuple(
    re.compile(rf"(?:(?P<rest>.*)[-_.:])?(?P<quant>{form})", re.IGNORECASE | re.DOTALL) for form in _FORMS
)
_SIZE: Final = re.compile(r"(?:\d+x|e)?\d+(?:\.\d+)?[bmkt]", re.IGNORECASE)
_ACTIVE: Final = re.compile(r"a\d+(?:\.\d+)?[bm]", re.IGNORECASE)
_SPLIT: Final = re.compile(r"-\d{5}-of-\d{5}$")
_REPOSITORY: Final = re.compile(r"(?:[\w-]+(?:\.[\w-]+)+/)?[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class QuantName:
    """A quantization's name taken apart: `Q4_K_M` is kind Q, 4 bits, family K, level M.

    `level` says how generous a mix is (S, M, L); IQ types have it without a family (`IQ4_XS`). `family` is
    "K", "0", "1", "NL", "MOE" or empty.
    """

    kind: str
    bits: int
    family: str = ""
    level: str = ""

    def __str__(self) -> str:
        return "_".join(filter(None, (f"{self.kind}{self.bits}", self.family, self.level)))


@dataclass(frozen=True, slots=True)
class ModelName:
    """A model's name taken apart. Empty strings and None stand for what the name does not say."""

    base: str  # gemma-4
    size: str = ""  # 4b, 35b-a3b
    variant: str = ""  # instruct-2507
    quant: QuantName | None = None
    repository: str = ""  # hf.co/user/repo, verbatim

    def __str__(self) -> str:
        """One spelling for all: `base:size-variant-quant`, of a repository `repository:QUANT`."""
        if self.repository:
            return f"{self.repository}:{self.quant}" if self.quant else self.repository
        quant = str(self.quant).lower() if self.quant else ""
        tag = "-".join(filter(None, (self.size, self.variant, quant)))
        return f"{self.base}:{tag}" if tag else self.base


def parse_quant(text: str) -> QuantName | None:
    """The quantization that `text` as a whole names; None when it names none."""
    for form in _QUANTS:
        match = form.fullmatch(text.strip())
        if match is not None:
            return _quant(match)
    return None


def renamed(stem: str, quant: str) -> str:
    """A file name without `.gguf`, made that of the same model as `quant`: what it says of its quantization
    and its place in a split is replaced. `model-F16` as Q4_K_M is `model-Q4_K_M`."""
    stem = _SPLIT.sub("", stem)
    for form in _AT_END:
        match = form.fullmatch(stem)
        if match is not None and match["rest"]:
            return f"{match['rest']}{stem[len(match['rest'])]}{quant}"
    return f"{stem}-{quant}"


def _quant(match: re.Match[str]) -> QuantName:
    found = {key: (value or "").upper() for key, value in match.groupdict().items()}
    return QuantName(found["kind"], int(found["bits"]), found.get("family", ""), found.get("level", ""))


def parse_model_name(text: str) -> ModelName:
    """Take a model's name apart; see the rules above. Raises UsageError when no name is in it."""
    rest, repository, quant = text.strip(), "", None
    address, colon, tag = rest.partition(":")
    if _REPOSITORY.fullmatch(address) and not rest.lower().endswith(".gguf"):
        repository = address
        rest = address.rsplit("/", 1)[-1] + colon + tag
    else:
        rest = re.split(r"[/\\]", rest)[-1]
    if rest.lower().endswith(".gguf"):
        rest = _SPLIT.sub("", rest[: -len(".gguf")])
    for form in _AT_END:
        match = form.fullmatch(rest)
        if match is not None:
            quant, rest = _quant(match), match["rest"] or ""
            break
    words = [word for word in re.split("[-:]", rest.lower()) if word and word not in ("gguf", "latest")]
    if not words:
        raise UsageError(f"{show(text)}: holds no model's name, expected something like gemma-4:4b-q4_k_m")
    at = next((i for i in range(1, len(words)) if _SIZE.fullmatch(words[i])), len(words))
    end = at + 1 + (at + 1 < len(words) and _ACTIVE.fullmatch(words[at + 1]) is not None)
    base, size, variant = ("-".join(part) for part in (words[:at], words[at:end], words[end:]))
    return ModelName(base, size, variant, quant, repository)
