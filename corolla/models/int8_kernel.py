"""Triton kernels that multiply a few rows with an 8-bit weight, or make it wide, at the speed of memory.

bitsandbytes quantizes the rows too, looks for outliers among them, which the host has to wait for, and
multiplies in several kernels (docs/decisions.md has figures). Here the rows stay as they are, and a value
stands for itself times its row's scale / 127. Imported only where Triton is installed, by
`corolla.models.int8`. Knows nothing of layers.
"""

# pyright: reportMissingImports=false, reportIndexIssue=false

import torch
import triton
import triton.language as tl
from torch import Tensor

LEAST_ROWS = 16
"""That a tensor core takes; what is there fewer is padded."""
COLUMNS, DEPTH, WARPS, STAGES = 64, 256, 4, 3
"""Of a program, and of one of its turns. Nearly the fastest of those measured on an H200, and small enough
for the shared memory of home GPUs."""
WIDENED = 4096
"""Values of a program that widens."""


@triton.jit
def _multiply(
    hidden,
    weight,
    scales,
    output,
    rows,
    columns,
    depth,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """`COLUMNS` of the output's columns; sums are in fp32."""
    row = tl.arange(0, ROWS)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    inner = tl.arange(0, DEPTH)
    from_hidden = hidden + row[:, None] * depth + inner[None, :]
    from_weight = weight + column[None, :].to(tl.int64) * depth + inner[:, None]
    is_row, is_column = row[:, None] < rows, column[None, :] < columns
    sums = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for start in range(0, depth, DEPTH):
        left = depth - start
        some = tl.load(from_hidden, mask=is_row & (inner[None, :] < left), other=0.0)
        values = tl.load(from_weight, mask=is_column & (inner[:, None] < left), other=0)
        sums = tl.dot(some, values.to(some.dtype), sums)
        from_hidden += DEPTH
        from_weight += DEPTH
    scale = tl.load(scales + column, mask=column < columns, other=0.0) / 127
    to = output + row[:, None] * columns + column[None, :]
    tl.store(to, (sums * scale[None, :]).to(output.dtype.element_ty), mask=is_row & is_column)


def multiply(hidden: Tensor, weight: Tensor, scales: Tensor, output: Tensor) -> None:
    """Writes `hidden` [rows, in_features] times `weight` int8 [out_features, in_features] into `output`.

    `scales`: fp32 [out_features]. `output`: [rows, out_features] in the dtype of `hidden`, bf16 or fp16.
    """
    rows, depth = hidden.shape
    columns = len(weight)
    with torch.cuda.device(hidden.device):
        _multiply[(triton.cdiv(columns, COLUMNS),)](
            hidden,
            weight,
            scales,
            output,
            rows,
            columns,
            depth,
            max(LEAST_ROWS, triton.next_power_of_2(rows)),
            COLUMNS,
            DEPTH,
            num_warps=WARPS,
            num_stages=STAGES,
        )


@triton.jit
def _widen(weight, scales, wide, depth, WIDENED: tl.constexpr):
    row = tl.program_id(0)
    at = tl.program_id(1) * WIDENED + tl.arange(0, WIDENED)
    start = row.to(tl.int64) * depth
    values = tl.load(weight + start + at, mask=at < depth, other=0)
    scaled = values.to(tl.float32) * (tl.load(scales + row) / 127)
    tl.store(wide + start + at, scaled.to(wide.dtype.element_ty), mask=at < depth)


def widen(weight: Tensor, scales: Tensor, wide: Tensor) -> None:
    """Writes the values of `weight`, int8 [out_features, in_features], into `wide` of the same shape.

    `scales`: fp32 [out_features].
    """
    rows, depth = weight.shape
    with torch.cuda.device(weight.device):
        _widen[(rows, triton.cdiv(depth, WIDENED))](weight, scales, wide, depth, WIDENED)
