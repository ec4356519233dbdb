"""The ledger of a run, ``run.json``: what was done to which tile, with what.

Only the main process writes it. A finished tile is first added to a journal,
one line that costs nothing, and the ledger is then rewritten as a whole
whenever that takes a small part of the time; both survive a kill at any
moment. Everything that differs between two runs of the same tiles stands
under the keys ``time`` and ``timings``; take those away and two ledgers are
equal, whatever the number of workers and however often a run was resumed.
"""

from __future__ import annotations

import json
import math
import platform
import time
import tomllib
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imcat import __version__
from imcat.catalogue import atomic_path
from imcat.config import Config
from imcat.errors import OutputError
from imcat.scale.folder import OutputFolder
from imcat.scale.job import TileOutcome, checksum

if TYPE_CHECKING:
    from imcat.surveys import TileSource

__all__ = ["FORMAT", "Ledger", "read_ledger", "without_times"]

#: Version of the ledger's format; one that is greater is refused.
FORMAT = 1
#: The ledger is rewritten when that takes at most this part of the time since the last rewrite.
_REWRITE_SHARE = 0.05
#: Packages whose versions can change a catalogue.
_PACKAGES = ("astropy", "numba", "numpy", "photutils", "pyarrow", "scipy", "sep")


def read_ledger(path: str | Path) -> dict[str, Any]:
    """Read ``run.json`` as it was last written.

    Parameters
    ----------
    path : path
        The ledger, or the folder of the run.

    Raises
    ------
    OutputError
        If it is missing or no ledger that this version reads.
    """
    path = Path(path)
    path = path / "run.json" if path.is_dir() else path
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise OutputError(f"{path}: no such file; expected the ledger of a run") from None
    except (OSError, ValueError) as error:
        raise OutputError(f"{path}: cannot be read as a ledger ({error})") from None
    if not isinstance(content, dict) or not isinstance(content.get("tiles"), dict):
        raise OutputError(f"{path}: is not the ledger of a run")
    if content.get("format", 0) > FORMAT:
        raise OutputError(
            f"{path}: has format {content['format']}, this version of imcat reads up to {FORMAT}; use a newer imcat"
        )
    return content


def without_times(content: Any) -> Any:
    """A copy of a ledger without what differs from run to run.

    Examples
    --------
    >>> without_times({"a": 1, "time": 2, "b": [{"timings": {}, "c": 3}]})
    {'a': 1, 'b': [{'c': 3}]}
    """
    if isinstance(content, dict):
        return {k: without_times(v) for k, v in content.items() if k not in ("time", "timings")}
    return [without_times(v) for v in content] if isinstance(content, list) else content


