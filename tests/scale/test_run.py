"""Runs over several tiles: the same files whoever does the work, and however it is cut short."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from imcat.config import Config
from imcat.errors import InputError, OutputError, UsageError
from imcat.scale import InProcess, RunSummary, read_ledger, run, without_times
from imcat.scale import runner as runner_module
from imcat.scale.progress import Silent, TileEvent

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TILES = 4


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, write_tile: Callable[..., Path]) -> Path:
    """A folder of small tiles side by side on the sky."""
    folder = tmp_path_factory.mktemp("tiles")
    for k in range(TILES):
        write_tile(folder, f"tile-{k}", seed=k, position=(150 + 0.02 * k, 2.0))
    return folder


@pytest.fixture(scope="module")
def undisturbed(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run in one process, from the beginning to the end."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    summary = run([inputs], out, report=False, images=["rms"])
    assert (summary.ok, summary.exit_code) == (TILES, 0)
    return out


class Recorder(Silent):
    """Remembers which tiles were made."""

    def __init__(self) -> None:
        self.tiles: list[str] = []
        self.ended = 0

    def tile(self, event: TileEvent) -> None:
        self.tiles.append(event.tile)

    def end(self, summary: dict[str, Any]) -> None:
        self.ended += 1


def _files(out: Path) -> dict[str, str]:
    """Checksum of every file of a run but its ledger."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name != "run.json"
    }


def _assert_same(out: Path, undisturbed: Path) -> None:
    assert _files(out) == _files(undisturbed)
    assert without_times(read_ledger(out)) == without_times(read_ledger(undisturbed))


def _command(*words: object) -> list[str]:
    return [sys.executable, "-m", "imcat", "run", *map(str, words)]


def test_a_run_writes_what_it_promises(inputs: Path, undisturbed: Path) -> None:
    names = [f"tile-{k}" for k in range(TILES)]
    expected = {f"sources/{name}.parquet" for name in names}
    expected |= {f"images/{name}-{band}-rms.fits.fz" for name in names for band in "gr"}
    assert set(_files(undisturbed)) == expected
    tiles = read_ledger(undisturbed)["tiles"]
    for name in names:
        entry = tiles[name]
        assert entry["rows"] > 5
        assert len(entry["inputs"]) == 3
        assert entry["source"]["sha256"] == _files(undisturbed)[f"sources/{name}.parquet"]
        for path, known in entry["inputs"].items():
            assert known["sha256"] == hashlib.sha256(Path(path).read_bytes()).hexdigest()
    (ra0, dec0), _, (ra2, dec2), _ = tiles["tile-1"]["footprint"]
    # 96 pixels of 0.4 arcsec around the position given.
    assert (ra0 + ra2) / 2 == pytest.approx(150.02, abs=1e-6)
    assert (dec2 - dec0) * 3600 == pytest.approx(96 * 0.4, abs=1e-4)


