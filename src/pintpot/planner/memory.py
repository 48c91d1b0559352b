"""Bytes: of weights by what they do, of caches, of a step's buffers. Exact where the file says it.

`weigh` sorts a model's tensors by what decides their place: a layer's routed experts, the rest of a layer,
the output head, the embedding (looked up, never multiplied), tables of which a run reads only rows, and what
it never reads. The sums are those of the tensors, to the byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from pintpot.gguf import GGUFFile
from pintpot.planner.limits import TensorRule, place_by_rules
from pintpot.spec import AttentionLayer, DeltaNetLayer, DenseFFN, LayerSpec, ModelSpec, MoEFFN
from pintpot.spec.cache import CacheSteps, DeltaStateLayout, KVLayout, KVType, layer_layouts
from pintpot.spec.reading import Reading, reading_of
from pintpot.spec.size import is_expert

# Linux, x86-64, CPython 3.11: the interpreter with NumPy, the command line and the kernels; and what a
# tokenizer keeps of one token with one merge (a SentencePiece vocabulary keeps 250 bytes).
_PROCESS_BYTES: Final = 60 << 20
_TOKEN_BYTES: Final = 620
STREAMED_AT_ONCE: Final = 2  # experts on their way to the GPU: one is copied while the other is computed
_LAYER: Final = re.compile(r"blk\.(\d+)\.")
_MIXER: Final = re.compile(r"blk\.\d+\.(?!attn_norm\.)(attn|ssm)_")  # attention, or a recurrent layer


@dataclass(frozen=True, slots=True)
class LayerBytes:
    """Weights of one layer. `experts` are all routed ones; the shared expert and the router are dense.

    -ot rules keep `dense_in_ram` of `dense` in RAM, and say where the experts must lie: a rule for some of a
    layer's expert tensors counts for all of them.
    """

    dense: int
    experts: int = 0
    n_expert: int = 0
    n_expert_used: int = 0
    dense_macs: int = 0  # multiply-adds a token
    routed_macs: int = 0  # of the experts one token is sent to
    dense_in_ram: int = 0
    dense_macs_in_ram: int = 0
    experts_on_gpu: bool | None = None  # None: no rule, or no experts
    mixer_in_ram: bool = False  # some of its weights are, by a rule

    @property
    def expert(self) -> int:
        """One routed expert."""
        return self.experts // self.n_expert if self.n_expert else 0

    @property
    def routed(self) -> int:
        """The experts one token reads."""
        return self.expert * self.n_expert_used


@dataclass(frozen=True, slots=True)
class ModelBytes:
    """Weights of a model by what decides their place. With a tied embedding `output` counts only the norm,
    and the head reads `embedding`."""

    layers: tuple[LayerBytes, ...]
    embedding: int
    output: int
    tied_output: bool
    rows: int = 0  # tables of which a token needs a row: they stay in the file, mapped
    unread: int = 0  # MTP layers, vision and audio, projections of layers that read another's cache
    head_macs: int = 0
    head_in_ram: bool = False  # by an -ot rule

    @property
    def total(self) -> int:
        return (
            sum(layer.dense + layer.experts for layer in self.layers)
            + self.embedding
            + self.output
            + self.rows
            + self.unread
        )

    @property
    def experts(self) -> int:
        return sum(layer.experts for layer in self.layers)

    @property
    def dense(self) -> int:
        """What every token reads, the head included, the looked-up embedding not."""
        return sum(layer.dense for layer in self.layers) + self.head

    @property
    def head(self) -> int:
        """What the output head reads."""
        return self.output + (self.embedding if self.tied_output else 0)


@dataclass(frozen=True, slots=True)
class TensorSize:
    """What counting needs to know of a tensor."""

    name: str
    nbytes: int
    n_values: int


def weigh_file(file: GGUFFile, spec: ModelSpec, rules: Sequence[TensorRule] = ()) -> ModelBytes:
    """The weights of an open file."""
    return weigh(spec, (TensorSize(t.name, t.nbytes, t.n_values) for t in file.tensors.values()), rules)


def weigh(spec: ModelSpec, tensors: Iterable[TensorSize], rules: Sequence[TensorRule] = ()) -> ModelBytes:
    """Sorts a model's tensors. Together they have the bytes of `ModelBytes.total`."""
    layers = [_Layer() for _ in range(spec.n_layer)]
    embedding = output = rows = unread = head_macs = 0
    for t in tensors:
        reading, match = reading_of(t.name, spec), _LAYER.match(t.name)
        if reading is Reading.ROWS:
            rows += t.nbytes
        elif reading is Reading.NEVER:
            unread += t.nbytes
        elif match is not None and int(match[1]) < spec.n_layer:
            layers[int(match[1])].add(t, place_by_rules(t.name, rules))
        elif t.name.startswith("token_embd."):
            embedding += t.nbytes
            head_macs += t.n_values if spec.tied_output else 0
        else:
            output += t.nbytes
            head_macs += t.n_values
    return ModelBytes(
        layers=tuple(layer.done(spec.layers[i]) for i, layer in enumerate(layers)),
        embedding=embedding,
        output=output,
        tied_output=spec.tied_output,
        rows=rows,
        unread=unread,
        head_macs=head_macs,
        head_in_ram=place_by_rules("token_embd.weight" if spec.tied_output else "output.weight", rules)
        is False,
    )


