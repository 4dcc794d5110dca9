import pytest
from report_example import make_report


@pytest.fixture
def report():
    return make_report()
