"""A converted tokenizer gives the ids that the `tokenizers` library gives with the original files."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from hf_folders import bpe_json
from tokenizers import AddedToken, Regex, models, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as HFTokenizer

from pintpot.errors import ModelFileError, UnsupportedError
from pintpot.hf.config import Config
from pintpot.hf.pretokenizer import detect_pretokenizer
from pintpot.hf.tokenizer import read_tokenizer
from pintpot.tokenizer import Tokenizer
from pintpot.tokenizer.pretokenizers import PRETOKENIZERS

CORPUS = [
    "the quick brown fox jumps over the lazy dog, and the dog sleeps on",
    "hello world! hello hello worlds; they're there, it's 2024 or 1999",
    "def main(args):\n    return [x for x in args if x]\n\n\n",
    "ein Käfer läuft über die Straße; привет мир; 你好世界 🦙🦙",
]
LINES = [
    "",
    " ",
    "hello",
    " hello  world   the\n\n\n dog\t\tfox \n",
    "they're there, IT'S 12345678 o'clock",
    "camelCaseWords and HTTPServer2x",
    "Käfer läuft; привет мир, 你好世界 🦙 \u200d ☃️ \u00a0nbsp",
    "def main(args):\r\n\treturn [x for x in args]  # done\n",
    "हिन्दी भाषा e\u0301 العَرَبِيَّة",
    "a<|end|>b<think>c <|end|> the<|end|>",
    "<s>the</s> dog",
    "▁the▁dog ▁",
    "=== !!\n ?!",
]


def convert(folder: Path, n_vocab: int, arch: str = "llama", **config: object):
    return read_tokenizer(folder, arch, n_vocab, Config(folder / "config.json", config))


def ours(folder: Path, n_vocab: int, arch: str = "llama") -> Tokenizer:
    return Tokenizer.from_metadata(convert(folder, n_vocab, arch).values, "converted")


def byte_level(name: str) -> HFTokenizer:
    """Trained on CORPUS, its words cut as `tokenizer.ggml.pre` says for `name`, with a begin token."""
    pre = PRETOKENIZERS[name]
    tokenizer = HFTokenizer(models.BPE(ignore_merges=pre.ignore_merges))
    steps = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in pre.patterns]
    byte_step = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*steps, byte_step])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, show_progress=False, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    tokenizer.add_special_tokens(["<|begin|>", "<|end|>"])
    tokenizer.add_tokens([AddedToken("<think>", normalized=False)])
    begin = tokenizer.token_to_id("<|begin|>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", pair="<|begin|> $A $B", special_tokens=[("<|begin|>", begin)]
    )
    return tokenizer


@pytest.mark.parametrize("name", ["llama-bpe", "qwen2", "qwen35", "gpt-4o", "tekken", "smollm", "gpt-2"])
def test_byte_level_bpe(name, tmp_path):
    hf = byte_level(name)
    hf.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"bos_token": "<|begin|>", "eos_token": {"content": "<|end|>"}})
    )
    n_vocab = hf.get_vocab_size() + 5  # the embedding has rows to spare
    found = convert(tmp_path, n_vocab)
    assert found.values["tokenizer.ggml.pre"] == name
    assert found.values["tokenizer.ggml.add_bos_token"] is True
    assert found.values["tokenizer.ggml.add_eos_token"] is False
    assert found.notes == ()
    tokenizer = Tokenizer.from_metadata(found.values, "converted")
    assert [tokenizer.vocab.tokens[i] for i in (tokenizer.bos_id, tokenizer.eos_id)] == [
        "<|begin|>",
        "<|end|>",
    ]
    for line in LINES:
        assert tokenizer.encode(line) == hf.encode(line).ids, line
        assert tokenizer.decode(tokenizer.encode(line, add_special=False)) == line


def test_every_known_way_to_cut_is_recognized():
    families: dict[tuple[tuple[str, ...], bool], str] = {}
    for name, pre in PRETOKENIZERS.items():
        families.setdefault((pre.patterns, pre.ignore_merges), name)
    found = {}
    for (patterns, ignore_merges), name in families.items():
        steps = [
            {"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated", "invert": False}
            for p in patterns
        ]
        steps.append(
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
        )
        spec = {"type": "Sequence", "pretokenizers": steps}
        found[name] = detect_pretokenizer(spec, ignore_merges=ignore_merges, source="x")
    different = {name: other for name, other in found.items() if name != other}
    assert different == {"bailingmoe": "qwen2"}  # two spellings of the same cuts


PIECES = [
    *(
        "▁t",
        "he",
        "▁the",
        "in",
        "▁d",
        "og",
        "▁dog",
        "▁▁",
        "▁▁▁▁",
        "ll",
        "lo",
        "llo",
        "ello",
        "hello",
        "▁hello",
    ),
    *("an", "▁a", "▁an", "and", "▁and", "er", "ere", "there", "▁there", "'s", "12", "123"),
]
LETTERS = [*"▁etaoinshrdlucmfwypvbgkqjxz'.,!123"]


def spm_pieces() -> list[tuple[str, float, int]]:
    """Text, score and type as a BPE SentencePiece model of Llama has them."""
    bytes_ = [(f"<0x{i:02X}>", 0.0, 6) for i in range(256)]
    texts = [*dict.fromkeys([*PIECES, "hell", "el", "th", "oo", "▁th"])]
    scored = [(text, -float(i), 1) for i, text in enumerate([*texts, *LETTERS])]
    return [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), *bytes_, *scored]


def spm_merges(pieces: list[tuple[str, float, int]]) -> list[list[str]]:
    """Every pair that makes a piece, the best score first, as transformers derives them."""
    scores = {text: score for text, score, kind in pieces if kind == 1}
    pairs = [
        (-score, text[:k], text[k:])
        for text, score in scores.items()
        for k in range(1, len(text))
        if text[:k] in scores and text[k:] in scores
    ]
    return [[left, right] for _, left, right in sorted(pairs)]


BEGIN = {"SpecialToken": {"id": "<s>", "type_id": 0}}


def spm_json(**changes: object) -> dict:
    pieces = spm_pieces()
    n = len(pieces)
    added = [(i, pieces[i][0], True, False) for i in range(3)] + [
        (n, "<|end|>", True, False),
        (n + 1, "<think>", False, False),
    ]
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": i, "content": text, "special": special, "normalized": normalized, "single_word": False}
            | {"lstrip": False, "rstrip": False}
            for i, text, special, normalized in added
        ],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [BEGIN, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": {text: i for i, (text, _, _) in enumerate(pieces)},
            "merges": spm_merges(pieces),
        },
    } | changes  # fmt: skip


def varint(n: int) -> bytes:
    out = b""
    while n >= 0x80:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def spm_model(model_type: int = 2, normalizer: bytes = b"identity") -> bytes:
    """tokenizer.model, as protobuf writes it."""
    raw = b""
    for text, score, kind in spm_pieces():
        raw += field(
            1, field(1, text.encode()) + varint(2 << 3 | 5) + struct.pack("<f", score) + field(3, kind)
        )
    raw += field(
        2, field(3, model_type) + field(40, 0) + field(41, 1) + field(42, 2) + field(43, (1 << 64) - 1)
    )
    return raw + field(3, field(1, normalizer) + field(3, 1) + field(4, 0))


def spm_folder(folder: Path, *, has_json: bool, has_model: bool) -> tuple[HFTokenizer, int]:
    content = spm_json()
    if has_json:
        (folder / "tokenizer.json").write_text(json.dumps(content))
    if has_model:
        (folder / "tokenizer.model").write_bytes(spm_model())
    decoder = {str(token["id"]): token for token in content["added_tokens"]}
    config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "added_tokens_decoder": decoder}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return HFTokenizer.from_str(json.dumps(content)), len(spm_pieces()) + 2


@pytest.mark.parametrize(("has_json", "has_model"), [(True, False), (False, True), (True, True)])
def test_sentencepiece(tmp_path, has_json, has_model):
    hf, n_vocab = spm_folder(tmp_path, has_json=has_json, has_model=has_model)
    found = convert(tmp_path, n_vocab)
    assert found.notes == ()
    assert found.values["tokenizer.ggml.model"] == "llama"
    assert found.values["tokenizer.ggml.add_space_prefix"] is True
    types = found.values["tokenizer.ggml.token_type"]
    assert types[:4] == [2, 3, 3, 6]
    assert types[-2:] == [3, 4]
    tokenizer = Tokenizer.from_metadata(found.values, "converted")
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.vocab.special.unk) == (1, 2, 0)
    for line in LINES:
        assert tokenizer.encode(line) == hf.encode(line).ids, line


def test_gemma(tmp_path):
    content = spm_json(
        normalizer={"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        pre_tokenizer={
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        },
    )
    n = len(spm_pieces())
    content["model"]["vocab"] |= {"\n": n, "\n\n": n + 1}
    for token in content["added_tokens"][-2:]:
        token["id"] += 2
    content["model"]["merges"].append(["\n", "\n"])
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    hf = HFTokenizer.from_str(json.dumps(content))
    found = convert(tmp_path, n + 4, "gemma4")
    assert found.values["tokenizer.ggml.model"] == "gemma4"
    assert found.values["tokenizer.ggml.add_space_prefix"] is False
    tokenizer = Tokenizer.from_metadata(found.values, "converted")
    for line in LINES:
        assert tokenizer.encode(line) == hf.encode(line).ids, line


def test_merges_that_are_not_sentencepieces_are_told(tmp_path):
    content = spm_json()
    content["model"]["merges"].remove(
        ["▁", "the"] if ["▁", "the"] in content["model"]["merges"] else ["h", "e"]
    )
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert "merges that SentencePiece would not have" in convert(tmp_path, len(spm_pieces()) + 2).notes[0]


def write(folder: Path, tokenizer: dict | None = None, **files: object) -> Path:
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer or bpe_json()))
    for stem, content in files.items():
        (folder / f"{stem}.json").write_text(json.dumps(content))
    return folder


def test_ids_come_from_the_first_file_that_states_them(tmp_path):
    write(
        tmp_path,
        tokenizer_config={"bos_token": "<s>", "pad_token": "not there"},
        generation_config={"eos_token_id": [7, 6], "bos_token_id": 3},
    )
    values = convert(tmp_path, 10, pad_token_id=5).values
    ids = {key: value for key, value in values.items() if key.endswith("_token_id")}
    assert ids == {
        "tokenizer.ggml.bos_token_id": 6,
        "tokenizer.ggml.eos_token_id": 7,
        "tokenizer.ggml.padding_token_id": 5,
    }
    assert values["tokenizer.ggml.tokens"] == [*"abcdeĠ", "<s>", "</s>", "ab", "[PAD9]"]
    assert values["tokenizer.ggml.token_type"] == [1, 1, 1, 1, 1, 1, 3, 3, 1, 5]


def test_added_tokens_of_all_files(tmp_path):
    write(
        tmp_path,
        added_tokens={"<extra>": 9},
        tokenizer_config={"added_tokens_decoder": {"10": {"content": "<|fim|>", "special": False}}},
    )
    values = convert(tmp_path, 11).values
    assert values["tokenizer.ggml.tokens"][9:] == ["<extra>", "<|fim|>"]
    assert values["tokenizer.ggml.token_type"][9:] == [4, 3]


@pytest.mark.parametrize(
    ("config", "expected"),
    [({}, False), ({"add_bos_token": True}, True), ({"add_bos_token": True, "bos_token": None}, False)],
)
def test_whether_text_begins_with_bos(tmp_path, config, expected):
    write(tmp_path, tokenizer_config={"bos_token": "<s>"} | config)
    assert convert(tmp_path, 10).values["tokenizer.ggml.add_bos_token"] is expected


@pytest.mark.parametrize(("has_json", "has_model"), [(True, False), (False, True), (True, True)])
def test_sentencepiece_without_a_template(tmp_path, has_json, has_model):
    """tokenizer.json says that nothing is added; tokenizer.model does not say, and readers add the token."""
    _, n_vocab = spm_folder(tmp_path, has_json=has_json, has_model=has_model)
    if has_json:
        (tmp_path / "tokenizer.json").write_text(json.dumps(spm_json(post_processor=None)))
    values = convert(tmp_path, n_vocab).values
    assert values.get("tokenizer.ggml.add_bos_token") is (False if has_json else None)


def test_another_token_before_text_is_told(tmp_path):
    single = [{"SpecialToken": {"id": "</s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    processor = {"type": "Sequence", "processors": [{"type": "TemplateProcessing", "single": single}]}
    write(tmp_path, bpe_json(post_processor=processor), tokenizer_config={"bos_token": "<s>"})
    found = convert(tmp_path, 10)
    assert found.values["tokenizer.ggml.add_bos_token"] is False
    assert "'</s>' around text, which is not its bos token" in found.notes[0]


def test_chat_templates(tmp_path):
    write(tmp_path, tokenizer_config={"chat_template": "inside"})
    assert convert(tmp_path, 10).values["tokenizer.chat_template"] == "inside"
    (tmp_path / "chat_template.jinja").write_text("{{ file }}")
    assert convert(tmp_path, 10).values["tokenizer.chat_template"] == "{{ file }}"
    named = [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]
    write(tmp_path, tokenizer_config={"chat_template": named})
    (tmp_path / "chat_template.jinja").unlink()
    values = convert(tmp_path, 10).values
    assert values["tokenizer.chat_template"] == "a"
    assert values["tokenizer.chat_template.tool_use"] == "b"
    assert values["tokenizer.chat_templates"] == ["tool_use"]


CUT = {"type": "Split", "pattern": {"Regex": "[aeiou]"}, "behavior": "Isolated", "invert": False}
REFUSED = {
    "unigram": (bpe_json(model={"type": "Unigram", "vocab": []}), "type 'Unigram', only BPE"),
    "word cutting": (bpe_json(pre_tokenizer=CUT), "cuts text in a way"),
    "prefix space": (
        bpe_json(pre_tokenizer=bpe_json()["pre_tokenizer"] | {"add_prefix_space": True}),
        "cuts text in a way",
    ),
    "lower case": (bpe_json(normalizer={"type": "Lowercase"}), "normalizer Lowercase has no GGUF form"),
    "space in a merge": (
        bpe_json(model={"type": "BPE", "vocab": {"a": 0, " ": 1}, "merges": [["a", " "]]}),
        "no pair of two tokens without spaces",
    ),
}  # fmt: skip
DAMAGED = {
    "cut type": (bpe_json(pre_tokenizer={"type": "Sideways"}), "pre_tokenizer cannot be read"),
    "id": (bpe_json(model={"type": "BPE", "vocab": {"a": -1}, "merges": []}), "impossible id -1"),
    "id twice": (bpe_json(model={"type": "BPE", "vocab": {"a": 0, "b": 0}, "merges": []}), "impossible id 0"),
    "no vocabulary": (bpe_json(model={"type": "BPE", "merges": []}), "model.vocab is missing"),
    "added without id": (bpe_json(added_tokens=[{"content": "x"}]), "without an id"),
    "added without text": (bpe_json(added_tokens=[{"id": 9}]), "has no content"),
    "text twice": (bpe_json(added_tokens=[{"id": 9, "content": "a"}]), "token 'a' is there twice"),
    "outside": (
        bpe_json(added_tokens=[{"id": 10, "content": "z"}]),
        "token id 10 has no row in the embedding",
    ),
}


@pytest.mark.parametrize("name", [*REFUSED, *DAMAGED])
def test_tokenizers_without_a_gguf_form(tmp_path, name):
    content, message = (REFUSED | DAMAGED)[name]
    with pytest.raises(UnsupportedError if name in REFUSED else ModelFileError, match=message):
        convert(write(tmp_path, content), 10)


def test_no_tokenizer(tmp_path):
    with pytest.raises(ModelFileError, match=r"neither tokenizer.json nor tokenizer.model"):
        convert(tmp_path, 10)


def test_damaged_sentencepiece(tmp_path):
    path = tmp_path / "tokenizer.model"
    whole = spm_model()
    for raw in (b"", b"\x0a", whole[:-3], b"hello", b"\x0f" + whole, field(1, 5), b"\xff" * 20):
        path.write_bytes(raw)
        with pytest.raises(ModelFileError, match="is no SentencePiece model"):
            convert(tmp_path, 400)
    path.write_bytes(spm_model(model_type=1))
    with pytest.raises(UnsupportedError, match="a unigram model, only BPE"):
        convert(tmp_path, 400)
    path.write_bytes(spm_model(normalizer=b"nmt_nfkc"))
    assert "normalizes text (nmt_nfkc)" in convert(tmp_path, len(spm_pieces())).notes[0]
