"""Shares of a layer on threads that wait for the next layer: kernels leave the interpreter's lock alone (nogil)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

Share = TypeVar("Share")


@cache
def _pool() -> ThreadPoolExecutor:
    """Return the threads; there are as many as were ever needed at once, and to start them takes as long as a small
    layer.
    """
    return ThreadPoolExecutor(max(64, os.cpu_count() or 1), "accelsim")


if hasattr(os, "register_at_fork"):  # a forked child has none of its parent's threads
    os.register_at_fork(after_in_child=_pool.cache_clear)


def run_together(tasks: Sequence[Callable[[], Share]]) -> list[Share]:
    """Run each task on a thread, the first one on the caller's; return what they return, in their order.

    A task that no thread has begun when the caller's is done is the caller's too: tasks may so have tasks of their own.
    The first exception of any task, in their order, is raised.

    >>> from accelsim.engine.threads import run_together
    >>> run_together([lambda: sum(range(10)), lambda: sum(range(10, 20))])
    [45, 145]
    """
    if len(tasks) < 2:
        return [task() for task in tasks]
    own, *others = tasks
    futures = [_pool().submit(task) for task in others]
    done = [own()]
    for task, future in zip(others, futures, strict=True):
        done.append(task() if future.cancel() else future.result())
    return done
