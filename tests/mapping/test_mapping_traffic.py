"""What enters the array's edges: one small case worked by hand for each dataflow."""

import pytest
from mapping_cases import machine

from accelsim.mapping.contract import GemmShape
from accelsim.mapping.plan import plan_layer
from accelsim.mapping.traffic import edge_bits

SHAPE = GemmShape(batch=1, m=5, k=4, n=3)


def plan_of(dataflow):
    return plan_layer(SHAPE, machine(dataflow, rows=2, cols=2), a_bits=8, w_bits=4)


@pytest.mark.parametrize(
    ("dataflow", "activations", "weights"),
    [
        # os, 2 x 2: the 5 x 4 activations enter once for each of 2 column folds, the 4 x 3 weights once for each of 3
        # row folds.
        ("os", 20 * 2, 12 * 3),
        # ws: the weights stay and are loaded once; every activation passes 2 column folds.
        ("ws", 20 * 2, 12),
        # is: the activations stay; every weight passes 3 column folds of m.
        ("is", 20, 12 * 3),
    ],
)
def test_operands_enter_once_a_pass(dataflow, activations, weights):
    assert edge_bits(plan_of(dataflow)) == (activations * 8, weights * 4)


def test_block_scales_enter_with_their_blocks():
    # ws, 2 rows of 2 lanes, K = 4 in two blocks of 2: each lane step brings one scale. 5 rows of 2 blocks pass 2 column
    # folds; 3 columns of 2 blocks are loaded once.
    config = machine("ws", rows=2, cols=2, lanes=2)
    plan = plan_layer(SHAPE, config, a_bits=8, w_bits=4, block_size=2, a_scale_bits=6, w_scale_bits=3)
    assert edge_bits(plan) == (20 * 2 * 8 + 5 * 2 * 2 * 6, 12 * 4 + 3 * 2 * 3)
    # is: 5 rows of 2 blocks are loaded once; 3 columns of 2 blocks pass 3 column folds of m.
    config = machine("is", rows=2, cols=2, lanes=2)
    plan = plan_layer(SHAPE, config, a_bits=8, w_bits=4, block_size=2, a_scale_bits=6, w_scale_bits=3)
    assert edge_bits(plan) == (20 * 8 + 5 * 2 * 6, 12 * 3 * 4 + 3 * 2 * 3 * 3)


def test_a_stationary_tile_that_enters_again_is_read_again():
    # ws: the weights enter three times, the activations pass as before; is: the other way round.
    assert edge_bits(plan_of("ws"), entries=3) == (20 * 2 * 8, 3 * 12 * 4)
    assert edge_bits(plan_of("is"), entries=3) == (3 * 20 * 8, 12 * 3 * 4)
