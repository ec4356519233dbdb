"""The ledger: what it holds, what survives a kill, what it refuses."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

from imcat.catalogue import read_footprints
from imcat.config import Config
from imcat.errors import OutputError
from imcat.scale import Ledger, OutputFolder, TileOutcome, read_ledger, without_times
from imcat.scale.folder import lock_folder
from imcat.scale.job import checksum
from imcat.surveys import TileSource

FOOTPRINT = ((10.0, 0.0), (10.1, 0.0), (10.1, 0.1), (10.0, 0.1))


@pytest.fixture
def folder(tmp_path: Path) -> OutputFolder:
    folder = OutputFolder(tmp_path / "out")
    folder.create(images=True, report=True)
    return folder


@pytest.fixture
def sources(tmp_path: Path) -> list[TileSource]:
    (tmp_path / "in").mkdir()
    made = []
    for number, name in enumerate("abc"):
        path = tmp_path / "in" / f"{name}.fits"
        path.write_text(f"pixels of {name}")
        made.append(TileSource(name, "generic", number, (str(path),)))
    return made


def _finish(folder: OutputFolder, source: TileSource, **changes: object) -> TileOutcome:
    """Write what a job writes, and tell of it."""
    folder.source(source.name).write_text(f"sources of {source.name}")
    values: dict[str, object] = {
        "tile": source.name,
        "ok": True,
        "rows": 3,
        "footprint": FOOTPRINT,
        "counts": {"sources": 3},
        "inputs": {path: checksum(path) for path in source.files},
        "timings": {"total": 1.5},
        **changes,
    }
    return TileOutcome(**values)  # type: ignore[arg-type]


def _resumed(folder: OutputFolder, sources: list[TileSource], config: Config | None = None) -> Ledger:
    ledger = Ledger(folder, sources, config or Config())
    ledger.resume()
    return ledger


def test_it_holds_what_was_done(folder: OutputFolder, sources: list[TileSource]) -> None:
    ledger = Ledger(folder, sources, Config())
    ledger.write()
    assert {entry["status"] for entry in read_ledger(folder.root)["tiles"].values()} == {"pending"}
    ledger.record(_finish(folder, sources[0], warnings=("beware",), counts={"seeing": math.nan}))
    ledger.record(TileOutcome("b", ok=False, reason="no light"))
    ledger.close()
    content = read_ledger(folder.ledger)
    assert content["config"] == {"hash": Config().hash, "toml": Config().to_toml()}
    assert {"imcat", "numpy", "astropy", "sep", "python"} <= content["versions"].keys()
    assert content["weights"] == []
    a, b = content["tiles"]["a"], content["tiles"]["b"]
    assert (a["status"], a["rows"], a["warnings"], a["counts"]) == ("ok", 3, ["beware"], {"seeing": None})
    assert a["inputs"][sources[0].files[0]]["sha256"] == checksum(sources[0].files[0])
    assert (b["status"], b["reason"]) == ("failed", "no light")
    assert read_footprints(folder.root).names == ("a",)
    assert not folder.journal.exists()


def test_it_is_valid_json_with_sorted_keys(folder: OutputFolder, sources: list[TileSource]) -> None:
    ledger = Ledger(folder, sources[::-1], Config())
    ledger.record(_finish(folder, sources[1], counts={"x": math.inf}))
    ledger.close()
    text = folder.ledger.read_text()

    def refuse(name: str) -> None:
        raise AssertionError(name)

    content = json.loads(text, parse_constant=refuse)
    assert text == json.dumps(content, indent=1, sort_keys=True) + "\n"


def test_a_tile_that_only_the_journal_knows_is_not_lost(
    folder: OutputFolder, sources: list[TileSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(folder, sources, Config())
    ledger.write()
    monkeypatch.setattr(ledger, "write", lambda: None)
    for source in sources[:2]:
        ledger.record(_finish(folder, source))
    # Killed here, in the middle of a line.
    with folder.journal.open("r+") as journal:
        journal.truncate(folder.journal.stat().st_size - 20)
    resumed = _resumed(folder, sources)
    assert [resumed.finished(name) for name in "abc"] == [True, False, False]


def test_a_journal_without_ledger_is_of_no_use(folder: OutputFolder, sources: list[TileSource]) -> None:
    folder.journal.write_text('{"a": {"status": "ok"}}\n')
    assert not _resumed(folder, sources).finished("a")
    assert not folder.journal.exists()


def test_a_resumed_ledger_equals_an_undisturbed_one(
    folder: OutputFolder, sources: list[TileSource], tmp_path: Path
) -> None:
    first = Ledger(folder, sources, Config())
    first.record(_finish(folder, sources[0]))
    first.record(TileOutcome("b", ok=False, reason="a hiccup"))
    second = _resumed(folder, sources)
    assert [second.finished(name) for name in "abc"] == [True, False, False]
    for source in sources[:0:-1]:
        second.record(_finish(folder, source, timings={"total": 9.0}))
    second.close()
    other = OutputFolder(tmp_path / "other")
    other.create(images=False, report=False)
    whole = Ledger(other, sources, Config())
    for source in sources:
        whole.record(_finish(other, source))
    whole.close()
    assert without_times(read_ledger(folder.root)) == without_times(read_ledger(other.root))


@pytest.mark.parametrize("damage", ["absent", "short"])
def test_a_finished_tile_without_its_file_is_made_again(
    folder: OutputFolder, sources: list[TileSource], damage: str
) -> None:
    Ledger(folder, sources, Config()).record(_finish(folder, sources[0]))
    if damage == "absent":
        folder.source("a").unlink()
    else:
        folder.source("a").write_text("")
    assert not _resumed(folder, sources).finished("a")


def test_a_finished_tile_without_its_image_is_made_again(
    folder: OutputFolder, sources: list[TileSource]
) -> None:
    image = folder.image("a", "r", "rms")
    image.write_text("")
    Ledger(folder, sources, Config()).record(_finish(folder, sources[0], images=(image.name,)))
    assert _resumed(folder, sources).finished("a")
    image.unlink()
    assert not _resumed(folder, sources).finished("a")


def test_another_configuration_is_refused(folder: OutputFolder, sources: list[TileSource]) -> None:
    Ledger(folder, sources, Config()).write()
    message = r"another configuration \(noise.mesh_size: 128 then, 64 now\); go on with"
    with pytest.raises(OutputError, match=message):
        _resumed(folder, sources, Config().replace(noise={"mesh_size": 64}))


def test_other_images_are_refused(folder: OutputFolder, sources: list[TileSource]) -> None:
    Ledger(folder, sources, Config(), ["rms"]).write()
    with pytest.raises(OutputError, match=r"other images \(rms; now none\)"):
        _resumed(folder, sources)


def test_another_version_is_refused(
    folder: OutputFolder, sources: list[TileSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    Ledger(folder, sources, Config()).write()
    monkeypatch.setattr("imcat.scale.ledger.__version__", "99.0")
    with pytest.raises(OutputError, match=r"this is 99\.0"):
        _resumed(folder, sources)


def test_other_tiles_are_refused(folder: OutputFolder, sources: list[TileSource]) -> None:
    Ledger(folder, sources[:2], Config()).write()
    with pytest.raises(OutputError, match=r"other inputs \(tile c only now\)"):
        _resumed(folder, sources)
    with pytest.raises(OutputError, match=r"other inputs \(tile b only then\)"):
        _resumed(folder, sources[:1])


def _touch(path: str) -> None:
    os.utime(path, ns=(1, 1))


def test_a_changed_file_is_refused_and_a_touched_one_is_not(
    folder: OutputFolder, sources: list[TileSource]
) -> None:
    Ledger(folder, sources, Config()).record(_finish(folder, sources[0]))
    [path] = sources[0].files
    _touch(path)
    assert _resumed(folder, sources).finished("a")
    Path(path).write_text("PIXELS of a")
    with pytest.raises(OutputError, match=r"other inputs \(tile a: .*a\.fits has another checksum\)"):
        _resumed(folder, sources)
    Path(path).write_text("longer pixels of a")
    with pytest.raises(OutputError, match=r"has 18 bytes, had 11"):
        _resumed(folder, sources)
    Path(path).unlink()
    with pytest.raises(OutputError, match=r"a\.fits only then"):
        _resumed(folder, sources)


def test_further_files_of_a_tile_are_refused(
    folder: OutputFolder, sources: list[TileSource], tmp_path: Path
) -> None:
    Ledger(folder, sources, Config()).record(_finish(folder, sources[0]))
    more = tmp_path / "in" / "mask.fits"
    more.write_text("mask")
    sources[0] = TileSource("a", "generic", 0, (*sources[0].files, str(more)))
    with pytest.raises(OutputError, match=r"mask\.fits only now"):
        _resumed(folder, sources)


def test_repaired_files_may_belong_to_tiles_of_other_names(
    folder: OutputFolder, sources: list[TileSource], tmp_path: Path
) -> None:
    """A frame that could not be read failed under its own name, since nothing told which tile it is of."""
    lost = [tmp_path / "in" / f"{name}.fits" for name in ("lost", "other")]
    for path in lost:
        path.write_text("cut short")
    failing = [TileSource(path.name, "generic", 9, (str(path),)) for path in lost]
    ledger = Ledger(folder, [*sources, *failing], Config())
    for source in sources:
        ledger.record(_finish(folder, source))
    for source in failing:
        ledger.record(TileOutcome(source.name, False, reason="cannot be read"))
    # One turns out to be a tile, the other one more exposure of tile a.
    grown = TileSource("a", "generic", 0, (*sources[0].files, str(lost[1])))
    whole = TileSource("d", "generic", 4, (str(lost[0]),))
    again = _resumed(folder, [grown, *sources[1:], whole])
    assert [again.finished(name) for name in "abcd"] == [False, True, True, False]
    # What finished may not go, and what comes must be of a repaired file.
    with pytest.raises(OutputError, match=r"other inputs \(tile b only then\)"):
        _resumed(folder, [grown, sources[2], whole])
    stranger = tmp_path / "in" / "stranger.fits"
    stranger.write_text("pixels")
    with pytest.raises(OutputError, match=r"other inputs \(tile e only now\)"):
        _resumed(folder, [*sources, whole, TileSource("e", "generic", 5, (str(stranger),))])


def test_a_tile_that_failed_may_come_with_a_repaired_file(
    folder: OutputFolder, sources: list[TileSource]
) -> None:
    ledger = Ledger(folder, sources, Config())
    ledger.record(TileOutcome("a", ok=False, reason="truncated"))
    Path(sources[0].files[0]).write_text("all the pixels of a")
    resumed = _resumed(folder, sources)
    assert not resumed.finished("a")
    assert resumed.tiles["a"]["inputs"][sources[0].files[0]]["bytes"] == 19


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as a ledger"),
        ("[]", "is not the ledger of a run"),
        ('{"tiles": {}, "format": 99}', "has format 99, this version of imcat reads up to 1"),
    ],
)
def test_what_is_no_ledger_is_refused(folder: OutputFolder, text: str, message: str) -> None:
    folder.ledger.write_text(text)
    with pytest.raises(OutputError, match=message):
        read_ledger(folder.root)


def test_an_absent_ledger_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no such file"):
        read_ledger(tmp_path / "run.json")


def test_an_output_folder_is_taken_only_if_it_is_ours(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path / "out")
    folder.check(resume=False)
    folder.check(resume=True)
    folder.root.mkdir()
    folder.check(resume=False)
    (folder.root / ".run.json.12-0badcafe.part").touch()
    folder.sources.mkdir()
    folder.check(resume=True)
    (folder.root / "letter.txt").touch()
    for resume in (False, True):
        with pytest.raises(OutputError, match="holds files that are not of a run"):
            folder.check(resume)
    (folder.root / "letter.txt").unlink()
    folder.ledger.touch()
    folder.check(resume=True)
    with pytest.raises(OutputError, match="add --resume"):
        folder.check(resume=False)
    with pytest.raises(OutputError, match="a file stands where"):
        OutputFolder(folder.ledger).check(resume=False)


def test_a_folder_is_held_by_one_run(tmp_path: Path) -> None:
    lock = lock_folder(tmp_path)
    assert lock is not None
    with pytest.raises(OutputError, match="another imcat is writing there"):
        lock_folder(tmp_path)
    os.close(lock)
    again = lock_folder(tmp_path)
    assert again is not None
    os.close(again)


def test_leftovers_are_removed_and_nothing_else(folder: OutputFolder) -> None:
    for where in (folder.root, folder.sources, folder.images, folder.report):
        (where / ".x.parquet.99-0badcafe.part").touch()
    keep = [folder.source("a"), folder.preview("a"), folder.root / "notes.part"]
    for path in keep:
        path.touch()
    assert folder.remove_leftovers() == 4
    assert all(path.exists() for path in keep)
