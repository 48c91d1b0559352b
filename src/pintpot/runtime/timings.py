"""What an answer cost: counts and seconds."""

from __future__ import annotations

from dataclasses import dataclass

from pintpot.kernels.expert_slots import ExpertCounts


@dataclass(slots=True)
class Timings:
    """Counts and wall-clock seconds of one answer."""

    prompt_tokens: int = 0
    cached_tokens: int = 0  # of the prompt, found in the cache
    prompt_seconds: float = 0.0
    generated_tokens: int = 0
    decode_seconds: float = 0.0  # from the first token to the last
    drafted_tokens: int = 0  # guessed and computed
    accepted_tokens: int = 0  # of these, what the sampler chose too
    # Selections of experts in the steps it took part in, those of sequences beside it included, until and
    # after its first token; None without an accelerator.
    prompt_experts: ExpertCounts | None = None
    answer_experts: ExpertCounts | None = None

    def count(self, counts: ExpertCounts, *, answering: bool) -> None:
        """Adds a step's selections."""
        if answering:
            self.answer_experts = self.answer_experts or ExpertCounts()
            self.answer_experts.add(counts)
        else:
            self.prompt_experts = self.prompt_experts or ExpertCounts()
            self.prompt_experts.add(counts)

    @property
    def prompt_tokens_s(self) -> float:
        return _rate(self.prompt_tokens - self.cached_tokens, self.prompt_seconds)

    @property
    def decode_tokens_s(self) -> float:
        return _rate(self.generated_tokens - 1, self.decode_seconds)


def _rate(n: int, seconds: float) -> float:
    return n / seconds if seconds > 0 and n > 0 else 0.0
