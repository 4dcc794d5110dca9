import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from report_example import make_report

from accelsim.errors import ReportError
from accelsim.report.files import load_report, prepare_folder, save_report
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
def test_a_failed_write_leaves_both_old_files_and_no_rubbish(report, tmp_path, monkeypatch, name):
    save_report(report, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    real = os.fsync
    calls = iter(["report.json", "outputs.npz"])

    def full_disk(handle):
        if next(calls) == name:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full_disk)
    changed = dataclasses.replace(report, layers=report.layers[:1], engine="stepped")
    with pytest.raises(ReportError) as caught:
        save_report(changed, tmp_path)
    assert str(caught.value) == f"{tmp_path / name}: cannot be written: No space left on device"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before  # neither file has changed


def test_a_report_without_arrays_does_not_keep_another_runs_outputs(report, tmp_path):
    save_report(report, tmp_path)
    save_report(RunReport.from_json(report.to_json()), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    assert load_report(tmp_path) == report


def test_new_files_have_ordinary_permissions(report, tmp_path):
    save_report(report, tmp_path)
    (tmp_path / "ordinary").write_text("")
    assert (tmp_path / "report.json").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def words_for_null(folder):
    """What this Python says of a name with a null character: versions differ."""
    with pytest.raises(ValueError, match="null") as caught:
        (folder / "nul\0l").mkdir()
    return str(caught.value)


@pytest.mark.parametrize("use", [prepare_folder, lambda folder: save_report(make_report(), folder)])
def test_folders_that_cannot_be_written(tmp_path, monkeypatch, use):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "taken" / "outputs.npz").mkdir(parents=True)
    for folder, message in [
        (tmp_path / "file", f"{tmp_path / 'file'} is a file; name a folder"),
        (tmp_path / "file" / "deep" / "er", f"{tmp_path / 'file'} is a file; name a folder"),
        (tmp_path / "taken", f"{tmp_path / 'taken' / 'outputs.npz'} is a folder; remove it, or name another folder"),
        (tmp_path / "nul\0l", f"{tmp_path / 'nul'}\0l: cannot be written: {words_for_null(tmp_path)}"),
        ("", "'' is not a folder name"),
    ]:
        with pytest.raises(ReportError) as caught:
            use(folder)
        assert str(caught.value) == message
    assert (tmp_path / "file").read_text() == "mine"

    def refuse(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "touch", refuse)  # not by chmod, which does not stop root
    with pytest.raises(ReportError) as caught:
        use(tmp_path / "locked")
    assert str(caught.value) == f"{tmp_path / 'locked'}: cannot be written: Permission denied"


def test_a_prepared_folder_is_there_and_empty(tmp_path):
    assert prepare_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_report_that_is_not_there(tmp_path):
    with pytest.raises(ReportError, match="nowhere: there is no such folder or file; 'accelsim run"):
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
