"""The command line: options to configuration to call, and errors in one line.

Nothing heavy is imported before a command runs, so that ``imcat --help`` is
quick and a command pays for what it uses only.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imcat import __version__
from imcat.cli_making import augment, simulate, train
from imcat.cli_options import HELP, Program, comma_separated, single_threaded_libraries
from imcat.errors import ImcatError, UsageError

if TYPE_CHECKING:
    from imcat.config import Config
    from imcat.scale import RunSummary

__all__ = ["COMMANDS", "main"]

_INTERRUPTED, _PIPE_CLOSED = 130, 141  # as shells report SIGINT and SIGPIPE


@click.group(cls=Program, invoke_without_command=True, context_settings=HELP)
@click.version_option(__version__, prog_name="imcat", message="%(prog)s %(version)s")
@click.pass_context
def _program(context: click.Context) -> None:
    """Survey image tiles in, a catalogue to publish from out.

    Exit code: 0 all tiles written, 1 some tiles failed, 2 nothing written.
    """
    if context.invoked_subcommand is None:
        raise UsageError(
            f"no command given; expected one of {', '.join(COMMANDS)} (imcat --help explains them)"
        )


@click.command(context_settings=HELP)
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)
@click.option("-o", "--out", required=True, metavar="OUT", help="Folder for catalogue, ledger and report.")
@click.option(
    "--survey",
    type=click.Choice(["auto", "sdss", "csst", "generic"]),
    default="auto",
    show_default=True,
    help="What kind of files the inputs are.",
)
@click.option("--bands", metavar="B,B,...", callback=comma_separated, help="Bands to use (default: all).")
@click.option("--config", "config_file", metavar="F.toml", help="Settings.")
@click.option(
    "--detector",
    type=click.Choice(["network", "threshold"]),
    help="Engine that finds the sources (default: network).",
)
@click.option(
    "--min-score", type=float, metavar="S", help="Leave out sources with a smaller detection_score."
)
@click.option("--no-models", is_flag=True, help="Leave out model and PSF fits.")
@click.option("--no-classify", is_flag=True, help="Leave out the classification.")
@click.option(
    "--prior",
    type=click.Choice(["sky", "flat", "spectroscopic"]),
    help="Mix of stars, galaxies and quasars that class probabilities are for (default: sky).",
)
@click.option("--no-report", is_flag=True, help="Leave out figures and summary.")
@click.option(
    "--inject",
    type=int,
    default=0,
    metavar="N",
    help="Look for N simulated sources in a copy of each tile too: completeness and flux errors in the report.",
)
@click.option(
    "--images",
    metavar="KIND,KIND,...",
    callback=comma_separated,
    help="Write images too: background, rms, segmentation, residual.",
)
@click.option(
    "--workers", type=int, default=1, show_default=True, metavar="N", help="Processes on this machine."
)
@click.option("--scheduler", metavar="ADDRESS", help="Run on the workers of a Dask scheduler.")
@click.option("--resume", is_flag=True, help="Go on with the run that OUT holds.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line on standard output.")
@click.option("-v", "--verbose", is_flag=True, help="Tracebacks of unexpected failures on standard error.")
def run(
    inputs: tuple[str, ...],
    out: str,
    config_file: str | None,
    images: tuple[str, ...] | None,
    no_report: bool,
    as_json: bool,
    verbose: bool,
    **how: Any,
) -> int:
    """Make the catalogue of tiles.

    INPUT is any mix of folders, files and globs: SDSS frames, CSST level-1
    files, or generic tiles as TOML files.
    """
    if verbose:
        _log_to_stderr()
    single_threaded_libraries()
    from imcat.scale import make_progress
    from imcat.scale import run as run_tiles

    given = {name: how.pop(name) for name in ("detector", "min_score", "no_models", "no_classify", "prior")}
    summary = run_tiles(
        inputs,
        out,
        config=_configuration(config_file, **given),
        images=images or (),
        report=not no_report,
        progress=make_progress(as_json),
        **how,
    )
    if not as_json and summary.ok:
        _print_summary(summary, Path(out), report=not no_report)
    return summary.exit_code


@click.command(context_settings=HELP)
@click.argument("tile", metavar="TILE")
@click.option("--positions", required=True, metavar="TABLE", help="Table with ra and dec in degrees.")
@click.option("-o", "--out", required=True, metavar="FILE", help="The table with the fluxes added.")
@click.option("--config", "config_file", metavar="F.toml", help="Settings.")
def measure(tile: str, positions: str, out: str, config_file: str | None) -> int:
    """Measure a tile at given positions (forced photometry).

    TABLE is FITS, VOTable, ECSV, CSV or Parquet; its other columns pass through. With the columns model_radius
    (arcsec), model_axis_ratio and model_angle (degrees), and model (exponential or de Vaucouleurs), model fluxes
    are measured as well.
    """
    single_threaded_libraries()
    from imcat.scale.forced import run_forced

    summary = run_forced(
        tile, positions, out, _configuration(config_file, None, None), threads=os.cpu_count() or 1
    )
    for warning in summary.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(
        f"{summary.inside} of {summary.positions} positions lie on tile {summary.tile}; written to {out}"
    )
    return 0


@click.command(context_settings=HELP)
@click.argument("table", metavar="TABLE")
@click.option(
    "-o", "--out", required=True, metavar="FILE", help="The table with classes and redshifts added."
)
@click.option(
    "--filters",
    metavar="sdss|csst|F.toml",
    help="Whose bands the table has; a TOML file gives the effective wavelength of each, in angstrom.",
)
@click.option(
    "--prior",
    type=click.Choice(["sky", "flat", "spectroscopic"]),
    help="Mix of stars, galaxies and quasars that class probabilities are for (default: sky).",
)
@click.option(
    "--model",
    metavar="CARD.toml",
    help="A card that imcat train wrote of your own classes; TABLE may then be an NPZ file with stamps.",
)
def classify(table: str, out: str, filters: str | None, prior: str | None, model: str | None) -> int:
    """Classify the sources of a table by their magnitudes.

    TABLE is FITS, VOTable, ECSV, CSV or Parquet with columns r_mag, r_mag_err and so on (AB, total or model), or with
    the flux columns of a catalogue; ebv, ra and dec are used where they are there. Rows, their order and all other
    columns are kept.
    """
    single_threaded_libraries()
    from imcat.scale.classified import classify_with, run_classify

    if model is not None and prior is not None:
        raise UsageError("--prior is for imcat's own classes; expected it without --model")
    summary = (
        run_classify(table, out, filters, prior)
        if model is None
        else classify_with(table, out, model, filters)
    )
    for warning in summary.warnings:
        click.echo(f"warning: {warning}", err=True)
    seen = f" by {', '.join(summary.bands)}" if summary.bands else ""
    click.echo(f"{summary.classified} of {summary.rows} rows classified{seen}; written to {out}")
    return 0


@click.command(context_settings=HELP)
@click.argument("source", metavar="OUT")
@click.option(
    "-o",
    "--out",
    required=True,
    metavar="FILE",
    help="Its ending is .fits, .vot, .ecsv, .parquet, .csv or .reg.",
)
@click.option(
    "--names",
    type=click.Choice(["imcat", "sdss", "sextractor"]),
    default="imcat",
    show_default=True,
    help="Whose names the columns get.",
)
@click.option("--primary", is_flag=True, help="Leave out sources that are primary in another tile.")
def export(source: str, out: str, names: str, primary: bool) -> int:
    """Write the catalogue of a run to one file.

    OUT is the folder of a run, or one of its source files.
    """
    from imcat.catalogue import export as write

    rows = write(source, out, names=names, primary=primary)
    click.echo(f"{rows} sources written to {out}")
    return 0


@click.command(context_settings=HELP)
@click.argument("source", metavar="OUT")
@click.argument("sql", metavar='"SELECT ... FROM sources"')
@click.option("-o", "--out", metavar="FILE", help="Write the result instead of printing it.")
def query(source: str, sql: str, out: str | None) -> int:
    """Query the catalogue of a run in SQL.

    OUT is the folder of a run; its rows are the view `sources`.
    """
    from imcat.catalogue import format_table
    from imcat.catalogue import query as ask

    table = ask(source, sql, out)
    click.echo(f"{len(table)} rows written to {out}" if out else format_table(table))
    return 0


@click.command(context_settings=HELP)
@click.argument("paths", metavar="CATALOGUE TRUTH | --realism REAL...", nargs=-1, required=True)
@click.option("--realism", is_flag=True, help="Compare the twins of real tiles with these.")
@click.option("--twins", metavar="DIR", help="Folder of the twins: tiles with the names of the real ones.")
@click.option("-o", "--out", required=True, metavar="REPORT", help="Folder for the report.")
def evaluate(paths: tuple[str, ...], realism: bool, twins: str | None, out: str) -> int:
    """Compare a catalogue with a truth or a reference table, or simulated tiles with real ones.

    CATALOGUE is a source file or the folder of a run. REAL is any mix of folders, files and globs of
    real tiles, and DIR holds a twin of each, as imcat simulate --like writes them.
    """
    if realism:
        if twins is None:
            raise UsageError("--realism needs the folder of the twins; expected --twins DIR")
        _evaluate_realism(paths, twins, out)
    else:
        if twins is not None:
            raise UsageError("--twins goes with --realism; expected --realism REAL... --twins DIR")
        if len(paths) != 2:
            raise UsageError(
                f"evaluate got {len(paths)} path{'s' if len(paths) > 1 else ''}; expected CATALOGUE TRUTH, "
                "or --realism REAL... --twins DIR"
            )
        from imcat.evaluate import evaluate_catalogue

        evaluate_catalogue(Path(paths[0]), Path(paths[1]), Path(out))
    click.echo(f"report: {Path(out) / 'report.md'}")
    return 0


def _evaluate_realism(real: tuple[str, ...], twins: str, out: str) -> None:
    from imcat.config import Config
    from imcat.evaluate.realism import evaluate_realism
    from imcat.evaluate.realism_report import realism_summary
    from imcat.pipeline import process_tile

    config = Config()
    result = evaluate_realism(
        real,
        twins,
        out,
        catalogue_of=lambda tile: process_tile(tile, config, threads=os.cpu_count() or 1).catalogue,
        progress=lambda line: click.echo(line, err=True),
    )
    for line in realism_summary(result):
        click.echo(line)


#: Commands by name, in the order of ``imcat --help``.
COMMANDS: dict[str, click.Command] = {
    str(command.name): command
    for command in (run, measure, classify, train, export, query, evaluate, simulate, augment)
}
for _command in COMMANDS.values():
    _program.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Default: those of the process.

    Returns
    -------
    int
        Exit code. Every error is one line on standard error that begins with ``error:``.
    """
    with warnings.catch_warnings():
        if not sys.warnoptions:  # those of libraries are not for the user, unless asked for with -W
            warnings.simplefilter("ignore")
        try:
            # Not click's own main(): that one ends the process when a pipe is closed.
            words = sys.argv[1:] if arguments is None else list(arguments)
            with _program.make_context("imcat", words) as context:
                code = _program.invoke(context)
            sys.stdout.flush()
            return int(code or 0)
        except click.exceptions.Exit as done:
            return done.exit_code
        except ImcatError as error:
            return _fail(str(error))
        except click.ClickException as error:
            return _fail(_in_one_line(error))
        except (click.Abort, KeyboardInterrupt):
            return _fail("interrupted; imcat run goes on where it was with --resume", _INTERRUPTED)
        except BrokenPipeError:
            # Whoever read our output has seen enough. Python flushes again at exit: give it a place to.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return _PIPE_CLOSED
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            return _fail(f"{where}{error.strerror or error}")


