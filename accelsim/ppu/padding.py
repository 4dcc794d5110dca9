"""Taking off what padding bits have added to binary sums (docs/numerics.md, XNOR-popcount).

The amounts are constants of the layer (accelsim.mapping.padding). Each is subtracted from its accumulator after the
array is done, in a register of the accumulator's width.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accelsim.actions import Action, Actions
from accelsim.engine.contract import OverflowEvent, RegisterWatch
from accelsim.mapping.contract import Overflow
from accelsim.ppu.zero_point import Corrected

Int64 = NDArray[np.int64]


def subtract_padding(acc: Int64, padding: Int64, *, acc_bits: int, overflow: Overflow, k: int) -> Corrected:
    """Return ``limit(acc - padding)``; what padding added nothing to takes no work.

    acc : int64 [batch, M, N], within `acc_bits`
    padding : int64 [batch, M, N], within int32 (a sum of +1 and -1)
    acc_bits, overflow : the accumulators' width, and "wrap" or "saturate"
    k : length of the reduction; an overflow here is reported at this k
    """
    low, high = -(1 << (acc_bits - 1)), (1 << (acc_bits - 1)) - 1
    # One step down the padding of a 64-bit register could leave int64, which holds no sum of bits: K < 2**31.
    exact = acc - padding
    beyond = (exact < low) | (exact > high)
    first = None
    if beyond.any():
        b, m, n = (int(i) for i in np.unravel_index(int(beyond.argmax()), beyond.shape))
        first = OverflowEvent((b, m, n), k, int(exact[b, m, n]))
    limited = np.clip(exact, low, high) if overflow == "saturate" else ((exact - low) & (high - low)) + low
    watch = RegisterWatch(
        int(np.count_nonzero(beyond)), first, min(0, int(exact.min(initial=0))), max(0, int(exact.max(initial=0)))
    )
    actions = Actions({Action("ppu", "add", (acc_bits,)): int(np.count_nonzero(padding.any(axis=2))) * acc.shape[2]})
    return Corrected(np.asarray(limited, np.int64), watch, actions)
