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


@pytest.fixture
def in_the_checkout(project_root, monkeypatch):
    """The test runs in the checkout, so that configs/ and traces/ have short paths."""
    monkeypatch.chdir(project_root)


@pytest.fixture
def counted(monkeypatch):
    """The keys of the points of sweeps that are computed in this process."""
    from accelsim.sweeps import run as sweep_run
    from accelsim.sweeps.worker import run_job

    calls = []

    def count(jobs):
        for key, job in jobs.items():
            calls.append(key)
            yield key, run_job(job)

    monkeypatch.setattr(sweep_run, "run_here", count)
    return calls
