import copy
import dataclasses
import json
import math
import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelsim.engine.contract import RegisterWatch
from accelsim.errors import ReportError
from accelsim.mapping.contract import CycleCounts
from accelsim.report.values import (
    LayerAccuracy,
    OverflowPlace,
    RegisterReport,
    RunReport,
    TimelineSummary,
    output_digest,
)

# -- what a report says -----------------------------------------------------------------------------------------------


def test_a_layer_says_what_other_programs_read(report):
    conv = report.layers[0]
    assert (conv.name, conv.op, conv.macs) == ("conv1", "conv2d", 3600)
    assert (conv.shape.batch, conv.shape.m, conv.shape.k, conv.shape.n) == (1, 50, 9, 8)
    assert conv.cycles.total == conv.total_cycles == 310
    assert conv.cycles["load"] == 40
    assert conv.utilization == 3600 / (16 * 310)
    assert conv.latency_us == 0.62  # 310 cycles at 500 MHz
    assert conv.energy_pj["mac"] == pytest.approx(3600 * 0.3, rel=1e-9)
    assert sum(conv.energy_pj.values()) == conv.total_energy_pj
    assert conv.overflow["psum"] is conv.overflow.psum
    assert conv.overflow["output_clamp"] == 7
    assert conv.overflow["psum"].first == OverflowPlace(layer="conv1", index=(1, 0, 2, 5), k=36, value=40123)
    assert conv.sqnr_db == 31.4159
    assert conv.output_codes.shape == (2, 5, 5, 8)
    assert report.layer("fc") is report.layers[1]


def test_registers_say_what_would_have_been_enough(report):
    psum, accumulator = report.layers[0].overflow.psum, report.layers[0].overflow.accumulator
    assert (psum.count, psum.bits, psum.policy, psum.peak) == (2, 16, "wrap", 40123)
    assert psum.sufficient_bits == 17  # 40123 needs 16 bits and a sign
    assert accumulator.sufficient_bits == 11  # 1000 < 2**10
    assert report.layers[1].overflow.accumulator.exact is False


def test_totals_add_up(report):
    conv, fc = report.layers
    totals = report.totals
    assert totals.cycles == CycleCounts(load=40, fill=76, compute=204, drain=8, ppu=22)
    assert totals.total_cycles == 350
    assert totals.macs == 3680
    assert totals.utilization == 3680 / (16 * 350)
    assert totals.latency_us == 0.7
    assert totals.latency_per_inference_us == 0.35
    assert totals.total_energy_pj == conv.total_energy_pj + fc.total_energy_pj == sum(totals.energy_pj.values())
    for component in totals.energy_pj:
        assert totals.energy_pj[component] == conv.energy_pj[component] + fc.energy_pj[component]
    # mac 1080 + 16, DRAM 5000 x 20.3, buffer 40000 x 0.15625, leakage 4960 x 0.0459, shift 20 x 0.2
    assert totals.total_energy_pj == pytest.approx(1080 + 16 + 101_500 + 6250 + 227.664 + 4, abs=5 * 2**-11)
    assert totals.energy_per_inference_pj == totals.total_energy_pj / 2
    assert totals.average_power_mw == pytest.approx(109_077.664 / 0.7 / 1000)  # pJ / us = uW
    assert (totals.psum_overflows, totals.accumulator_overflows, totals.clamped_outputs) == (2, 0, 7)
    assert (totals.mismatches, totals.verified) == (0, None)


def test_a_report_is_frozen(report):
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.engine = "stepped"
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.layers[0].macs = 1
    with pytest.raises(TypeError):
        report.layers[0].energy_pj["mac"] = 0.0
    with pytest.raises(ValueError, match="read-only"):
        report.layers[0].output_codes[0] = 1
    report.config["array"]["rows"] = 99  # a copy
    assert report.config["array"]["rows"] == 4


def test_output_arrays_of_the_caller_stay_writable(report):
    codes = np.zeros((2, 10), np.int32)
    dataclasses.replace(report.layers[1], output_codes=codes)
    codes[0, 0] = 1


