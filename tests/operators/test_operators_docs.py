"""docs/operators.md names every operator, its rules and its attributes."""

import re
from typing import get_args

import pytest

from accelsim.operators.registry import OPERATORS


@pytest.fixture(scope="module")
def rows(project_root):
    """{operator: (rules, attributes)} from the page's table."""
    found = {}
    for line in (project_root / "docs" / "operators.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            for name in re.findall(r"`(\w+)`", cells[0]):
                rules = {rule for rule in cells[2].split(", ") if rule and not rule.startswith("(")}
                found[name] = rules, set(re.findall(r"`(\w+)`", cells[3]))
    return found


def test_every_operator_has_a_row(rows):
    assert sorted(rows) == sorted(OPERATORS)


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_rows_name_rules_and_attributes(rows, name):
    fields = dict(OPERATORS[name].attributes.model_fields)
    rule = fields.pop("rule", None)
    assert rows[name] == (set(get_args(rule.annotation)) if rule else set(), set(fields))
