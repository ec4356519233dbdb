"""The command line itself: help, usage errors, what the commands print."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import imcat
from imcat.cli import COMMANDS, main

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, write_tile: Callable[..., Path]) -> Path:
    """Two small tiles, and ``out``, the run over them."""
    folder = tmp_path_factory.mktemp("cli")
    for k in range(2):
        write_tile(folder, f"tile-{k}", seed=k, position=(150 + 0.02 * k, 2.0))
    assert main(["run", str(folder / "*.toml"), "-o", str(folder / "out"), "--no-report"]) == 0
    return folder


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert list(COMMANDS) == [
        "run",
        "measure",
        "classify",
        "train",
        "export",
        "query",
        "evaluate",
        "simulate",
        "augment",
    ]
    assert all(f"  {name} " in printed for name in COMMANDS)
    for name in COMMANDS:
        assert main([name, "--help"]) == 0
        assert f"Usage: imcat {name}" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"imcat {imcat.__version__}\n"


def test_help_loads_next_to_nothing() -> None:
    code = "import sys; from imcat.cli import main; main(['--help']); print(*sys.modules)"
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(printed.stdout.splitlines()[-1].split())
    assert not {"numpy", "astropy", "pyarrow", "imcat.config", "imcat.scale.runner"} & loaded


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no command given; expected one of run, measure, classify, train, export, query, evaluate"),
        (["rnu"], "no command is called 'rnu'; did you mean 'run'?"),
        (["zzzz"], "no command is called 'zzzz'; expected one of run, measure, classify, train, export"),
        (["--verison"], "imcat has no option --verison; did you mean --version?"),
        (["run", "x", "-o", "out", "--band", "g"], "imcat run has no option --band; did you mean --bands?"),
        (["run", "x", "-o", "out", "--qqq"], "imcat run has no option --qqq; imcat run --help lists them"),
        (["run", "-o", "out"], "missing argument 'INPUT...' (imcat run --help explains)"),
        (["run", "x"], "missing option '-o' / '--out'"),
        (["run", "x", "-o", "out", "--workers", "two"], "'two' is not a valid integer"),
        (["run", "x", "-o", "out", "--workers", "0"], "--workers is 0; expected at least 1"),
        (["run", "x", "-o", "out", "--survey", "des"], "'des' is not one of 'auto', 'sdss', 'csst', 'generic'"),
        (["run", "x", "-o", "out", "--bands", "g,,r"], "--bands is 'g,,r'; expected names with commas between"),
        (["run", "x", "-o", "out", "--images", "rms,sky"], "no image is called 'sky'; expected some of background"),
        (["run", "x", "-o", "out", "--min-score", "2"], "min_score is 2.0; expected a probability, 0 to 1"),
        (["run", "x", "-o", "out", "--workers", "2", "--scheduler", "tcp://x:1"], "exclude each other"),
        (["run", "x", "-o", "out", "--config", "none.toml"], "none.toml: no such file; expected a TOML file"),
        (["export", "x"], "missing option '-o' / '--out'"),
        (["query", "x"], "missing argument '\"SELECT ... FROM sources\"'"),
    ],
)  # fmt: skip
def test_wrong_usage_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: list[str], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_run_says_what_it_did_and_where(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["run", str(folder / "tile-0.toml"), "-o", str(out), "--no-models", "--no-classify"]) == 0
    printed, said = capsys.readouterr()
    first, *lines = printed.splitlines()
    assert first.startswith("1 of 1 tiles written: ")
    assert lines[:2] == [f"catalogue: {out / 'sources'}", f"report:    {out / 'report'}"]
    assert said.startswith("1/1 tile-0: ")
    assert said.count("\n") == 1
    assert (out / "report" / "tile-0.png").is_file()


def test_resume_says_what_was_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["run", str(folder / "*.toml"), "-o", str(folder / "out"), "--no-report"]
    assert main([*command, "--resume"]) == 0
    printed, said = capsys.readouterr()
    assert printed.startswith("2 of 2 tiles written (2 by an earlier run): ")
    assert said == ""
    assert main(command) == 2
    assert "holds a run already; add --resume" in capsys.readouterr().err


def test_json_is_one_object_a_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    assert main(["run", str(folder / "*.toml"), "-o", out, "--no-report", "--json"]) == 0
    printed, said = capsys.readouterr()
    events = [json.loads(line) for line in printed.splitlines()]
    assert [e["event"] for e in events] == ["start", "tile", "tile", "end"]
    assert events[0] == {"event": "start", "tiles": 2, "done": 0, "workers": 1, "out": out}
    assert [(e["tile"], e["status"], e["done"]) for e in events[1:3]] == [
        ("tile-0", "ok", 1),
        ("tile-1", "ok", 2),
    ]
    assert (events[3]["ok"], events[3]["failed"], events[3]["exit_code"]) == (2, 0, 0)
    assert events[3]["sources"] == sum(e["rows"] for e in events[1:3])
    assert said == ""


def test_options_reach_the_configuration(folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("min_score = 0.1\n[measure]\napertures = [2, 4]\n")
    out = tmp_path / "out"
    words = ["run", str(folder / "tile-0.toml"), "-o", str(out), "--no-report"]
    words += ["--config", str(config), "--min-score", "0.9", "--bands", "R", "--detector", "threshold"]
    assert main(words) == 0
    toml = json.loads((out / "run.json").read_text())["config"]["toml"]
    for line in ('bands = ["r"]', "min_score = 0.9", "apertures = [2.0, 3.0, 4.0]"):
        assert line in toml.splitlines()


def test_export_query_and_evaluate(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(folder / "out")
    assert main(["query", out, "SELECT count(*) AS n FROM sources"]) == 0
    rows = int(capsys.readouterr().out.split()[-1])
    assert rows > 10
    table = tmp_path / "all.csv"
    assert main(["export", out, "-o", str(table)]) == 0
    assert capsys.readouterr().out == f"{rows} sources written to {table}\n"
    assert len(table.read_text().splitlines()) > rows
    assert main(["query", out, "SELECT ra, dec FROM sources", "-o", str(tmp_path / "radec.csv")]) == 0
    assert capsys.readouterr().out == f"{rows} rows written to {tmp_path / 'radec.csv'}\n"
    report = tmp_path / "report"
    assert main(["evaluate", out, str(table), "-o", str(report)]) == 0
    assert capsys.readouterr().out == f"report: {report / 'report.md'}\n"
    assert (report / "report.md").is_file()


def test_a_query_that_is_refused_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["query", str(folder / "out"), "SELECT nothing\nFROM nowhere"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", ["export", "query", "evaluate"])
def test_an_output_that_is_not_there_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    words = {
        "export": ["-o", str(tmp_path / "x.fits")],
        "query": ["SELECT * FROM sources"],
        "evaluate": [str(tmp_path / "truth.csv"), "-o", str(tmp_path / "report")],
    }
    assert main([command, str(tmp_path / "none"), *words[command]]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_closed_pipe_is_quiet(folder: Path) -> None:
    words = [sys.executable, "-m", "imcat", "query", str(folder / "out"), "SELECT * FROM sources"]
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer) as pipe:
        done = subprocess.run(words, cwd=ROOT, stdout=pipe, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 141
    assert done.stderr == b""


def test_an_interrupt_is_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("imcat.pipeline.process_tile", interrupt)
    out = tmp_path / "out"
    assert main(["run", str(folder / "tile-0.toml"), "-o", str(out), "--no-report"]) == 130
    assert capsys.readouterr().err == "error: interrupted; imcat run goes on where it was with --resume\n"
    monkeypatch.undo()
    assert main(["run", str(folder / "tile-0.toml"), "-o", str(out), "--no-report", "--resume"]) == 0


def test_progress_on_a_terminal(folder: Path, tmp_path: Path) -> None:
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "imcat", "run", str(folder / "*.toml"), "-o", str(tmp_path / "out")]
    with subprocess.Popen(
        [*words, "--no-report"], cwd=ROOT, stdout=subprocess.PIPE, stderr=theirs, text=True,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    ) as process:  # fmt: skip
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
        assert process.stdout is not None
        assert process.stdout.readline().startswith("2 of 2 tiles written")
    os.close(ours)
    assert b"tiles" in shown
    assert b"2/2" in shown
    assert b"Traceback" not in shown
