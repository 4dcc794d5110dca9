"""Configurations that load, and the exact words for those that do not."""

import numpy as np
import pytest
from pydantic import ValidationError

from accelsim.config.loader import load_config, parse_config
from accelsim.errors import AccelsimError, ConfigError

SMALL = {"name": "small", "clock_mhz": 100, "array": {"rows": 4, "cols": 3, "dataflow": "ws"}}


SATURATING = {"bits": 32, "overflow": "saturate"}


def small(**changes):
    """SMALL with some of its array's keys changed."""
    return {**SMALL, "array": {**SMALL["array"], **changes}}


def message_of(config, source="demo.yaml"):
    with pytest.raises(ConfigError) as caught:
        parse_config(config, source)
    return str(caught.value)


def message_of_file(path):
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    return str(caught.value)


# -- what loads -------------------------------------------------------------------------------------------------------


def test_a_small_file_gets_the_documented_defaults(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text("name: small\nclock_mhz: 100\narray: {rows: 4, cols: 3, dataflow: ws}\n")
    config = load_config(path)
    assert (config.array.rows, config.array.cols, config.array.dataflow) == (4, 3, "ws")
    assert (config.accumulator.bits, config.accumulator.overflow) == (32, "wrap")
    assert config.array.scale_unit is None
    assert config == load_config(str(path)) == parse_config(SMALL)


def test_a_whole_number_serves_where_a_float_is_meant():
    clock = parse_config("{name: a, clock_mhz: 1000, array: {rows: 1, cols: 1, dataflow: os}}").clock_mhz
    assert clock == 1000.0
    assert isinstance(clock, float)


@pytest.mark.parametrize(
    ("written", "meant"),
    [("1e3", 1000.0), ("1.5e+2", 150.0), (".5", 0.5), ("010", 10.0), ("0x10", 16.0), ("0o17", 15.0), ("+7", 7.0)],
)
def test_numbers_follow_yaml_1_2(written, meant):
    text = f"{{name: a, clock_mhz: {written}, array: {{rows: 1, cols: 1, dataflow: os}}}}"
    assert parse_config(text).clock_mhz == meant


def test_anchors_and_aliases_are_allowed():
    config = parse_config(
        "name: a\nclock_mhz: 1\narray:\n  rows: 2\n  cols: 2\n  dataflow: os\n"
        "  weight: &port {bits: 4}\n  activation: *port\n"
    )
    assert config.array.weight == config.array.activation
    assert config.array.activation.bits == 4


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path):
    path = tmp_path / "bom.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: a\nclock_mhz: 1\narray: {rows: 1, cols: 1, dataflow: os}\n")
    assert load_config(path).name == "a"


def test_numpy_scalars_of_a_sweep_are_numbers():
    changed = small(rows=np.int64(8), double_buffered=np.bool_(True))
    config = parse_config({**changed, "clock_mhz": np.float32(250)})
    assert (config.array.rows, config.array.double_buffered, config.clock_mhz) == (8, True, 250.0)
    assert type(config.array.rows) is int


def test_a_section_in_a_dictionary_is_checked_again():
    wrong = parse_config(SMALL).array.model_copy(update={"rows": 0})  # pydantic does not check copies
    assert message_of({**SMALL, "array": wrong}, "sweep") == "sweep: array.rows: 0 is too small; use 1 to 4096"


# -- a configuration is a value ---------------------------------------------------------------------------------------


def test_a_configuration_is_frozen_and_hashable():
    config = parse_config(SMALL)
    with pytest.raises(ValidationError):
        config.name = "other"
    with pytest.raises(ValidationError):
        config.array.rows = 5
    assert len({config, parse_config(SMALL)}) == 1


