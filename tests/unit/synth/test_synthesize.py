from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pintpot.errors import UsageError
from pintpot.gguf import GGUFFile
from pintpot.quants.reference import dequantize
from pintpot.spec import ModelSpec
from pintpot.synth.presets import PRESETS, TOYS
from pintpot.synth.synthesize import synthesize, write_model
from pintpot.synth.tensors import tensor_table
from pintpot.synth.weights import part_width, text_like_tokens
from pintpot.tokenizer import Tokenizer


@pytest.mark.parametrize("name", TOYS)
def test_file_reads_back(name: str, tmp_path: Path) -> None:
    shape = TOYS[name]
    path = tmp_path / "toy.gguf"
    seen: list[tuple[int, int]] = []
    result = write_model(path, shape, quant="Q4_K_M", progress=lambda done, total: seen.append((done, total)))
    file = GGUFFile.open(path)
    assert result.nbytes == path.stat().st_size
    assert seen[-1][0] == seen[-1][1] == sum(t.nbytes for t in file.tensors.values())
    assert result.n_params == sum(t.n_values for t in file.tensors.values())
    spec = ModelSpec.from_gguf(file)
    assert (spec.arch, spec.n_layer, spec.n_vocab) == (shape.arch, shape.n_layer, shape.n_vocab)
    for info in file.tensors.values():
        assert np.isfinite(dequantize(info.ggml_type, file.data(info.name))).all(), info.name


def test_bytes_depend_on_the_seed_alone(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.gguf" for i in range(3)]
    for path, seed in zip(paths, (0, 0, 1), strict=True):
        synthesize(path, "qwen3moe", preset="toy", quant="Q6_K", n_layer=1, seed=seed)
    first, same, other = (path.read_bytes() for path in paths)
    assert first == same
    assert first != other


def test_deviations(tmp_path: Path) -> None:
    """Matrices have the deviation their table says, in every type of a mix."""
    path = tmp_path / "toy.gguf"
    shape = TOYS["qwen35moe"]
    write_model(path, shape, quant="Q5_K_M")
    file = GGUFFile.open(path)
    for tensor in tensor_table(shape):
        std = getattr(tensor.fill, "std", None)
        if std is None or tensor.n_values < 65536:
            continue
        values = dequantize(file.tensors[tensor.name].ggml_type, file.data(tensor.name))
        assert values.std() == pytest.approx(std, rel=0.05), tensor.name


def test_tokenizer_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "toy.gguf"
    write_model(path, TOYS["llama"])
    tokenizer = Tokenizer.from_metadata(GGUFFile.open(path).metadata, str(path))
    text = "The other thing, and then \u00e4\u6f22 \n"
    ids = tokenizer.encode(text, add_special=False)
    assert tokenizer.decode(ids) == text
    assert len(ids) < len(text.encode())  # merges are in use
    start, *_, end = tokenizer.encode("<|im_start|>user<|im_end|>", add_special=False)
    assert (start, end) == (tokenizer.token_id("<|im_start|>"), tokenizer.token_id("<|im_end|>"))


def test_rows_of_a_topic_share_a_part(tmp_path: Path) -> None:
    """Embedding rows: one part common to all, one to a topic, one to a group, the rest their own; the
    head's rows hold the topic's and the group's part."""
    shape = replace(TOYS["qwen3"], tied=False, n_embd=1280, n_topic=4, n_local=2, n_vocab=320)
    path = tmp_path / "model.gguf"
    write_model(path, shape, quant="Q4_K_M")
    file = GGUFFile.open(path)
    rows, head = (
        dequantize(file.tensors[n].ggml_type, file.data(n)).reshape(320, 1280)
        for n in ("token_embd.weight", "output.weight")
    )
    wide = part_width(shape)
    assert wide == 256

    def alike(a: int, b: int) -> list[bool]:
        return [
            bool(np.array_equal(p, q))
            for p, q in zip(np.split(rows[a], 5), np.split(rows[b], 5), strict=True)
        ]

    assert alike(0, 39) == [True, True, True, False, False]
    assert alike(0, 40) == [True, True, False, False, False]
    assert alike(0, 80) == [True, False, False, False, False]
    topic = slice(wide, 3 * wide)
    assert np.corrcoef(rows[10, topic], head[20, topic])[0, 1] > 0.98
    assert abs(np.corrcoef(rows[10, topic], head[200, topic])[0, 1]) < 0.2


def test_text_like_tokens() -> None:
    shape = PRESETS["qwen3.5-35b-a3b"]
    tokens = text_like_tokens(shape, 400, seed=3)
    topics = tokens.astype(np.int64) * shape.n_topic // shape.n_vocab
    groups = tokens.astype(np.int64) * (shape.n_topic * shape.n_local) // shape.n_vocab
    assert len(set(topics.tolist())) == 1
    assert 5 < len(set(groups.tolist())) <= shape.n_local
    assert 0.85 < np.mean(groups[1:] == groups[:-1]) < 0.96


def test_no_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(UsageError, match=r"the disk has 0\.0 GB free"):
        write_model(tmp_path / "toy.gguf", TOYS["llama"])
    assert not list(tmp_path.iterdir())


def test_layers_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--layers 0"):
        synthesize(tmp_path / "x.gguf", "llama", n_layer=0)
