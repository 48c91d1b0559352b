"""The Python API: `load` a model, then `generate`, `chat` or ask for `logits`.

model = pintpot.load("file.gguf")
for piece in model.generate("Once upon a time", max_tokens=64):
    print(piece, end="")
"""

from __future__ import annotations

import operator
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pintpot.errors import TemplateError, UsageError
from pintpot.gguf import GGUFFile
from pintpot.hardware.cpu import default_threads
from pintpot.hardware.words import parse_bytes
from pintpot.kernels.expert_slots import ExpertCounts
from pintpot.kernels.open import AcceleratorKind
from pintpot.planner.limits import Limits, parse_tensor_rules
from pintpot.runtime.assembly import Assembled, HotExperts, assemble
from pintpot.runtime.experts import Profile, parse_policy
from pintpot.runtime.populate import populate
from pintpot.runtime.sampler import SamplingParams, TokenLogprob
from pintpot.runtime.sequence import FinishReason, Request
from pintpot.runtime.sequence import Sequence as EngineSequence
from pintpot.runtime.speculative import SpeculationParams, SpeculationType
from pintpot.runtime.timings import Timings
from pintpot.spec import ModelSpec, measure
from pintpot.spec.cache import KVType
from pintpot.store.resolve import resolve_model
from pintpot.tokenizer import ChatTemplate, Tokenizer

F32: TypeAlias = npt.NDArray[np.float32]
Message: TypeAlias = Mapping[str, Any]

MAX_THREADS = 1024
MAX_CTX_TOKENS = 1 << 30
_GUESSING = SpeculationParams()


@dataclass(frozen=True, slots=True)
class AcceleratorUse:
    """Bytes on the accelerator, by kind and at most so far, and what may be used of it."""

    name: str
    allowed_bytes: int
    used_bytes: int
    peak_bytes: int
    by_kind: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Bytes a loaded model takes. Weights are memory-mapped: the page cache holds them, once; what lies on
    an accelerator is a copy."""

    weights_bytes: int  # all tensors
    cache_bytes: int  # keys, values and recurrent state, when the context is full
    accelerator: AcceleratorUse | None = None


class Generation(Iterator[str]):
    """An answer under way: iterate for pieces of text. Facts about it grow as it does."""

    def __init__(self, llm: LLM, request: Request) -> None:
        self._llm = llm
        self._engine = llm.engine
        with llm.lock:
            llm.cancel_abandoned()
            self._sequence = self._engine.submit(request)
        self.text = ""
        self.logprobs: list[TokenLogprob] = []

    def __next__(self) -> str:
        while True:
            piece = self.step()
            if piece is None:
                raise StopIteration
            if piece:
                return piece

    def step(self) -> str | None:
        """One engine step: the text it brought (often empty while the prompt is read), None after the end."""
        events = self._sequence.events
        with self._llm.lock:
            # Another generation's step may have brought ours along.
            if not events:
                if self._sequence.finish_reason is not None:
                    return None
                self._llm.cancel_abandoned()
                self._engine.step()
        piece = ""
        while events:
            event = events.popleft()
            piece += event.text
            if event.logprob is not None:
                self.logprobs.append(event.logprob)
        self.text += piece
        return piece

    def __del__(self) -> None:
        # A loop left with `break` must not hold its slot. The lock may be held right here: leave a note.
        sequence = getattr(self, "_sequence", None)
        if sequence is not None and sequence.finish_reason is None:
            self._llm.abandoned.append(sequence)

    def cancel(self) -> None:
        """Stops the answer; the session goes on."""
        with self._llm.lock:
            self._engine.cancel(self._sequence)

    @property
    def tokens(self) -> list[int]:
        """The answer's tokens so far, the end-of-generation token included."""
        return self._sequence.answer

    @property
    def prompt_done(self) -> int:
        """Prompt tokens computed so far."""
        return self._sequence.prompt_done

    @property
    def finish_reason(self) -> FinishReason | None:
        return self._sequence.finish_reason

    @property
    def timings(self) -> Timings:
        return self._sequence.timings


