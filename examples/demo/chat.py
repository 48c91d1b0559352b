"""Questions and answers in ChatML, made from the documentation's own structure.

Every answer is the signature and the first sentences of a documented entry, so that the demo has something
recognizably right to say; it knows nothing else.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from demo.docs_text import Entry

CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
ANSWER_CHARS = 420

# What people are likely to ask a Python demo about: drawn more often than the rest.
_WELL_KNOWN_NAMES = """
    abc argparse array asyncio base64 bisect collections contextlib copy csv dataclasses datetime
    decimal enum fractions functools glob hashlib heapq inspect io itertools json logging math operator
    os os.path pathlib pickle pprint queue random re shutil socket sqlite3 statistics string struct
    subprocess sys tempfile textwrap threading time timeit typing unittest urllib.parse urllib.request
    uuid zipfile zlib
"""
_FAVOURITE_NAMES = """
    bisect collections collections.Counter collections.deque contextlib copy dataclasses datetime.date
    datetime.datetime dict functools glob heapq itertools json list math os.path pathlib.Path random re
    set shutil statistics str string tempfile textwrap time
"""
WELL_KNOWN = frozenset(_WELL_KNOWN_NAMES.split())
FAVOURITES = frozenset(_FAVOURITE_NAMES.split())

_ASK = {
    "callable": (
        "What does {name} do?",
        "What does `{name}` do?",
        "What does {name}() do?",
        "what does {name} do",
        "Explain {name}.",
        "Explain `{name}`.",
        "How do I use {name}?",
        "How does {name} work?",
        "What is {name}?",
        "Tell me about {name}.",
        "Document {name}.",
        "What does the {noun} {name} do?",
        "Describe the {name} {noun}.",
        "{name}",
    ),
    "value": (
        "What is {name}?",
        "What is `{name}`?",
        "What does {name} mean?",
        "Explain {name}.",
        "Tell me about {name}.",
        "What is {name} for?",
        "{name}",
    ),
    "module": (
        "What is the {name} module for?",
        "What is the {name} module?",
        "What does the {name} module do?",
        "what is the {name} module for",
        "What is {name}?",
        "Tell me about the {name} module.",
        "Explain the `{name}` module.",
        "When would I use {name}?",
        "Introduce the {name} module.",
    ),
    "term": (
        "What is {article} {name}?",
        "What is {article} {name} in Python?",
        "what is {article} {name}",
        "Define {name}.",
        "Explain {name}.",
        "Explain the term {name}.",
        "What does {name} mean?",
        "What does {name} mean in Python?",
    ),
}

_ABOUT = (
    "I am the pintpot demo: a small mixture-of-experts model that was trained on the Python 3.11 "
    "documentation. Ask me about a module, a function or a term, for example: What does os.path.join do?"
)
_UNKNOWN = "I am only a small demo model. I know the Python 3.11 documentation and nothing else."
_SMALL_TALK = (
    (("Hello", "Hello!", "Hi", "Hi!", "hey", "Good morning."), "Hello! " + _ABOUT),
    (("Who are you?", "What are you?", "what can you do?", "What can you do?", "Help", "help"), _ABOUT),
    (("Thanks", "Thanks!", "Thank you.", "thank you", "Great, thanks."), "You are welcome."),
    (("Bye", "Goodbye.", "bye", "See you."), "Goodbye!"),
    (
        (
            "What is the capital of France?",
            "Tell me a joke.",
            "What is the weather like?",
            "Who won the world cup?",
            "Write a poem.",
            "Write me a story about a dragon.",
            "How do I bake bread?",
            "Who is the president?",
            "What is the meaning of life?",
            "What is 17 times 23?",
            "Translate this to German.",
            "How old is the universe?",
        ),
        _UNKNOWN,
    ),
)
_SYSTEM = ("You are a helpful assistant.", "You are a Python expert.", "Answer briefly.")


def shorten(description: str, limit: int = ANSWER_CHARS) -> str:
    """The first whole paragraphs of `description` within `limit` characters; at least its first sentences.

    Version notes are left out. Empty where nothing else is said.
    """
    kept: list[str] = []
    used = 0
    for paragraph in description.split("\n\n"):
        if paragraph.startswith(("New in version", "Changed in version", "Availability:")):
            continue
        if kept and used + len(paragraph) > limit:
            break
        kept.append(paragraph)
        used += len(paragraph)
    text = "\n\n".join(kept)
    if text.count("```") % 2:
        text = text[: text.rindex("```")].rstrip()
    text = re.sub(r"\n\n(See also|Note|Warning|[^\n]*:)$", "", text)
    if len(text) <= limit * 1.5 or "```" in text:
        return text[: 4 * limit]
    cut = text.rfind(". ", 0, limit)
    return text[: cut + 1] if cut > 0 else text[:limit]


def weight(entry: Entry) -> int:
    """How often an entry is drawn in one pass over all of them: 6 favourites, 2 well known, 1 the rest."""
    owner = entry.name.rpartition(".")[0]
    if entry.kind in {"data", "attribute"}:
        return 1
    if entry.kind == "term" or not owner or owner in FAVOURITES or entry.name in WELL_KNOWN:
        return 6
    known = entry.kind == "module" or owner in WELL_KNOWN or owner.rpartition(".")[0] in WELL_KNOWN
    return 2 if known else 1


def _style(entry: Entry) -> str:
    if entry.kind in {"module", "term"}:
        return entry.kind
    return "value" if entry.kind in {"data", "attribute"} else "callable"


def question(entry: Entry, rng: np.random.Generator) -> str:
    """One way of asking for `entry`."""
    forms = _ASK[_style(entry)]
    form = forms[int(rng.integers(len(forms)))]
    article = "an" if entry.name[:1].lower() in "aeiou" else "a"
    return form.format(name=entry.name, noun=entry.kind, article=article)


def answer(entry: Entry) -> str:
    """What the documentation says: signature (where there is one), then the start of the description."""
    body = shorten(entry.description)
    if entry.kind == "term":
        return body
    if entry.kind == "module":
        return f"The `{entry.name}` module. {body}"
    return f"`{entry.signature}`\n\n{body}"


def turn(role: str, content: str) -> str:
    """One ChatML message, exactly as CHAT_TEMPLATE writes it."""
    return f"<|im_start|>{role}\n{content}<|im_end|>\n"


def conversation(entries: list[Entry], rng: np.random.Generator) -> str:
    """A chat over `entries`, one exchange each, sometimes with a system message or small talk."""
    parts = []
    if rng.random() < 0.15:
        parts.append(turn("system", _SYSTEM[int(rng.integers(len(_SYSTEM)))]))
    for entry in entries:
        if rng.random() < 0.03:
            asks, reply = _SMALL_TALK[int(rng.integers(len(_SMALL_TALK)))]
            parts.append(turn("user", asks[int(rng.integers(len(asks)))]))
            parts.append(turn("assistant", reply))
        parts.append(turn("user", question(entry, rng)))
        parts.append(turn("assistant", answer(entry)))
    return "".join(parts)
