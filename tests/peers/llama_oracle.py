"""llama.cpp as an oracle: raw logits through the C API that the `xllamacpp` wheel's library exports.

The wheel's own Python interface is a server that answers with sampled text and log-probabilities of a few
tokens; the C functions under it give the logits of every position of a batch in one call. Parameter
structs are taken as llama.cpp's own defaults and changed only in the leading fields declared here; the
defaults are compared with their documented values first, so that a wheel with another layout fails with a
message and not with wrong numbers.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
import xllamacpp

TYPE_F32, TYPE_F16, TYPE_Q8_0 = 0, 1, 8
FLASH_OFF, FLASH_ON = 0, 1
_ROOM = 1024  # bytes given to a struct passed by value; more than any version's size


class _ModelParams(ctypes.Structure):
    _fields_ = (
        ("devices", ctypes.c_void_p),
        ("tensor_buft_overrides", ctypes.c_void_p),
        ("n_gpu_layers", ctypes.c_int32),
        ("rest", ctypes.c_uint8 * (_ROOM - 20)),
    )


class _ContextParams(ctypes.Structure):
    _fields_ = (
        ("n_ctx", ctypes.c_uint32),
        ("n_batch", ctypes.c_uint32),
        ("n_ubatch", ctypes.c_uint32),
        ("n_seq_max", ctypes.c_uint32),
        ("n_rs_seq", ctypes.c_uint32),
        ("n_outputs_max", ctypes.c_uint32),
        ("n_outputs_max_per_seq", ctypes.c_uint32),
        ("n_threads", ctypes.c_int32),
        ("n_threads_batch", ctypes.c_int32),
        ("ctx_type", ctypes.c_int32),
        ("rope_scaling_type", ctypes.c_int32),
        ("pooling_type", ctypes.c_int32),
        ("attention_type", ctypes.c_int32),
        ("flash_attn_type", ctypes.c_int32),
        ("rope_freq_base", ctypes.c_float),
        ("rope_freq_scale", ctypes.c_float),
        ("yarn_ext_factor", ctypes.c_float),
        ("yarn_attn_factor", ctypes.c_float),
        ("yarn_beta_fast", ctypes.c_float),
        ("yarn_beta_slow", ctypes.c_float),
        ("yarn_orig_ctx", ctypes.c_uint32),
        ("defrag_thold", ctypes.c_float),
        ("cb_eval", ctypes.c_void_p),
        ("cb_eval_user_data", ctypes.c_void_p),
        ("type_k", ctypes.c_int32),
        ("type_v", ctypes.c_int32),
        ("abort_callback", ctypes.c_void_p),
        ("abort_callback_data", ctypes.c_void_p),
        ("newer", ctypes.c_uint64),  # in the wheel, not in llama.h of llama-cpp-python 0.3.36; zero
        ("embeddings", ctypes.c_bool),
        ("offload_kqv", ctypes.c_bool),
        ("no_perf", ctypes.c_bool),
        ("op_offload", ctypes.c_bool),
        ("swa_full", ctypes.c_bool),
        ("rest", ctypes.c_uint8 * (_ROOM - 141)),
    )


class _Batch(ctypes.Structure):
    _fields_ = (
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.c_void_p),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.c_void_p),
        ("n_seq_id", ctypes.c_void_p),
        ("seq_id", ctypes.c_void_p),
        ("logits", ctypes.c_void_p),
    )


_LOG_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


_log: list[str] = []  # what llama.cpp has said since the last model was opened


def _keep(_level: int, text: bytes, _data: int | None) -> None:
    """llama.cpp's log is not printed; errors show as null handles."""
    _log.append(text.decode(errors="replace"))


_keeper = _LOG_CALLBACK(_keep)


def _library() -> ctypes.CDLL:
    lib = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
    p = ctypes.c_void_p
    lib.llama_model_default_params.restype = _ModelParams
    lib.llama_context_default_params.restype = _ContextParams
    lib.llama_model_load_from_file.argtypes = [ctypes.c_char_p, _ModelParams]
    lib.llama_model_load_from_file.restype = p
    lib.llama_init_from_model.argtypes = [p, _ContextParams]
    lib.llama_init_from_model.restype = p
    lib.llama_decode.argtypes = [p, _Batch]
    lib.llama_decode.restype = ctypes.c_int32
    lib.llama_get_logits_ith.argtypes = [p, ctypes.c_int32]
    lib.llama_get_logits_ith.restype = ctypes.POINTER(ctypes.c_float)
    lib.llama_model_get_vocab.argtypes = [p]
    lib.llama_model_get_vocab.restype = p
    lib.llama_vocab_n_tokens.argtypes = [p]
    lib.llama_vocab_n_tokens.restype = ctypes.c_int32
    lib.llama_tokenize.argtypes = [
        p, ctypes.c_char_p, ctypes.c_int32, p, ctypes.c_int32, ctypes.c_bool, ctypes.c_bool,
    ]  # fmt: skip
    lib.llama_get_memory.argtypes = [p]
    lib.llama_get_memory.restype = p
    lib.llama_memory_clear.argtypes = [p, ctypes.c_bool]
    lib.llama_free.argtypes = [p]
    lib.llama_model_free.argtypes = [p]
    lib.llama_log_set.argtypes = [_LOG_CALLBACK, p]
    lib.llama_log_set(_keeper, None)
    lib.llama_backend_init()
    return lib


