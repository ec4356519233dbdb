"""What a catalogue says of a sky: counts, noise, PSF, stellar locus, colours and sizes, real against simulated.

Each quantity is compared with a tolerance. A difference within it passes; one beyond it fails, unless it
exceeds the tolerance by less than two standard errors: then it stays open, and more fields would decide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from imcat.catalogue.names import pogson_magnitude
from imcat.evaluate.cutout_features import Features
from imcat.evaluate.cutouts import EXTRA_NOISE, KINDS, MAGNITUDE_RANGE, Cutouts, Patch, kinds_of
from imcat.evaluate.measurement import robust_scatter
from imcat.flags import SourceFlag

__all__ = [
    "COUNT_EDGES",
    "Comparison",
    "SkyFacts",
    "TOLERANCES",
    "compare_skies",
    "count_densities",
    "locus_ridge",
    "overlap_coefficient",
    "sky_facts",
]

Float64 = NDArray[np.float64]

#: Edges of the bins of number counts and sizes, magnitudes.
COUNT_EDGES = np.arange(MAGNITUDE_RANGE[0], MAGNITUDE_RANGE[1] + 0.25, 0.5)

#: Largest difference by quantity: a fraction, magnitudes for ridge and colours, a least overlap for the PSF.
TOLERANCES = {
    "counts": 0.15,
    "noise": 0.05,
    "psf": 0.70,
    "ridge": 0.03,
    "locus width": 0.20,
    "colour": 0.05,
    "size": 0.10,
}

# Not counted: detections that are no sources of the sky.
_NOT_COUNTED = int(SourceFlag.HALO | SourceFlag.NOT_MEASURED | SourceFlag.OUTSIDE)
# Stars of the locus and galaxies of the colours are brighter than this, and have this S/N in both bands.
_LOCUS_LIMIT, _COLOUR_LIMIT, _COLOUR_SNR = 20.0, 20.5, 5.0
_LOCUS_STEP = 0.15  # mag, bins along the locus
_FEWEST = 8  # objects in a bin, on either side, that make a comparison
_RESAMPLES = 200  # bootstrap resamples for standard errors
_SIGNIFICANT = 2.0  # standard errors


@dataclass(frozen=True, eq=False)
class SkyFacts:
    """What is compared of one tile.

    Attributes
    ----------
    name : str
        The tile.
    bands : tuple of str
        In order of wavelength.
    area : float
        Square degrees.
    magnitude : float64 array [n]
        Of every source that counts, in the reference band.
    kind : int64 array [n]
        Index in `imcat.evaluate.cutouts.KINDS`, or -1.
    colours : dict of str to float64 array [n]
        Of neighbouring bands, ``g-r``; NaN where either flux has less than 5 sigma.
    half_light_radius : float64 array [n]
        As seen, arcsec.
    noise : dict of str to float
        Clipped rms of blank sky by band, nJy, without the noise added to cutouts.
    star_shapes : dict of (str, str) to float64 array
        ``(band, quantity)`` with ``sigma`` (pixels), ``e1``, ``abs e2`` of the star cutouts.
    """

    name: str
    bands: tuple[str, ...]
    area: float
    magnitude: Float64
    kind: NDArray[np.int64]
    colours: dict[str, Float64]
    half_light_radius: Float64
    noise: dict[str, float]
    star_shapes: dict[tuple[str, str], Float64]


@dataclass(frozen=True)
class Comparison:
    """One number on both sides.

    Attributes
    ----------
    quantity : str
        Key of `TOLERANCES`.
    name : str
        Which of them: a bin, a band, a colour.
    real, twin : float
        Both values.
    difference : float
        What is held against the tolerance: relative, in magnitudes, or the overlap.
    error : float
        1 sigma error of the difference; NaN where it was not estimated.
    tolerance : float
        Of `TOLERANCES`.
    verdict : str
        ``PASS``, ``FAIL`` or ``OPEN``.
    """

    quantity: str
    name: str
    real: float
    twin: float
    difference: float
    error: float
    tolerance: float
    verdict: str


def sky_facts(patch: Patch, cutouts: Cutouts, features: Features) -> SkyFacts:
    """Collect what is compared of a tile.

    Parameters
    ----------
    patch : Patch
        Pixels and catalogue.
    cutouts : Cutouts
        Of the same patch.
    features : Features
        Of these cutouts.
    """
    catalogue = patch.catalogue
    counted = (np.asarray(catalogue["flags"]) & _NOT_COUNTED) == 0
    kind, _ = kinds_of(patch)
    colours = {}
    for blue, red in pairwise(patch.bands):
        first, second = (_colour_magnitude(patch, band) for band in (blue, red))
        colours[f"{blue}-{red}"] = (first - second)[counted]
    column = {name: j for j, name in enumerate(features.names)}
    blank, star = (cutouts.kind == KINDS.index(name) for name in ("blank", "star"))
    noise, shapes = {}, {}
    for k, band in enumerate(patch.bands):
        rms = 10 ** features.values[blank, column[f"noise {band} rms"]].astype(np.float64)
        # The features saw the added noise as well.
        seen = _typical(rms)
        noise[band] = float(np.sqrt(max(seen**2 - (EXTRA_NOISE * patch.rms[k]) ** 2, 0.0)))
        for quantity, feature in (
            ("sigma", "size {b} moments"),
            ("e1", "shape {b} e1"),
            ("abs e2", "shape {b} abs e2"),
        ):
            values = features.values[star, column[feature.format(b=band)]].astype(np.float64)
            shapes[band, quantity] = values[np.isfinite(values)]
    rows, columns = patch.shape
    return SkyFacts(
        name=patch.name,
        bands=patch.bands,
        area=rows * columns * (patch.pixel_scale / 3600) ** 2,
        magnitude=patch.magnitude[counted],
        kind=kind[counted],
        colours=colours,
        half_light_radius=np.asarray(catalogue["half_light_radius"], np.float64)[counted],
        noise=noise,
        star_shapes=shapes,
    )


def _colour_magnitude(patch: Patch, band: str) -> Float64:
    """Magnitude in the aperture that is matched between bands, NaN where it is too noisy."""
    flux = np.asarray(patch.catalogue[f"{band}_color_flux"], np.float64)
    error = np.asarray(patch.catalogue[f"{band}_color_flux_err"], np.float64)
    return np.where(flux > _COLOUR_SNR * error, pogson_magnitude(flux), np.nan)


def compare_skies(real: Sequence[SkyFacts], twins: Sequence[SkyFacts]) -> list[Comparison]:
    """Compare real tiles with simulated ones, quantity by quantity.

    Parameters
    ----------
    real, twins : sequence of SkyFacts
        Of the same length; twins in the order of their tiles.

    Returns
    -------
    list of Comparison
        Quantities in the order of `TOLERANCES`; bins with too few objects are left out.
    """
    return [
        *_counts(real, twins),
        *_noise(real, twins),
        *_psf(real, twins),
        *_locus(real, twins),
        *_colours(real, twins),
        *_sizes(real, twins),
    ]


def _judge(quantity: str, name: str, real: float, twin: float, difference: float, error: float) -> Comparison:
    tolerance = TOLERANCES[quantity]
    beyond = abs(difference) - tolerance
    if beyond <= 0:
        verdict = "PASS"
    else:
        verdict = "OPEN" if np.isfinite(error) and beyond < _SIGNIFICANT * error else "FAIL"
    return Comparison(quantity, name, real, twin, difference, error, tolerance, verdict)


# Number counts -------------------------------------------------------------


def count_densities(facts: Sequence[SkyFacts]) -> Float64:
    """Sources per square degree in each bin of `COUNT_EDGES`, shape [tile, bin]."""
    return np.array([np.histogram(f.magnitude, COUNT_EDGES)[0] / f.area for f in facts])


def _counts(real: Sequence[SkyFacts], twins: Sequence[SkyFacts]) -> list[Comparison]:
    tables = [count_densities(side) for side in (real, twins)]
    areas = [np.array([f.area for f in side]) for side in (real, twins)]
    rows = []
    chosen = [(f"{low:g}-{high:g}", [j]) for j, (low, high) in enumerate(pairwise(COUNT_EDGES))]
    chosen.append((f"{COUNT_EDGES[0]:g}-{COUNT_EDGES[-1]:g}", list(range(COUNT_EDGES.size - 1))))
    for name, bins in chosen:
        means, errors = [], []
        for table, area in zip(tables, areas, strict=True):
            density = table[:, bins].sum(axis=1)
            number = density * area
            means.append(float(density.mean()))
            # Sources cluster: fields may scatter by more than their Poisson noise.
            spread = float(density.var(ddof=1)) if density.size > 1 else 0.0
            poisson = float(np.mean(number / area**2))
            errors.append(np.sqrt(max(spread, poisson) / density.size))
        if means[0] > 0:
            relative = float(np.hypot(*np.divide(errors, means[0])))
            rows.append(_judge("counts", name, means[0], means[1], means[1] / means[0] - 1, relative))
    return rows


def field_scatter(facts: Sequence[SkyFacts]) -> float:
    """Scatter between fields of the number in `MAGNITUDE_RANGE` beyond Poisson noise, as a fraction of the mean."""
    number = np.array([np.histogram(f.magnitude, COUNT_EDGES)[0].sum() for f in facts], np.float64)
    if number.size < 2 or number.mean() == 0:
        return float("nan")
    return float(np.sqrt(max(number.var(ddof=1) - number.mean(), 0.0)) / number.mean())


# Noise and PSF ---------------------------------------------------------------


def _noise(real: Sequence[SkyFacts], twins: Sequence[SkyFacts]) -> list[Comparison]:
    rows = []
    for band in real[0].bands:
        for r, t in zip(real, twins, strict=True):
            ratio = t.noise[band] / r.noise[band] - 1 if r.noise[band] > 0 else np.nan
            if np.isfinite(ratio):
                rows.append(
                    _judge("noise", f"{band}, {r.name}", r.noise[band], t.noise[band], ratio, float("nan"))
                )
    return rows


def overlap_coefficient(first: Float64, second: Float64, bins: int = 12) -> float:
    """Common area of two distributions, 0 to 1, from histograms over the central 98 % of both.

    Two samples of 70 from one distribution have 0.8 to 0.9.

    Parameters
    ----------
    first, second : float64 array
        Samples.
    bins : int
        Of the histograms; values outside count in the outermost.

    Examples
    --------
    >>> import numpy as np
    >>> round(overlap_coefficient(np.arange(100.0), np.arange(100.0)), 6)
    1.0
    """
    low, high = np.percentile(np.concatenate([first, second]), [1, 99])
    edges = np.linspace(low, max(high, low + 1e-9), bins + 1)
    shares = [np.histogram(np.clip(v, edges[0], edges[-1]), edges)[0] / v.size for v in (first, second)]
    return float(np.minimum(*shares).sum())


def _typical(rms: Float64) -> float:
    """Mean noise without cutouts on trails and halos; a median would jump where two amplifiers have two noises."""
    if not rms.size:
        return float("nan")
    middle = float(np.median(rms))
    return float(np.sqrt(np.mean(rms[np.abs(rms / middle - 1) < 0.25] ** 2)))


def _psf(real: Sequence[SkyFacts], twins: Sequence[SkyFacts]) -> list[Comparison]:
    rows = []
    for band, quantity in real[0].star_shapes:
        for r, t in zip(real, twins, strict=True):
            first, second = r.star_shapes[band, quantity], t.star_shapes[band, quantity]
            if min(first.size, second.size) < _FEWEST:
                continue
            overlap = overlap_coefficient(first, second)
            name = f"{quantity} in {band}, {r.name}"
            values = float(np.median(first)), float(np.median(second))
            verdict = "PASS" if overlap >= TOLERANCES["psf"] else "FAIL"
            rows.append(Comparison("psf", name, *values, overlap, float("nan"), TOLERANCES["psf"], verdict))
    return rows


# Stellar locus, colours, sizes -----------------------------------------------


def locus_ridge(
    first: Float64, second: Float64, edges: Float64
) -> tuple[Float64, Float64, NDArray[np.int64]]:
    """Median and robust width of the second colour in bins of the first.

    Parameters
    ----------
    first, second : float64 array [n]
        Colours; pairs with NaN are left out.
    edges : float64 array
        Bins of the first.

    Returns
    -------
    ridge, width : float64 array
        NaN in bins with fewer than 8 stars.
    number : int64 array
        Stars of each bin.
    """
    good = np.isfinite(first) & np.isfinite(second)
    index = np.digitize(first[good], edges) - 1
    values = second[good]
    ridge, width = np.full(edges.size - 1, np.nan), np.full(edges.size - 1, np.nan)
    number = np.bincount(index[(index >= 0) & (index < edges.size - 1)], minlength=edges.size - 1)
    for j in np.flatnonzero(number >= _FEWEST):
        ridge[j], width[j] = np.median(values[index == j]), robust_scatter(values[index == j])
    return ridge, width, number.astype(np.int64)


def _stars(facts: Sequence[SkyFacts], colour: str) -> Float64:
    return np.concatenate(
        [f.colours[colour][(f.kind == KINDS.index("star")) & (f.magnitude < _LOCUS_LIMIT)] for f in facts]
    )


def _locus(real: Sequence[SkyFacts], twins: Sequence[SkyFacts]) -> list[Comparison]:
    rows: list[Comparison] = []
    for x_name, y_name in pairwise(real[0].colours):
        x, y = ([_stars(side, name) for side in (real, twins)] for name in (x_name, y_name))
        everything = np.concatenate(x)
        if not np.isfinite(everything).any():
            continue
        edges = np.arange(np.nanpercentile(everything, 2), np.nanpercentile(everything, 98), _LOCUS_STEP)
        if edges.size < 2:
            continue
        (r0, w0, n0), (r1, w1, n1) = (locus_ridge(x[j], y[j], edges) for j in (0, 1))
        both = np.isfinite(r0) & np.isfinite(r1)
        if not both.any():
            continue
        weight = np.where(both, np.minimum(n0, n1), 0).astype(float)
        weight /= weight.sum()
        name = f"{y_name} at {x_name}"
        # Distances are perpendicular to the ridge: where it turns upright (r - i of M dwarfs at their one g - r),
        # differences at a fixed first colour say little.
        slant = np.sqrt(1 + _slope(0.5 * (r0 + r1), both) ** 2)
        offset = np.where(both, (r1 - r0) / slant, 0.0)
        # The median of n values has sqrt(pi / 2) times the error of their mean.
        errors = np.where(
            both, np.sqrt(np.pi / 2 * (w0**2 / np.maximum(n0, 1) + w1**2 / np.maximum(n1, 1))) / slant, 0.0
        )
        error = float(np.sqrt(np.sum((weight * errors) ** 2)))
        # The mean distance of two ridges is at least their noise, which is taken off in quadrature, unless
        # the ridges are so noisy that nothing would be left.
        noise = errors if error < TOLERANCES["ridge"] else 0.0
        distance = np.sqrt(max(float(np.sum(weight * (offset**2 - np.square(noise)))), 0.0))
        values = [float(np.sum(weight * np.where(both, r, 0))) for r in (r0, r1)]
        rows.append(_judge("ridge", name, values[0], values[1], distance, error))
        widths = [float(np.sum(weight * np.where(both, w, 0))) for w in (w0, w1)]
        # The robust width of n Gaussian values scatters by 1.17 / sqrt(n) (Rousseeuw & Croux 1993).
        relative = 1.17 * np.sqrt(1 / n0[both].sum() + 1 / n1[both].sum())
        rows.append(
            _judge("locus width", name, widths[0], widths[1], widths[1] / widths[0] - 1, float(relative))
        )
    return sorted(rows, key=lambda row: row.quantity != "ridge")


def _slope(ridge: Float64, there: NDArray[np.bool_]) -> Float64:
    """Slope of a ridge from bin to bin, 0 where neighbours are missing."""
    slope = np.zeros(ridge.size)
    at = np.flatnonzero(there)
    if at.size >= 2:
        slope[at] = np.gradient(ridge[at], _LOCUS_STEP * at)
    return slope


def _medians(
    first: Float64, second: Float64, difference: Callable[[float, float], float]
) -> tuple[float, float, float, float] | None:
    """Medians of both, their difference and its bootstrap error; None for too few values."""
    samples = [v[np.isfinite(v)] for v in (first, second)]
    if min(v.size for v in samples) < _FEWEST:
        return None
    rng = np.random.default_rng(0)
    real, twin = (float(np.median(v)) for v in samples)
    drawn = [np.median(v[rng.integers(0, v.size, (_RESAMPLES, v.size))], axis=1) for v in samples]
    error = float(np.std([difference(float(a), float(b)) for a, b in zip(*drawn, strict=True)]))
    return real, twin, difference(real, twin), error


def _galaxies(
    facts: Sequence[SkyFacts], values: Callable[[SkyFacts], Float64], low: float, high: float
) -> Float64:
    parts = []
    for f in facts:
        rows = (f.kind == KINDS.index("galaxy")) & (f.magnitude >= low) & (f.magnitude < high)
        parts.append(values(f)[rows])
    return np.concatenate(parts)


def _colours(real: Sequence[SkyFacts], twins: Sequence[SkyFacts]) -> list[Comparison]:
    rows = []
    for name in real[0].colours:
        first, second = (
            _galaxies(side, lambda f, name=name: f.colours[name], MAGNITUDE_RANGE[0], _COLOUR_LIMIT)  # type: ignore[misc]
            for side in (real, twins)
        )
        found = _medians(first, second, lambda a, b: b - a)
        if found:
            rows.append(_judge("colour", f"galaxies, {name}", *found))
    return rows


def _sizes(real: Sequence[SkyFacts], twins: Sequence[SkyFacts]) -> list[Comparison]:
    rows = []
    for low, high in pairwise(COUNT_EDGES):
        first, second = (_galaxies(side, lambda f: f.half_light_radius, low, high) for side in (real, twins))
        found = _medians(first, second, lambda a, b: b / a - 1)
        if found:
            rows.append(_judge("size", f"galaxies, {low:g}-{high:g}", *found))
    return rows
