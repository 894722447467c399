"""A Triton kernel that makes 4-bit weights wide, at the speed of memory.

bitsandbytes' own reads and writes about half as fast (docs/decisions.md has figures). Imported only where
Triton is installed, by `corolla.models.nf4`. Knows nothing of layers.
"""

# pyright: reportMissingImports=false, reportIndexIssue=false

import torch
import triton
import triton.language as tl
from torch import Tensor

BYTES_A_PROGRAM = 1024
WARPS = 2


@triton.jit
def _widen(packed, scales, table, wide, count, GROUP_BYTES: tl.constexpr, BYTES: tl.constexpr):
    """Two values a byte, the high half first; `GROUP_BYTES` bytes share a scale."""
    at = tl.program_id(0) * BYTES + tl.arange(0, BYTES)
    is_there = at < count
    pair = tl.load(packed + at, mask=is_there, other=0).to(tl.int32)
    scale = tl.load(scales + at // GROUP_BYTES, mask=is_there, other=0.0)
    values = tl.interleave(tl.load(table + (pair >> 4)) * scale, tl.load(table + (pair & 15)) * scale)
    to = tl.program_id(0) * 2 * BYTES + tl.arange(0, 2 * BYTES)
    tl.store(wide + to, values.to(wide.dtype.element_ty), mask=to < 2 * count)


def widen(packed: Tensor, scales: Tensor, table: Tensor, group: int, wide: Tensor) -> None:
    """Writes the values of `packed`, two a byte, into `wide`, which has twice as many elements.

    `scales`: fp32, of every `group` values; `table`: fp32 [16], what a half byte stands for.
    """
    count = packed.numel()
    with torch.cuda.device(packed.device):
        _widen[(triton.cdiv(count, BYTES_A_PROGRAM),)](
            packed, scales, table, wide, count, group // 2, BYTES_A_PROGRAM, num_warps=WARPS
        )
