"""Bit operations (BOPs) of a layer, as two papers count them; they rank bit widths differently."""

from __future__ import annotations

import math


def hawq_bops(macs: int, weight_bits: int, activation_bits: int) -> int:
    """Return b_w x b_a x MACs (HAWQ-V3, Yao et al., ICML 2021): products alone, nothing for adding them up.

    >>> hawq_bops(1000, 4, 8)
    32000
    """
    return macs * weight_bits * activation_bits


def uniq_bops(macs: int, reduction: int, weight_bits: int, activation_bits: int) -> float:
    """Return MACs x (b_w b_a + b_w + b_a + log2(K)) (UNIQ, Baskin et al.): products, and an adder wide enough.

    reduction : K, products that are added up for one output: n k^2 of a convolution with n input channels

    Counted at every output position, as in the paper; some tools leave the positions out. All weights count, zeros too.

    >>> uniq_bops(10, 16, 2, 2)  # 10 x (4 + 2 + 2 + 4)
    120.0
    """
    return macs * (weight_bits * activation_bits + weight_bits + activation_bits + math.log2(reduction))
