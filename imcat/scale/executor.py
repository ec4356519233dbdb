"""Where jobs run: in this process, in a local pool, or on a Dask cluster.

All three are `concurrent.futures.Executor` and run the same functions. A job
whose worker is killed is tried once more, then its future raises `WorkerLost`.
"""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from imcat.errors import DependencyError, ImcatError, UsageError
from imcat.processes import follow_parent, single_threads

__all__ = [
    "InProcess",
    "LocalPool",
    "WorkerLost",
    "available_cores",
    "dask_executor",
    "keep_freed_memory",
    "warm_up",
]

_T = TypeVar("_T")

#: What a worker needs; imported once, before workers are forked from that process.
#: Variable of the environment that says what `imcat.scale.preload` is to practise.
PRACTICE = "IMCAT_PRACTICE"
_PRELOAD = ("imcat.scale.job", "imcat.scale.preload", "imcat.surveys")
_TRIES = 2
_CONNECT_SECONDS = 10


class WorkerLost(ImcatError):
    """The worker of a job was killed, and so was that of its second try."""


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # pragma: no cover - not Linux


# Parameters of glibc's malloc (malloc.h).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_KEEP = 1 << 30  # bytes: above the largest array of a window


def keep_freed_memory() -> None:
    """Let arrays of one window be made in the memory of the last one's.

    By default glibc returns the memory of large arrays to the system when they are freed, and
    asks for it again, page by page, for the next window; on a large image that takes a quarter of
    the processor's time. Elsewhere than under glibc nothing is changed. Call it before other
    threads are started.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    for parameter, value in (
        (_M_MMAP_THRESHOLD, _KEEP),
        (_M_TRIM_THRESHOLD, _KEEP),
        (_M_ARENA_MAX, 1),
    ):
        mallopt(ctypes.c_int(parameter), ctypes.c_int(value))


class InProcess(Executor):
    """Runs each job at once, in the caller."""

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Future[_T]:
        """Run the job; the future that is returned is done."""
        future: Future[_T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def warm_up(fits: bool = True, network: bool = False, classes: bool = False) -> None:
    """Begin to import what workers need, beside what the caller does next.

    Parameters
    ----------
    fits : bool
        Whether they will fit models.
    network : bool
        Whether they will find sources with the network.
    classes : bool
        Whether they will classify them.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_PRELOAD))
    from multiprocessing import forkserver

    wanted = {"fits": fits, "network": network, "classes": classes}
    os.environ[PRACTICE] = " ".join(name for name, needed in wanted.items() if needed)
    with single_threads():
        forkserver.ensure_running()


class LocalPool(Executor):
    """Worker processes on this machine, one job at a time in each.

    Unlike `concurrent.futures.ProcessPoolExecutor`, where one killed process
    breaks every job, a killed worker here costs its own job one try and no
    other job anything.

    Parameters
    ----------
    workers : int
        Number of processes; they start when there is work for them.
    """

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise UsageError(f"{workers} workers cannot do anything; expected at least 1")
        warm_up()
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()
        self._all: list[_Worker] = [_Worker() for _ in range(workers)]
        for worker in self._all:
            self._idle.put(worker)
        # A thread for each process only waits for it.
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="worker")

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Future[_T]:
        """Queue a job; jobs start in the order in which they came."""
        return self._threads.submit(self._call, fn, args, kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers; with `cancel_futures`, those that are busy too."""
        if cancel_futures:
            for worker in self._all:
                worker.kill()
        self._threads.shutdown(wait, cancel_futures=cancel_futures)
        if wait or cancel_futures:
            for worker in self._all:
                worker.close()

    @property
    def processes(self) -> list[int]:
        """Process ids of the workers that are running."""
        return [pid for worker in self._all if (pid := worker.pid) is not None]

    def _call(self, fn: Callable[..., _T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> _T:
        worker = self._idle.get()
        try:
            for _ in range(_TRIES):
                try:
                    result: _T = worker.call(fn, args, kwargs)
                    return result
                except EOFError:
                    continue
            raise WorkerLost(f"its worker process was killed {_TRIES} times; is there enough memory?")
        finally:
            self._idle.put(worker)


class _Worker:
    """A process that does one job at a time; it is started again when it was lost."""

    def __init__(self) -> None:
        self._process: Any = None
        self._connection: Connection | None = None
        self._lock = threading.Lock()
        self._ended = False

    @property
    def pid(self) -> int | None:
        process = self._process
        return process.pid if process is not None and process.is_alive() else None

    def call(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Do a job in the process; EOFError if the process dies under it."""
        message = pickle.dumps((fn, args, kwargs))
        connection = self._connect()
        try:
            connection.send_bytes(message)
            ok, value = connection.recv()
        except (EOFError, OSError):
            self._forget()
            raise EOFError from None
        if not ok:
            raise value
        return value

    def kill(self) -> None:
        """End the process now; a job that waits for it sees EOFError."""
        with self._lock:
            self._ended = True
            if self._process is not None:
                self._process.kill()

    def close(self) -> None:
        """Let the process end, and wait for that."""
        with self._lock:
            self._ended = True
            if self._connection is not None:
                self._connection.close()
            if self._process is not None:
                self._process.join()

    def _connect(self) -> Connection:
        with self._lock:
            if self._ended:
                raise EOFError("the pool was shut down")
            if self._connection is None:
                context = multiprocessing.get_context("forkserver")
                self._connection, theirs = context.Pipe()
                self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
                with single_threads():
                    self._process.start()
                theirs.close()
            return self._connection

    def _forget(self) -> None:
        with self._lock:
            if self._process is not None:
                self._process.kill()
                self._process.join()
            if self._connection is not None:
                self._connection.close()
            self._process = self._connection = None


def _serve(connection: Connection) -> None:
    """Body of a worker process: do jobs until the other end closes."""
    # An interrupt from the keyboard reaches every process of the terminal; the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_freed_memory()
    if not sys.warnoptions:  # those of libraries are not for the user, unless asked for with -W
        warnings.simplefilter("ignore")
    follow_parent()
    while True:
        try:
            fn, args, kwargs = connection.recv()
        except EOFError:
            return
        try:
            answer = (True, fn(*args, **kwargs))
        except Exception as error:
            answer = (False, error)
        try:
            message = pickle.dumps(answer)
        except Exception as error:
            message = pickle.dumps((False, TypeError(f"a job's result cannot be sent back: {error}")))
        connection.send_bytes(message)


@contextmanager
def dask_executor(address: str) -> Iterator[tuple[Executor, int]]:
    """An executor on a running Dask cluster.

    Parameters
    ----------
    address : str
        Of the scheduler, as in ``tcp://host:8786``.

    Yields
    ------
    (concurrent.futures.Executor, int)
        The executor and the number of threads in the cluster's workers.

    Raises
    ------
    DependencyError
        If Dask is not installed.
    UsageError
        If no scheduler answers at the address.
    """
    try:
        from distributed import Client
    except ImportError:
        raise DependencyError("distributed", "scale", "--scheduler") from None
    # Each of its loggers has a level of its own. What matters comes back as an exception.
    for name in list(logging.root.manager.loggerDict):
        if name.split(".")[0] == "distributed":
            logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        client = Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        text = " ".join(str(error).split())
        raise UsageError(
            f"no Dask scheduler answers at {address} ({text}); expected an address such as tcp://host:8786"
        ) from None
    try:
        # pure=False: the same tile asked for again must be done again.
        yield client.get_executor(pure=False), max(1, sum(client.nthreads().values()))
    finally:
        client.close(timeout=_CONNECT_SECONDS)
