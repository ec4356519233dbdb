"""Workers end with the process that began them, even if it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from imcat.processes import single_threads

_PARENT = """
import os, sys, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from imcat.processes import follow_parent
from pids import tell

if __name__ == "__main__":
    with ProcessPoolExecutor(2, mp_context=get_context(sys.argv[1]), initializer=follow_parent) as pool:
        list(pool.map(tell, range(8)))
"""
_JOB = """
import os, time

def tell(k):
    open(f"{os.getpid()}.pid", "w").close()
    time.sleep(30)
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_of_a_killed_parent_end(tmp_path: Path, method: str, alive: Callable[[int], bool]) -> None:
    (tmp_path / "parent.py").write_text(_PARENT)
    (tmp_path / "pids.py").write_text(_JOB)
    parent = subprocess.Popen([sys.executable, "parent.py", method], cwd=tmp_path)
    until = time.monotonic() + 240
    while len(pids := [int(p.stem) for p in tmp_path.glob("*.pid")]) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    assert len(pids) == 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    until = time.monotonic() + 120
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(alive, pids))


def test_the_environment_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    with single_threads():
        assert os.environ["OMP_NUM_THREADS"] == os.environ["NUMBA_NUM_THREADS"] == "1"
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "NUMBA_NUM_THREADS" not in os.environ