class Ledger:
    """The ledger of a run that is being made.

    Parameters
    ----------
    folder : OutputFolder
        Where it lies.
    sources : sequence of TileSource
        Every tile of the run.
    config : Config
        The configuration of the run.
    images : sequence of str
        Kinds of images that the run writes.
    """

    def __init__(
        self, folder: OutputFolder, sources: Sequence[TileSource], config: Config, images: Sequence[str] = ()
    ) -> None:
        self._folder = folder
        self._images = sorted(images)
        self._written = 0.0
        self._cost = 0.0
        self._content: dict[str, Any] = {
            "format": FORMAT,
            "versions": _versions(),
            "config": {"hash": config.hash, "toml": config.to_toml()},
            "images": self._images,
            "weights": [],
            "time": {"started": _now()},
            "tiles": {source.name: _pending(source) for source in sources},
        }

    @property
    def tiles(self) -> Mapping[str, dict[str, Any]]:
        """What is known of each tile, by name."""
        tiles: dict[str, dict[str, Any]] = self._content["tiles"]
        return tiles

    def resume(self) -> None:
        """Take over what an earlier run of the same tiles has finished.

        Raises
        ------
        OutputError
            If the folder holds the run of other inputs, another configuration
            or another version of imcat.
        """
        old = _with_journal(self._folder)
        if old is None:
            return
        self._refuse_other_run(old)
        for name, entry in old["tiles"].items():
            pending = self._content["tiles"].get(name)
            if pending is None or entry["status"] != "ok":
                continue
            if entry["inputs"].keys() >= pending["inputs"].keys() and self._is_whole(name, entry):
                # Times of the files are those of now: they only save a checksum.
                inputs = {
                    path: {**known, "time": pending["inputs"].get(path, known)["time"]}
                    for path, known in entry["inputs"].items()
                }
                self._content["tiles"][name] = {**entry, "inputs": inputs}
        self._content["time"]["started"] = old["time"]["started"]

    def finished(self, name: str) -> bool:
        """Whether the tile's source file is there and need not be made again."""
        return bool(self.tiles[name]["status"] == "ok")

    def record(self, outcome: TileOutcome) -> None:
        """Note what became of a tile; its files are on disk by now."""
        entry = self._entry(outcome)
        self._content["tiles"][outcome.tile] = entry
        with self._folder.journal.open("a", encoding="utf-8") as journal:
            journal.write(_dump({outcome.tile: entry}) + "\n")
        if time.monotonic() - self._written >= self._cost / _REWRITE_SHARE:
            self.write()

    def write(self) -> None:
        """Write ``run.json`` as a whole and begin a new journal.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        begin = time.monotonic()
        try:
            with atomic_path(self._folder.ledger) as temporary:
                temporary.write_text(_dump(self._content, indent=1) + "\n", encoding="utf-8")
            # A kill between these two leaves a journal that repeats the ledger: harmless.
            self._folder.journal.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{self._folder.ledger}: cannot be written ({error.strerror})") from None
        self._written = time.monotonic()
        self._cost = self._written - begin

    def close(self) -> None:
        """Note the end of the run and write the ledger for the last time."""
        self._content["time"]["finished"] = _now()
        self.write()

    def _entry(self, outcome: TileOutcome) -> dict[str, Any]:
        pending = self._content["tiles"][outcome.tile]
        entry = {key: pending[key] for key in ("inputs", "number", "survey")}
        entry |= {
            "status": "ok" if outcome.ok else "failed",
            "reason": outcome.reason,
            "timings": outcome.timings,
        }
        if not outcome.ok:
            return entry
        inputs = {path: {**_stat(path), "sha256": sha256} for path, sha256 in outcome.inputs.items()}
        source = self._folder.source(outcome.tile)
        if outcome.injection:
            entry["injection"] = outcome.injection
        return entry | {
            "bands": list(outcome.bands),
            "counts": {name: _finite(value) for name, value in outcome.counts.items()},
            "footprint": [[_finite(v) for v in corner] for corner in outcome.footprint],
            "primary_footprint": [[_finite(v) for v in corner] for corner in outcome.primary_footprint],
            "images": list(outcome.images),
            "inputs": inputs,
            "reference": outcome.reference,
            "rows": outcome.rows,
            "source": {"bytes": source.stat().st_size, "sha256": outcome.source_sha256},
            "warnings": list(outcome.warnings),
        }

    def _is_whole(self, name: str, entry: Mapping[str, Any]) -> bool:
        """Whether every file of a finished tile that this run wants is there."""
        source = self._folder.source(name)
        images = [self._folder.images / image for image in entry["images"]]
        return (
            source.is_file()
            and source.stat().st_size == entry["source"]["bytes"]
            and all(image.is_file() for image in images)
        )

    def _refuse_other_run(self, old: Mapping[str, Any]) -> None:
        root, new = self._folder.root, self._content
        hint = "go on with the same ones, or name another output folder"
        if old["config"]["hash"] != new["config"]["hash"]:
            changed = _first_difference(old["config"]["toml"], new["config"]["toml"])
            raise OutputError(f"{root}: holds a run with another configuration ({changed}); {hint}")
        if old["versions"]["imcat"] != __version__:
            raise OutputError(
                f"{root}: holds a run of imcat {old['versions']['imcat']}, this is {__version__}; "
                "name another output folder"
            )
        if old["images"] != new["images"]:
            was, now = (", ".join(kinds) or "none" for kinds in (old["images"], new["images"]))
            raise OutputError(f"{root}: holds a run with other images ({was}; now {now}); {hint}")
        mended = _mended(old["tiles"], new["tiles"])
        gone = {name for name, entry in old["tiles"].items() if entry["status"] != "failed"} - new[
            "tiles"
        ].keys()
        came = {
            name
            for name in new["tiles"].keys() - old["tiles"].keys()
            if not mended & new["tiles"][name]["inputs"].keys()
        }
        if odd := sorted(gone | came):
            where = "only now" if odd[0] in came else "only then"
            raise OutputError(f"{root}: holds a run of other inputs (tile {odd[0]} {where}); {hint}")
        for name in old["tiles"].keys() & new["tiles"].keys():
            if changed := _changed_input(old["tiles"][name], new["tiles"][name], mended):
                raise OutputError(f"{root}: holds a run of other inputs (tile {name}: {changed}); {hint}")


def _pending(source: TileSource) -> dict[str, Any]:
    return {
        "status": "pending",
        "reason": "",
        "survey": source.survey,
        "number": source.number,
        "inputs": {path: _stat(path) for path in sorted(source.files)},
    }


def _stat(path: str) -> dict[str, Any]:
    try:
        status = Path(path).stat()
    except OSError:
        return {"bytes": None, "time": None}
    return {"bytes": status.st_size, "time": status.st_mtime_ns}


def _mended(old: Mapping[str, Any], new: Mapping[str, Any]) -> set[str]:
    """Files of failed tiles that are no longer there: now that they can be read, they belong to tiles of other names."""
    return {
        path
        for name in old.keys() - new.keys()
        if old[name]["status"] == "failed"
        for path in old[name]["inputs"]
    }


def _changed_input(old: Mapping[str, Any], new: Mapping[str, Any], mended: Collection[str] = ()) -> str:
    """What tells the inputs of a tile from those of the earlier run; empty if nothing does.

    A tile that failed may come with repaired files: nothing was made of the
    old ones; and one that gets a repaired file besides is made again. A file
    of the same size and time is taken to be the same; any other is read and
    its checksum compared.
    """
    if old["status"] == "failed":
        return ""
    missing = new["inputs"].keys() - old["inputs"].keys() - set(mended)
    if missing:
        return f"{min(missing)} only now"
    for path, before in old["inputs"].items():
        now = _stat(path)
        if now["bytes"] is None:
            return f"{path} only then"
        if now["bytes"] != before["bytes"]:
            return f"{path} has {now['bytes']} bytes, had {before['bytes']}"
        if "sha256" in before and now["time"] != before["time"] and checksum(path) != before["sha256"]:
            return f"{path} has another checksum"
    return ""


def _with_journal(folder: OutputFolder) -> dict[str, Any] | None:
    """The ledger of an earlier run, with the tiles that only its journal knows."""
    if not folder.ledger.exists():
        folder.journal.unlink(missing_ok=True)
        return None
    content = read_ledger(folder.ledger)
    if folder.journal.exists():
        for line in folder.journal.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                content["tiles"].update(json.loads(line))
            except ValueError:  # the line that was being written when the process was killed
                continue
    return content


def _first_difference(old: str, new: str) -> str:
    """The first setting that differs between two configurations, with both its values."""
    before, after = (_settings(tomllib.loads(text)) for text in (old, new))
    for name in sorted({*before, *after}):
        then, now = before.get(name), after.get(name)
        if then != now:
            return f"{name}: {_shown(then)} then, {_shown(now)} now"
    return "in another order"


def _settings(tree: Mapping[str, Any], table: str = "") -> dict[str, Any]:
    """Settings of nested tables by their dotted names."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= _settings(value, f"{table}{name}.") if isinstance(value, dict) else {table + name: value}
    return found


def _shown(value: Any) -> str:
    return "not set" if value is None else json.dumps(value)


def _versions() -> dict[str, str]:
    found = {"imcat": __version__, "python": platform.python_version(), "machine": platform.machine()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _dump(content: Any, indent: int | None = None) -> str:
    return json.dumps(content, indent=indent, sort_keys=True, default=_plain)


def _finite(value: float) -> float | None:
    """JSON has no NaN and no infinity: null stands for them."""
    return value if math.isfinite(value) else None


def _plain(value: Any) -> Any:
    """Numpy numbers as Python's."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no place in a ledger")
