"""Threads that layers share: order, exceptions, tasks within tasks, and a forked process."""

import os
import subprocess
import sys
import threading

import pytest

from accelsim.engine.threads import run_together


def test_results_are_in_the_order_of_the_tasks_and_the_first_runs_here():
    ran_in = run_together([threading.get_ident] * 3)
    assert ran_in[0] == threading.get_ident()
    assert run_together([lambda n=n: n * n for n in range(200)]) == [n * n for n in range(200)]
    assert run_together([]) == []


def test_tasks_run_at_the_same_time():
    """Each waits for the other: run one after the other they would never meet."""
    meeting = threading.Barrier(2, timeout=60)
    assert sorted(run_together([meeting.wait, meeting.wait])) == [0, 1]


def test_the_first_exception_in_order_is_raised():
    def fails(what: str) -> None:
        raise ValueError(what)

    with pytest.raises(ValueError, match="second"):
        run_together([lambda: None, lambda: fails("second"), lambda: fails("third")])
    with pytest.raises(ValueError, match="own"):
        run_together([lambda: fails("own"), lambda: None])


def test_tasks_may_have_tasks_of_their_own():
    """More than there are threads, each of which then wants another one: what no thread has begun, the waiting one does
    itself.
    """
    all_submitted = threading.Event()

    def task(number: int) -> int:
        all_submitted.wait(60)
        return sum(run_together([lambda: number, lambda: 1]))

    def first() -> int:
        all_submitted.set()
        return 1

    many = 2 * (os.cpu_count() or 1) + 100
    found = run_together([first, *(lambda n=n: task(n) for n in range(many))])
    assert found == [1, *range(1, many + 1)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_has_threads_of_its_own():
    script = """
import os, sys, threading
from accelsim.engine.threads import run_together
meeting = threading.Barrier(2, timeout=60)
run_together([meeting.wait] * 2)
child = os.fork()
if child == 0:
    meeting = threading.Barrier(2, timeout=60)
    os._exit(0 if sorted(run_together([meeting.wait] * 2)) == [0, 1] else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
