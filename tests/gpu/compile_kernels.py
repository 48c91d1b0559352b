"""Compiles every kernel for cards that need not be there, as launched for a 35B-A3B's shapes; run by
test_compile.py in a process of its own, since the interpreter replaces the compiler.

    python compile_kernels.py TARGET NAME...      TARGET: cuda:89 or hip:gfx1100; NAME: of CASES

Launches compile instead of running: what kernels would write is never looked at.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from pintpot.gguf.types import GGMLType
from pintpot.kernels.api import Activation, Gating, Segment
from pintpot.kernels.triton.attention import AttentionShape, attend
from pintpot.kernels.triton.batch import device_batch
from pintpot.kernels.triton.delta_net import DeltaShape, DeviceDeltaState, causal_conv, delta_rule, gated_norm
from pintpot.kernels.triton.embed import embed
from pintpot.kernels.triton.formats import layout_of
from pintpot.kernels.triton.groups import one_matrix
from pintpot.kernels.triton.kv_cache import DeviceKVCache
from pintpot.kernels.triton.linear import grouped_linear
from pintpot.kernels.triton.moe import Experts, fused_moe
from pintpot.kernels.triton.norms import DeviceRope, HeadNorm, head_norm_rope, rms_norm
from pintpot.kernels.triton.repack import empty_stack
from pintpot.kernels.triton.routing import route
from pintpot.kernels.triton.sampling import rules_of, sample
from pintpot.spec.cache import DeltaStateLayout, KVLayout, KVType

N_EMBD, N_FF, N_EXPERT, N_USED = 2048, 512, 256, 8
CPU = torch.device("cpu")
SHARED_BYTES = {"cuda": 99 << 10, "hip": 64 << 10}  # of a block, on cards people own
DTYPES = {
    torch.uint8: "u8",
    torch.int8: "i8",
    torch.int32: "i32",
    torch.int64: "i64",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float32: "fp32",
    torch.float64: "fp64",
}


def compile_launch(target: GPUTarget, kernel: JITFunction, *args: Any, **kwargs: Any) -> None:
    """What `kernel[grid](...)` would have compiled."""
    options = {k: kwargs.pop(k) for k in ("num_warps", "num_stages") if k in kwargs}
    bound = inspect.signature(kernel.fn).bind(*args, **kwargs).arguments
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    attributes: dict[tuple[int, ...], Any] = {}
    for i, (param, value) in enumerate(zip(kernel.params, bound.values(), strict=True)):
        if param.is_constexpr or value is None:
            signature[param.name] = "constexpr"
            constants[param.name] = value
        elif isinstance(value, torch.Tensor):
            signature[param.name] = f"*{DTYPES[value.dtype]}"
            attributes[i,] = [["tt.divisibility", 16]]
        else:
            signature[param.name] = "i32" if isinstance(value, int) else "fp32"
    source = ASTSource(kernel, signature, constants, attributes)
    compiled = triton.compile(source, target=target, options=options)
    shared = compiled.metadata.shared
    sys.stdout.write(f"{kernel.__name__}: {shared} bytes of shared memory, {options}\n")
    if shared > SHARED_BYTES[target.backend]:
        raise SystemExit(f"{kernel.__name__} needs {shared} bytes of shared memory")


def x_of(n: int, width: int) -> torch.Tensor:
    return torch.zeros(n, width)


def products(kind: GGMLType) -> None:
    stack = empty_stack(layout_of(kind, 64, N_EMBD), 1, CPU)
    for n in (1, 2, 4, 8, 16, 64):
        grouped_linear(x_of(n, N_EMBD), stack, one_matrix(n, CPU))
    embed(stack, torch.zeros(1, dtype=torch.int32))


def experts(kind: GGMLType) -> None:
    gate, up = (empty_stack(layout_of(kind, N_FF, N_EMBD), 4, CPU) for _ in range(2))
    down = empty_stack(layout_of(kind, N_EMBD, N_FF), 4, CPU)
    e = Experts(gate, up, down, Activation.SILU)
    for n in (1, 64):
        ids = torch.arange(n * N_USED, dtype=torch.int32).view(n, N_USED) % 4
        fused_moe(x_of(n, N_EMBD), e, ids, torch.zeros(n, N_USED))


def attention(kind: KVType) -> None:
    shape = AttentionShape(16, 2, 256, 256, 1 / 16)
    cache = DeviceKVCache(KVLayout(1, 4096, 2, 256, 256, kind, kind), CPU)
    for segment in (Segment(0, 4000, 1), Segment(0, 0, 64)):
        batch = device_batch([segment], CPU)
        n = batch.n_tokens
        k = torch.zeros(n, 2, 256)
        cache.store(batch, k, k)
        attend(torch.zeros(n, 16, 256), cache, batch, shape)


def windowed_attention() -> None:
    """As gpt-oss and Gemma have it."""
    for shape in (
        AttentionShape(64, 8, 64, 64, 1 / 8, window=128),
        AttentionShape(8, 1, 512, 512, 1 / 16, softcap=50.0),
    ):
        dims = (shape.n_head_kv, shape.head_dim_k, shape.head_dim_v)
        cache = DeviceKVCache(KVLayout(1, 4096, *dims, KVType.F16, KVType.F16), CPU)
        for segment in (Segment(0, 4000, 1), Segment(0, 0, 64)):
            batch = device_batch([segment], CPU)
            q = torch.zeros(batch.n_tokens, shape.n_head, shape.head_dim_k)
            attend(q, cache, batch, shape, sinks=torch.zeros(shape.n_head))


def delta_net() -> None:
    conv_dim = 2 * 16 * 128 + 32 * 128
    shape = DeltaShape(
        16, 32, 128, 128, 1e-6, x_of(conv_dim, 4), torch.zeros(32), torch.zeros(32), torch.zeros(128)
    )
    state = DeviceDeltaState(DeltaStateLayout(1, 32, 128, 128, conv_dim, 4), CPU)
    for n in (1, 64):
        batch = device_batch([Segment(0, 0, n)], CPU)
        causal_conv(x_of(n, conv_dim), state, shape, batch)
        read = delta_rule(x_of(n, conv_dim), x_of(n, 32), x_of(n, 32), state, shape, batch)
        gated_norm(read, read, shape)


def small() -> None:
    """Norms, RoPE, routing, sampling."""
    x = x_of(1, N_EMBD)
    rms_norm(x, torch.zeros(N_EMBD), 1e-6)
    rms_norm(x, torch.zeros(N_EMBD), 1e-6, delta=x)
    positions = torch.zeros(1, dtype=torch.int32)
    for interleaved in (False, True):
        rope = DeviceRope(torch.zeros(32, dtype=torch.float64), interleaved, 1.0)
        norm = HeadNorm(torch.zeros(256), 1e-6)
        head_norm_rope(x, 4, 256, positions, stride=512, norm=norm, rope=rope)
    for gating in Gating:
        route(x_of(1, N_EXPERT), N_USED, gating, normalize=True, factor=1.0)
    rules = rules_of([(0.8, 40, 0.95, 0.05)], CPU)
    sample(x_of(1, 5000), rules, torch.zeros(1, dtype=torch.float64), most_k=40)


CASES: dict[str, Callable[[], None]] = {
    "small": small,
    "delta_net": delta_net,
    "windowed_attention": windowed_attention,
    **{f"attention-{kind.name}": (lambda kind=kind: attention(kind)) for kind in KVType},
    **{f"products-{kind.name}": (lambda kind=kind: products(kind)) for kind in GGMLType},
    **{f"experts-{kind.name}": (lambda kind=kind: experts(kind)) for kind in GGMLType},
}


def main() -> None:
    warnings.filterwarnings("ignore", message="TRITON_DEFAULT_FP_FUSION")
    backend, arch = sys.argv[1].split(":")
    if backend == "cuda":
        target = GPUTarget("cuda", int(arch), 32)
    else:
        target = GPUTarget("hip", arch, 64 if arch.startswith("gfx9") else 32)

    def run(self: JITFunction, *args: Any, grid: object, warmup: bool, **kwargs: Any) -> None:
        compile_launch(target, self, *args, **kwargs)

    JITFunction.run = run
    for name in sys.argv[2:]:
        CASES[name]()


if __name__ == "__main__":
    main()
