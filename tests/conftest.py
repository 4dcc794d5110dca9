"""What every test shares: the Hypothesis profile, and where the shared models and data may lie."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "accelsim",
    deadline=None,  # the first call of a kernel compiles it
    derandomize=True,  # the same examples in every run: a red CI can be repeated
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("accelsim")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def project_root():
    """The checkout: configs/ and traces/ lie in it."""
    return ROOT
