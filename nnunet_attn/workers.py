"""Work in other processes: on many cases at once with a progress bar, or on one thing that must be alone."""

import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.connection import wait
from typing import TypeVar

from tqdm import tqdm

from nnunet_attn.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_parallel(
    function: Callable[[Item], Result], items: Sequence[Item], processes: int, title: str, *, progress: bool = True
) -> Iterator[Result]:
    """Map in order, with a progress bar on a terminal; the first error stops everything.

    Args:
        function: Of the top level of a module that imports little, since each process imports it again.
        items: What to map.
        processes: Worker processes; 1 works in this one.
        title: Of the bar.
        progress: Whether to show the bar.

    Raises:
        UserError: a worker process was killed.
    """
    bar = partial(tqdm, total=len(items), desc=title, unit="case", disable=None if progress else True, file=sys.stderr)
    if processes <= 1 or len(items) == 1:
        yield from bar(map(function, items))
        return
    pool = ProcessPoolExecutor(
        min(processes, max(1, len(items))),
        mp_context=multiprocessing.get_context("spawn"),  # forking a process that runs threads can hang
        initializer=_start_worker,
    )
    try:
        yield from bar(pool.map(function, items))
    except BrokenProcessPool as error:
        raise UserError("a worker process was killed, perhaps for want of memory; give fewer --processes") from error
    finally:
        pool.shutdown(cancel_futures=True)


def in_own_process(function: Callable[..., Result], *arguments: object) -> Result:
    """Call in a new process and wait, so that peak memory and caches are of this call alone.

    Raises:
        UserError: the process was killed.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=_start_worker) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            raise UserError("a process that measures was killed, perhaps for want of memory") from error


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, end with it even if it is killed, hide torch's warnings about itself."""
    warnings.simplefilter("ignore", FutureWarning)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None  # this runs in a worker

    def end_with_parent() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