def test_the_digest_depends_on_values_only():
    digest = parse_config(SMALL).digest
    reordered = parse_config("array: {dataflow: ws, cols: 3, rows: 4}  # comment\nclock_mhz: 100.0\nname: 'small'")
    spelled_out = parse_config({**SMALL, "accumulator": {"bits": 32}, "dram": {}})
    assert reordered.digest == spelled_out.digest == digest
    assert len(digest) == 16
    assert int(digest, 16) >= 0


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"clock_mhz": 100.5},
        {"array": {**SMALL["array"], "rows": 5}},
        {"array": {**SMALL["array"], "scale_unit": {}}},
        {"array": {**SMALL["array"], "popcount": {}}},
        {"array": {**SMALL["array"], "multiplier": {"kind": "bit_serial"}}},
        {"accumulator": {"overflow": "saturate"}},
        {"buffers": {"output": {"size_bytes": 1024}}},
        {"memory": {"tiling": [{"m": 4}]}},
        {"dram": {"timing": "preset"}},
    ],
)
def test_every_change_changes_the_digest(change):
    assert parse_config({**SMALL, **change}).digest != parse_config(SMALL).digest


# -- several problems at once -----------------------------------------------------------------------------------------

DEMO = """\
# a comment line counts
name: demo

array:
  rows: 16
  colums: 8

  # so does a blank one
  lanes: 0
  dataflow: wss
  double_buffered: yes
  psum: {bits: 8.5}
clock_mhz: fast
dram: {kind: hbm}
"""


def test_all_problems_of_a_file_are_told_at_once_with_their_lines(tmp_path):
    path = tmp_path / "demo.yaml"
    path.write_text(DEMO)
    assert message_of_file(path) == (
        f"{path}: 8 problems\n"
        "  line 4: array.cols: required key is missing\n"
        "  line 6: array.colums: unknown key; did you mean 'cols'?\n"
        "  line 9: array.lanes: 0 is too small; use 1 to 256\n"
        "  line 10: array.dataflow: 'wss' is not one of os, ws, is; did you mean 'ws'?\n"
        "  line 11: array.double_buffered: 'yes' is not true or false\n"
        "  line 12: array.psum.bits: 8.5 is not a whole number; use 8 to 64\n"
        "  line 13: clock_mhz: 'fast' is not a number; use more than 0, up to 100000\n"
        "  line 14: dram.kind: 'hbm' is not one of ddr3, ddr4, lpddr4, lpddr5, hbm2, hbm2_board; did you mean 'hbm2'?"
    )


def test_one_problem_takes_one_line():
    text = "name: a\nclock_mhz: 1\narray:\n  rows: 2\n  cols: 2\n  dataflow: os\n  lanes: 300\n"
    assert message_of(text) == "demo.yaml: line 7: array.lanes: 300 is too large; use 1 to 256"


def test_a_dictionary_has_no_lines():
    assert message_of({"name": "a", "clock_mhz": 1, "array": {"rows": True, "colz": 2}}, "sweep") == (
        "sweep: 4 problems\n"
        "  array.rows: true is not a whole number; use 1 to 4096\n"
        "  array.cols: required key is missing\n"
        "  array.dataflow: required key is missing\n"
        "  array.colz: unknown key; did you mean 'cols'?"
    )


def test_a_flood_of_problems_is_cut_and_says_so():
    text = message_of("\n".join(f"key{number}: 1" for number in range(200)))
    assert text.startswith("demo.yaml: 203 problems\n  line 1: name: required key is missing\n")
    assert text.endswith("\n  and 153 more")
    assert text.count("\n") == 51


