"""What a trained demo model amounts to, measured and as Markdown: the end of `demo.md`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 (PyTorch's own idiom)

from demo.chat import turn
from demo.corpus import END_OF_TEXT, token_id

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

    from demo.model import DemoModel

HEADING = "## Training figures\n"
_QUESTIONS = (
    "What does os.path.join do?",
    "What does textwrap.wrap do?",
    "What is a generator?",
    "What is the json module for?",
)
_CONTINUED = "# `teapot` — Boil water\n\nThis module"


@torch.no_grad()
def heldout_loss(
    model: DemoModel, ids: NDArray[np.int32], ctx: int, max_rows: int | None = None
) -> tuple[float, torch.Tensor]:
    """(mean nats a token, share of selections per layer and expert).

    Over consecutive windows of `ctx` tokens, each read from an empty context; `max_rows`: the first only.
    """
    rows = (len(ids) - 1) // ctx
    rows = rows if max_rows is None else min(rows, max_rows)
    total = 0.0
    share = torch.zeros(model.cfg.n_layer, model.cfg.n_expert)
    for first in range(0, rows, 4):
        starts = range(first, min(first + 4, rows))
        window = torch.tensor([ids[r * ctx : (r + 1) * ctx + 1].tolist() for r in starts])
        out = model(window[:, :-1])
        total += F.cross_entropy(out.logits, window[:, 1:].reshape(-1), reduction="sum").item()
        share += out.expert_share * (len(starts) / rows)
    return total / (rows * ctx), share


@torch.no_grad()
def generate(model: DemoModel, tokenizer: Tokenizer, prompt: str, n_tokens: int) -> str:
    """The greedy continuation of `prompt`, up to an end token or the context's end."""
    ids = tokenizer.encode(prompt, add_special_tokens=False).ids
    ends = {token_id(tokenizer, "<|im_end|>"), token_id(tokenizer, END_OF_TEXT)}
    answer: list[int] = []
    for _ in range(min(n_tokens, model.cfg.ctx_train - len(ids))):
        token = int(model(torch.tensor([[*ids, *answer]])).logits[-1].argmax())
        if token in ends:
            break
        answer.append(token)
    return tokenizer.decode(answer)


def chat_prompt(question: str) -> str:
    """A first question as the chat template writes it."""
    return turn("user", question) + "<|im_start|>assistant\n"


def figures(
    model: DemoModel,
    tokenizer: Tokenizer,
    heldout_ids: NDArray[np.int32],
    heldout_bytes: int,
    progress: dict[str, float],
) -> str:
    """Markdown: HEADING, a table of what was measured, and answers as they come."""
    loss, share = heldout_loss(model, heldout_ids, model.cfg.ctx_train)
    per_byte = loss * len(heldout_ids) / heldout_bytes
    ordered = share.sort(dim=1, descending=True).values
    top4, least = ordered[:, :4].sum(dim=1).tolist(), ordered[:, -1].tolist()
    rows = {
        "Steps, tokens seen": f"{progress['step']:,}, {progress['tokens'] / 1e6:.2f} M",
        "Time": f"{progress['seconds'] / 60:.0f} minutes on 2 shared CPU cores",
        f"Held-out perplexity, windows of {model.cfg.ctx_train} tokens": f"{math.exp(loss):.2f} a token "
        f"({loss:.3f} nats), {math.exp(per_byte):.3f} a byte ({per_byte / math.log(2):.3f} bits)",
        "Share of selections the 4 busiest of 16 experts get, by layer": ", ".join(f"{s:.0%}" for s in top4),
        "… and the least busy one (even: 6.2%)": ", ".join(f"{s:.1%}" for s in least),
    }
    out = [HEADING, "| | |\n| --- | --- |\n" + "".join(f"| {k} | {v} |\n" for k, v in rows.items())]
    out.append("Greedy answers, as they come (what it gets right it has by heart):\n")
    answers = ((q, generate(model, tokenizer, chat_prompt(q), 80)) for q in _QUESTIONS)
    out.extend(f"> **{question}**\n" + _quoted(answer) for question, answer in answers)
    out.append("And a continuation (`--raw`):\n")
    out.append(_quoted(_CONTINUED + generate(model, tokenizer, _CONTINUED, 80)))
    return "\n".join(out)


def _quoted(text: str) -> str:
    return ">\n" + "".join(f"> {line}".rstrip() + "\n" for line in text.strip().split("\n"))
