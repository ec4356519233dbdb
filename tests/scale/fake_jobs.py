"""Jobs that workers can import."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def square(x: int) -> int:
    return x * x


def process_id(seconds: float = 0.0) -> int:
    time.sleep(seconds)
    return os.getpid()


def environment(name: str) -> str | None:
    return os.environ.get(name)


def fail(text: str) -> None:
    raise ValueError(text)


def unpicklable() -> object:
    return lambda: None


def die(folder: str, name: str, times: int) -> str:
    """Kill the worker the first `times` times that this is called."""
    tries = len(list(Path(folder).glob(f"{name}-*")))
    (Path(folder) / f"{name}-{tries}").touch()
    if tries < times:
        os.kill(os.getpid(), signal.SIGKILL)
    return name


def run_and_die(inputs: str, out: str, number: int, moment: str) -> None:
    """Run the tiles of a folder and be killed at the `number`-th file that is put in its place.

    `moment` says when: ``before`` the file is renamed, with only ``half`` of it written, or ``after``.
    """
    from imcat.scale import run

    replace = os.replace
    calls = 0

    def replace_or_die(source: str, target: str) -> None:
        nonlocal calls
        calls += 1
        if calls == number and moment == "half":
            os.truncate(source, os.path.getsize(source) // 2)  # noqa: PTH202
        if calls == number and moment == "after":
            replace(source, target)
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)

    os.replace = replace_or_die  # type: ignore[assignment]
    run([inputs], out, report=False, images=["rms"], resume=True)