class LLM:
    """A loaded model. Calls may come from several threads; they take turns."""

    def __init__(
        self,
        file: GGUFFile,
        assembled: Assembled,
        tokenizer: Tokenizer,
        template: ChatTemplate | None,
        n_threads: int,
    ) -> None:
        self.file = file
        self.assembled = assembled
        self.engine = assembled.engine
        self.tokenizer = tokenizer
        self.chat_template = template
        self.n_threads = n_threads
        self.lock = threading.Lock()
        self.abandoned: deque[EngineSequence] = deque()

    def cancel_abandoned(self) -> None:
        """Frees the slots of generations nobody holds any more; the caller holds `lock`."""
        while self.abandoned:
            self.engine.cancel(self.abandoned.popleft())

    @property
    def path(self) -> Path:
        """The model file (the first part of a split one)."""
        return self.file.path

    @property
    def spec(self) -> ModelSpec:
        return self.engine.model.spec

    @property
    def ctx_tokens(self) -> int:
        return self.engine.ctx_tokens

    @property
    def memory(self) -> MemoryUse:
        """What the model takes now."""
        use, memory = None, self.assembled.memory
        if memory is not None:
            by_kind = {str(kind): n for kind, n in memory.by_kind.items()}
            use = AcceleratorUse(
                memory.name, memory.limit_bytes, memory.used_bytes, memory.peak_bytes, by_kind
            )
        return MemoryUse(measure(self.file).weights_bytes, self.engine.state.nbytes, use)

    @property
    def expert_counts(self) -> ExpertCounts | None:
        """Hits, misses and uploads since the model was loaded; None without an accelerator."""
        return None if self.engine.experts is None else self.engine.experts.counts

    @property
    def notes(self) -> tuple[str, ...]:
        """What came out other than asked for, when it was loaded and since, in lines for the user."""
        experts = self.engine.experts
        return self.assembled.notes if experts is None else (*self.assembled.notes, *experts.notes)

    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        max_tokens: int | None = None,
        stop: str | Sequence[str] = (),
        logprobs: int | None = None,
        ignore_eos: bool = False,
        params: SamplingParams | None = None,
        **sampling: Any,
    ) -> Generation:
        """Continues a prompt (text, or token ids as they are).

        `sampling` are fields of SamplingParams (temperature, top_k, seed ...), or give `params` whole.
        `logprobs` n records each token's log-probability and those of the n most likely ones.
        Raises ContextLengthError when the prompt does not fit, UsageError for bad values.
        """
        if params is not None and sampling:
            raise UsageError(f"give params or {', '.join(sampling)}, not both")
        unknown = set(sampling) - set(SamplingParams.__dataclass_fields__)
        if unknown:
            known = ", ".join(SamplingParams.__dataclass_fields__)
            raise UsageError(
                f"unknown sampling parameter {', '.join(sorted(unknown))}: expected one of {known}"
            )
        ids = self._ids(prompt)
        stops = (stop,) if isinstance(stop, str) else tuple(stop)
        return Generation(
            self,
            Request(
                prompt=tuple(ids),
                params=params or SamplingParams(**sampling),
                max_tokens=max_tokens,
                stop=stops,
                n_logprobs=logprobs,
                ignore_eos=ignore_eos,
            ),
        )

    def chat(
        self, messages: Sequence[Message], *, tools: Sequence[Mapping[str, Any]] | None = None, **options: Any
    ) -> Generation:
        """Answers a conversation, `[{"role": "user", "content": "..."}]`, through the model's chat template.

        `options` are those of `generate`. Raises TemplateError when the file has no template.
        """
        return self.generate(self.render(messages, tools=tools), **options)

    def render(
        self, messages: Sequence[Message], *, tools: Sequence[Mapping[str, Any]] | None = None
    ) -> list[int]:
        """The tokens of a conversation, ready for the model's answer."""
        if self.chat_template is None:
            raise TemplateError(f"{self.path}: the file has no chat template; use generate() or --raw")
        text = self.chat_template.render(messages, tools=tools, add_generation_prompt=True)
        # Templates write the beginning-of-sequence token themselves when the model wants one.
        bos = self.tokenizer.bos_id
        starts_with_bos = bos is not None and text.startswith(self.tokenizer.decode([bos]))
        return self.tokenizer.encode(text, add_special=not starts_with_bos)

    def logits(self, tokens: str | Sequence[int]) -> F32:
        """Logits after each token of a fresh sequence, float32 [n_tokens, n_vocab]."""
        ids = self._ids(tokens)
        with self.lock:
            self.cancel_abandoned()
            return self.engine.logits(ids)

    def _ids(self, tokens: str | Sequence[int]) -> list[int]:
        if isinstance(tokens, str):
            return self.tokenizer.encode(tokens)
        try:
            return [operator.index(token) for token in tokens]
        except TypeError:
            raise UsageError("token ids are whole numbers: give those, or text") from None


