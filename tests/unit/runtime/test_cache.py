"""What each layer is given to remember."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pintpot.errors import MemoryLimitError, UsageError
from pintpot.runtime.cache import ModelState, largest_context
from pintpot.spec import AttentionLayer, DeltaNetLayer, DenseFFN, LayerSpec, ModelSpec
from pintpot.spec.cache import DeltaStateLayout, KVLayout, KVType, layer_layouts


def attention(kv_layer: int, window: int | None = None, head_dim: int = 64) -> AttentionLayer:
    return AttentionLayer(
        n_head=4,
        n_head_kv=2,
        head_dim_k=head_dim,
        head_dim_v=head_dim,
        rope=None,
        window=window,
        scale=1.0,
        kv_layer=kv_layer,
    )


def spec(*mixers: AttentionLayer | DeltaNetLayer) -> ModelSpec:
    return ModelSpec(
        arch="test",
        name="a model",
        n_layer=len(mixers),
        n_layer_mtp=0,
        n_embd=32,
        n_vocab=10,
        ctx_train=4096,
        norm_eps=1e-6,
        layers=tuple(LayerSpec(m, DenseFFN(8)) for m in mixers),
        tied_output=True,
    )


DELTA = DeltaNetLayer(n_head_k=2, n_head_v=4, head_dim_k=16, head_dim_v=8, conv_kernel=4)


def test_layouts_follow_the_layers():
    layouts = layer_layouts(
        spec(attention(0), attention(1, window=100), DELTA, attention(0), attention(1, window=100)),
        n_slots=2,
        ctx_tokens=1000,
        n_batch=64,
        type_k=KVType.F16,
        type_v=KVType.Q8_0,
    )
    assert layouts == [
        KVLayout(2, 1000, 2, 64, 64, KVType.F16, KVType.Q8_0),
        KVLayout(2, 192, 2, 64, 64, KVType.F16, KVType.Q8_0),  # 100 + 64, rounded up to 32
        DeltaStateLayout(2, 4, 16, 8, 2 * 2 * 16 + 4 * 8, 4),
        None,
        None,
    ]


def test_ring_is_never_larger_than_the_context():
    (layout,) = layer_layouts(spec(attention(0, window=512)), n_slots=1, ctx_tokens=300, n_batch=512)
    assert isinstance(layout, KVLayout)
    assert layout.capacity == 300


class CountingOps:
    """Caches that only know their size."""

    def kv_cache(self, layout: KVLayout, layer: int) -> SimpleNamespace:
        return SimpleNamespace(nbytes=layout.capacity)

    def delta_state(self, layout: DeltaStateLayout, layer: int) -> SimpleNamespace:
        return SimpleNamespace(nbytes=1, reset=lambda slot: None)


def state(model_spec: ModelSpec, **options) -> ModelState:
    sizes = {"n_slots": 1, "ctx_tokens": 100, "n_batch": 8} | options
    return ModelState(SimpleNamespace(spec=model_spec, ops=CountingOps()), **sizes)


def test_shared_caches_count_once():
    s = state(spec(attention(0), attention(0), DELTA, attention(3)))
    assert s.layers[1] is s.layers[0]
    assert s.nbytes == 100 + 1 + 100


def test_q8_0_needs_whole_blocks():
    odd = spec(attention(0, head_dim=80))
    with pytest.raises(UsageError, match=r"q8_0 for v .* layer 0 of a model has 80: use f16"):
        state(odd, type_v=KVType.Q8_0)
    state(odd, type_v=KVType.F16)


def test_full_attention_keeps_any_prefix():
    s = state(spec(attention(0)))
    assert [s.keepable(0, 50, n) for n in (0, 1, 49, 50)] == [0, 1, 49, 50]


def test_window_keeps_while_the_ring_holds_it():
    s = state(spec(attention(0), attention(1, window=20)), ctx_tokens=1000)  # a ring of 32
    assert s.keepable(0, 32, 5) == 5
    assert s.keepable(0, 40, 27) == 27  # its next query sees 8 to 27; the ring holds 8 to 39
    assert s.keepable(0, 40, 26) == 0
    assert s.keepable(0, 30, 26) == 0  # trimming does not bring back what was overwritten
    s.reset(0)
    assert s.keepable(0, 30, 2) == 2


def test_recurrent_state_keeps_all_or_nothing():
    s = state(spec(DELTA, attention(1)))
    assert s.keepable(0, 12, 12) == 12
    assert s.keepable(0, 12, 11) == 0
    assert s.keepable(0, 11, 11) == 0  # the state is still that of 12 tokens


def test_sizes_in_bytes():
    kv = KVLayout(2, 100, 2, 64, 32, KVType.F16, KVType.Q8_0)
    assert kv.token_bytes == 2 * (64 * 2 + 34)
    assert kv.nbytes == 2 * 128 * kv.token_bytes  # in blocks of 64 tokens
    assert DeltaStateLayout(3, 4, 16, 8, 64, 4).nbytes == 4 * 3 * (3 * 64 + 4 * 16 * 8)


class NoMemory:
    """A backend that must not be asked."""

    def kv_cache(self, layout: KVLayout, layer: int) -> SimpleNamespace:
        raise AssertionError("allocated before it was checked")

    delta_state = kv_cache


@pytest.mark.parametrize(
    ("mixer", "options", "says"),
    [
        (
            attention(0),
            {"ctx_tokens": 1 << 30},
            r"context of 1,073,741,824 tokens takes 512\.0 GiB, .*\(-c\)",
        ),
        (attention(0), {"n_slots": 1 << 22}, r"takes .* GiB, this machine has 8\.0 GiB of memory: .*\(-c\)"),
        (DeltaNetLayer(8, 2048, 8192, 8192, 4), {}, r"recurrent state takes 512\.\d GiB"),
        (attention(0, head_dim=8192), {"ctx_tokens": 1 << 17, "n_batch": 1 << 17}, r"step .* \(-b\)"),
    ],
)
def test_more_than_the_machine_has_is_refused_before_it_is_allocated(monkeypatch, mixer, options, says):
    monkeypatch.setattr("pintpot.runtime.cache.memory_limit_bytes", lambda: 8 << 30)
    sizes = {"n_slots": 1, "ctx_tokens": 100, "n_batch": 8} | options
    with pytest.raises(MemoryLimitError, match=says) as caught:
        ModelState(SimpleNamespace(spec=spec(mixer), ops=NoMemory()), **sizes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("limit_bytes", "ctx_tokens"),
    [
        (None, 4096),
        (4 << 20, 4096),
        (512 * 2048, 1024),  # 512 bytes a token, and a step's activations beside them
        (512 * 600, 512),
        (512 * 500, 4096),  # not even a small one: ModelState says why
    ],
)
def test_largest_context_is_what_memory_holds(monkeypatch, limit_bytes, ctx_tokens):
    monkeypatch.setattr("pintpot.runtime.cache.memory_limit_bytes", lambda: limit_bytes)
    sizes = {"n_slots": 1, "n_batch": 8, "type_k": KVType.F16, "type_v": KVType.F16}
    assert largest_context(spec(attention(0)), 4096, **sizes) == ctx_tokens


def test_an_unknown_limit_refuses_nothing(monkeypatch):
    monkeypatch.setattr("pintpot.runtime.cache.memory_limit_bytes", lambda: None)
    assert state(spec(attention(0)), ctx_tokens=1 << 30).nbytes == 1 << 30
