# SPDX-License-Identifier: Apache-2.0
"""Runs a blocking call beside the main thread, so that a limit and Ctrl-C can end it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from concurrent.futures import wait as wait_for
from typing import TypeVar

_Result = TypeVar("_Result")


class OutOfTime(Exception):
    """The call was stopped at its limit."""


class Worker:
    """One thread that runs one call at a time."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1)

    def call(
        self, function: Callable[[], _Result], limit_s: float, stop: Callable[[], object]
    ) -> _Result:
        """The result of `function`. `stop` must make it return; it is called, again and again
        until it does, at the limit (then OutOfTime is raised) and on Ctrl-C."""
        future = self._pool.submit(function)
        try:
            return future.result(timeout=limit_s)
        except FutureTimeoutError:
            if future.done():
                raise
            raise OutOfTime from None
        finally:
            while not future.done():
                stop()
                wait_for([future], timeout=0.01)

    def close(self) -> None:
        self._pool.shutdown()