# -- one value at a time ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (small(rows=None), "array.rows: it has no value; use 1 to 4096"),
        (small(rows="16"), "array.rows: '16' is not a whole number; use 1 to 4096 (without the quotes)"),
        (small(rows=[1]), "array.rows: a list is not a whole number; use 1 to 4096"),
        (small(rows=10**5000), "array.rows: a number of more than 40 digits is too large; use 1 to 4096"),
        (small(rows=16.0), "array.rows: 16.0 is not a whole number; use 1 to 4096"),
        (small(rows={4}), "array.rows: a Python set is not a whole number; use 1 to 4096"),
        (small(dataflow=3), "array.dataflow: 3 is not one of os, ws, is"),
        (small(dataflow=True), "array.dataflow: true is not one of os, ws, is"),
        (small(skip_unused=1), "array.skip_unused: 1 is not true or false"),
        (small(psum=None), "array.psum: it has no value; write its keys (bits, overflow) below it, or leave it out"),
        (small(psum=24), "array.psum: 24 is not a section; write its keys (bits, overflow) below it, or leave it out"),
        (small(psum={"bits": 7}), "array.psum.bits: 7 is too small; use 8 to 64"),
        (small(weight={"bits": 17}), "array.weight.bits: 17 is too large; use 2 to 16"),
        (small(popcount={"word_bits": 48}), "array.popcount.word_bits: 48 is not one of 32, 64, 128, 256"),
        (small(codebook={"index_bits": 9}), "array.codebook.index_bits: 9 is too large; use 1 to 8"),
        (small(multiplier={"kind": "fusions"}), "array.multiplier.kind: 'fusions' is not one of parallel, fusion, "
         "bit_serial, shift; did you mean 'fusion'?"),
        (small(multiplier=None), "array.multiplier: it has no value; write its keys (kind, serial) below it, or leave "
         "it out"),
        (small(float_unit={"align_bits": -1}), "array.float_unit.align_bits: -1 is too small; use 0 to 32, or null"),
        (
            small(scale_unit={"product_bits": 0}),
            "array.scale_unit.product_bits: 0 is too small; use 1 to 24, or null",
        ),
        ({**SMALL, "name": 5}, "name: 5 is not text; put it in quotes"),
        ({**SMALL, "name": ["a"]}, "name: a list is not text; use 1 to 100 characters"),
        ({**SMALL, "name": ""}, "name: the text is too short; use 1 to 100 characters"),
        ({**SMALL, "name": "x" * 101}, "name: the text has 101 characters; use 1 to 100 characters"),
        (
            {**SMALL, "name": "two\nlines"},
            "name: 'two\\nlines' has characters that cannot be printed; use one line of plain text",
        ),
        ({**SMALL, "clock_mhz": 0}, "clock_mhz: 0 is too small; use more than 0, up to 100000"),
        ({**SMALL, "clock_mhz": float("nan")}, "clock_mhz: nan is not a finite number; use more than 0, up to 100000"),
        ({**SMALL, "clock_mhz": float("inf")}, "clock_mhz: inf is not a finite number; use more than 0, up to 100000"),
        ({**SMALL, "clock_mhz": False}, "clock_mhz: false is not a number; use more than 0, up to 100000"),
        ({**SMALL, "array": "16x16"}, "array: '16x16' is not a section; write its keys (rows, cols, dataflow, lanes, "
         "weight, activation, psum, double_buffered, drain_overlap, skip_unused, multiplier, scale_unit, float_unit, "
         "popcount, codebook) below it"),
        ({**SMALL, "rows": 4}, "rows: unknown key here; 'rows' belongs in array"),
        ({**SMALL, "weight": {}}, "weight: unknown key here; 'weight' belongs in array or in buffers"),
        (small(clock_mhz=4), "array.clock_mhz: unknown key here; 'clock_mhz' belongs at the top level"),
        ({**SMALL, "dram": {"bandwidth": 4}}, "dram.bandwidth: unknown key; use kind, timing, "
         "bytes_per_cycle, latency_cycles, burst_bytes, channels"),
        ({**SMALL, "memory": {"tiling": 3}}, "memory.tiling: 3 is not a list; use a list of sections"),
        ({**SMALL, "memory": {"tiling": [3]}}, "memory.tiling.0: 3 is not a section; write its keys (layer, m, n, k, "
         "order) below it"),
        ({**SMALL, "memory": {"tiling": [{}, {"layer": "a", "k": 0}]}}, "memory.tiling.1.k: 0 is too small; use 1 to "
         "2147483648, or null"),
        ({**SMALL, "memory": {"tiling": [{"tile_m": 4}]}}, "memory.tiling.0.tile_m: unknown key; use layer, m, n, k, "
         "order"),
        ({**SMALL, "ppu": {"vsq_scale_rounding": "Up"}}, "ppu.vsq_scale_rounding: 'Up' is not one of nearest, up; "
         "did you mean 'up'?"),
        ({**SMALL, "ppu": {"rounding": 3}}, "ppu.rounding: 3 is not one of trace, double_half_up_then_away, "
         "double_half_up, half_up, half_up_int16_multiplier, float32_half_even, float64_half_away, dyadic_half_even, "
         "half_away_17bit, truncate"),
        ({**SMALL, "ppu": {"rounding": "half-up"}}, "ppu.rounding: 'half-up' is not one of trace, "
         "double_half_up_then_away, double_half_up, half_up, half_up_int16_multiplier, float32_half_even, "
         "float64_half_away, dyadic_half_even, half_away_17bit, truncate; did you mean 'half_up'?"),
        ({**SMALL, 7: 1}, "the key 7 is not text"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_each_mistake_has_its_sentence(config, expected):
    assert message_of(config, "x") == f"x: {expected}"


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            small(dataflow="os", double_buffered=True),
            "array: double_buffered=true needs a stationary operand; dataflow 'os' has none (use ws or is)",
        ),
        (
            small(drain_overlap=True),
            "array: drain_overlap=true is for dataflow 'os'; 'ws' drains while it computes",
        ),
        (
            small(scale_unit={"weight_scale_bits": 3, "product_bits": 8}),
            "array.scale_unit: product_bits=8 is wider than the full product of 3 + 4 bits; use 1 to 7, or null for "
            "the full product",
        ),
        (
            small(float_unit={"accumulate": "float32", "fraction_bits": 20}, psum=SATURATING),
            "array.float_unit: fraction_bits=20 is of a fixed-point psum, and accumulate is 'float32'; use accumulate: "
            "fixed, or leave fraction_bits out",
        ),
        (
            small(float_unit={"accumulate": "float32"}),
            "array: float_unit.accumulate=float32 needs psum: {bits: 32, overflow: saturate}; found 32 bits that wrap",
        ),
        (
            small(float_unit={"accumulate": "float32"}, psum=SATURATING),
            "array.float_unit.accumulate=float32 needs accumulator: {bits: 32, overflow: saturate}; found 32 bits that "
            "wrap",
        ),
        (
            small(float_unit={"accumulate": "fixed"}, psum={"bits": 49}),
            "array: float_unit.accumulate=fixed takes psums of up to 48 bits; found 49",
        ),
        (
            {**small(float_unit={"accumulate": "fixed"}), "accumulator": {"bits": 64}},
            "array.float_unit.accumulate=fixed takes accumulators of up to 48 bits; found 64 bits that wrap",
        ),
        (
            small(multiplier={"kind": "fusion"}, weight={"bits": 6}),
            "array: multiplier.kind=fusion builds ports of 2-bit bricks, 2, 4, 8, 16 bits wide; found weight.bits=6 "
            "and activation.bits=8",
        ),
        (
            small(multiplier={"kind": "fusion", "serial": "weight"}),
            "array: multiplier.serial=weight is for kind bit_serial; found kind fusion",
        ),
        (
            small(multiplier={"kind": "shift"}, scale_unit={"product_bits": 4}),
            "array: multiplier.kind=shift makes plain integer products; leave out scale_unit and float_unit, or use "
            "kind parallel",
        ),
        (
            {**SMALL, "dram": {"channels": 2}},
            "dram: channels=2 does nothing with timing ideal; use timing: preset",
        ),
        (
            {**SMALL, "memory": {"tiling": [{"order": "mnm"}]}},
            "memory.tiling.0: order='mnm': name each loop once, of b (the matrix products of a layer), m, n and k",
        ),
        (
            {**SMALL, "memory": {"tiling": [{"layer": "a"}, {"layer": "a", "m": 1}]}},
            "memory: tiling has 2 entries for 'a'; use one",
        ),
    ],
)
def test_checks_between_fields_name_the_section(config, expected):
    assert message_of(config, "x") == f"x: {expected}"


