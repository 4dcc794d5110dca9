"""What is computed from measured times: medians, spreads, ratios, goals, slopes. Nothing here is timed."""

import sys

import pytest

from benchmarks import table
from benchmarks.cases.growth import Curve, slope
from benchmarks.measure import Sample, checked, cpu_timer, in_turns, run_child
from benchmarks.result import Goal, Row, timed_row


def test_the_median_and_the_half_range():
    sample = Sample((1.0, 4.0, 2.0))
    assert (sample.median, sample.low, sample.high) == (2.0, 1.0, 4.0)
    assert sample.spread == 0.75  # (4 - 1) / 2 / 2


@pytest.mark.parametrize("seconds", [(), (1.0, 0.0), (-1.0,), (float("nan"),)])
def test_a_sample_needs_positive_seconds(seconds):
    with pytest.raises(ValueError, match="positive seconds"):
        Sample(seconds)


def test_timers_run_in_turns():
    order = []

    def timer(name, seconds):
        def timed():
            order.append(name)
            return seconds.pop(0)

        return timed

    samples = in_turns({"ours": timer("ours", [1.0, 3.0]), "peer": timer("peer", [2.0, 5.0])}, 2)
    assert order == ["ours", "peer", "ours", "peer"]
    assert samples["ours"].seconds == (1.0, 3.0)
    assert samples["peer"].seconds == (2.0, 5.0)


def test_short_work_is_repeated_and_divided():
    now, runs = [0.0], []

    def work():
        runs.append(None)
        now[0] += 0.01

    timed = cpu_timer(work, clock=lambda: now[0])
    assert len(runs) == 2  # one to warm up, one to see how long it takes
    assert timed() == pytest.approx(0.01)
    assert len(runs) == 2 + 5  # 0.05 s of it in one sample


def test_long_work_runs_once_a_sample():
    now, runs = [0.0], []

    def work():
        runs.append(None)
        now[0] += 3.0

    assert cpu_timer(work, clock=lambda: now[0])() == 3.0
    assert len(runs) == 3


def test_a_childs_own_cpu_time_and_output():
    busy = "import time\nwhile time.process_time() < 0.3: pass\nprint('done')"
    child = run_child([sys.executable, "-c", busy])
    assert child.stdout.strip() == "done"
    assert child.cpu_s >= 0.3
    idle = run_child([sys.executable, "-c", "import time; time.sleep(0.4)"])
    assert idle.wall_s >= 0.4
    assert idle.cpu_s < 0.4


def test_a_child_that_fails_is_told_with_its_words():
    child = run_child([sys.executable, "-c", "raise SystemExit('no such array')"])
    with pytest.raises(RuntimeError, match=r"the peer ended with code 1, not 0: no such array"):
        checked(child, "the peer")
    assert checked(child, "the peer", returncode=1) is child


def test_the_ratio_is_that_of_rates_even_where_the_peer_does_less_work():
    row = timed_row(
        "c",
        "n",
        Sample((2.0,)),
        work=100.0,
        work_unit="MAC",
        peer=Sample((1.0,)),
        peer_work=10.0,
        goal=Goal("ratio", 4),
    )
    assert (row.rate, row.against_rate) == (50.0, 10.0)
    assert row.ratio == 5.0
    assert row.reached == 1.25
    assert row.met is True


def test_without_work_the_ratio_is_that_of_times():
    assert timed_row("c", "n", Sample((0.5,)), peer=Sample((2.0,))).ratio == 4.0


@pytest.mark.parametrize(
    ("goal", "ratio", "value", "reached", "met"),
    [
        (Goal("ratio", 16), 16.0, 9.0, 1.0, True),
        (Goal("ratio", 16), 15.99, 9.0, 15.99 / 16, False),
        (Goal("value", 0.5), 99.0, 0.5, 1.0, True),
        (Goal("value", 0.5), 99.0, 1.0, 0.5, False),
    ],
)
def test_goals(goal, ratio, value, reached, met):
    row = Row("c", "n", value=value, ratio=ratio, goal=goal)
    assert row.reached == pytest.approx(reached)
    assert row.met is met


def test_a_goal_whose_peer_is_missing_is_neither_met_nor_missed():
    row = timed_row("c", "n", Sample((1.0,)), work=1.0, goal=Goal("ratio", 2), missing="the peer: install it")
    assert row.ratio is None
    assert row.reached is None
    assert row.met is None
    assert row.value == 1.0  # what was measured stays


def test_a_power_law_has_its_exponent_as_slope():
    x = (1e3, 1e4, 1e5, 1e6)
    assert slope(x, [3 * value**1.5 for value in x]) == pytest.approx(1.5)


def test_what_is_fixed_does_not_hide_growth():
    x = tuple(10.0**power for power in range(2, 9))
    assert Curve("e", x, tuple(1.0 + 1e-3 * value for value in x)).slope == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(("x", "y"), [((1.0,), (1.0,)), ((1.0, 2.0), (1.0,)), ((), ())])
def test_a_slope_needs_two_points(x, y):
    with pytest.raises(ValueError, match="two points"):
        slope(x, y)


@pytest.mark.parametrize(
    ("ratio", "goal", "text"),
    [
        (0.0019, Goal("value", 1.05), "0.190 %"),  # a goal in seconds says nothing of how to write the ratio
        (0.21, Goal("value", 1.0), "21 %"),
        (0.21, Goal("ratio", 0.4), "21 %"),
        (0.9, Goal("ratio", 1.8), "0.900x"),
        (1.6, None, "1.60x"),
        (1.2, None, "120 %"),
    ],
)
def test_ratios_are_written_as_times_or_per_cent(ratio, goal, text):
    assert table.ratio(Row("c", "n", 1.0, ratio=ratio, goal=goal)) == text
