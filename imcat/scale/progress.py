"""How a run tells of itself while it goes on.

Three listeners with one interface: a bar on a terminal, plain lines
elsewhere, one JSON object a line for machines. Progress goes to standard
error, JSON to standard output, and a tile that fails is a line that begins
with ``error:`` on standard error in any case.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any, Protocol

__all__ = [
    "JsonProgress",
    "PlainProgress",
    "Progress",
    "RichProgress",
    "Silent",
    "TileEvent",
    "make_progress",
]


@dataclass(frozen=True)
class TileEvent:
    """A tile that was finished.

    Attributes
    ----------
    tile : str
        Its name.
    status : str
        ``ok`` or ``failed``.
    reason : str
        Why it failed, one line.
    rows : int
        Sources in its file.
    seconds : float
        Wall time that it took.
    done, total : int
        Tiles done so far, and all tiles.
    """

    tile: str
    status: str
    reason: str
    rows: int
    seconds: float
    done: int
    total: int


class Progress(Protocol):
    """What a run tells its listener."""

    def start(self, total: int, done: int, workers: int, out: str) -> None:
        """The run begins; `done` of its `total` tiles were finished before."""
        ...

    def tile(self, event: TileEvent) -> None:
        """A tile was finished."""
        ...

    def warn(self, text: str) -> None:
        """Something went wrong that costs no tile."""
        ...

    def end(self, summary: dict[str, Any]) -> None:
        """The run is over; called however it ends, with an empty summary if it was cut short."""
        ...


class Silent:
    """Says nothing."""

    def start(self, total: int, done: int, workers: int, out: str) -> None:
        """Say nothing."""

    def tile(self, event: TileEvent) -> None:
        """Say nothing."""

    def warn(self, text: str) -> None:
        """Say nothing."""

    def end(self, summary: dict[str, Any]) -> None:
        """Say nothing."""


class PlainProgress:
    """One line for each tile."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._before = 0

    def start(self, total: int, done: int, workers: int, out: str) -> None:
        """Remember when the run began, and with what."""
        self._begin, self._before = time.monotonic(), done

    def tile(self, event: TileEvent) -> None:
        """One line; that of a tile that failed is the error itself."""
        if event.status != "ok":
            _say(f"error: tile {event.tile}: {event.reason}")
            return
        new = event.done - self._before
        left = (time.monotonic() - self._begin) / max(new, 1) * (event.total - event.done)
        rest = f", {_duration(left)} left" if event.done < event.total else ""
        _say(f"{event.done}/{event.total} {event.tile}: {event.rows} sources in {event.seconds:.1f} s{rest}")

    def warn(self, text: str) -> None:
        """One line."""
        _say(f"warning: {text}")

    def end(self, summary: dict[str, Any]) -> None:
        """Nothing more to say: the command prints the summary."""


class JsonProgress:
    """One JSON object a line on standard output: events ``start``, ``tile``, ``warning`` and ``end``."""

    def start(self, total: int, done: int, workers: int, out: str) -> None:
        """Print the event."""
        self._print({"event": "start", "tiles": total, "done": done, "workers": workers, "out": out})

    def tile(self, event: TileEvent) -> None:
        """Print the event, and an error on standard error too."""
        self._print({"event": "tile", **asdict(event)})
        if event.status != "ok":
            _say(f"error: tile {event.tile}: {event.reason}")

    def warn(self, text: str) -> None:
        """Print the event."""
        self._print({"event": "warning", "text": text})

    def end(self, summary: dict[str, Any]) -> None:
        """Print the event."""
        if summary:
            self._print({"event": "end", **summary})

    @staticmethod
    def _print(event: dict[str, Any]) -> None:
        print(json.dumps(event, sort_keys=True), flush=True)


class RichProgress:
    """A bar with the rate and the remaining time, errors and warnings above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._begin, self._before = 0.0, 0

    def start(self, total: int, done: int, workers: int, out: str) -> None:
        """Show the bar."""
        self._begin, self._before = time.monotonic(), done
        self._task = self._bar.add_task("tiles", total=total, completed=done, rate="")
        self._bar.start()

    def tile(self, event: TileEvent) -> None:
        """Move the bar."""
        rate = (event.done - self._before) / max(time.monotonic() - self._begin, 1e-3)
        shown = f"{rate:.2g} tiles/s" if rate >= 1 else f"{60 * rate:.2g} tiles/min"
        self._bar.update(self._task, completed=event.done, rate=shown, description=event.tile)
        if event.status != "ok":
            self._console.print(f"error: tile {event.tile}: {event.reason}", markup=False)

    def warn(self, text: str) -> None:
        """One line above the bar."""
        self._console.print(f"warning: {text}", markup=False)

    def end(self, summary: dict[str, Any]) -> None:
        """Remove the bar."""
        self._bar.stop()


def make_progress(as_json: bool = False) -> Progress:
    """The listener that suits where the output goes.

    Parameters
    ----------
    as_json : bool
        Whether a machine reads standard output.
    """
    if as_json:
        return JsonProgress()
    return RichProgress() if sys.stderr.isatty() else PlainProgress()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