def test_checks_between_fields_point_at_the_section_and_wait_for_its_fields():
    text = "name: a\nclock_mhz: 1\n\narray:\n  rows: 2\n  cols: 2\n  dataflow: os\n  double_buffered: true\n"
    assert message_of(text).startswith("demo.yaml: line 4: array: double_buffered=true needs")
    assert message_of(text.replace("rows: 2", "rows: 0")) == (
        "demo.yaml: line 5: array.rows: 0 is too small; use 1 to 4096"
    )


# -- YAML that is not plain -------------------------------------------------------------------------------------------

HEAD = "name: a\nclock_mhz: 1\n"
ARRAY = "array: {rows: 1, cols: 1, dataflow: os}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            HEAD + ARRAY + "name: b\n",
            "line 4: name: key is given twice; the first is on line 1",
        ),
        (
            HEAD + "array:\n  rows: 1\n  cols: 1\n  rows: 2\n  dataflow: os\n",
            "line 6: array.rows: key is given twice; the first is on line 4",
        ),
        (
            HEAD + ARRAY + "energy: {table: !!python/name:os.system horowitz45}\n",
            "line 4: energy.table: the tag !!python/name:os.system on 'horowitz45' is not accepted; leave it out",
        ),
        (HEAD + ARRAY + "? [a, b]\n: 1\n", "line 4: a key must be a word, not a list or a section"),
        ("", "it is empty; a configuration needs at least name, clock_mhz, array"),
        ("# nothing but a comment\n", "it is empty; a configuration needs at least name, clock_mhz, array"),
        ("- name: a\n", "it holds a list, not keys and values; the keys are name, clock_mhz, array, accumulator, ppu, "
         "vector, buffers, dma, dram, cores, memory, energy"),
        ("name\n", "it holds 'name', not keys and values; the keys are name, clock_mhz, array, accumulator, ppu, "
         "vector, buffers, dma, dram, cores, memory, energy"),
        (HEAD + "array:\n\trows: 1\n", "line 4: not valid YAML: found character '\\t' that cannot start any token; "
         "indent with spaces, not tabs"),
        (HEAD + "array: {rows: 1\nppu: 1\n", "line 4: not valid YAML: expected ',' or '}', but got ':'"),
        ("name: a: b\n", "line 1: not valid YAML: mapping values are not allowed here; check the indentation, and "
         "quote a text that has a colon in it"),
        (HEAD + ARRAY + "---\nname: b\n", "line 4: not valid YAML: a second document starts here (---); use one "
         "document a file"),
        (HEAD + "array: *port\n", "line 3: not valid YAML: found undefined alias 'port'"),
        ("name: a\x00b\n", "line 1: the character '\\x00' is not allowed in YAML text"),
        ("name: a\n\nclock_mhz: \x07\n", "line 3: the character '\\x07' is not allowed in YAML text"),
        ("[" * 5000, "nested too deeply; a configuration has sections in sections, no more"),
        ("a: " + "{a: " * 40 + "1" + "}" * 40, "line 1: nested deeper than 32 levels"),
        ("a: &loop [*loop]\n", "line 1: nested deeper than 32 levels"),
    ],
    ids=lambda value: value[:30],
)  # fmt: skip
def test_yaml_that_is_not_plain_is_explained(text, expected):
    assert message_of(text) == f"demo.yaml: {expected}"


