import dataclasses
import os

import numpy as np
import pytest

from accelsim.errors import ReportError
from accelsim.report.files import load_report, save_report
from accelsim.report.values import RunReport


def test_a_saved_report_comes_back_with_its_outputs(report, tmp_path):
    folder = tmp_path / "deep" / "results"
    save_report(report, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["outputs.npz", "report.json"]
    again = load_report(folder)
    assert again == report
    for mine, theirs in zip(again.layers, report.layers, strict=True):
        assert np.array_equal(mine.output_codes, theirs.output_codes)
        assert mine.output_codes.dtype == theirs.output_codes.dtype
    assert np.array_equal(again.layers[1].output_block_scales, report.layers[1].output_block_scales)
    assert again.layers[0].output_block_scales is None
    with np.load(folder / "outputs.npz", allow_pickle=False) as arrays:
        assert sorted(arrays) == ["conv1/codes", "fc/block_scales", "fc/codes"]


def test_other_files_in_the_folder_are_left_alone(report, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    save_report(report, tmp_path)
    save_report(dataclasses.replace(report, engine="stepped"), tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "outputs.npz", "report.json"]
    assert load_report(tmp_path).engine == "stepped"


def test_equal_reports_give_equal_files(report, tmp_path):
    save_report(report, tmp_path / "a")
    save_report(report, tmp_path / "b")
    for name in ("report.json", "outputs.npz"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("name", ["report.json", "outputs.npz"])
def test_a_failed_write_leaves_the_old_file_and_no_rubbish(report, tmp_path, monkeypatch, name):
    save_report(report, tmp_path)
    before = (tmp_path / name).read_bytes()
    real = os.fsync
    calls = iter(["outputs.npz", "report.json"])

    def full_disk(handle):
        if next(calls) == name:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full_disk)
    changed = dataclasses.replace(report, layers=report.layers[:1], engine="stepped")
    with pytest.raises(ReportError, match="cannot be written: No space left on device"):
        save_report(changed, tmp_path)
    assert (tmp_path / name).read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outputs.npz", "report.json"]


def test_a_report_without_arrays_does_not_keep_another_runs_outputs(report, tmp_path):
    save_report(report, tmp_path)
    save_report(RunReport.from_json(report.to_json()), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    assert load_report(tmp_path) == report


def test_new_files_have_ordinary_permissions(report, tmp_path):
    save_report(report, tmp_path)
    (tmp_path / "ordinary").write_text("")
    assert (tmp_path / "report.json").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_folders_that_cannot_be_written_or_read(report, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError, match=r"file: cannot be written: File exists"):
        save_report(report, tmp_path / "file")
    with pytest.raises(ReportError, match=r"report\.json: cannot be read: No such file"):
        load_report(tmp_path / "nowhere")


def test_damaged_files_are_named(report, tmp_path):
    save_report(report, tmp_path)
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(ReportError, match=r"report\.json: report: not JSON, or cut off"):
        load_report(tmp_path)
    save_report(report, tmp_path)
    whole = (tmp_path / "outputs.npz").read_bytes()
    for broken in (b"", whole[:100], b"not a zip"):
        (tmp_path / "outputs.npz").write_bytes(broken)
        with pytest.raises(ReportError, match=r"outputs\.npz: damaged, or not an \.npz file"):
            load_report(tmp_path)


def test_outputs_of_another_run_are_refused(report, tmp_path):
    save_report(report, tmp_path)
    other = {"conv1/codes": np.zeros((2, 5, 5, 8), np.int32)}
    np.savez(tmp_path / "outputs.npz", **other)
    with pytest.raises(ReportError, match=r"the codes of layer 'conv1' are not those of report\.json"):
        load_report(tmp_path)
