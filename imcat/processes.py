"""What every process of ours does that works for another one."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["follow_parent", "single_threaded_libraries", "single_threads"]

#: Libraries that would start threads of their own. Windows of a tile run side by side
#: already, and sums over a varying number of threads differ in their last bits.
_LIBRARY_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def single_threaded_libraries() -> None:
    """Keep numerical libraries that are imported from now on, in processes begun from now on too, to one thread."""
    os.environ.update(dict.fromkeys(_LIBRARY_THREADS, "1"))


@contextmanager
def single_threads() -> Iterator[None]:
    """While this holds, processes that begin get numerical libraries of one thread; this one need not keep to it."""
    before = {name: os.environ.get(name) for name in _LIBRARY_THREADS}
    single_threaded_libraries()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def follow_parent() -> None:
    """End this process when the one that began it ends, however that happens.

    A parent that is killed cannot end its workers; these would go on with the jobs that are in their queue, and write into
    a folder that another run may have taken over.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
