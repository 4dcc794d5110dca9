"""Peak rate for each mm2: worked by hand, and what the command says."""

import json

import pytest
from typer.testing import CliRunner

from accelsim import cli
from accelsim.config.loader import load_config, parse_config
from accelsim.energy.density import density
from accelsim.errors import FormatError, UnsupportedLayerError


@pytest.fixture
def config(project_root):
    return lambda name: load_config(project_root / "configs" / f"{name}.yaml")


def test_a_plain_machine_by_hand(config):
    """16 x 16 PEs at 700 MHz, two operations a MAC: 0.3584 TOPS; buffers of 393,216 bytes at 8 x 0.532 um2."""
    found = density(config("int8_ws"))
    assert found.macs_per_cycle == 256
    assert found.tops == pytest.approx(0.3584)
    assert found.area.by_component_um2["buffer"] == pytest.approx(393216 * 8 * 0.532)
    assert found.area.by_component_um2["vector"] == pytest.approx(
        16 * (0.798 * (6.29 * 1024 - 2.36 * 64 + 1.98) + 0.798 * 2 * 64 * 6 + 2 * 4.17 * 32 + 2048 * 0.532)
    )
    assert found.tops_per_mm2 == pytest.approx(0.3584 / (found.area.total_um2 * 1e-6))
    assert found.tops_per_logic_mm2 == pytest.approx(0.3584 / (found.area.logic_um2 * 1e-6))


@pytest.mark.parametrize(
    ("weights", "activations", "gain"), [("int8", "int8", 1), ("int4", "int8", 2), ("int2", "int2", 16)]
)
def test_fusion_gains_rate_with_narrow_operands_on_the_same_area(config, weights, activations, gain):
    machine = config("bitfusion")
    wide, found = density(machine, "int8", "int8"), density(machine, weights, activations)
    assert found.tops == gain * wide.tops
    assert found.area == wide.area


def test_bit_serial_steps_last_as_long_as_the_operands_are_wide(config):
    machine = config("bitserial")
    lanes = machine.array.rows * machine.array.cols * machine.array.lanes
    assert density(machine, "int2", "int3").macs_per_cycle == lanes / 6


def test_binary_operands_take_words_of_bits(config):
    machine = config("xnor")
    pes = machine.array.rows * machine.array.cols
    assert density(machine, "binary", "binary").macs_per_cycle == pes * machine.array.popcount.word_bits


def test_floats_bring_their_shifters(config):
    machine = config("mxfp8")
    assert density(machine, "mxfp8_e4m3", "mxfp8_e4m3").area.logic_um2 > density(machine).area.logic_um2


def test_formats_that_do_not_fit_are_named(config):
    with pytest.raises(UnsupportedLayerError, match=r"weights in int16 .* do not enter the 8-bit weight ports"):
        density(config("int8_ws"), "int16")
    with pytest.raises(UnsupportedLayerError, match=r"have exponents, but 'int8_ws' has array.float_unit: null"):
        density(config("int8_ws"), "mx6")
    with pytest.raises(FormatError, match="unknown number format 'int8x'"):
        density(config("int8_ws"), "int8x")


def test_more_capacity_is_more_area_and_nothing_else():
    def machine(size):
        return density(
            parse_config(
                "name: m\nclock_mhz: 500\narray: {rows: 4, cols: 4, dataflow: os}\n"
                f"buffers: {{weight: {{size_bytes: {size}}}}}"
            )
        ).area

    small, large = machine(4096), machine(8192)
    assert large.total_um2 - small.total_um2 == pytest.approx(4096 * 8 * 0.532)
    assert large.logic_um2 == small.logic_um2


def test_the_command_prints_the_same_as_text_and_json(project_root):
    path = str(project_root / "configs" / "int4_vsq.yaml")
    result = CliRunner().invoke(cli.app, ["area", path, "--json"], catch_exceptions=False)
    document = json.loads(result.stdout)
    found = density(load_config(path))
    assert document["total_um2"] == found.area.total_um2
    assert sum(part["count"] * part["um2"] for part in document["parts"]) == pytest.approx(found.area.total_um2)
    assert all(part["source"] for part in document["parts"])
    text = " ".join(CliRunner().invoke(cli.app, ["area", path], catch_exceptions=False).stdout.split())
    assert f"total {found.area.total_um2 / 1e6:,.3f} mm2" in text
    assert f"{found.tops:,.4g} TOPS" in text
    parts = CliRunner().invoke(cli.app, ["area", path, "--parts"], catch_exceptions=False).stdout
    circuits = [part for part in found.area.parts if part.component == "scale_unit"]
    assert parts.count("scale_unit") == len(circuits) == 2
    assert "source of each circuit's area: --json" in parts


@pytest.mark.parametrize("config", ["int4_vsq", "bitserial", "kmeans4", "mxfp8", "xnor"])
def test_no_word_is_cut_on_a_narrow_terminal(config, project_root):
    path = str(project_root / "configs" / f"{config}.yaml")
    for options in ([], ["--parts"]):  # 80 columns, as in a pipe
        assert "…" not in CliRunner().invoke(cli.app, ["area", path, *options], catch_exceptions=False).stdout


def test_a_bad_format_is_one_message(project_root):
    path = str(project_root / "configs" / "int8_ws.yaml")
    result = CliRunner().invoke(cli.app, ["area", path, "--weights", "int16"])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "use a narrower format, or set array.weight.bits" in result.stderr


def test_cores_have_their_area_and_their_rate(config):
    one = config("int8_ws")
    document = one.model_dump(mode="json")
    document["cores"]["count"] = 4
    found, single = density(parse_config(document)), density(one)
    assert found.macs_per_cycle == 4 * 256
    assert found.area.total_um2 == pytest.approx(4 * single.area.total_um2)
    assert found.tops_per_mm2 == pytest.approx(single.tops_per_mm2)
    assert any("all 4 cores" in note for note in found.area.notes)
    assert not any("cores" in note for note in single.area.notes)