def _fail(text: str, code: int = 2) -> int:
    print("error:", " ".join(text.split()), file=sys.stderr, flush=True)
    return code


def _in_one_line(error: click.ClickException) -> str:
    command = error.ctx.command_path if getattr(error, "ctx", None) else "imcat"  # type: ignore[attr-defined]
    if isinstance(error, click.NoSuchOption):
        near = error.possibilities or []
        hint = f"did you mean {near[0]}?" if near else f"{command} --help lists them"
        return f"{command} has no option {error.option_name}; {hint}"
    text = error.format_message().rstrip(".")
    return f"{text[:1].lower()}{text[1:]} ({command} --help explains)"


def _configuration(
    path: str | None,
    detector: str | None,
    min_score: float | None,
    no_models: bool = False,
    no_classify: bool = False,
    prior: str | None = None,
) -> Config:
    from imcat.config import Config

    config = Config.from_toml(path) if path else Config()
    given: dict[str, Any] = {
        "detector": detector,
        "min_score": min_score,
        "fit_models": False if no_models else None,
        "classify_sources": False if no_classify else None,
    }
    if prior is not None:
        given["classify"] = {"prior": prior}
    return config.replace(**{name: value for name, value in given.items() if value is not None})


def _print_summary(summary: RunSummary, out: Path, report: bool) -> None:
    earlier = f" ({summary.done_before} by an earlier run)" if summary.done_before else ""
    failed = f", {summary.failed} failed" if summary.failed else ""
    click.echo(
        f"{summary.ok} of {summary.tiles} tiles written{earlier}{failed}: "
        f"{summary.sources} sources in {summary.seconds:.1f} s"
    )
    click.echo(f"catalogue: {out / 'sources'}")
    if report:
        click.echo(f"report:    {out / 'report'}")
    if summary.warnings:
        click.echo(f"warnings:  {summary.warnings}, listed in {out / 'run.json'}")


def _log_to_stderr() -> None:
    import logging

    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("imcat")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
