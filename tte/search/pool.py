# SPDX-License-Identifier: Apache-2.0
"""Runs trials on all cores of this machine, or on a Dask cluster."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing import get_context, parent_process

from tte.errors import TteError
from tte.search.trial import Outcome, Samples, Trial, run_trial

CONNECT_S = 20


@contextmanager
def workers(scheduler: str | None) -> Iterator[tuple[Executor, int]]:
    """An executor and how many trials it runs at once. `scheduler`: tcp://host:port of a Dask
    cluster whose workers have this version of tte and a C compiler; None: processes here."""
    if scheduler is None:
        count = os.cpu_count() or 1
        pool = ProcessPoolExecutor(count, get_context("spawn"), _start_worker)
        try:
            yield pool, count
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise TteError(
            "--scheduler needs Dask", hint="pip install 'tiny-training-engine[search]'"
        ) from error
    try:
        client = Client(scheduler, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise TteError(
            "the Dask scheduler does not answer", where=scheduler, why=str(error),
            hint="start one with: dask scheduler",
        ) from error  # fmt: skip
    with client:
        threads = sum(client.nthreads().values())
        if not threads:
            raise TteError(
                "the Dask scheduler has no workers", where=scheduler,
                hint=f"start some with: dask worker {scheduler} --nthreads 1",
            )  # fmt: skip
        yield client.get_executor(pure=False), threads


def _start_worker() -> None:
    """Ctrl-C is for the process that waits, which keeps what is done; a worker ends with it, even
    where it was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def run_all(
    jobs: Iterable[tuple[str, Trial, Samples]], executor: Executor, count: int
) -> Iterator[tuple[str, Outcome]]:
    """(key, outcome) as trials end; a trial is made only when a worker is nearly free."""
    pending: dict[Future[Outcome], str] = {}
    left = iter(jobs)
    more = True
    try:
        while more or pending:
            while more and len(pending) < count + 1:
                job = next(left, None)
                if job is None:
                    more = False
                else:
                    pending[executor.submit(run_trial, *job[1:])] = job[0]
            if pending:
                done, _ = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    yield pending.pop(future), future.result()
    finally:
        for future in pending:
            future.cancel()
