"""How draws from the population compare with validation rows (and training rows) of the real tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imcat.simulate.galaxy_shapes import composite_radius
from imcat.simulate.milky_way import COLOUR_NODES
from imcat.simulate.population import FIELD_RADIUS, QUASAR_EDGES, Population
from imcat.simulate.population_fit_galaxies import measured_well
from imcat.simulate.population_fit_stars import colour_index, is_star
from imcat.simulate.population_tables import PointSources, point_sources, quasars, redshifts, shapes
from imcat.simulate.sources import Kind
from imcat.simulate.split import Split

__all__ = ["check_population"]

Float64 = NDArray[np.float64]
_NAMES = ("u-g", "g-r", "r-i", "i-z")
# Test rows are left alone. Training rows stand beside the validation rows, which are few: they say how well the form of
# the model fits, not how well it generalises.
_ROWS = {"validation": (Split.VALIDATION,), "training": (Split.TRAIN,)}


def check_population(population: Population, folder: Path, seed: int = 3) -> tuple[dict[str, float], str]:
    """Compare with validation rows, which the fit did not see, and with training rows; test rows are not read.

    Parameters
    ----------
    population : Population
        The model.
    folder : Path
        The real data.
    seed : int
        Of the draws.

    Returns
    -------
    metrics : dict of str to float
        For the card.
    report : str
        For a reader.
    """
    rng = np.random.default_rng(seed)
    metrics: dict[str, float] = {}
    lines: list[str] = []
    for part in (_stars, _galaxy_colours, _sizes, _redshifts, _quasars):
        found, text = part(population, folder, rng)
        metrics.update(found)
        lines += text
    return metrics, "\n".join(lines)


def _noisy(rng: np.random.Generator, mag: Float64, table: PointSources) -> Float64:
    """Magnitudes with the errors that stars of such magnitude have in a table."""
    out = mag.copy()
    for j in range(5):
        good = np.isfinite(table.mag[:, j]) & np.isfinite(table.error[:, j])
        order = np.argsort(table.mag[good, j])
        level, error = table.mag[good, j][order], table.error[good, j][order]
        near = np.clip(np.searchsorted(level, mag[:, j]) + rng.integers(-15, 16, len(mag)), 0, len(level) - 1)
        out[:, j] += rng.standard_normal(len(mag)) * np.minimum(error[near], 1.0)
    return out


def _stars(
    population: Population, folder: Path, rng: np.random.Generator
) -> tuple[dict[str, float], list[str]]:
    """Ridge and width of the locus at r = 16 to 19.5, with the errors of the table put on the draws."""
    table = point_sources(folder)[0]
    area = max(40.0 * table.area, 20.0)
    drawn = population.draw(
        rng, area, 20.5, table.latitude, table.longitude, galaxy_density=0.0, quasar_density=0.0
    ).mag
    drawn = _noisy(rng, drawn, table)
    finite = np.isfinite(table.mag).all(1)
    metrics: dict[str, float] = {}
    lines = [
        "stars: median and width (half of 16 to 84 %) of colours around the locus at g-i, draws against rows"
    ]
    for name, roles in _ROWS.items():
        rows = finite & np.isin(table.split, roles)
        found, text = _compare_locus(population, table.mag[rows], drawn)
        lines += [f" {name} rows", *text]
        metrics.update({f"{key}_{name}": value for key, value in found.items()})
    return metrics, lines


def _compare_locus(
    population: Population, real: Float64, drawn: Float64
) -> tuple[dict[str, float], list[str]]:
    ridge, width, lines = [], [], []

    def chosen(mag: Float64) -> Float64:
        return mag[is_star(mag) & (mag[:, 2] > 16) & (mag[:, 2] < 19.5)]

    real, drawn = chosen(real), chosen(drawn)
    for low, high in ((0.3, 0.6), (0.6, 1.0), (1.0, 1.6), (1.6, 2.2), (2.2, 3.2)):
        values = []
        for mag in (real, drawn):
            x = colour_index(mag)
            m = mag[(x > low) & (x < high)]
            colours = -np.diff(m, axis=1)
            # Colours move along the locus within the bin; what counts is the distance from its ridge.
            along = np.stack([_ridge(population, colour_index(m), j) for j in range(4)], 1)
            off = colours - along
            percent = np.percentile(off, [16, 50, 84], axis=0)
            values.append((percent[1], 0.5 * (percent[2] - percent[0]), len(m)))
        ridge.append(values[1][0] - values[0][0])
        width.append(values[1][1] / values[0][1])
        lines.append(
            f"  {low:.1f} to {high:.1f} ({values[0][2]} stars): ridge "
            + " ".join(f"{n} {d:+.3f}" for n, d in zip(_NAMES, ridge[-1], strict=True))
            + "; width ratio "
            + " ".join(f"{w:.2f}" for w in width[-1])
        )
    metrics = {
        f"locus_ridge_{n.replace('-', '')}": float(np.abs(np.array(ridge)[:, j]).max())
        for j, n in enumerate(_NAMES)
    }
    metrics["locus_width_smallest"] = float(np.min(width))
    metrics["locus_width_median"] = float(np.median(width))
    metrics["locus_width_largest"] = float(np.max(width))
    return metrics, lines


def _ridge(population: Population, colour: Float64, j: int) -> Float64:
    """A reference ridge at g-i: that of the disc."""
    centre = population.locus.centre[0]
    table = (centre[:, 0], centre[:, 1], COLOUR_NODES - centre[:, 1], centre[:, 2])[j]
    result: Float64 = np.interp(colour, COLOUR_NODES, table)
    return result


def _galaxy_colours(
    population: Population, folder: Path, rng: np.random.Generator
) -> tuple[dict[str, float], list[str]]:
    """Median colours by magnitude: main sample to r = 17.5 (complete), fields beyond."""
    main = next(t for t in redshifts(folder) if t.name == "main")
    fields = shapes(folder)
    lines = ["galaxies: median colours, draws minus rows (error of the median)"]
    metrics: dict[str, float] = {}
    for name, roles in _ROWS.items():
        bright = main.mag[np.isin(main.split, roles)]
        faint = np.concatenate([t.mag[np.isin(t.split, roles)] for t in fields])
        lines.append(f" {name} rows")
        off = []
        for low, high in ((15.0, 16.0), (16.0, 17.0), (17.0, 17.5), (18.0, 20.0), (20.0, 21.0), (21.0, 21.8)):
            real = _between(bright if high < 18 else faint, low, high)
            draws = population.galaxies(rng, rng.choice(real[:, 2], 40000)).mag
            colours = -np.diff(real, axis=1)
            off.append(np.median(-np.diff(draws, axis=1), axis=0) - np.median(colours, axis=0))
            error = 1.25 * np.std(colours, axis=0) / np.sqrt(len(real))
            lines.append(
                f"  r {low:.1f} to {high:.1f} ({len(real)}): "
                + " ".join(f"{n} {d:+.3f} ({e:.3f})" for n, d, e in zip(_NAMES, off[-1], error, strict=True))
            )
        for j, colour in enumerate(_NAMES):
            values = np.abs(np.array(off)[:, j])
            metrics[f"galaxy_{colour.replace('-', '')}_median_{name}"] = float(np.median(values))
            metrics[f"galaxy_{colour.replace('-', '')}_largest_{name}"] = float(values.max())
    return metrics, lines


def _between(mag: Float64, low: float, high: float) -> Float64:
    """Rows of a range in r that have all magnitudes."""
    known = mag[np.isfinite(mag).all(1)]
    return known[(known[:, 2] > low) & (known[:, 2] < high)]


def _sizes(
    population: Population, folder: Path, rng: np.random.Generator
) -> tuple[dict[str, float], list[str]]:
    """Half-light radius against magnitude, with the cuts of the fit on failed profiles."""
    table = population.shapes.half_light
    lines = ["galaxies: median half-light radius, arcsec"]
    metrics: dict[str, float] = {}
    for name, roles in _ROWS.items():
        r, size = [], []
        for t in shapes(folder):
            use = np.isin(t.split, roles) & measured_well(t)
            ratio = np.log10(t.bulge_radius[use] / t.disc_radius[use])
            share = np.clip(t.bulge_fraction[use], 0, 1)
            r.append(t.mag[use, 2])
            size.append(composite_radius(table, share, ratio) * t.disc_radius[use])
        mag, real = np.concatenate(r), np.concatenate(size)
        lines.append(f" {name} rows")
        off = []
        for low, high in ((17.0, 19.0), (19.0, 20.0), (20.0, 21.0), (21.0, 21.8)):
            here = (mag > low) & (mag < high)
            drawn = population.galaxies(rng, rng.choice(mag[here], 20000))
            ratio = np.log10(drawn.bulge_radius / drawn.disc_radius)
            a = np.median(real[here])
            b = (
                np.median(composite_radius(table, drawn.bulge_fraction, ratio) * drawn.disc_radius)
                / FIELD_RADIUS
            )
            error = 1.25 * np.std(np.log(real[here])) / np.sqrt(here.sum())
            off.append(abs(b / a - 1))
            lines.append(
                f"  r {low:.1f} to {high:.1f} ({here.sum()}): {a:.3f} real, {b:.3f} drawn "
                f"({100 * (b / a - 1):+.0f} %, error {100 * error:.0f} %)"
            )
        metrics[f"galaxy_size_median_{name}"] = float(np.median(off))
        metrics[f"galaxy_size_largest_{name}"] = float(np.max(off))
    return metrics, lines


def _redshifts(
    population: Population, folder: Path, rng: np.random.Generator
) -> tuple[dict[str, float], list[str]]:
    """Redshift drawn for the magnitudes and colours of validation rows, against their own."""
    lines = [
        "galaxies: redshift at given magnitude and colours, median of draws minus median of validation rows"
    ]
    metrics = {}
    for t in redshifts(folder):
        if t.name not in ("main", "boss", "sdss17"):
            continue
        use = (
            (t.split == Split.VALIDATION)
            & np.isfinite(t.mag).all(1)
            & (np.abs(np.diff(t.mag, axis=1)) < 3).all(1)
        )
        m, z = t.mag[use], t.redshift[use]
        drawn = 10 ** population.redshift.draw(rng, np.concatenate([m[:, 2:3], -np.diff(m, axis=1)], 1))[:, 0]
        spread = 1.48 * np.median(np.abs(drawn - z) / (1 + z))
        lines.append(
            f"  {t.name}: {np.median(drawn) - np.median(z):+.3f} of {np.median(z):.3f}; scatter {spread:.3f} (1+z)"
        )
        metrics[f"redshift_median_{t.name}"] = float(abs(np.median(drawn) - np.median(z)))
    return metrics, lines


def _quasars(
    population: Population, folder: Path, rng: np.random.Generator
) -> tuple[dict[str, float], list[str]]:
    """Median colours of quasars by redshift."""
    t = quasars(folder)[0]
    use = (t.split == Split.VALIDATION) & np.isfinite(t.mag).all(1)
    m, z = t.mag[use], t.redshift[use]
    inside = (z > QUASAR_EDGES[0]) & (z < 4.0)
    drawn = population.quasars(rng, m[inside, 3], z[inside])
    assert (drawn.kind == Kind.QUASAR).all()
    off = []
    for low in np.arange(0.4, 3.4, 0.4):
        here = (z[inside] > low) & (z[inside] < low + 0.4)
        off.append(
            np.median(-np.diff(drawn.mag[here], axis=1), axis=0)
            - np.median(-np.diff(m[inside][here], axis=1), axis=0)
        )
    # At z > 2.4 hydrogen leaves little light in u: magnitudes there are noise.
    largest = np.abs(np.array(off)).max(0)
    largest[0] = np.abs(np.array(off)[:5, 0]).max()
    text = (
        "quasars: largest difference of median colours in bins of 0.4 in redshift (u-g: below z = 2.4): "
        + " ".join(f"{n} {d:.3f}" for n, d in zip(_NAMES, largest, strict=True))
    )
    return {f"quasar_{n.replace('-', '')}": float(d) for n, d in zip(_NAMES, largest, strict=True)}, [text]