def test_reports_compare_hash_copy_and_pickle(report):
    for other in (copy.deepcopy(report), pickle.loads(pickle.dumps(report))):
        assert other == report
        assert hash(other) == hash(report)
        assert np.array_equal(other.layers[0].output_codes, report.layers[0].output_codes)
    assert dataclasses.replace(report, engine="stepped") != report


def test_a_report_shows_itself_in_one_line(report):
    assert repr(report) == "RunReport('tiny' on 'made up': 2 layers, 350 cycles, 0.7 us, 0.109078 uJ)"
    assert repr(report.layers[1]) == "LayerReport('fc', linear, 40 cycles, 20 pJ)"


def test_names_that_do_not_exist_are_answered_with_those_that_do(report):
    with pytest.raises(KeyError, match="no layer 'conv2'; did you mean 'conv1'"):
        report.layer("conv2")
    with pytest.raises(KeyError, match="'acc'; use one of psum, accumulator, output_clamp"):
        report.layers[0].overflow["acc"]


def test_a_register_report_needs_a_place_for_its_overflows():
    with pytest.raises(ValueError, match="3 overflows, but the first is None"):
        RegisterReport.from_watch(RegisterWatch(3, None, 0, 1), bits=8, policy="wrap", first=None)


def test_the_digest_is_of_shape_and_values_alone():
    codes = np.arange(6, dtype=np.int32).reshape(2, 3)
    assert output_digest(codes) == output_digest(codes.astype(np.int64)) == output_digest(np.asfortranarray(codes))
    assert len(output_digest(codes)) == 16
    others = [codes + 1, codes.reshape(3, 2), codes.T]
    digests = {output_digest(codes), output_digest(codes, codes), *map(output_digest, others)}
    assert len(digests) == 5


# -- rows for a data frame --------------------------------------------------------------------------------------------


def test_rows_feed_a_data_frame(report):
    frame = pd.DataFrame(report.to_rows()).set_index("layer")
    assert list(frame.index) == ["conv1", "fc"]
    assert frame.loc["conv1", "cycles_compute"] == 180
    assert frame["cycles_total"].sum() == report.totals.total_cycles
    assert frame["energy_total_pj"].sum() == report.totals.total_energy_pj
    energies = [name for name in frame if name.startswith("energy_") and name != "energy_total_pj"]
    assert frame[energies].to_numpy().sum() == report.totals.total_energy_pj
    assert frame.loc["conv1", "psum_overflows"] == 2
    assert frame.loc["conv1", "psum_sufficient_bits"] == 17
    assert frame.loc["conv1", "fake_quant_relative_l2"] == 1 / 3
    assert math.isnan(frame.loc["fc", "mismatches"])
    assert frame.loc["fc", "sqnr_db"] == math.inf
    assert set(frame["config"]) == {"tiny"}


# -- JSON -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("indent", [None, 2])
def test_json_round_trip_is_exact(report, indent):
    text = report.to_json(indent=indent)
    again = RunReport.from_json(text)
    assert again == report
    assert again.to_json(indent=indent) == text
    assert again.layers[0].accuracy.max_error == 0.1 + 0.2  # not 0.3: floats keep every bit
    assert again.layers[0].output_codes is None
    assert again.layers[0].output_digest == report.layers[0].output_digest
    assert again.layers[0].actions == report.layers[0].actions
    assert again.totals == report.totals


