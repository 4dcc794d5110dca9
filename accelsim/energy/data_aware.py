"""The data-aware account: the same work as the per-operation account, priced by what the data did.

Three things are priced otherwise (docs/energy.md, "What the data do"); all other rows are those of the plain account.

multiplications : those with a zero operand cost the share ``mult_zero`` of their price (0: gated). Of the others each
    costs its price times ``multiplier_share``: 1 for operands as restless as random ones, ``mult_held`` where one stays
registers : every bit that is clocked costs ``register_clock``, every bit that changes ``register_toggle``; where nobody
    measured, every other bit changes, which makes ``register_write``
"""

from __future__ import annotations

from accelsim.actions import Actions
from accelsim.energy.account import COMPONENTS, EnergyBreakdown, EnergyRow, energy_account, on_grid
from accelsim.energy.table import EnergyTable
from accelsim.engine.contract import Activity
from accelsim.mapping.contract import LayerPlan

RANDOM_RATE = 0.5  # of the bits of random data toggle
MULTIPLICATIONS = ("mult", "fused_mult", "serial_mult", "semi_serial_mult")


def data_aware_account(actions: Actions, activity: Activity, plan: LayerPlan, table: EnergyTable) -> EnergyBreakdown:
    """Price a layer's actions by what its data did.

    actions : all of the layer, as in `energy_account`
    activity : of the same layer, from an engine
    plan : says which actions are the products and the registers that the activity is about

    Raises EnergyTableError where the table lacks a price, of the plain account or of this one.
    """
    rows = []
    for row in energy_account(actions, table).rows:
        is_product = row.component == "mac" and row.operation in MULTIPLICATIONS and _has_multipliers(plan)
        if is_product:
            rows += _multiplications(row, activity, plan, table)
        elif row.component != "register":
            rows.append(row)
    latched_bits = sum(
        count * action.params[0]
        for action, count in actions.items()
        if action.component == "register" and action.operation == "register_write"
    )
    rows += _registers(latched_bits, activity, table)
    order = list(COMPONENTS)
    return EnergyBreakdown(tuple(sorted(rows, key=lambda row: order.index(row.component))))


def multiplier_share(rates: tuple[float, float], held: tuple[float, float]) -> float:
    """Return the share of its price that a product costs, given how restless its operands are.

    rates : toggle rates of both operands over that of random data; more than 1 counts as 1
    held : what remains of a multiplication where the first operand stays the same, and where the second does

    Linear in either rate between the four corners: both random 1, one held `held`, nothing moves 0.

    >>> multiplier_share((1.0, 0.0), (0.7, 0.8))  # the second one is held
    0.8
    """
    one, other = (min(1.0, rate) for rate in rates)
    return held[0] * other * (1 - one) + held[1] * one * (1 - other) + one * other


def operand_rates(activity: Activity, plan: LayerPlan) -> tuple[float, float]:
    """Return the rates, over that of random data, at which the stream and the other operand reach the multipliers.

    A stationary operand stays for a whole pass: 0.
    """
    other = activity.other.rate / RANDOM_RATE if plan.dataflow == "os" else 0.0
    return activity.stream.rate / RANDOM_RATE, other


def _has_multipliers(plan: LayerPlan) -> bool:
    return plan.product in ("multiply", "lookup")


def _multiplications(row: EnergyRow, activity: Activity, plan: LayerPlan, table: EnergyTable) -> list[EnergyRow]:
    widths = plan.widths
    bits = (widths.w, widths.a) if plan.transposed else (widths.a, widths.w)
    held = (table.price_pj("mult_held", (bits[0],)), table.price_pj("mult_held", (bits[1],)))
    share = multiplier_share(operand_rates(activity, plan), held)
    zeros = min(activity.zero_products, row.count)
    found = []
    for count, price in (
        (row.count - zeros, row.price_pj * share),
        (zeros, row.price_pj * table.price_pj("mult_zero")),
    ):
        found.append(EnergyRow(row.component, row.operation, row.params, count, price, on_grid(count * price)))
    return [each for each in found if each.count]


def _registers(latched_bits: int, activity: Activity, table: EnergyTable) -> list[EnergyRow]:
    """Return the rows of the array's registers: clocked bits, changed bits, and bits of which nobody knows."""
    measured_bits = activity.stream.latches * activity.stream.bits + activity.other.latches * activity.other.bits
    toggles = activity.stream.toggles + activity.other.toggles
    if activity.psum_toggles is not None:  # os: what moves while it drains is in neither number
        measured_bits += activity.psum_bits
        toggles += activity.psum_toggles
    unknown_bits = max(0, latched_bits - measured_bits)
    clock, toggle = table.price_pj("register_clock"), table.price_pj("register_toggle")
    events = (
        ("register_clock", latched_bits, clock),
        ("register_toggle", toggles, toggle),
        ("register_toggle", unknown_bits, toggle * RANDOM_RATE),
    )
    return [
        EnergyRow("register", operation, (), count, price, on_grid(count * price))
        for operation, count, price in events
        if count
    ]
