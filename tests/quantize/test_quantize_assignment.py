"""Formats by layer name and pattern, as words."""

import re

import pytest
from test_quantize_flow import residual

from accelsim.errors import NetworkError
from accelsim.quantize.assignment import read_assignment


@pytest.fixture(scope="module")
def network():
    return residual()


def test_the_first_match_counts(network):
    found = read_assignment("conv1:int8, conv*:int4/int8 , *t:mx6,*:mx9", network)
    assert found == {
        "conv1": ("int8", "int8"),
        "conv2": ("int4", "int8"),
        "left": ("mx6", "mx6"),
        "right": ("mx6", "mx6"),
        "fc": ("mx9", "mx9"),
    }


def test_one_format_alone_is_for_all(network):
    assert set(read_assignment("int8/uint8", network).values()) == {("int8", "uint8")}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "conv3:int8, *:mx6",
            "'conv3' matches no layer; did you mean 'conv2'? Use one of conv1, conv2, left, right, fc",
        ),
        ("add:int8, *:mx6", "'add' is an operator of the vector unit"),
        ("*:mx6, conv1:int8", "'conv1' decides nothing: patterns before it match all of its layers"),
        ("conv*:int8", "no pattern matches left, right, fc; end with a format for all others, such as '*:int8'"),
        ("*:itn8", "unknown number format 'itn8'; did you mean 'int8'?"),
        (":int8", "':int8' is not PATTERN:W or PATTERN:W/A"),
        ("*:int8/int8/int8", "is not PATTERN:W or PATTERN:W/A"),
        ("", "'' is not PATTERN:W"),
    ],
)
def test_everything_wrong_is_said_with_what_would_do(network, text, words):
    with pytest.raises(NetworkError, match=re.escape(words)):
        read_assignment(text, network)
