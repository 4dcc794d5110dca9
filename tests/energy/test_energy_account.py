import copy
import math
import pickle
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelsim.actions import Action, Actions
from accelsim.energy.account import COMPONENTS, ComponentEnergy, energy_account, on_grid
from accelsim.energy.operations import OPERATIONS
from accelsim.energy.table import EnergyTable, load_table
from accelsim.errors import EnergyTableError

TABLE = load_table("horowitz45")


def numbers(name):
    """Clocks of hertz would make a cycle's leakage so dear that a run exceeds the 8.8 J up to which sums are exact."""
    return st.integers(10**6, 10**9) if name == "clock_hz" else st.integers(1, 64)


def any_action():
    operation = st.sampled_from(list(OPERATIONS.values()))
    return st.tuples(st.sampled_from(list(COMPONENTS)), operation).flatmap(
        lambda pair: st.tuples(*map(numbers, pair[1].params)).map(lambda params: Action(pair[0], pair[1].name, params))
    )


work = st.dictionaries(any_action(), st.integers(0, 10**7), max_size=12).map(Actions)


@given(work)
def test_rows_components_and_total_add_up_exactly_in_any_order(actions):
    account = energy_account(actions, TABLE)
    exact = sum((Fraction(row.energy_pj) for row in account.rows), Fraction())
    energy = account.by_component
    assert Fraction(account.total_pj) == exact
    assert Fraction(energy.total_pj) == exact
    assert sum(energy.values()) == sum(reversed(list(energy.values()))) == account.total_pj
    for name in COMPONENTS:
        assert sum(row.energy_pj for row in account.rows if row.component == name) == energy[name]


@given(work)
def test_each_row_is_its_count_times_its_price(actions):
    account = energy_account(actions, TABLE)
    assert {(row.component, row.operation, row.params): row.count for row in account.rows} == {
        tuple(action): count for action, count in actions.items()
    }
    for row in account.rows:
        assert row.price_pj == TABLE.price_pj(row.operation, row.params)
        assert row.energy_pj == pytest.approx(row.count * row.price_pj, rel=1e-12, abs=2**-11)


@given(st.lists(work, max_size=5))
def test_layers_add_up_to_the_run_by_component_and_in_total(layers):
    parts = [energy_account(actions, TABLE).by_component for actions in layers]
    run = ComponentEnergy.sum(parts)
    assert run.total_pj == sum(part.total_pj for part in parts)
    for name in COMPONENTS:
        assert run[name] == sum(part[name] for part in parts)


@given(st.lists(st.lists(st.floats(0, 1e10), min_size=11, max_size=11), min_size=1, max_size=40))
def test_sums_are_exact_and_in_any_order_up_to_joules(layers):
    """40 layers of 11 components of up to 10 mJ: 4.4 J, below 2**43 pJ."""
    parts = [ComponentEnergy(dict(zip(COMPONENTS, map(on_grid, layer), strict=True))) for layer in layers]
    run = ComponentEnergy.sum(parts)
    exact = sum((Fraction(energy) for part in parts for energy in part.values()), Fraction())
    assert Fraction(run.total_pj) == Fraction(sum(run.values())) == exact
    assert sum(run.values()) == sum(reversed(list(run.values()))) == sum(part.total_pj for part in reversed(parts))


def test_components_are_listed_in_their_fixed_order_even_when_nothing_happened():
    energy = energy_account(Actions(), TABLE).by_component
    assert list(energy.items()) == [
        (name, 0.0)
        for name in [
            *["mac", "register", "accumulator", "scale_unit", "decoder"],
            *["ppu", "vector", "buffer", "dram", "control", "leakage"],
        ]
    ]
    assert energy.total_pj == 0.0


def without(*operations):
    kept = tuple(entry for entry in TABLE.entries if entry.operation not in operations)
    return EnergyTable(TABLE.name, TABLE.technology, TABLE.description, kept)


def test_an_action_without_a_price_is_an_error_that_says_how_often_it_happened():
    actions = Actions(
        {
            Action("buffer", "sram_read", (8192, 64, 1)): 1_204_000,
            Action("buffer", "sram_read", (65536, 64, 1)): 224,
            Action("mac", "mult", (8, 8)): 5,
        }
    )
    with pytest.raises(EnergyTableError) as caught:
        energy_account(actions, without("sram_read"))
    assert str(caught.value) == "energy table 'horowitz45': no price for sram_read; 1,204,224 bits were read"


def test_every_missing_price_is_named_at_once():
    actions = Actions(
        {Action("mac", "mult", (8, 8)): 5, Action("ppu", "look_up"): 1_000, Action("ppu", "compare", (8,)): 1}
    )
    with pytest.raises(EnergyTableError) as caught:
        energy_account(actions, without("mult"))
    assert str(caught.value).splitlines() == [
        "energy table 'horowitz45': 2 problems",
        "  no price for mult; 5 multiplications were made",
        "  no price for look_up; 1,000 of them were counted",
    ]


def test_a_component_that_does_not_exist_is_our_own_mistake():
    with pytest.raises(ValueError, match="belongs to no component; use one of mac, register"):
        energy_account(Actions({Action("multiplier", "mult", (8, 8)): 1}), TABLE)


def test_component_energy_is_a_frozen_value():
    energy = ComponentEnergy({"mac": 1.5, "dram": 2.0})
    assert energy == {**dict.fromkeys(COMPONENTS, 0.0), "mac": 1.5, "dram": 2.0}
    assert energy != ComponentEnergy({"mac": 1.5})
    assert pickle.loads(pickle.dumps(energy)) == copy.deepcopy(energy) == energy
    assert hash(copy.copy(energy)) == hash(energy)
    with pytest.raises(TypeError):
        energy["mac"] = 2.0
    with pytest.raises(KeyError):
        energy["sram"]
    with pytest.raises(ValueError, match="unknown component 'sram'; use one of mac"):
        ComponentEnergy({"sram": 1.0})
    for wrong in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"energy of mac is .* pJ; it must be finite and not negative"):
            ComponentEnergy({"mac": wrong})


@given(st.floats(0, 1e12))
def test_the_grid_moves_a_value_by_less_than_a_femtojoule(energy_pj):
    assert abs(Fraction(on_grid(energy_pj)) - Fraction(energy_pj)) <= Fraction(1, 2**11)
    assert (Fraction(on_grid(energy_pj)) * 2**10).denominator == 1
