"""What docs/api.md promises of every error that a user can mend: an AccelsimError that says what was found and what
would be accepted, also where an argument is of another kind altogether.
"""

import numpy as np
import pytest

import accelsim


@pytest.fixture(scope="module")
def config(project_root):
    return accelsim.load_config(project_root / "configs" / "int8_ws.yaml")


@pytest.fixture(scope="module")
def trace(project_root):
    return accelsim.load_trace(project_root / "traces" / "digits_cnn_int8.npz").head(1)


def refused(*parts, kind=accelsim.AccelsimError):
    return pytest.raises(kind, match=".*".join(map(str, parts)))


@pytest.mark.parametrize("call", [accelsim.estimate, accelsim.simulate])
def test_a_file_name_where_an_object_is_needed(call, config, trace):
    with refused(f"{call.__name__}: config is str", r"load_config\(path\)"):
        call("int8_ws.yaml", trace)
    with refused(f"{call.__name__}: .* is str", r"load_trace\(path\)"):
        call(config, "digits.npz")


@pytest.mark.parametrize("threads", [0, -1, 1.5, None])
def test_threads_that_are_no_number_of_threads(threads, config, trace):
    with refused(f"threads={threads}", "whole number from 1 on"):
        accelsim.simulate(config, trace, threads=threads)


@pytest.mark.parametrize(
    "load", [accelsim.load_config, accelsim.load_trace, lambda path: accelsim.import_model(path, [1])]
)
def test_no_file_name(load):
    with refused("path is NoneType; pass", "name"):
        load(None)


def test_a_float_model_of_no_file_name():
    from accelsim.importers.api import float_model

    with refused("path is int; pass the name of a .tflite or .onnx file"):
        float_model(3, [1])


def test_a_sweep_of_nothing():
    with refused("the specification is NoneType; pass a YAML file's name, or a mapping"):
        accelsim.sweep(None)


@pytest.mark.parametrize("count", [1.5, "2", None])
def test_a_head_of_no_whole_number(count, trace):
    with refused(f"count is {count!r}", "whole number"):
        trace.head(count)


def test_a_head_takes_numpy_s_integers(trace):
    assert trace.head(np.int64(1)).labels.shape == (1,)


@pytest.mark.parametrize("bounds", [{"qmin": 1.5}, {"qmax": "127"}, {"qmin": np.float64(0)}])
def test_bounds_that_are_no_integers(bounds):
    with refused(f"{next(iter(bounds))}=", "whole numbers"):
        accelsim.requantize([1], 1, 0, **bounds)


def test_bounds_may_be_numpy_s_integers():
    assert accelsim.requantize([300, -300], 1, 0, qmin=np.int8(-128), qmax=np.int64(127)).tolist() == [127, -128]