def test_the_document_is_plain_json_for_other_programs(report):
    data = json.loads(report.to_json(), parse_constant=pytest.fail)
    assert (data["schema"], data["version"]) == ("accelsim-report", 2)
    assert data["config"] == {"name": "tiny", "array": {"rows": 4, "cols": 4}}
    assert data["totals"]["total_cycles"] == 350
    conv, fc = data["layers"]
    assert conv["total_cycles"] == 310
    assert conv["cycles"] == {
        "load": 40,
        "fill": 70,
        "compute": 180,
        "drain": 0,
        "ppu": 20,
        "vector": 0,
    } | dict.fromkeys(STALLS, 0)
    assert conv["sqnr_db"] == 31.4159
    assert fc["sqnr_db"] == "inf"
    assert conv["overflow"]["psum"]["first"] == {"layer": "conv1", "index": [1, 0, 2, 5], "k": 36, "value": 40123}
    assert conv["overflow"]["psum"]["sufficient_bits"] == 17
    assert ["mac", "mult", [8, 8], 3600] in conv["actions"]
    assert "output_codes" not in conv


@given(
    st.floats(allow_nan=False),
    st.floats(0, 1e300),
    st.floats(-1, 1),
    st.integers(-(1 << 70), 1 << 70),
    st.text(max_size=20).filter(lambda text: text.isprintable()),
)
def test_any_number_and_any_name_survive(sqnr_db, mse, cosine, value, name):
    from report_example import make_report

    report = make_report(trace_name=name)
    accuracy = LayerAccuracy(sqnr_db=sqnr_db, mse=mse, max_error=0.0, cosine=cosine)
    place = OverflowPlace(layer=name, index=(), k=-1, value=value)
    psum = dataclasses.replace(report.layers[0].overflow.psum, first=place)
    overflow = dataclasses.replace(report.layers[0].overflow, psum=psum)
    layer = dataclasses.replace(report.layers[0], accuracy=accuracy, overflow=overflow, fake_quant=None)
    changed = dataclasses.replace(report, layers=(layer,), accuracy=None)
    again = RunReport.from_json(changed.to_json())
    assert again == changed
    assert math.copysign(1, again.layers[0].accuracy.sqnr_db) == math.copysign(1, sqnr_db)


def test_not_a_number_is_written_as_a_word(report):
    accuracy = LayerAccuracy(sqnr_db=math.nan, mse=-math.inf, max_error=0.0, cosine=1.0)
    changed = dataclasses.replace(report, layers=(dataclasses.replace(report.layers[0], accuracy=accuracy),))
    again = RunReport.from_json(changed.to_json()).layers[0].accuracy
    assert math.isnan(again.sqnr_db)
    assert again.mse == -math.inf


STALLS = ("dram", "dma", "buffer", "sync")


def test_a_report_of_version_1_is_read(report):
    """Written before there was a memory around the arrays: no stalls, one core, no timeline."""
    data = json.loads(report.to_json())
    data["version"] = 1
    del data["timeline"], data["energy_unit"]
    for name in ("energy_per_mac_pj", "tops_per_watt", "energy_delay_pj_us"):
        del data["totals"][name]
    for part in (*data["layers"], data["totals"]):
        part.pop("core_cycles", None)
        part["cycles"] = {cause: cycles for cause, cycles in part["cycles"].items() if cause not in STALLS}
    assert RunReport.from_json(json.dumps(data)) == report
    data["layers"] = [None]
    with pytest.raises(ReportError, match=r"report\.layers\[0\]: found null"):
        RunReport.from_json(json.dumps(data))


SUMMARY = TimelineSummary(
    makespan_cycles=400,
    cores=(CycleCounts(compute=300, dram=100), CycleCounts(compute=100, ppu=50, sync=250)),
    tiles=5,
    transfers=9,
    dram_read_bits=8000,
    dram_write_bits=1600,
    dram_busy_cycles=100,
    peak_bytes_per_cycle=12.5,
    saved_bits=640,
)


def test_a_timeline_says_how_well_the_machine_was_used(report):
    assert SUMMARY.bytes_per_cycle == 1200 / 400
    assert SUMMARY.dram_utilization == 0.25
    assert SUMMARY.balance == (300 + 150) / 2 / 300
    changed = dataclasses.replace(report, timeline=SUMMARY)
    assert RunReport.from_json(changed.to_json()) == changed
    document = json.loads(changed.to_json())
    assert document["timeline"]["bytes_per_cycle"] == 3.0
    document["timeline"]["balance"] = 0.5
    with pytest.raises(ReportError, match=r"report\.timeline\.balance: 0\.5 does not follow"):
        RunReport.from_json(json.dumps(document))