def load(
    model: str | Path,
    *,
    ctx: int | None = None,
    threads: int | None = None,
    batch: int | None = None,
    slots: int = 1,
    cache_type_k: str | None = None,
    cache_type_v: str | None = None,
    accelerator: str = "auto",
    vram: int | str | None = None,
    n_gpu_layers: int | None = None,
    n_cpu_moe: int | None = None,
    override_tensor: Sequence[str] = (),
    gpu_experts: int | None = None,
    expert_policy: str = "adaptive",
    expert_profile: str | Path | None = None,
    spec_type: str | None = None,
    spec_ngram_simple_size_n: int = _GUESSING.size_n,
    spec_ngram_simple_size_m: int = _GUESSING.size_m,
) -> LLM:
    """Opens a GGUF file (or `demo`) for running. Weights stay memory-mapped; where memory holds them, their
    pages are brought in meanwhile.

    `ctx`: tokens the context holds (None: what the model was trained for, at most 32,768, halved until
    its cache fits this machine's memory); `threads`: None for one a physical core; `batch`: prompt tokens
    computed together (None: 512, or what the plan for an accelerator says); `slots`: sequences kept side by
    side; `cache_type_k/v`: f32, f16 or q8_0 (None: f16, or what the plan says).

    `accelerator`: none, cuda, cpu (emulated in `vram` bytes of this machine's memory, for rehearsals), or
    auto. The rest parts the model between it and the CPU as `pintpot plan` would, within what is given:
    `vram` (bytes, or "16GiB"), `n_gpu_layers`, `n_cpu_moe`, `override_tensor` (PATTERN=CPU or =GPU), and
    `gpu_experts`, the slots for experts in every layer. `expert_policy` (adaptive, static, lru, lfu) decides
    which experts have them, beginning with the likeliest of `expert_profile`, an importance matrix (None:
    `<model>.imatrix.gguf` beside the file, where there is one; "none": no profile).

    `spec_type`: how tokens are guessed, to verify several in one step: none, or ngram-simple, which takes
    those that followed the last `spec_ngram_simple_size_n` tokens when they occurred before, at most
    `spec_ngram_simple_size_m` of them, and rests where that loses. On the CPU it changes no bit of an answer
    and is the default; with an accelerator it changes rounding, and the default is none.

    Raises ModelFileError, UnsupportedError, UsageError, AcceleratorError, or MemoryLimitError for a `ctx` or
    `batch` that the memory cannot hold.
    """
    from pintpot.expert_profile import find_profile
    from pintpot.kernels.cpu import CpuOps

    file = GGUFFile.open(resolve_model(model))
    tokenizer = Tokenizer.from_metadata(file.metadata, str(file.path))
    template = ChatTemplate.from_metadata(file.metadata, tokenizer)
    n_threads = default_threads() if threads is None else threads
    if n_threads > MAX_THREADS:
        raise UsageError(f"threads is {n_threads}: expected at most {MAX_THREADS}")
    for name, value in (("threads", n_threads), ("batch", batch), ("slots", slots)):
        if value is not None and value < 1:
            raise UsageError(f"{name} is {value}: expected at least 1")
    if ctx is not None and not 1 <= ctx <= MAX_CTX_TOKENS:
        raise UsageError(f"ctx is {ctx}: expected 1 to {MAX_CTX_TOKENS:,}")
    limits = Limits(
        vram_bytes=parse_bytes("--vram", vram) if isinstance(vram, str) else vram,
        ctx_tokens=ctx,
        type_k=None if cache_type_k is None else KVType.parse(cache_type_k),
        type_v=None if cache_type_v is None else KVType.parse(cache_type_v),
        n_batch=batch,
        n_gpu_layers=n_gpu_layers,
        n_cpu_moe=n_cpu_moe,
        override_tensors=parse_tensor_rules(override_tensor),
        n_gpu_experts=gpu_experts,
        n_threads=n_threads,
        n_slots=slots,
    )
    kind = AcceleratorKind.parse(accelerator)
    guesses = None if spec_type is None else SpeculationType.parse(spec_type)
    policy = parse_policy(expert_policy)
    profile: Profile | None = None
    notes: tuple[str, ...] = ()
    if kind not in {AcceleratorKind.AUTO, AcceleratorKind.NONE}:
        profile, notes = find_profile(expert_profile, file.path, ModelSpec.from_gguf(file))
    made = assemble(file, tokenizer, CpuOps(n_threads), kind, limits, HotExperts(policy, profile))
    made = replace(made, notes=(*made.notes, *notes))
    if guesses is None:
        guesses = SpeculationType.NGRAM_SIMPLE if made.memory is None else SpeculationType.NONE
    made.engine.speculate(SpeculationParams(guesses, spec_ngram_simple_size_n, spec_ngram_simple_size_m))
    populate(file, [name for name in file.tensors if made.reads_in_ram(name)], made.engine.state.nbytes)
    return LLM(file, made, tokenizer, template, n_threads)