def _check_layout(model: _ModelParams, context: _ContextParams) -> None:
    found = (
        context.n_ctx, context.n_batch, context.n_ubatch, context.n_seq_max, context.flash_attn_type,
        context.yarn_ext_factor, context.type_k, context.type_v, context.embeddings, context.swa_full,
    )  # fmt: skip
    if found != (512, 2048, 512, 1, -1, -1.0, TYPE_F16, TYPE_F16, False, True) or (
        model.n_gpu_layers not in (-1, 999)
    ):
        raise RuntimeError(
            f"xllamacpp {xllamacpp.__version__} has another parameter layout than this harness knows "
            f"(read {found}, {model.n_gpu_layers}): adjust tests/peers/llama_oracle.py to its llama.h"
        )


class LlamaCpp:
    """A model file loaded in llama.cpp on the CPU, with one context of `n_ctx` tokens."""

    def __init__(
        self,
        path: Path,
        *,
        n_ctx: int = 512,
        kv_type: int = TYPE_F32,
        flash: int = FLASH_OFF,
        n_ubatch: int = 512,
        n_threads: int = 1,
        eval_callback: int | None = None,
        swa_full: bool = True,
    ) -> None:
        """`eval_callback`: address of a `ggml_backend_sched_eval_callback`, which outlives this. `swa_full`:
        sliding-window layers keep the whole context (llama.cpp's programs: false)."""
        _log.clear()
        self._lib = _library()
        model_params = self._lib.llama_model_default_params()
        params = self._lib.llama_context_default_params()
        _check_layout(model_params, params)
        model_params.n_gpu_layers = 0
        self._model = self._lib.llama_model_load_from_file(str(path).encode(), model_params)
        if not self._model:
            raise RuntimeError(f"llama.cpp does not load {path}")
        params.n_ctx, params.n_batch, params.n_ubatch = n_ctx, n_ctx, n_ubatch
        params.n_threads = params.n_threads_batch = n_threads
        params.type_k = params.type_v = kv_type
        params.flash_attn_type = flash
        params.cb_eval = eval_callback
        params.swa_full = swa_full
        self._context = self._lib.llama_init_from_model(self._model, params)
        if not self._context:
            raise RuntimeError(f"llama.cpp makes no context for {path}")
        self._vocab = self._lib.llama_model_get_vocab(self._model)
        self.n_vocab: int = self._lib.llama_vocab_n_tokens(self._vocab)
        self._past = 0
        self.log = "".join(_log)

    def __enter__(self) -> LlamaCpp:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lib.llama_free(self._context)
        self._lib.llama_model_free(self._model)

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text, special tokens in it recognized, beginning-of-text added if the file asks."""
        raw = text.encode()
        ids = (ctypes.c_int32 * (len(raw) + 8))()
        n = self._lib.llama_tokenize(self._vocab, raw, len(raw), ids, len(ids), True, True)
        return ids[:n]

    def reset(self) -> None:
        """Forgets the sequence."""
        self._lib.llama_memory_clear(self._lib.llama_get_memory(self._context), True)
        self._past = 0

    def step(self, tokens: Sequence[int], *, last: bool = False) -> npt.NDArray[np.float32]:
        """Appends tokens to the sequence in one batch; logits [n_tokens (or 1 with last), n_vocab]."""
        n = len(tokens)
        token = (ctypes.c_int32 * n)(*tokens)
        pos = (ctypes.c_int32 * n)(*range(self._past, self._past + n))
        n_seq = (ctypes.c_int32 * n)(*[1] * n)
        zero = ctypes.c_int32(0)
        seq = (ctypes.c_void_p * n)(*[ctypes.addressof(zero)] * n)
        want = (ctypes.c_int8 * n)(*[0 if last and i < n - 1 else 1 for i in range(n)])
        pointers = [ctypes.cast(a, ctypes.c_void_p) for a in (token, pos, n_seq, seq, want)]
        code = self._lib.llama_decode(
            self._context, _Batch(n, pointers[0], None, pointers[1], pointers[2], pointers[3], pointers[4])
        )
        if code != 0:
            raise RuntimeError(f"llama_decode answers {code} at position {self._past}")
        self._past += n
        wanted = [n - 1] if last else range(n)
        out = np.empty((len(wanted), self.n_vocab), np.float32)
        for row, i in enumerate(wanted):
            out[row] = np.ctypeslib.as_array(
                self._lib.llama_get_logits_ith(self._context, i), (self.n_vocab,)
            )
        return out

    def greedy(self, prompt: Sequence[int], n: int) -> tuple[list[int], npt.NDArray[np.float32]]:
        """n tokens of greatest logit after the prompt, and the logits [n, n_vocab] that chose them."""
        self.reset()
        logits = [self.step(prompt, last=True)[0]]
        tokens = [int(np.argmax(logits[0]))]
        while len(tokens) < n:
            logits.append(self.step(tokens[-1:])[0])
            tokens.append(int(np.argmax(logits[-1])))
        return tokens, np.stack(logits)