def damaged(report, change):
    data = json.loads(report.to_json())
    change(data)
    with pytest.raises(ReportError) as caught:
        RunReport.from_json(json.dumps(data))
    return str(caught.value)


def setting(*path_and_value):
    *path, last, value = path_and_value

    def change(data):
        for key in path:
            data = data[key]
        data[last] = value

    return change


def removing(*path):
    *path, last = path

    def change(data):
        for key in path:
            data = data[key]
        del data[last]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (setting("schema", "accelsim-trace"), "report: schema is 'accelsim-trace', expected 'accelsim-report'"),
        (removing("schema"), "report: schema is None, expected 'accelsim-report'; this is not a report of a run"),
        (
            setting("version", 3),
            "report: version 3 was written by a newer accelsim (0.1.0); this one (0.1.0) reads up to version 2: "
            "upgrade accelsim",
        ),
        (setting("version", "1"), "report: version is '1', expected a whole number from 1 to 2"),
        (setting("version", True), "report: version is True, expected a whole number from 1 to 2"),
        (removing("layers"), "report: 'layers' is missing"),
        (setting("enginee", "fast"), "report: unknown key 'enginee'; did you mean 'engine'?"),
        (setting("layers", {}), "report.layers: found an object, expected a list"),
        (setting("layers", 0, None), "report.layers[0]: found null, expected an object"),
        (setting("layers", 1, "macs", 80.0), "report.layers[1].macs: found 80.0, expected a whole number"),
        (setting("layers", 1, "macs", True), "report.layers[1].macs: found true, expected a whole number"),
        (setting("clock_mhz", "fast"), 'report.clock_mhz: found "fast", expected a number, "inf", "-inf" or "nan"'),
        (
            setting("layers", 0, "cycles", "load", "4"),
            'report.layers[0].cycles.load: found "4", expected a whole number',
        ),
        (removing("layers", 0, "cycles", "ppu"), "report.layers[0].cycles: 'ppu' is missing"),
        (
            setting("layers", 0, "cycles", "load", 41),
            "report.layers[0].total_cycles: 310 does not follow from the rest, which gives 311",
        ),
        (setting("layers", 0, "energy_pj", "sram", 1.0), "report.layers[0].energy_pj: unknown component 'sram'"),
        (
            setting("layers", 0, "energy_pj", "mac", -1.0),
            "energy of mac is -1.0 pJ; it must be finite and not negative",
        ),
        (setting("layers", 1, "actions", 0, 3, -5), "report.layers[1].actions: negative count of Action("),
        (setting("layers", 1, "actions", 0, []), "report.layers[1].actions[0]: found 0 items, expected 4"),
        (setting("totals", "macs", 1), "report.totals: an object does not follow from the rest"),
        (setting("layers", []), "report.totals: an object does not follow from the rest"),
        (setting("config", 5), "report.config: found 5, expected an object"),
    ],
)
def test_a_damaged_report_is_refused_with_the_place(report, change, message):
    assert message in damaged(report, change)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "report: not JSON, or cut off (line 1: Expecting value)"),
        ("[1]", "report: found a list, expected an object"),
        ('{"schema": NaN}', "report: NaN is not JSON; a report writes it as a string"),
        ('{"a": 1, "a": 2}', "report: the key 'a' is given twice"),
        ("[" * 100_000, "report: nested too deeply to be a report"),
    ],
)
def test_text_that_is_no_report(text, message):
    with pytest.raises(ReportError) as caught:
        RunReport.from_json(text)
    assert str(caught.value) == message


@pytest.mark.parametrize("keep", [1, 100, 1000, -2])
def test_a_report_that_was_cut_off(report, keep):
    with pytest.raises(ReportError, match="report: not JSON, or cut off"):
        RunReport.from_json(report.to_json()[:keep])
