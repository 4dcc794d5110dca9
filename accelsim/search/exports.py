"""Cost tables as files: CSV, and the layouts that two published searches read."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.errors import SearchError
from accelsim.report.files import check_file_path, save_text
from accelsim.search.costs import Cost, CostTable

HAQ_BITS = 8
MEBI = 1024 * 1024
COSTS_FILE = ("tables of costs are written as", (".csv", ".parquet"))
HAQ_FILE = ("HAQ reads", (".npy",))
HAWQ_FILE = ("HAWQ's columns are written as", (".json", ".py"))


def check_targets(costs: Path, haq: Path | None = None, hawq: Path | None = None) -> None:
    """Raise SearchError or ReportError where one of the files could not be written in the end: before the work."""
    _check(costs, COSTS_FILE)
    if haq is not None:
        _check(haq, HAQ_FILE)
    if hawq is not None:
        _check(hawq, HAWQ_FILE)


def _check(target: Path, kind: tuple[str, tuple[str, ...]]) -> None:
    what, endings = kind
    if check_file_path(target).suffix.lower() not in endings:
        raise SearchError(f"{target}: {what} {' or '.join(endings)}; end the name so")


def save_costs(table: CostTable, path: str | Path) -> Path:
    """Write the table as ``.csv``, or as ``.parquet`` (which needs pandas and pyarrow). Empty: not known.

    Raises SearchError for another ending, ReportError where the file cannot be written.

    >>> import accelsim
    >>> from accelsim.search.costs import cost_table
    >>> trace = accelsim.load_trace("traces/digits_cnn_int8.npz").head(1)
    >>> table = cost_table(accelsim.load_config("configs/bitfusion.yaml"), trace, [4, 8], [4, 8])
    >>> import pandas
    >>> len(pandas.read_csv(save_costs(table, "costs.csv")))
    16
    """
    target = Path(path)
    _check(target, COSTS_FILE)
    if target.suffix.lower() == ".parquet":
        buffer = io.BytesIO()
        try:
            table.frame().to_parquet(buffer, index=False)
        except ImportError as error:
            raise SearchError(f"{target}: parquet needs pandas and pyarrow: pip install 'accelsim[search]'") from error
        return _save_bytes(buffer.getvalue(), target)
    text, rows = io.StringIO(), table.rows()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return save_text(text.getvalue(), target)


def haq_array(table: CostTable, cost: Cost = "latency") -> NDArray[np.float64]:
    """Return HAQ's lookup table: float64 [layers with weights, 8, 8], by weight bits - 1 and activation bits - 1.

    Units are those of LayerCost.value. Every cell is finite: a width that the table has not costs what the next wider
    one in it does (hardware pads operands), so 1 bit costs what 2 bits do. HAQ adds up cells and compares with a share
    of the cells for 8 bits; it indexes the first layer's activation with -2, that is 7 bits.

    Raises SearchError where the table has no 8 bits, to which all others are compared.

    >>> import accelsim
    >>> from accelsim.search.costs import cost_table
    >>> trace = accelsim.load_trace("traces/digits_cnn_int8.npz").head(1)
    >>> table = cost_table(accelsim.load_config("configs/bitfusion.yaml"), trace, [4, 8], [4, 8])
    >>> array = haq_array(table, "size")
    >>> array.shape, array[1, :, 7].tolist()  # bytes of conv2's weights: narrower ones are stored as 4 bits
    ((4, 8, 8), [2304.0, 2304.0, 2304.0, 2304.0, 4608.0, 4608.0, 4608.0, 4608.0])
    """
    if HAQ_BITS not in table.weight_bits or HAQ_BITS not in table.activation_bits:
        raise SearchError("a HAQ table compares with 8 bits; let --weight-bits and --activation-bits include 8")
    if not table.weighted:
        raise SearchError(f"{table.network_name!r} has no layer with weights; a HAQ table would be empty")
    widths = range(1, HAQ_BITS + 1)
    return np.array(
        [
            [
                [
                    table.cells[name, _wider(table.weight_bits, w), _wider(table.activation_bits, a)].value(cost)
                    for a in widths
                ]
                for w in widths
            ]
            for name in table.weighted
        ]
    )


def _wider(known: tuple[int, ...], bits: int) -> int:
    return min(each for each in known if each >= bits)


def save_haq(table: CostTable, path: str | Path, cost: Cost = "latency") -> Path:
    """Write :func:`haq_array` as ``.npy``. Raises SearchError as it does, or for another ending.

    >>> import accelsim
    >>> from accelsim.search.costs import cost_table
    >>> trace = accelsim.load_trace("traces/digits_cnn_int8.npz").head(1)
    >>> table = cost_table(accelsim.load_config("configs/bitfusion.yaml"), trace, [4, 8], [4, 8])
    >>> import numpy
    >>> numpy.load(save_haq(table, "costs.npy", "energy")).shape
    (4, 8, 8)
    """
    target = Path(path)
    _check(target, HAQ_FILE)
    buffer = io.BytesIO()
    np.save(buffer, haq_array(table, cost), allow_pickle=False)
    return _save_bytes(buffer.getvalue(), target)


def hawq_columns(table: CostTable) -> dict[str, Any]:
    """Return per-layer columns in the units of HAWQ-V3's integer program, layers with weights in order.

    ``latency_int<b>`` in ms, ``energy_int<b>`` in µJ, ``delta_weights_<b>bit_square``, that is ||W - Q(W)||^2, which
    the program multiplies by Hessian traces, and ``weight_sqnr_db_int<b>`` (both None where the weights are not known,
    the latter without noise too) for each width that weights and activations both have; ``parameters`` in units of
    2^20, ``bops`` in millions of MACs, which the program multiplies by widths. HAWQ drops the first and the last layer,
    which stay at 8 bits: so may the reader.

    Raises SearchError where weights and activations have no width in common.

    >>> import accelsim
    >>> from accelsim.search.costs import cost_table
    >>> trace = accelsim.load_trace("traces/digits_cnn_int8.npz").head(1)
    >>> table = cost_table(accelsim.load_config("configs/bitfusion.yaml"), trace, [4, 8], [4, 8])
    >>> columns = hawq_columns(table)
    >>> columns["layers"], columns["bops"]
    (['conv1', 'conv2', 'fc1', 'fc2'], [0.002304, 0.073728, 0.032768, 0.00064])
    """
    both = [bits for bits in table.weight_bits if bits in table.activation_bits]
    if not both or not table.weighted:
        raise SearchError(
            "HAWQ's columns have one width for weights and activations; --weight-bits and --activation-bits have none "
            "in common, or no layer has weights"
        )
    first = [table.cells[name, both[0], both[0]] for name in table.weighted]
    columns: dict[str, Any] = {
        "layers": list(table.weighted),
        "parameters": [cell.estimate.weight_bits / both[0] / MEBI for cell in first],
        "bops": [cell.estimate.macs / 1e6 for cell in first],
    }
    for bits in both:
        cells = [table.cells[name, bits, bits] for name in table.weighted]
        columns[f"latency_int{bits}"] = [cell.value("latency") / 1e3 for cell in cells]
        columns[f"energy_int{bits}"] = [cell.value("energy") / 1e6 for cell in cells]
        columns[f"delta_weights_{bits}bit_square"] = [cell.weight_squared_error for cell in cells]
        columns[f"weight_sqnr_db_int{bits}"] = [_finite(cell.weight_sqnr_db) for cell in cells]
    return columns


def save_hawq(table: CostTable, path: str | Path) -> Path:
    """Write :func:`hawq_columns` as ``.json``, or as ``.py``: literal lists to paste or import.

    Raises SearchError as it does, or for another ending.

    >>> import accelsim
    >>> from accelsim.search.costs import cost_table
    >>> trace = accelsim.load_trace("traces/digits_cnn_int8.npz").head(1)
    >>> table = cost_table(accelsim.load_config("configs/bitfusion.yaml"), trace, [4, 8], [4, 8])
    >>> import json
    >>> json.loads(save_hawq(table, "columns.json").read_text())["layers"]
    ['conv1', 'conv2', 'fc1', 'fc2']
    """
    target = Path(path)
    _check(target, HAWQ_FILE)
    columns = hawq_columns(table)
    if target.suffix.lower() == ".json":
        return save_text(json.dumps(columns, indent=1, allow_nan=False) + "\n", target)
    lines = [
        f"# {table.network_name} on {table.config_name}: latency in ms, energy in uJ, parameters in 2**20, bops in"
    ]
    lines.append("# millions of MACs (multiply by both widths)")
    lines += [f"{name} = {values!r}" for name, values in columns.items()]
    return save_text("\n".join(lines) + "\n", target)


def _finite(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None


def _save_bytes(content: bytes, target: Path) -> Path:
    import uuid

    from accelsim.errors import ReportError

    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        draft.write_bytes(content)
        draft.replace(target)
    except OSError as error:
        raise ReportError(f"{target}: cannot be written: {error.strerror or error}") from None
    finally:
        draft.unlink(missing_ok=True)
    return target
