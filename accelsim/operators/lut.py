"""Functions of one code, by a stored table: lookup (docs/operators.md, Tables)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import field_validator

from accelsim.actions import Actions
from accelsim.errors import FormatError, ShapeError
from accelsim.formats.spec import Codes
from accelsim.operators.common import check_count, check_integers, check_same_meaning, listed, vector_actions
from accelsim.operators.spec import Attributes, Operand, Reals, Shape, TensorSpec, Work
from accelsim.operators.tables import function_named, real_function


class LookupAttributes(Attributes):
    """function : what the table stands for, a name in accelsim.operators.tables.FUNCTIONS; the table has the codes."""

    function: str

    @field_validator("function")
    @classmethod
    def _is_known(cls, name: str) -> str:
        function_named(name)
        return name


class Lookup:
    """Inputs x and table: the output's code is the table's entry at the input's code, the smallest code first."""

    name: ClassVar[str] = "lookup"
    attributes = LookupAttributes

    def output_shape(self, inputs: Sequence[Shape], attributes: LookupAttributes) -> Shape:
        check_count(inputs, 2, "x, table")
        if len(inputs[1]) != 1:
            raise ShapeError(f"the table has shape {inputs[1]}; it needs one axis, with an entry for each code")
        return inputs[0]

    def check(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: LookupAttributes) -> None:
        x, table = inputs
        check_integers(x, table, output)
        check_same_meaning(table, output, "the table's codes are the output's")
        entries = x.format.code_high - x.format.code_low + 1
        if table.shape != (entries,):
            raise FormatError(f"the table has {table.shape[0]} entries, but {x.format.name} has {entries} codes")

    def run(self, inputs: Sequence[Operand], output: TensorSpec, attributes: LookupAttributes) -> Codes:
        x, table = inputs
        return np.asarray(table.codes[x.codes - x.format.code_low])

    def oracle(self, inputs: Sequence[Operand], output: TensorSpec, attributes: LookupAttributes) -> Codes:
        x, table = inputs
        by_code = dict(zip(range(x.format.code_low, x.format.code_high + 1), listed(table), strict=True))
        return np.array([by_code[code] for code in listed(x)]).reshape(x.shape)

    def real(self, inputs: Sequence[Reals], attributes: LookupAttributes) -> Reals:
        return real_function(attributes.function, inputs[0])

    def work(self, inputs: Sequence[TensorSpec], output: TensorSpec, attributes: LookupAttributes) -> Work:
        count, x = math.prod(output.shape), inputs[0]
        actions: Actions = vector_actions({("lookup", (x.format.lane_bits, output.format.lane_bits)): count})
        return Work(1, count, actions)


LOOKUPS = (Lookup(),)
