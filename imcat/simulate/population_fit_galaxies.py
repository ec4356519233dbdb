"""Recipe for galaxies: number counts, colours, redshifts and structure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imcat.simulate.counts import GalaxyCounts, cosmic_variance
from imcat.simulate.deconvolve import MISSING_VARIANCE, fit_density
from imcat.simulate.density import Density
from imcat.simulate.galaxy_shapes import ShapeModel, composite_radius, half_light_table
from imcat.simulate.population_tables import Redshifts, Shapes, catsim, training
from imcat.simulate.split import split_rows

__all__ = ["fit_colours", "fit_counts", "fit_redshift", "fit_shapes", "measured_well"]

Float64 = NDArray[np.float64]

# Galaxies per square degree brighter than a magnitude: r < 17.77 (main sample of SDSS, Strauss et al. 2002,
# AJ 124, 1810) and r < 19.5 (bright galaxy survey of DESI, Hahn et al. 2023, AJ 165, 253).
_BRIGHTER_THAN = ((17.77, 92.0, 0.03), (19.5, 864.0, 0.05))
# COSMOS2020 (Weaver et al. 2022, ApJS 258, 11, table 2, Farmer): i, logarithm of the number per square degree and
# magnitude; the median r-i there, from the colour model, turns them into counts in r.
_COSMOS_I = np.arange(19.25, 26.3, 0.5)
_COSMOS_LOG = np.array(
    [3.01, 3.23, 3.44, 3.64, 3.85, 4.03, 4.21, 4.38, 4.54, 4.71, 4.86, 4.97, 5.08, 5.20, 5.29]
)
_COSMOS_AREA = 1.27  # deg², of that table
_EUCLID = 0.6  # slope of counts in a uniform universe, bright of r = 16 (Yasuda et al. 2001, AJ 122, 1104)
_KNOTS = np.arange(10.0, 27.6, 0.5)


def fit_counts(tables: list[Shapes], red: Float64) -> GalaxyCounts:
    """Counts in r, from fields (16 to 21.5), published totals and deep counts.

    Parameters
    ----------
    tables : list of Shapes
        Fields; their clustering is part of the error.
    red : float64 array, ``[2, m]``
        Magnitudes in r and median r-i there.
    """
    from scipy.optimize import least_squares

    edges = np.arange(16.0, 21.6, 0.5)
    seen, area, fields = np.zeros(len(edges) - 1), np.zeros(len(edges) - 1), np.zeros(len(edges) - 1)
    for table in tables:
        inside = (edges[:-1] >= table.complete[0]) & (edges[1:] <= table.complete[1])
        use = training(table.split)
        seen += np.histogram(table.mag[use, 2], edges)[0] * inside
        area += table.area * use.mean() * inside
        fields += inside
    middle = 0.5 * (edges[1:] + edges[:-1])
    scatter = np.array([cosmic_variance(0.036, m) ** 2 for m in middle])
    error = np.sqrt(1 / np.maximum(seen, 1) + scatter / np.maximum(fields, 1)) / np.log(10)
    log_seen = np.log10(np.maximum(seen, 0.5) / np.maximum(area, 1e-9) / 0.5)
    colour = np.interp(_COSMOS_I + 0.4, red[0], red[1])
    deep = _COSMOS_I + np.interp(_COSMOS_I + colour, red[0], red[1])

    deep_error = np.array([np.hypot(0.02, cosmic_variance(_COSMOS_AREA, m) / np.log(10)) for m in deep])

    def rest(p: Float64) -> Float64:
        counts = GalaxyCounts(_KNOTS, p)
        parts = [(np.log10(counts.density(middle)) - log_seen) / error * (seen > 0)]
        fine = np.arange(10.0, 20.0, 0.02)
        total = np.cumsum(counts.density(fine + 0.01)) * 0.02
        for mag, number, share in _BRIGHTER_THAN:
            parts.append(np.atleast_1d(np.log(np.interp(mag - 0.02, fine, total) / number) / share))
        parts.append((np.log10(counts.density(deep)) - _COSMOS_LOG) / deep_error)
        parts.append((np.diff(p[:13]) / 0.5 - _EUCLID) / 0.03)
        parts.append(np.diff(p, 2) / 0.02)
        return np.concatenate(parts)

    start = np.interp(_KNOTS, [10, 16, 20, 27.5], [-3.0, 0.9, 3.1, 5.3])
    return GalaxyCounts(_KNOTS, least_squares(rest, start).x)


def _with_colours(mag: Float64, error: Float64) -> tuple[Float64, Float64]:
    """Magnitude in r and the four colours with their variances; missing ones marked.

    The covariance of errors of neighbouring colours is left out: it is small against the widths.
    """
    values = np.concatenate([mag[:, 2:3], mag[:, :-1] - mag[:, 1:]], axis=1)
    variances = np.concatenate([error[:, 2:3] ** 2, error[:, :-1] ** 2 + error[:, 1:] ** 2], axis=1)
    bad = ~np.isfinite(values) | ~np.isfinite(variances) | (variances > 1.0)
    bad[:, 1:] |= np.abs(np.where(bad, 0, values))[:, 1:] > 4.0
    return np.where(bad, 0.0, values), np.where(bad, MISSING_VARIANCE, variances)


def fit_colours(
    bright: list[Redshifts],
    fields: list[Shapes],
    folder: Path,
    rng: np.random.Generator,
    components: int = 32,
) -> Density:
    """Density of r and u-g, g-r, r-i, i-z: the main galaxy sample, fields, and CatSim beyond them."""
    values, variances, weights = [], [], []

    def add(mag: Float64, error: Float64, use: NDArray[np.bool_], weight: float | Float64) -> None:
        v, s = _with_colours(mag[use], error[use])
        values.append(v)
        variances.append(s)
        weights.append(np.broadcast_to(np.asarray(weight, np.float64), len(v)))

    for table in bright:
        if (
            table.name == "main"
        ):  # limited at 17.77 in Petrosian magnitude: complete to 17.5 in model magnitude
            with np.errstate(invalid="ignore"):
                use = training(table.split) & (table.mag[:, 2] > 13) & (table.mag[:, 2] < 17.5)
            add(table.mag, table.error, use, 0.7)
    for field in fields:
        with np.errstate(invalid="ignore"):
            last = 21.0 if field.name.startswith("photo") else 21.9
            use = training(field.split) & (field.mag[:, 2] > 16.5) & (field.mag[:, 2] < last)
            # A star that passes for a galaxy, or a failed fit.
            use &= (field.mag[:, 1] - field.mag[:, 2] > -0.3) & (field.mag[:, 1] - field.mag[:, 2] < 2.2)
        # Rows of each magnitude weigh the same, or the few bright ones would not count.
        add(field.mag, field.error, use, np.clip(3.0 * 10 ** (0.25 * (21.0 - field.mag[use, 2])), 3.0, 15.0))
    for table in bright:
        if table.name == "vvds":  # limited in I only; u and z are not there
            with np.errstate(invalid="ignore"):
                use = training(table.split) & (table.mag[:, 2] > 22.2) & (table.mag[:, 2] < 23.0)
            add(table.mag, table.error, use, 0.4)
    simulated, _ = catsim(folder)
    train = training(split_rows(simulated))
    for low in range(23, 27):
        faint = train & (simulated[:, 2] > low) & (simulated[:, 2] < min(low + 1, 26.6))
        add(simulated, np.full(simulated.shape, 0.02), faint, 600 / faint.sum())
    return fit_density(
        np.concatenate(values), np.concatenate(variances), components,
        rng=rng, weights=np.concatenate(weights), floor=4e-4, iterations=80, starts=4,
    )  # fmt: skip


#: How many rows of each table the fit of redshifts takes: none may dominate.
_ROWS = {"main": 1800, "ugriz": 1500, "boss": 1800, "2slaq": 800, "sdss17": 2500, "dr7": 800, "vvds": 3600}


def fit_redshift(
    tables: list[Redshifts], folder: Path, rng: np.random.Generator, components: int = 24
) -> Density:
    """Density of r, the four colours and the logarithm of redshift.

    Only the density of redshift at given magnitude and colours is used, which the selection of spectroscopic
    samples by magnitude and colour does not change. CatSim gives the faint.
    """
    values, variances = [], []
    for table in tables:
        rows = np.flatnonzero(training(table.split))
        rows = rng.choice(rows, min(_ROWS[table.name], len(rows)), replace=False)
        v, s = _with_colours(table.mag[rows], table.error[rows])
        z = np.log10(table.redshift[rows])[:, None]
        values.append(np.concatenate([v, z], 1))
        variances.append(np.concatenate([s, np.full(z.shape, 1e-6)], 1))
    simulated, redshift = catsim(folder)
    rows = np.flatnonzero(
        (simulated[:, 2] > 22.5) & (simulated[:, 2] < 26.6) & training(split_rows(simulated))
    )
    rows = rng.choice(rows, 2500, replace=False)
    v, s = _with_colours(simulated[rows], np.full((len(rows), 5), 0.02))
    values.append(np.concatenate([v, np.log10(redshift[rows])[:, None]], 1))
    variances.append(np.concatenate([s, np.full((len(rows), 1), 1e-6)], 1))
    return fit_density(
        np.concatenate(values), np.concatenate(variances), components, rng=rng, floor=4e-4, iterations=40
    )


def measured_well(table: Shapes) -> NDArray[np.bool_]:
    """Galaxies whose profile was fitted, bright enough for it to mean something.

    Fits at the largest radius that the survey's models have, of radius 0, or of a halo around a faint source failed.
    """
    r = table.mag[:, 2]
    _, ratio, size = _sizes(table, half_light_table())
    with np.errstate(invalid="ignore"):
        gr, ri = table.mag[:, 1] - r, r - table.mag[:, 3]
        use = (r > 16.0) & (r < table.measured) & (gr > -0.3) & (gr < 2.2) & (ri > -0.3) & (ri < 1.5)
        use &= (table.bulge_radius > 0.05) & (table.bulge_radius < 29.0) & (table.disc_radius > 0.05)
        use &= (table.bulge_axis_ratio > 0) & (table.disc_axis_ratio > 0) & (np.abs(ratio) < 1.0)
        use &= size < 20.0 * 10 ** (-0.12 * (r - 17.0))
    result: NDArray[np.bool_] = use
    return result


def _sizes(table: Shapes, half_light: Float64) -> tuple[Float64, Float64, Float64]:
    """Bulge fraction, logarithm of the ratio of radii, half-light radius; not finite where a fit failed."""
    share = np.clip(table.bulge_fraction, 0, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.log10(table.bulge_radius / table.disc_radius)
    return share, ratio, composite_radius(half_light, share, ratio) * table.disc_radius


def fit_shapes(tables: list[Shapes], rng: np.random.Generator, components: int = 8) -> ShapeModel:
    """Density of r, g-r, r-i, size, bulge fraction, ratio of radii and axis ratio.

    Bulge fraction, ratio and axis ratio enter by their normal scores (quantiles of a Gaussian of the same
    rank), so that their bounds and the pile-up of fits at pure bulges and pure discs are kept.
    """
    from scipy.special import ndtri

    table_h = half_light_table()
    rows: dict[str, list[Float64]] = {
        k: [] for k in ("r", "gr", "ri", "size", "share", "ratio", "axis", "round")
    }
    for t in tables:
        use = training(t.split) & measured_well(t)
        gr, ri = t.mag[:, 1] - t.mag[:, 2], t.mag[:, 2] - t.mag[:, 3]
        share, ratio, size = _sizes(t, table_h)
        axis = np.where(share > 0.5, t.bulge_axis_ratio, t.disc_axis_ratio)
        for key, value in (
            ("r", t.mag[:, 2]), ("gr", gr), ("ri", ri), ("size", np.log10(np.maximum(size, 1e-3))), ("share", share),
            ("ratio", ratio), ("axis", axis),
            ("round", np.log(np.maximum(t.bulge_axis_ratio, 0.05)) / np.log(np.clip(t.disc_axis_ratio, 0.05, 0.98))),
        ):  # fmt: skip
            rows[key].append(value[use])
    column = {k: np.concatenate(v) for k, v in rows.items()}
    n = len(column["r"])
    levels = np.linspace(0, 1, 101)
    tables_q = np.stack([np.quantile(column[k], levels) for k in ("share", "ratio", "axis")])

    def score(value: Float64) -> Float64:
        order = np.lexsort((rng.random(n), value))
        rank = np.empty(n)
        rank[order] = (np.arange(n) + 0.5) / n
        result: Float64 = ndtri(rank)
        return result

    values = np.stack(
        [
            column["r"],
            column["gr"],
            column["ri"],
            column["size"],
            *(score(column[k]) for k in ("share", "ratio", "axis")),
        ],
        1,
    )
    variances = np.full(values.shape, 1e-6)
    # A size is as uncertain as the flux, about: half of it in logarithm at 5 sigma for the coadds.
    variances[:, 3] = (0.10 * 10 ** (0.4 * (column["r"] - 23.0))) ** 2
    density = fit_density(
        values,
        variances,
        components,
        rng=rng,
        floor=np.array([0.01, 0.003, 0.003, 0.002, 0.05, 0.05, 0.05]),
        iterations=80,
    )
    mixed = (column["share"] > 0.1) & (column["share"] < 0.9)
    return ShapeModel(density, tables_q, table_h, float(np.median(np.clip(column["round"][mixed], 0, 3))))
