"""Routing to try policies of the hot set on: simulated, and recorded from the demo model reading text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

import pintpot
from pintpot.demo import demo_text_path
from pintpot.kernels.api import I32, Segment
from pintpot.spec import MoEFFN
from pintpot.synth.routing import simulate_routing

F64 = npt.NDArray[np.float64]

_PROFILE_TOPICS: Final = 16
_DEMO_WINDOW: Final = 1024  # the demo's context


@dataclass(frozen=True, slots=True)
class Conversation:
    """Experts chosen for a prompt and for its answer, int32 [n_layers, n_tokens, n_used] each."""

    prompt: I32
    answer: I32


@dataclass(frozen=True, slots=True)
class Trace:
    """Conversations, one after the other, and how often each expert was chosen in other ones."""

    name: str
    profile: F64  # [n_layers, n_expert]
    conversations: tuple[Conversation, ...]

    @property
    def n_layers(self) -> int:
        return int(self.profile.shape[0])

    @property
    def n_expert(self) -> int:
        return int(self.profile.shape[1])

    @property
    def n_used(self) -> int:
        return int(self.conversations[0].answer.shape[2])

    @property
    def selections_a_token(self) -> int:
        return self.n_layers * self.n_used


def simulated(
    n_expert: int,
    n_used: int,
    n_layers: int,
    *,
    n_conversations: int = 8,
    prompt_tokens: int = 256,
    answer_tokens: int = 512,
    drifting: bool = False,
    seed: int = 1,
) -> Trace:
    """By `pintpot.synth.routing`, every conversation on a topic of its own. `drifting`: the second half of
    every answer is on another topic, which no prompt announces."""
    length = prompt_tokens + answer_tokens
    n_topics = _PROFILE_TOPICS + n_conversations
    routes = simulate_routing(n_expert, n_used, n_layers, n_topics * length, n_prompts=n_topics, seed=seed)
    topics = np.split(np.ascontiguousarray(routes.transpose(1, 0, 2)), n_topics, axis=1)
    live = topics[_PROFILE_TOPICS:]
    if drifting:
        half = length - answer_tokens // 2
        following = [*live[1:], live[0]]
        live = [
            np.concatenate([a[:, :half], b[:, half:]], axis=1) for a, b in zip(live, following, strict=True)
        ]
    name = f"simulated, {n_used} of {n_expert}" + (", the topic changes" if drifting else "")
    return _trace(name, n_expert, topics[:_PROFILE_TOPICS], live, prompt_tokens)


def recorded_demo(n_windows: int = 32, prompt_tokens: int = 256) -> Trace:
    """The demo model reading its held-out pages in windows of its context: the profile is of the first half
    of them, and in each of the second half the first `prompt_tokens` count as prompt, the rest as answer."""
    llm = pintpot.load("demo", ctx=_DEMO_WINDOW, batch=_DEMO_WINDOW)
    ids = llm.tokenizer.encode(demo_text_path().read_text(encoding="utf-8"))
    starts = np.linspace(0, len(ids) - _DEMO_WINDOW, n_windows).astype(int)
    windows = [_routes(llm, ids[start : start + _DEMO_WINDOW]) for start in starts]
    ffn = llm.engine.model.spec.layers[0].ffn
    assert isinstance(ffn, MoEFFN)
    name = f"demo model, {ffn.n_expert_used} of {ffn.n_expert}"
    return _trace(name, ffn.n_expert, windows[: n_windows // 2], windows[n_windows // 2 :], prompt_tokens)


def _routes(llm: pintpot.LLM, ids: Sequence[int]) -> I32:
    """int32 [n_layers, n_tokens, n_used] of a fresh sequence."""
    model, state, n = llm.engine.model, llm.engine.state, len(ids)
    state.reset(0)
    routes: dict[int, I32] = {}
    every = np.arange(n, dtype=np.int32)
    model.forward(np.array(ids, np.int32), model.ops.batch([Segment(0, 0, n)]), state, every, routes)
    return np.stack([routes[layer] for layer in sorted(routes)])


def _trace(
    name: str, n_expert: int, profiled: Sequence[I32], live: Sequence[I32], prompt_tokens: int
) -> Trace:
    together = np.concatenate(profiled, axis=1)
    counts = np.stack([np.bincount(layer.reshape(-1), minlength=n_expert) for layer in together])
    conversations = tuple(Conversation(ids[:, :prompt_tokens], ids[:, prompt_tokens:]) for ids in live)
    return Trace(name, counts.astype(np.float64), conversations)
