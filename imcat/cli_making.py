"""Commands that make things: networks, simulated tiles, training images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from imcat.cli_options import HELP, Program, comma_separated, options, single_threaded_libraries
from imcat.errors import UsageError

__all__ = ["augment", "simulate", "train"]

_TRAINING = options(
    click.argument("recipe", metavar="RECIPE.toml"),
    click.option("-o", "--out", metavar="DIR", help="Samples, log and weights [default: build/train/NAME]."),
    click.option("--smoke", is_flag=True, help="A minute's training, to see that all works."),
    click.option("--resume", is_flag=True, help="Continue from the last checkpoint."),
    click.option("--workers", type=int, metavar="N", help="Processes [default: one for each core]."),
)


@click.command(context_settings=HELP)
@_TRAINING
def train(**how: Any) -> int:
    """Train a network as a recipe says, and write its weights and card."""
    return _train(**how)


def _train(recipe: str, out: str | None, smoke: bool, resume: bool, workers: int | None) -> int:
    from imcat.train.recipes import run_recipe

    _refuse_no_workers(workers)
    card = run_recipe(recipe, out, smoke=smoke, resume=resume, workers=workers or os.cpu_count() or 1)
    click.echo(f"weights and card: {card}")
    return 0


_TILES = options(
    click.argument("survey", type=click.Choice(["sdss", "csst"])),
    click.option(
        "-n", "--count", type=int, default=1, show_default=True, metavar="N", help="Number of tiles."
    ),
    click.option("--seed", type=int, required=True, metavar="S", help="Decides every byte."),
    click.option("-o", "--out", required=True, metavar="DIR", help="Folder for the tiles."),
    click.option(
        "--like",
        multiple=True,
        metavar="TILE",
        help="Make twins of real tiles: same PSF, noise, sky and depth.",
    ),
    click.option("--size", metavar="WIDTHxHEIGHT", help="In pixels, or full for a whole detector."),
    click.option("--config", metavar="FILE", help="TOML file with a table [simulate]."),
    click.option("--workers", type=int, metavar="N", help="Processes [default: one for each core]."),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
)


@click.command(context_settings=HELP)
@_TILES
def simulate(**what: Any) -> int:
    """Simulate tiles in a survey's own file format, with their truth.

    Tiles go to DIR/tile-0001 and so on; those that are complete already are kept.
    """
    return _write_tiles(**what)


def _write_tiles(
    survey: str,
    count: int,
    seed: int,
    out: str,
    size: str | None,
    config: str | None,
    as_json: bool,
    **how: Any,
) -> int:
    from imcat.config import read_simulate_settings
    from imcat.scale.executor import keep_freed_memory
    from imcat.scale.simulation import parse_size, run_simulation

    _refuse_no_workers(how["workers"])
    keep_freed_memory()
    shape, settings = parse_size(size, survey), read_simulate_settings(config)
    summary = run_simulation(
        survey, count, seed, Path(out), shape=shape, settings=settings,
        progress=lambda line: click.echo(line, err=True), **how,
    )  # fmt: skip
    for folder, reason in summary.failed.items():
        click.echo(f"error: {folder}: {reason}", err=True)
    if as_json:
        import json

        click.echo(json.dumps({"tiles": [str(p) for p in summary.written], "failed": summary.failed}))
    elif summary.written:
        click.echo(f"{len(summary.written)} tiles in {out}, {summary.rate}")
    return summary.exit_code


def _refuse_no_workers(workers: int | None) -> None:
    if workers is not None and workers < 1:
        raise UsageError(f"--workers is {workers}; expected at least 1")


@click.group(cls=Program, context_settings=HELP, invoke_without_command=True)
@click.pass_context
def augment(context: click.Context) -> None:
    """Training images: train generators, write tiles that mix what they generate with what is simulated."""
    if context.invoked_subcommand is None:
        raise UsageError("augment needs a command; expected train or tiles")


@augment.command("train", context_settings=HELP)
@_TRAINING
def augment_train(**how: Any) -> int:
    """Train a generator of galaxies or of sky as a recipe says, and write its weights and card."""
    return _train(**how)


@augment.command("tiles", context_settings=HELP)
@_TILES
@click.option("--bands", metavar="B,B,...", callback=comma_separated, help="Bands to write (default: all).")
@click.option("--generated", type=float, metavar="SHARE", help="Share of generated galaxies [default: 0.5].")
@click.option(
    "--magnitudes", metavar="BRIGHT:FAINT", help="Generate galaxies of these only (AB, near 6200 A)."
)
@click.option(
    "--generated-sky",
    type=float,
    metavar="SHARE",
    help="Share of tiles with generated sky [sdss 0.5, csst 0].",
)
@options(
    *(
        click.option(f"--{name}", type=float, metavar="RATE", help=f"{what} on a square degree [{default}].")
        for name, what, default in (
            ("lenses", "Strong lenses", "sdss 300, csst 8000"),
            ("lookalikes", "What looks like a lens and is none", "sdss 300, csst 8000"),
            ("mergers", "Mergers beyond the sky's own", "sdss 300, csst 8000"),
            ("quasars", "Quasars beyond the sky's own", "sdss 300, csst 8000"),
            ("pairs", "Close pairs beyond the sky's own", "sdss 600, csst 16000"),
        )
    )
)
@click.option("--weights", metavar="DIR", help="Folder of the generators' weights [default: imcat's own].")
def augment_tiles(
    survey: str, magnitudes: str | None, bands: tuple[str, ...] | None, weights: str | None, **what: Any
) -> int:
    """Write training tiles with truth and boxes, in a survey's own file format.

    Galaxies and sky that networks generate are mixed with the simulator's, and lenses, mergers, quasars and close pairs
    are far more frequent than on the sky. Tiles go to DIR/tile-0001 and so on; those that are complete already are kept.
    """
    single_threaded_libraries()
    from imcat.augment.assembly_settings import RARE, AugmentSettings, parse_magnitudes

    mix = {name: what.pop(name) for name in ("generated", "generated_sky", *RARE)}
    mix |= {"bands": bands, "magnitudes": parse_magnitudes(magnitudes)}
    made = AugmentSettings.of_survey(survey, **mix)
    return _write_tiles(survey=survey, augment=made, weights=weights, **what)
