"""Random blocks that look like a trained model's: the values of every sub-block centred on zero."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pintpot.gguf import GGMLType
from pintpot.quants.blocks import BLOCKS
from pintpot.quants.random_blocks import random_blocks
from pintpot.quants.reference import dequantize

U8 = npt.NDArray[np.uint8]

_SAMPLE = 4096  # blocks from which the deviation is measured


def centred_blocks(ggml_type: int, n_blocks: int, rng: np.random.Generator, std: float) -> U8:
    """`n_blocks` random blocks, uint8 [n_blocks * block_bytes], of mean 0 and deviation `std`.

    Random bits give the K-quants with minima sub-blocks of any mean, and products of such rows with each
    other explode. Here a sub-block's minimum follows its scale but for the last bits.
    """
    raw = random_blocks(ggml_type, n_blocks, rng, std)
    if ggml_type not in (GGMLType.Q2_K, GGMLType.Q4_K, GGMLType.Q5_K):
        return raw
    blocks = raw.view(BLOCKS[GGMLType(ggml_type)])
    scales = blocks["scales"]
    if ggml_type == GGMLType.Q2_K:  # a byte a sub-block: scale, then minimum, of 4 bits
        scales[:] = (scales & 0x3F) | ((scales & 0x0C) << 4)
    else:  # 8 scales and 8 minima of 6 bits in 12 bytes
        scales[:, 4:8] = (scales[:, 0:4] & 0xF8) | (scales[:, 4:8] & 0x07)
        scales[:, 8:] = (scales[:, 8:] & 0x7F) | ((scales[:, 8:] & 0x08) << 4)
    sample = raw[: _SAMPLE * BLOCKS[GGMLType(ggml_type)].itemsize]
    correction = np.float32(std / dequantize(ggml_type, sample).std())
    for name in ("d", "dmin"):
        blocks[name] = blocks[name].astype(np.float32) * correction
    return raw