@dataclass(slots=True)
class _Layer:
    """Sums of one layer on the way."""

    dense: int = 0
    experts: int = 0
    dense_values: int = 0
    expert_values: int = 0
    dense_in_ram: int = 0
    dense_values_in_ram: int = 0
    experts_on_gpu: bool | None = None
    mixer_in_ram: bool = False

    def add(self, tensor: TensorSize, on_gpu: bool | None) -> None:
        if is_expert(tensor.name):
            self.experts += tensor.nbytes
            self.expert_values += tensor.n_values
            if on_gpu is not None and self.experts_on_gpu is not False:
                self.experts_on_gpu = on_gpu
            return
        self.dense += tensor.nbytes
        self.dense_values += tensor.n_values
        if on_gpu is False:
            self.dense_in_ram += tensor.nbytes
            self.dense_values_in_ram += tensor.n_values
            self.mixer_in_ram |= _MIXER.match(tensor.name) is not None

    def done(self, layer: LayerSpec) -> LayerBytes:
        if not isinstance(layer.ffn, MoEFFN):
            return LayerBytes(
                self.dense + self.experts,
                dense_macs=self.dense_values + self.expert_values,
                dense_in_ram=self.dense_in_ram,
                dense_macs_in_ram=self.dense_values_in_ram,
                mixer_in_ram=self.mixer_in_ram,
            )
        return LayerBytes(
            self.dense,
            self.experts,
            layer.ffn.n_expert,
            layer.ffn.n_expert_used,
            self.dense_values,
            self.expert_values * layer.ffn.n_expert_used // layer.ffn.n_expert,
            self.dense_in_ram,
            self.dense_values_in_ram,
            self.experts_on_gpu,
            self.mixer_in_ram,
        )


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """How a conversation is kept: `n_slots` sequences of `ctx_tokens`, `n_batch` prompt tokens a step."""

    ctx_tokens: int
    type_k: KVType = KVType.F16
    type_v: KVType = KVType.F16
    n_batch: int = 512
    n_slots: int = 1


@dataclass(frozen=True, slots=True)
class CacheBytes:
    """Per layer: keys and values, recurrent state. A layer that reads another's cache has none."""

    kv: tuple[int, ...]
    state: tuple[int, ...]

    @property
    def total(self) -> int:
        return sum(self.kv) + sum(self.state)


def cache_bytes(spec: ModelSpec, settings: CacheSettings, steps: CacheSteps | None = None) -> CacheBytes:
    """What the caches of every layer take when allocated whole. `steps`: an engine's rounding; None: ours."""
    layouts = layer_layouts(
        spec,
        n_slots=settings.n_slots,
        ctx_tokens=settings.ctx_tokens,
        n_batch=settings.n_batch,
        type_k=settings.type_k,
        type_v=settings.type_v,
        steps=steps,
    )
    return CacheBytes(
        kv=tuple(layout.nbytes if isinstance(layout, KVLayout) else 0 for layout in layouts),
        state=tuple(layout.nbytes if isinstance(layout, DeltaStateLayout) else 0 for layout in layouts),
    )


def cache_read_bytes(spec: ModelSpec, settings: CacheSettings, depth: int) -> tuple[int, ...]:
    """Per layer, the bytes of keys, values and state that one token at `depth` reads."""
    reads = []
    for layer in spec.layers:
        mixer = layer.mixer
        if isinstance(mixer, DeltaNetLayer):
            memory = mixer.n_head_v * mixer.head_dim_k * mixer.head_dim_v
            reads.append(4 * memory)
            continue
        tokens = depth if mixer.window is None else min(depth, mixer.window)
        bits = mixer.head_dim_k * settings.type_k.bits + mixer.head_dim_v * settings.type_v.bits
        reads.append(int(tokens * mixer.n_head_kv * bits / 8))
    return tuple(reads)


def step_bytes(spec: ModelSpec, n_batch: int) -> int:
    """Buffers of a step of `n_batch` tokens, float32: the widest layer's activations, and logits of one row.

    An estimate from the widths a layer works with; tests hold it to what the engine really takes.
    """
    widest = max(_layer_values(spec.n_embd, layer) for layer in spec.layers)
    residual = 4 * spec.n_embd + spec.n_embd_per_layer * spec.n_layer
    return 4 * (n_batch * (widest + residual) + spec.n_vocab)


def stream_bytes(model: ModelBytes) -> int:
    """VRAM through which a long prompt's experts pass that have no slot."""
    return STREAMED_AT_ONCE * max((layer.expert for layer in model.layers), default=0)


def process_bytes(spec: ModelSpec) -> int:
    """What the process takes beside weights, caches and buffers, most of it for large vocabularies."""
    return _PROCESS_BYTES + spec.n_vocab * _TOKEN_BYTES


def _layer_values(n_embd: int, layer: LayerSpec) -> int:
    """Values a token has at once in the wider of a layer's two blocks (quantized copies: a quarter more)."""
    mixer, ffn = layer.mixer, layer.ffn
    if isinstance(mixer, AttentionLayer):
        q = mixer.n_head * mixer.head_dim_k
        kv = mixer.n_head_kv * (mixer.head_dim_k + mixer.head_dim_v)
        mixing = q * (3 if mixer.gated else 2) + kv + mixer.n_head * mixer.head_dim_v
    else:
        values = mixer.n_head_v * mixer.head_dim_v
        mixing = 2 * mixer.conv_dim + 3 * values + 2 * mixer.n_head_v
    if isinstance(ffn, DenseFFN):
        feeding = 2 * ffn.n_ff + n_embd
    else:
        feeding = (
            ffn.n_expert_used * (ffn.n_ff + n_embd) + ffn.n_expert + 2 * (ffn.n_ff_shared + ffn.n_ff_dense)
        )
    return (mixing if mixing > feeding else feeding) * 5 // 4