def test_an_alias_bomb_is_stopped():
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    for level in range(1, 10):
        bomb += f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n"
    assert message_of(bomb) == "demo.yaml: more than 10000 values (aliases count each time they are used)"


def test_a_mistake_inside_an_anchor_is_shown_where_it_is_written():
    text = HEAD + "array:\n  rows: 1\n  cols: 1\n  dataflow: os\n  weight: &port\n    bits: 1\n  activation: *port\n"
    assert message_of(text) == (
        "demo.yaml: 2 problems\n"
        "  line 8: array.weight.bits: 1 is too small; use 2 to 16\n"
        "  line 8: array.activation.bits: 1 is too small; use 2 to 16"
    )


def test_a_dictionary_that_contains_itself_is_refused():
    loop = {}
    loop["array"] = loop
    assert "nested deeper than 32 levels" in message_of(loop)


# -- files ------------------------------------------------------------------------------------------------------------


def test_a_missing_file_names_its_neighbour(tmp_path):
    (tmp_path / "int8_ws.yaml").touch()
    assert message_of_file(tmp_path / "int8ws.yaml") == (
        f"{tmp_path}/int8ws.yaml: there is no such file; did you mean 'int8_ws.yaml'?"
    )
    assert message_of_file(tmp_path / "no" / "such.yaml") == f"{tmp_path}/no/such.yaml: there is no such file"


