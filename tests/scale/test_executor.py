"""The executors: same interface, same answers, and what a killed worker costs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from imcat.errors import DependencyError, UsageError
from imcat.scale.executor import InProcess, LocalPool, WorkerLost, dask_executor

HERE = Path(__file__).parent


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(HERE))
    import fake_jobs

    return fake_jobs


@pytest.fixture
def pool(jobs: ModuleType) -> Iterator[LocalPool]:
    pool = LocalPool(2)
    yield pool
    pool.shutdown(cancel_futures=True)


def _wait_until(condition: object, seconds: float = 120) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.02)
    return False


def test_in_process_runs_at_once(jobs: ModuleType) -> None:
    executor = InProcess()
    assert executor.submit(jobs.process_id).result() == os.getpid()
    with pytest.raises(ValueError, match="no good"):
        executor.submit(jobs.fail, "no good").result()


def test_the_pool_uses_all_its_workers_and_keeps_them(pool: LocalPool, jobs: ModuleType) -> None:
    pids = {future.result() for future in [pool.submit(jobs.process_id, 0.2) for _ in range(6)]}
    assert len(pids) == 2
    assert os.getpid() not in pids
    assert set(pool.processes) == pids
    assert [f.result() for f in [pool.submit(jobs.square, n) for n in range(20)]] == [
        n * n for n in range(20)
    ]


def test_an_exception_comes_back_and_costs_nothing(pool: LocalPool, jobs: ModuleType) -> None:
    with pytest.raises(ValueError, match="no good"):
        pool.submit(jobs.fail, "no good").result()
    with pytest.raises(TypeError, match="cannot be sent back"):
        pool.submit(jobs.unpicklable).result()
    assert pool.submit(jobs.square, 3).result() == 9


def test_workers_get_single_threaded_libraries(pool: LocalPool, jobs: ModuleType) -> None:
    before = os.environ.get("OMP_NUM_THREADS")
    assert pool.submit(jobs.environment, "OMP_NUM_THREADS").result() == "1"
    assert os.environ.get("OMP_NUM_THREADS") == before


def test_a_killed_worker_costs_its_job_one_try_and_others_nothing(
    pool: LocalPool, jobs: ModuleType, tmp_path: Path
) -> None:
    once = pool.submit(jobs.die, str(tmp_path), "once", 1)
    twice = pool.submit(jobs.die, str(tmp_path), "twice", 99)
    others = [pool.submit(jobs.square, n) for n in range(8)]
    assert once.result() == "once"
    with pytest.raises(WorkerLost, match="killed 2 times"):
        twice.result()
    assert [f.result() for f in others] == [n * n for n in range(8)]
    assert len(list(tmp_path.glob("once-*"))) == 2
    assert len(list(tmp_path.glob("twice-*"))) == 2


def test_a_worker_killed_from_outside_is_replaced(pool: LocalPool, jobs: ModuleType) -> None:
    running = [pool.submit(jobs.process_id, 0.5) for _ in range(2)]
    assert _wait_until(lambda: len(pool.processes) == 2)
    victim = pool.processes[0]
    os.kill(victim, signal.SIGKILL)
    pids = {future.result() for future in running}
    assert victim not in pids
    assert len(pids) == 2


def test_a_worker_killed_while_idle_is_replaced(pool: LocalPool, jobs: ModuleType) -> None:
    victim = pool.submit(jobs.process_id).result()
    os.kill(victim, signal.SIGKILL)
    assert pool.submit(jobs.process_id).result() != victim


def test_shutdown_with_cancel_does_not_wait(jobs: ModuleType, alive: Callable[[int], bool]) -> None:
    pool = LocalPool(1)
    futures = [pool.submit(jobs.process_id, 60) for _ in range(3)]
    assert _wait_until(lambda: pool.processes)
    [pid] = pool.processes
    begin = time.monotonic()
    pool.shutdown(cancel_futures=True)
    assert time.monotonic() - begin < 5
    assert _wait_until(lambda: all(future.done() for future in futures))
    assert _wait_until(lambda: not alive(pid))


def test_workers_die_with_a_parent_that_is_killed(tmp_path: Path, alive: Callable[[int], bool]) -> None:
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "import fake_jobs\n"
        "from imcat.scale.executor import LocalPool\n"
        "if __name__ == '__main__':\n"
        "    pool = LocalPool(2)\n"
        "    print(*{f.result() for f in [pool.submit(fake_jobs.process_id, 0.3) for _ in range(4)]}, flush=True)\n"
        "    [pool.submit(fake_jobs.process_id, 60) for _ in range(2)]\n"
        "    time.sleep(60)\n"
    )
    script = tmp_path / "parent.py"
    script.write_text(code)
    parent = subprocess.Popen(
        [sys.executable, str(script), str(HERE)], stdout=subprocess.PIPE, text=True, cwd=HERE.parents[1],
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
    )  # fmt: skip
    with parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2
        parent.kill()
        parent.wait()
    assert _wait_until(lambda: not any(map(alive, pids)))


def test_a_pool_of_nobody_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        LocalPool(0)


def test_dask_is_asked_for_by_the_name_of_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(DependencyError, match=r"--scheduler needs .* 'imcat\[scale\]'"),
        dask_executor("tcp://localhost:1"),
    ):
        pass
