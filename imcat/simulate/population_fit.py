"""The recipe of the population: ``python -m imcat.simulate.population_fit -o weights``.

Reads the real tables (`imcat.simulate.population_tables`), fits on their train rows and writes
``population.safetensors`` and its card. ``--check`` compares draws with the validation rows.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imcat.catalogue.files import atomic_path
from imcat.simulate.population import FORMAT, QUASAR_EDGES, Population
from imcat.simulate.population_check import check_population
from imcat.simulate.population_fit_galaxies import fit_colours, fit_counts, fit_redshift, fit_shapes
from imcat.simulate.population_fit_quasars import fit_quasars
from imcat.simulate.population_fit_stars import fit_locus, fit_luminosity
from imcat.simulate.population_tables import (
    data_folder,
    point_sources,
    quasars,
    redshifts,
    shapes,
    spectroscopic_stars,
)

__all__ = ["fit_population", "main", "write_population"]

Float64 = NDArray[np.float64]
_SEED = 20


def fit_population(folder: Path, seed: int = _SEED) -> Population:
    """Fit everything.

    Parameters
    ----------
    folder : Path
        The real data.
    seed : int
        Of the places where the fits begin.
    """
    rng = np.random.default_rng(seed)
    points, fields, spectra = point_sources(folder), shapes(folder), redshifts(folder)
    stars = fit_luminosity(points)
    locus = fit_locus(points, stars, spectroscopic_stars(folder))
    colours = fit_colours(spectra, fields, folder, rng)
    magnitudes = np.arange(14.25, 26.6, 0.5)
    red = [np.median(colours.draw(rng, np.full((4000, 1), mag))[:, 2]) for mag in magnitudes]
    return Population(
        stars=stars,
        locus=locus,
        counts=fit_counts(fields, np.array([magnitudes, red])),
        colours=colours,
        redshift=fit_redshift(spectra, folder, rng),
        shapes=fit_shapes(fields, rng),
        **dict(
            zip(
                ("quasar_weights", "quasar_means", "quasar_covariances"),
                fit_quasars(quasars(folder), QUASAR_EDGES, rng),
                strict=True,
            )
        ),
    )


def write_population(population: Population, out: Path, metrics: dict[str, float]) -> Path:
    """Write the weights and their card.

    Parameters
    ----------
    population : Population
        The model.
    out : Path
        The folder.
    metrics : dict
        Of `imcat.simulate.population_check.check_population`.
    """
    from safetensors.numpy import save

    content = save(population.arrays())
    path = out / "population.safetensors"
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    lines = [
        'name = "population"',
        f"format = {FORMAT}",
        f'sha256 = "{hashlib.sha256(content).hexdigest()}"',
        'bands = ["u", "g", "r", "i", "z"]',
        'photometric_system = "SDSS, total magnitudes without the dust of the Milky Way"',
        'recipe = "python -m imcat.simulate.population_fit -o weights"',
        f"seed = {_SEED}",
        'data = "calibObj-004510-4, photoObj-003900-6-0269, Stripe 82 coadds, SDSS main, SDSS photometric-redshift sets, BOSS DR10, DR7, DR17, 2SLAQ, VVDS-Wide, '
        'SDSS quasars, CatSim (fainter than r = 23): train rows"',
        'licence = "BSD-3-Clause; fitted to public survey tables, none of which is contained"',
        'known_failures = "star counts below 20 degrees of galactic latitude are extrapolated; colours and redshifts of '
        "galaxies fainter than r = 23 are those of the CatSim simulation; counts of galaxies fainter than r = 26.5 are an "
        "extrapolation, sizes fainter than r = 21.8 follow a published slope; radii are drawn 1.09 times as large as the tables have them, as images of three SDSS fields ask; no carbon stars, brown dwarfs or binaries; "
        'quasars nearer than z = 0.3 are left out"',
        "",
        "[metrics]",
        *(f"{name} = {value:.4f}" for name, value in metrics.items()),
    ]
    with atomic_path(path.with_suffix(".toml")) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def main(arguments: list[str] | None = None) -> None:
    """Fit, check, write; with ``--check`` only check what is there."""
    parser = argparse.ArgumentParser(prog="python -m imcat.simulate.population_fit", description=__doc__)
    parser.add_argument("-o", "--out", type=Path, help="folder for the weights and their card")
    parser.add_argument(
        "--check", action="store_true", help="compare the population with the validation rows"
    )
    options = parser.parse_args(arguments)
    if options.out is None and not options.check:
        parser.error("nothing to do: give -o FOLDER to fit and write, or --check")
    folder = data_folder()
    population = Population.load() if options.out is None else fit_population(folder)
    metrics, report = check_population(population, folder)
    print(report)
    if options.out is not None:
        print(f"weights: {write_population(population, options.out, metrics)}")


if __name__ == "__main__":
    main()