def test_a_folder_is_not_a_file(tmp_path):
    assert message_of_file(tmp_path) == f"{tmp_path}: this is a folder; name one of the YAML files in it"
    for name in ("b.yaml", "a.yml", "c.txt"):
        (tmp_path / name).touch()
    assert message_of_file(tmp_path).endswith("this is a folder; name one of the YAML files in it: a.yml, b.yaml")


def test_a_file_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"name: a\nclock_mhz: \xff\xfe\n")
    assert message_of_file(path) == f"{path}: line 2: not UTF-8 text (byte 0xff)"


def test_a_large_file_is_refused_before_it_is_parsed(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"#" * ((1 << 20) + 1))
    assert message_of_file(path) == f"{path}: larger than 1 MiB; a configuration is a page of YAML"
    path.write_bytes(b"#" * (1 << 20))
    assert message_of_file(path).endswith("it is empty; a configuration needs at least name, clock_mhz, array")


def test_paths_that_the_system_refuses_are_the_users_mistake(tmp_path):
    assert "the file cannot be read: embedded null byte" in message_of_file("a\0b")
    assert "the file cannot be read: File name too long" in message_of_file(tmp_path / ("x" * 300))
    (tmp_path / "file").touch()
    assert "the file cannot be read: Not a directory" in message_of_file(tmp_path / "file" / "x.yaml")


def test_a_configuration_error_is_the_users_kind_of_error():
    assert issubclass(ConfigError, AccelsimError)


def test_an_unknown_energy_table_is_one_of_the_problems(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(HEAD + ARRAY + "energy: {table: horowitz}\nbuffers: {waight: {}}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    message = str(caught.value)
    assert "energy.table: 'horowitz' is not a shipped energy table; did you mean 'horowitz45'?" in message
    assert "buffers.waight: unknown key" in message


def test_an_energy_table_of_ones_own_lies_beside_the_configuration(tmp_path, monkeypatch):
    (tmp_path / "machines").mkdir()
    path = tmp_path / "machines" / "a.yaml"
    path.write_text(HEAD + ARRAY + "energy: {table: prices/mine.yaml}\n")
    with pytest.raises(ConfigError, match=r"energy\.table: 'prices/mine\.yaml': there is no file .*machines/prices"):
        load_config(path)
    (tmp_path / "machines" / "prices").mkdir()
    (tmp_path / "machines" / "prices" / "mine.yaml").touch()
    monkeypatch.chdir(tmp_path)
    assert load_config("machines/a.yaml").energy.table == "machines/prices/mine.yaml"