def test_workers_change_nothing(inputs: Path, undisturbed: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    summary = run([inputs], tmp_path / "out", report=False, images=["rms"], workers=3, progress=recorder)
    assert sorted(recorder.tiles) == [f"tile-{k}" for k in range(TILES)]
    assert recorder.ended == 1
    assert summary.sources == sum(e["rows"] for e in read_ledger(undisturbed)["tiles"].values())
    _assert_same(tmp_path / "out", undisturbed)


def test_images_open_and_carry_the_wcs(undisturbed: Path) -> None:
    from astropy.io import fits
    from astropy.wcs import WCS

    with fits.open(undisturbed / "images" / "tile-0-g-rms.fits.fz") as hdus:
        image = hdus[1]
        assert image.data.shape == (96, 96)
        assert WCS(image.header).celestial.wcs.crval == pytest.approx([150.0, 2.0])
        # The noise of the image has an rms of 1 unit of zero point 22.5, which is 3631 nJy.
        assert float(image.data.mean()) == pytest.approx(3631, rel=0.15)
        assert not {"DATE", "CHECKSUM", "DATASUM", "ZDATASUM"} & set(image.header)


def test_a_figure_for_each_tile_after_all_tiles(inputs: Path, tmp_path: Path) -> None:
    summary = run([inputs / "tile-0.toml", inputs / "tile-1.toml"], tmp_path / "out")
    report = tmp_path / "out" / "report"
    assert sorted(p.name for p in report.iterdir()) == [
        "report.json", "report.md", "tile-0.engines.png", "tile-0.png", "tile-1.engines.png", "tile-1.png",
    ]  # fmt: skip
    content = json.loads((report / "report.json").read_text())
    assert (content["ok"], content["sources"]) == (2, summary.sources)
    assert "[tile-1](tile-1.png) | ok | g r |" in (report / "report.md").read_text()


def test_a_figure_that_a_kill_left_out_is_drawn_on_resume(inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run([inputs / "tile-0.toml"], out)
    figure, preview = out / "report" / "tile-0.png", out / "report" / ".tile-0.npz"
    drawn = figure.read_bytes()
    figure.unlink()
    from imcat.pipeline import process_tile
    from imcat.surveys import find_tiles, read_tile

    [source] = find_tiles([inputs / "tile-0.toml"])
    made = process_tile(read_tile(source), Config(), preview=True).preview
    assert made is not None
    made.save(preview)
    recorder = Recorder()
    run([inputs / "tile-0.toml"], out, resume=True, progress=recorder)
    assert recorder.tiles == []
    assert figure.read_bytes() == drawn
    assert not preview.exists()


def test_a_figure_that_fails_costs_no_tile(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no canvas")

    monkeypatch.setattr("imcat.evaluate.overview.draw_overview", fail)
    heard: list[str] = []
    listener = Recorder()
    listener.warn = heard.append  # type: ignore[method-assign]
    summary = run([inputs / "tile-0.toml"], tmp_path / "out", progress=listener)
    assert summary.exit_code == 0
    assert len(heard) == 1
    assert "no figure of tile tile-0: unexpected RuntimeError: no canvas" in heard[0]
    assert sorted(p.name for p in (tmp_path / "out" / "report").iterdir()) == ["report.json", "report.md"]


# Failures -----------------------------------------------------------------


@pytest.fixture
def one_bad(tmp_path: Path, write_tile: Callable[..., Path]) -> Path:
    """Three tiles, of which the second has a truncated image."""
    folder = tmp_path / "in"
    folder.mkdir()
    for k in range(3):
        write_tile(folder, f"tile-{k}", seed=k, position=(150 + 0.02 * k, 2.0))
    image = folder / "tile-1-r.fits"
    image.write_bytes(image.read_bytes()[:9000])
    return folder


def test_a_tile_that_fails_costs_no_other_and_may_be_repaired(
    one_bad: Path, tmp_path: Path, write_tile: Callable[..., Path]
) -> None:
    out = tmp_path / "out"
    summary = run([one_bad], out, images=["rms"], report=False)
    assert (summary.ok, summary.failed, summary.exit_code) == (2, 1, 1)
    assert "tile-1-r.fits" in summary.failures["tile-1"]
    assert "\n" not in summary.failures["tile-1"]
    assert not any("tile-1" in name for name in _files(out))
    assert read_ledger(out)["tiles"]["tile-1"]["status"] == "failed"
    for path in one_bad.glob("tile-1*"):
        path.unlink()
    write_tile(one_bad, "tile-1", seed=1, position=(150.02, 2.0))
    recorder = Recorder()
    summary = run([one_bad], out, images=["rms"], report=False, resume=True, progress=recorder)
    assert recorder.tiles == ["tile-1"]
    assert (summary.ok, summary.failed, summary.done_before, summary.exit_code) == (3, 0, 2, 0)


@pytest.mark.parametrize("there_before", [False, True])
def test_a_run_without_any_tile_leaves_nothing(one_bad: Path, tmp_path: Path, there_before: bool) -> None:
    out = tmp_path / "out"
    if there_before:
        out.mkdir()
    summary = run([one_bad / "tile-1.toml"], out)
    assert (summary.ok, summary.failed, summary.exit_code) == (0, 1, 2)
    assert out.exists() == there_before
    assert not there_before or list(out.iterdir()) == []


def test_what_a_killed_worker_was_writing_is_removed(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from imcat.pipeline import process_tile

    part = tmp_path / "out" / "sources" / ".tile-0.parquet.77-0badcafe.part"

    def process(*args: Any, **keywords: Any) -> Any:
        part.touch()
        return process_tile(*args, **keywords)

    monkeypatch.setattr("imcat.pipeline.process_tile", process)
    run([inputs / "tile-0.toml"], tmp_path / "out", report=False)
    assert [p.name for p in part.parent.iterdir()] == ["tile-0.parquet"]


def test_an_unexpected_failure_is_one_line_that_says_where(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(tile: Any, *_: object, **__: object) -> None:
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr("imcat.pipeline.process_tile", fail)
    with caplog.at_level("DEBUG", logger="imcat"):
        summary = run([inputs / "tile-0.toml"], tmp_path / "out")
    assert summary.failures["tile-0"].startswith("unexpected ZeroDivisionError: by zero at test_run.py:")
    assert "Traceback" in caplog.text


def test_a_full_disk_leaves_no_part_of_the_tile(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from imcat.catalogue import write_parquet

    def write(catalogue: Any, path: Path) -> None:
        if path.name == "tile-1.parquet":
            raise OSError(28, "No space left on device", str(path))
        write_parquet(catalogue, path)

    monkeypatch.setattr("imcat.catalogue.write_parquet", write)
    out = tmp_path / "out"
    summary = run([inputs], out, images=["rms"])
    assert summary.failures == {"tile-1": f"{out / 'sources' / 'tile-1.parquet'}: No space left on device"}
    assert not any("tile-1" in name for name in _files(out))


class _Losing(InProcess):
    """An executor that loses the results of some jobs."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        if args[0].source.name != "tile-1":
            return super().submit(fn, *args, **kwargs)
        future: Future[Any] = Future()
        future.set_exception(self.error)
        return future


def test_a_result_that_is_lost_fails_its_tile(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = type("KilledWorker", (Exception,), {})("tcp://somewhere:1234")
    for error, reason in [
        (killed, "its worker processes were killed; is there enough memory?"),
        (ConnectionError("gone"), "its result was lost: ConnectionError: gone"),
    ]:
        monkeypatch.setattr(runner_module, "InProcess", lambda error=error: _Losing(error))
        summary = run([inputs], tmp_path / type(error).__name__, report=False)
        assert summary.failures == {"tile-1": reason}
        assert summary.ok == TILES - 1


# Refusals -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"workers": 0}, UsageError, "--workers is 0"),
        ({"workers": 2, "scheduler": "tcp://x:1"}, UsageError, "exclude each other"),
        ({"images": ["rmss"]}, UsageError, "no image is called 'rmss'; expected some of background"),
        ({"bands": ["k"]}, InputError, "no tile has the band k"),
    ],
)
def test_impossible_arguments_are_refused_before_anything_is_written(
    inputs: Path, tmp_path: Path, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run([inputs], tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_a_network_without_weights_is_refused(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imcat.scale.runner.weights_folder", lambda: tmp_path)
    with pytest.raises(UsageError, match="no detection network comes with this version"):
        run([inputs], tmp_path / "out", config=Config(detector="network"))
    assert not (tmp_path / "out").exists()


def test_a_folder_of_another_run_is_refused_and_left_alone(
    inputs: Path, undisturbed: Path, tmp_path: Path
) -> None:
    before = {**_files(undisturbed), "ledger": (undisturbed / "run.json").read_text()}
    refusals: list[tuple[dict[str, Any], str]] = [
        ({}, "add --resume"),
        ({"resume": True, "config": Config(min_score=0.9)}, "another configuration .*min_score"),
        ({"resume": True, "bands": ["r"]}, "another configuration"),
    ]
    for arguments, message in refusals:
        with pytest.raises(OutputError, match=message):
            run([inputs], undisturbed, report=False, images=["rms"], **arguments)
    with pytest.raises(OutputError, match="other inputs"):
        run([inputs / "tile-0.toml"], undisturbed, report=False, images=["rms"], resume=True)
    assert before == {**_files(undisturbed), "ledger": (undisturbed / "run.json").read_text()}


def test_bands_are_part_of_the_configuration(inputs: Path, tmp_path: Path) -> None:
    summary = run([inputs / "tile-0.toml"], tmp_path / "out", bands=["r"], report=False)
    entry = read_ledger(summary.out)["tiles"]["tile-0"]
    assert (entry["bands"], entry["reference"]) == (["r"], "r")
    assert Config.from_text(read_ledger(summary.out)["config"]["toml"]).bands == ("r",)


# Kills --------------------------------------------------------------------


@pytest.fixture
def forkserver(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Processes that have everything imported, so that they can be killed by the dozen."""
    from imcat.scale.executor import warm_up

    monkeypatch.syspath_prepend(str(HERE))
    warm_up()
    return multiprocessing.get_context("forkserver")


# Files are renamed in this order: ledger; for each tile two images, sources, (now and then) the ledger; ledger.
@pytest.mark.parametrize(
    ("number", "moment"),
    [(1, "before"), (1, "after"), (3, "half"), (4, "before"), (4, "half"), (4, "after"), (7, "after"),
     (8, "half"), (9, "after"), (11, "half"), (14, "before"), (16, "after")],
)  # fmt: skip
def test_a_run_that_is_killed_while_it_writes_is_resumed(
    forkserver: Any, inputs: Path, undisturbed: Path, tmp_path: Path, number: int, moment: str
) -> None:
    import fake_jobs

    out = tmp_path / "out"
    victim = forkserver.Process(target=fake_jobs.run_and_die, args=(str(inputs), str(out), number, moment))
    victim.start()
    victim.join(240)
    assert victim.exitcode == -signal.SIGKILL
    finished = _finished(out)
    recorder = Recorder()
    summary = run([inputs], out, report=False, images=["rms"], resume=True, progress=recorder)
    assert summary.exit_code == 0
    assert not finished & set(recorder.tiles)
    _assert_same(out, undisturbed)


def _finished(out: Path) -> set[str]:
    """Tiles that ledger or journal know to be finished."""
    if not (out / "run.json").exists():
        return set()
    tiles = dict(read_ledger(out)["tiles"])
    journal = out / ".run.journal"
    for line in journal.read_text().splitlines() if journal.exists() else []:
        tiles.update(json.loads(line))
    return {name for name, entry in tiles.items() if entry["status"] == "ok"}


def test_runs_that_are_killed_at_any_time_are_resumed(
    inputs: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = _command(inputs, "-o", out, "--no-report", "--images", "rms", "--workers", 2, "--resume")
    # Right after the start, and as soon as the first, then the third tile is there.
    for tiles in (0, 1, 3):
        with subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as victim:
            for _ in _until(lambda n=tiles: len(list(out.glob("sources/*.parquet"))) >= n):  # type: ignore[misc]
                pass
            victim.send_signal(signal.SIGKILL)
    finished = _finished(out)
    assert finished
    recorder = Recorder()
    run([inputs], out, report=False, images=["rms"], resume=True, progress=recorder)
    assert not finished & set(recorder.tiles)
    _assert_same(out, undisturbed)


def _until(condition: Callable[[], bool], seconds: float = 240) -> Iterator[None]:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
        yield


def test_a_worker_that_is_killed_costs_no_tile(inputs: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = _command(inputs, "-o", out, "--no-report", "--images", "rms", "--workers", 2)
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as main:
        while not (workers := _workers_of(main.pid)):
            assert main.poll() is None
            time.sleep(0.01)
        os.kill(workers[0], signal.SIGKILL)
        _, errors = main.communicate(timeout=240)
    assert main.returncode == 0, errors
    _assert_same(out, undisturbed)


def _workers_of(pid: int) -> list[int]:
    """Workers are forked by the server process, which is a child of the main one."""
    return [grandchild for child in _children(pid) for grandchild in _children(child)]


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def test_an_interrupt_ends_the_workers_and_can_be_resumed(
    inputs: Path, undisturbed: Path, tmp_path: Path, alive: Callable[[int], bool]
) -> None:
    out = tmp_path / "out"
    command = _command(inputs, "-o", out, "--no-report", "--images", "rms", "--workers", 2)
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as main:
        for _ in _until(lambda: len(list(out.glob("sources/*.parquet"))) > 0):
            pass
        workers = _workers_of(main.pid)
        main.send_signal(signal.SIGINT)
        printed, errors = main.communicate(timeout=240)
    if main.returncode != 0:  # it may have been quicker than the signal
        assert main.returncode == 130
        assert printed == ""
        assert errors.splitlines()[-1].startswith("error: interrupted")
        assert "Traceback" not in errors
    for _ in _until(lambda: not any(map(alive, workers))):
        pass
    run([inputs], out, report=False, images=["rms"], resume=True)
    _assert_same(out, undisturbed)


# Dask ---------------------------------------------------------------------


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A Dask scheduler and two worker processes on this machine."""
    pytest.importorskip("distributed")
    file = tmp_path / "scheduler.json"
    quiet = {"cwd": ROOT, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    common = [sys.executable, "-m", "distributed.cli"]
    scheduler = subprocess.Popen(
        [*common[:2], "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
         "--scheduler-file", str(file)], **quiet)  # type: ignore[call-overload]  # fmt: skip
    processes = [scheduler]
    try:
        for _ in _until(lambda: file.exists() and file.stat().st_size > 0):
            assert scheduler.poll() is None
        address = json.loads(file.read_text())["address"]
        for _ in range(2):
            processes.append(
                subprocess.Popen(
                    [*common[:2], "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny",
                     "--no-dashboard", "--local-directory", str(tmp_path)], **quiet)  # type: ignore[call-overload]
            )  # fmt: skip
        yield address, processes[1:]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_dask_does_the_same_and_survives_a_killed_worker(
    cluster: tuple[str, list[subprocess.Popen[bytes]]], inputs: Path, undisturbed: Path, tmp_path: Path
) -> None:
    address, workers = cluster
    out = tmp_path / "out"
    command = _command(inputs, "-o", out, "--no-report", "--images", "rms", "--scheduler", address)
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as main:
        for _ in _until(lambda: len(list(out.glob("sources/*.parquet"))) > 0):
            assert main.poll() is None, main.communicate()
        workers[0].kill()
        _, errors = main.communicate(timeout=240)
    assert main.returncode == 0, errors
    assert len(errors.splitlines()) == TILES
    _assert_same(out, undisturbed)


def test_a_scheduler_that_does_not_answer_is_named(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("imcat.scale.executor._CONNECT_SECONDS", 0.3)
    with pytest.raises(UsageError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1 "):
        run([inputs], tmp_path / "out", scheduler="tcp://127.0.0.1:1")
    assert not (tmp_path / "out").exists()


def test_the_exit_code_tells_what_was_written() -> None:
    def code(ok: int, failed: int) -> int:
        return RunSummary(Path("out"), ok + failed, ok, failed, 0, 0).exit_code

    assert [code(2, 0), code(1, 1), code(0, 2)] == [0, 1, 2]


def test_a_run_tells_what_its_injected_sources_and_the_other_engine_say(inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    tile = inputs / "tile-0.toml"
    run([tile], out, inject=40, config=Config(detector="threshold"))
    entry = read_ledger(out / "run.json")["tiles"]["tile-0"]
    assert entry["injection"]["injected"] == 40
    bins = entry["injection"]["bins"]
    assert sum(b["number"] for b in bins) == 40 - entry["injection"]["on_sources"]
    limit = entry["injection"]["limit"]
    bright = [b for b in bins if b["high"] < limit - 2]
    assert sum(b["found"] for b in bright) > 0.7 * sum(b["number"] for b in bright)
    assert entry["timings"]["injection"] > 0
    text = (out / "report" / "report.md").read_text()
    assert "## Injected sources" in text
    assert f"40 sources added, {entry['injection']['on_sources']} of them" in text
    # Both engines saw the tile; the figure shows where they differ.
    counts = entry["counts"]
    assert counts["both_engines"] + counts["only_threshold"] == counts["sources"]
    assert (out / "report" / "tile-0.engines.png").is_file()
    assert f"[tile-0](tile-0.engines.png) | {counts['both_engines']} |" in text
    # The catalogue knows of neither.
    again = tmp_path / "again"
    run([tile], again, report=False, config=Config(detector="threshold"))
    first, second = (read_ledger(o / "run.json")["tiles"]["tile-0"]["source"]["sha256"] for o in (out, again))
    assert first == second
    with pytest.raises(UsageError, match="--inject is -1"):
        run([tile], tmp_path / "no", inject=-1)
