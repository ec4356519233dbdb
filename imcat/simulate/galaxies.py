"""Galaxies as sums of Gaussians: bulge and disc, and the structure of the bright ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imcat.render.components import Components, ellipses
from imcat.render.profiles import EXPONENTIAL, Mixture, sersic_mixture
from imcat.simulate.sources import Kind, Morphology, Sources
from imcat.simulate.structure import Pieces, companion, dusty, structure_of
from imcat.surveys.sdss_constants import WAVELENGTHS

__all__ = ["band_bulge_fraction", "galaxy_components", "half_light_radius", "mixture_table"]

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
Int64 = NDArray[np.int64]

_REFERENCE = WAVELENGTHS["r"]
#: Thickness of discs: axis ratio of one seen edge-on (Unterborn & Ryden 2008, ApJ 687, 976: 0.22 in SDSS r).
_THICKNESS = 0.22
# Standard deviation of arms and knots across the plane, in half-light radii of the disc.
_LAYER = 0.05
_STRUCTURED = (
    Morphology.SPIRAL, Morphology.BARRED, Morphology.RING, Morphology.IRREGULAR, Morphology.EDGE_ON, Morphology.MERGER,
)  # fmt: skip
# Bulges are redder than the discs around them, and both are redder in redder galaxies (Kennedy et al. 2016, MNRAS
# 460, 3458); how much so is chosen: exponents of rest-frame wavelength in the ratio of their light, which make
# 0.2 mag in g-r for the bluest and 0.07 for red ones, and a further one below the 4000 Å break of old stars.
_BLUE_TILT, _RED_TILT, _BREAK_TILT, _BREAK = 0.70, 0.25, 1.2, 4000.0
_BLUE, _RED = 0.45, 0.85  # g-r of the blue cloud and the red sequence, nearby
# Least and largest factor by which structured galaxies are resized.
_RESIZED = (0.5, 1.6)
# Steps of the Sérsic index for which mixtures are made.
_INDEX_STEP = 0.25


def band_bulge_fraction(sources: Sources, flux: Float64, wavelengths: Float64) -> Float64:
    """Share of the bulge in the flux in each band.

    Parameters
    ----------
    sources : Sources
        `bulge_fraction` is that in r; colours and redshift say how much redder a bulge is than its disc.
    flux : float64 array, ``[n, bands]``
        For its shape; bulge and disc share in it, so that the fluxes of both stay positive.
    wavelengths : float64 array, ``[bands]``
        Effective, Å.

    Returns
    -------
    float64 array, ``[n, bands]``
        0 to 1.
    """
    if flux.shape != (len(sources), len(wavelengths)):
        raise ValueError(f"flux has shape {flux.shape}; expected ({len(sources)}, {len(wavelengths)})")
    shift = 1 + np.maximum(sources.redshift, 0)[:, None]
    with np.errstate(invalid="ignore"):
        red = np.clip((sources.mag[:, 1] - sources.mag[:, 2] - _BLUE) / (_RED - _BLUE), 0, 1)
    tilt = (_BLUE_TILT + (_RED_TILT - _BLUE_TILT) * np.nan_to_num(red, nan=0.5))[:, None]

    def level(wavelength: Float64) -> Float64:
        rest = wavelength / shift
        steep = _BREAK_TILT * tilt / _BLUE_TILT * np.log(np.minimum(rest / _BREAK, 1))
        result: Float64 = tilt * np.log(rest) + steep
        return result

    odds = np.exp(level(np.asarray(wavelengths, np.float64)[None, :]) - level(np.array([[_REFERENCE]])))
    share = np.clip(sources.bulge_fraction, 0, 1)[:, None]
    fraction: Float64 = share * odds / (share * odds + (1 - share))
    return fraction


def half_light_radius(sources: Sources) -> Float64:
    """Half-light radius of bulge and disc together in r, along the major axis.

    The radius r within which the bulge's and the disc's ellipses of major axis r hold half of the light.

    Returns
    -------
    float64 array, ``[n]``
        arcsec; 0 for points.
    """
    result = np.zeros(len(sources))
    extended = np.flatnonzero((sources.kind == Kind.GALAXY) & _extended(sources))
    if len(extended):
        bulge, disc = _mixtures(sources.take(extended))
        result[extended] = _half_light(
            np.concatenate([bulge[0], disc[0]], 1), np.concatenate([bulge[1], disc[1]], 1)
        )
    return result


def galaxy_components(
    sources: Sources,
    flux: Float64,
    bulge_fraction: Float64,
    rng: np.random.Generator,
    *,
    detail: Bool | None = None,
    wavelengths: Float64 | None = None,
) -> Components:
    """Galaxies as Gaussians on the sky.

    Parameters
    ----------
    sources : Sources
        Galaxies.
    flux : float64 array, ``[n, bands]``
        Total, nJy; the components of a galaxy sum to it in every band.
    bulge_fraction : float64 array, ``[n, bands]``
        Share of the bulge in each band, see `band_bulge_fraction`.
    rng : numpy.random.Generator
        Of structure; bulge and disc need none.
    detail : bool array, ``[n]``, optional
        Galaxies whose morphology is drawn, with 20 to 150 Gaussians; the others are a bulge and a disc.
    wavelengths : float64 array, ``[bands]``, optional
        Effective, Å: arms are bluer than their disc and bars redder. Default: structure has the colour of its disc.

    Returns
    -------
    Components
        Their `source` is the row in `sources`.
    """
    n, bands = len(sources), flux.shape[1]
    if bulge_fraction.shape != (n, bands):
        raise ValueError(
            f"bulge fractions have shape {bulge_fraction.shape}; expected ({n}, {bands}) as flux"
        )
    bulge, disc = flux * bulge_fraction, flux * (1 - bulge_fraction)
    ratio = np.ones(bands) if wavelengths is None else np.asarray(wavelengths, np.float64) / _REFERENCE
    scale = np.ones(n)
    parts: list[Components] = []
    structured = np.zeros(n, np.bool_) if detail is None else detail & _extended(sources)
    for kind in _STRUCTURED:
        rows = np.flatnonzero(structured & (sources.morphology == kind))
        if not len(rows):
            continue
        for part in _structure(rng, kind, sources.take(rows)):
            whole = {"bulge": bulge, "disc": disc, "galaxy": flux}[part.of]
            parts.append(part.components(rows, whole[rows], sources.take(rows), ratio))
            left = 1 - part.pieces.shares(ratio).sum(1)
            # What pieces took is gone from the smooth part, in every band.
            for target in (bulge, disc) if part.of == "galaxy" else (whole,):
                target[rows] *= 0.0 if part.pieces.whole else left
            scale[rows] = part.scale
    parts += _smooth(sources, bulge, disc, scale)
    return Components.concatenate(parts) if parts else _none(bands)


@dataclass(frozen=True, eq=False)
class _Part:
    """Pieces of galaxies with what places them on the sky; lengths in half-light radii of what they are taken from."""

    pieces: Pieces
    of: str  # "bulge", "disc" or "galaxy"
    unit: Float64  # arcsec
    tipped: Bool | bool  # whether they lie in the plane of the disc
    scale: Float64  # of the whole galaxy, so that its half-light radius is the stated one

    def components(self, rows: Int64, flux: Float64, sources: Sources, ratio: Float64) -> Components:
        """On the sky, for the galaxies of some rows."""
        p = self.pieces
        cosine = _cosine(sources)[:, None] if self.tipped else np.ones((len(rows), 1))
        unit = (self.unit * self.scale)[:, None]
        layer = _LAYER**2 * (1 - cosine**2)
        major, minor = unit * p.u, unit * cosine * p.v
        aa, ab, bb = unit**2 * p.uu, unit**2 * cosine * p.uv, unit**2 * (cosine**2 * p.vv + layer)
        angle = np.deg2rad(sources.position_angle)[:, None]
        # The major axis points to (sin, cos) of the angle in (east, north), the minor axis to (cos, -sin).
        sine, cos = np.sin(angle), np.cos(angle)
        light = (flux[:, None, :] * p.shares(ratio)).reshape(-1, flux.shape[1])
        keep = (light != 0).any(1)
        columns = (
            major * sine + minor * cos,
            major * cos - minor * sine,
            aa * sine**2 + 2 * ab * sine * cos + bb * cos**2,
            (aa - bb) * sine * cos + ab * (cos**2 - sine**2),
            aa * cos**2 - 2 * ab * sine * cos + bb * sine**2,
        )
        xi, eta, xx, xy, yy = (np.ascontiguousarray(c).reshape(-1)[keep] for c in columns)
        return Components(np.repeat(rows, p.u.shape[1])[keep], light[keep], xi, eta, xx, xy, yy)


def _structure(rng: np.random.Generator, kind: Morphology, sources: Sources) -> Iterator[_Part]:
    """Structure of galaxies of one morphology."""
    n = len(sources)
    # Lengths of structure are those of the disc, or of the bulge where there is no disc.
    radius = np.where(sources.disc_radius > 0, sources.disc_radius, sources.bulge_radius)
    if kind == Morphology.EDGE_ON:
        yield from _edge_on(rng, sources)
        return
    if kind == Morphology.MERGER:
        whole = np.maximum(half_light_radius(sources), 0.3 * radius)
        pieces = companion(rng, n)
        yield _Part(pieces, "galaxy", whole, False, _kept_size(sources, pieces, whole, "galaxy"))
        return
    drawn = structure_of(rng, kind, n)
    if drawn is not None:
        yield _Part(drawn, "disc", radius, True, _kept_size(sources, drawn, radius, "disc"))


def _edge_on(rng: np.random.Generator, sources: Sources) -> Iterator[_Part]:
    """Thin disc and bulge behind one lane of dust."""
    n = len(sources)
    thick = sources.disc_radius * sources.disc_axis_ratio
    # Thinner than the stars and optically thick along the plane (Xilouris et al. 1999, A&A 344, 868: dust has
    # half the scale height of stars and 1.4 times their scale length, face-on depth below 1); the ranges are chosen.
    lane = rng.uniform(0.14, 0.30, n) * thick
    depth, offset = np.clip(rng.normal(0.62, 0.13, n), 0.2, 0.75), rng.uniform(-0.6, 0.6, n)
    (bulge_weights, bulge_variances), (disc_weights, disc_variances) = _mixtures(sources)
    share = np.clip(sources.bulge_fraction, 1e-9, 1 - 1e-9)[:, None]
    parts, radii, held = [], [], []
    for of, weights, variances, unit, flat, even, light in (
        (
            "bulge",
            bulge_weights / share,
            bulge_variances,
            sources.bulge_radius,
            sources.bulge_axis_ratio,
            0.0,
            share,
        ),
        (
            "disc",
            disc_weights / (1 - share),
            disc_variances,
            sources.disc_radius,
            sources.disc_axis_ratio,
            0.6,
            1 - share,
        ),
    ):
        safe, axis_ratio = np.where(unit > 0, unit, 1.0), np.clip(flat, 0.02, 1.0)
        used = np.where(unit[:, None] > 0, variances, 1.0) / np.square(safe)[:, None]
        pieces = dusty(weights, used, axis_ratio, lane / safe, depth, offset, even)
        u, v = _points(pieces, 8, 8)  # few pieces, one centre: a finer sum
        radii.append(unit[:, None, None] * np.hypot(u, v / axis_ratio[:, None, None]))
        held.append(light * pieces.shares(np.ones(1))[:, :, 0])
        parts.append((pieces, of, safe))
    scale = _factor(
        half_light_radius(sources),
        np.zeros_like(disc_weights),
        np.maximum(disc_variances, bulge_variances.max(1, keepdims=True)),
        np.concatenate(radii, 1),
        np.concatenate(held, 1),
    )
    for pieces, of, safe in parts:
        yield _Part(pieces, of, safe, False, scale)


def _kept_size(sources: Sources, pieces: Pieces, unit: Float64, of: str) -> Float64:
    """Factor by which a structured galaxy is drawn smaller or larger, so that its half-light radius is that stated.

    Each piece is stood for by eight points, see `_points`.
    """
    target = half_light_radius(sources)
    (bulge_weights, bulge_variances), (disc_weights, disc_variances) = _mixtures(sources)
    share = pieces.shares(np.ones(1))[:, :, 0]
    left = 1 - share.sum(1, keepdims=True)
    held = share
    if of == "disc":
        held = share * (1 - sources.bulge_fraction)[:, None]
        disc_weights = disc_weights * left
    else:
        bulge_weights, disc_weights = bulge_weights * left, disc_weights * left
    weights, variances = (
        np.concatenate([bulge_weights, disc_weights], 1),
        np.concatenate([bulge_variances, disc_variances], 1),
    )
    radius = unit[:, None, None] * np.hypot(*_points(pieces))
    return _factor(target, weights, variances, radius, held)


def _points(pieces: Pieces, rings: int = 2, spokes: int = 4) -> tuple[Float64, Float64]:
    """Points (u, v) that stand for each piece, ``[n, p, rings * spokes]``, with an equal share of its light each."""
    # Quantiles of the Rayleigh distribution; rings are turned against each other so that radii differ.
    far = np.sqrt(-2 * np.log1p(-(np.arange(rings) + 0.5) / rings))[:, None]
    angles = 2 * np.pi * (np.arange(spokes)[None, :] + (np.arange(rings)[:, None] + 0.3) / rings) / spokes
    x, y = (far * np.cos(angles)).ravel(), (far * np.sin(angles)).ravel()
    a = np.sqrt(pieces.uu)[:, :, None]
    b = pieces.uv[:, :, None] / a
    c = np.sqrt(np.maximum(pieces.vv[:, :, None] - b * b, 0))
    return pieces.u[:, :, None] + a * x, pieces.v[:, :, None] + b * x + c * y


def _factor(target: Float64, weights: Float64, variances: Float64, radius: Float64, held: Float64) -> Float64:
    """Stated half-light radius over that of Gaussians and of pieces seen as points (``[n, p, points]``)."""
    points = radius.shape[2]
    found = _half_light(
        weights, variances, radius.reshape(len(target), -1), np.repeat(held / points, points, 1)
    )
    factor: Float64 = np.clip(target / found, *_RESIZED)
    return factor


def _smooth(sources: Sources, bulge: Float64, disc: Float64, scale: Float64) -> list[Components]:
    """Bulges and discs that have light."""
    parts = []
    rows = np.flatnonzero((bulge != 0).any(1))
    if len(rows):
        s = sources.take(rows)
        weights, variances = mixture_table(s.bulge_index)
        profile = Mixture(weights, variances)
        parts.append(
            ellipses(
                rows, bulge[rows], scale[rows] * s.bulge_radius, s.bulge_axis_ratio, s.position_angle, profile
            )
        )
    rows = np.flatnonzero((disc != 0).any(1))
    if len(rows):
        s = sources.take(rows)
        profile = sersic_mixture(EXPONENTIAL)
        parts.append(
            ellipses(
                rows, disc[rows], scale[rows] * s.disc_radius, s.disc_axis_ratio, s.position_angle, profile
            )
        )
    return parts


def mixture_table(index: Float64) -> tuple[Float64, Float64]:
    """Mixtures for Sérsic indices, to the nearest quarter, padded to one number of Gaussians.

    Returns
    -------
    weights, variances : float64 array, ``[n, k]``
        As in `imcat.render.profiles.Mixture`; what pads has a weight of 0.
    """
    steps, place = np.unique(np.clip(np.round(index / _INDEX_STEP), 2, 24), return_inverse=True)
    mixtures = [sersic_mixture(float(step * _INDEX_STEP)) for step in steps]
    k = max(len(m.weights) for m in mixtures)
    weights, variances = np.zeros((len(steps), k)), np.ones((len(steps), k))
    for row, mixture in enumerate(mixtures):
        weights[row, : len(mixture.weights)] = mixture.weights
        variances[row, : len(mixture.weights)] = mixture.variances
    return weights[place], variances[place]


def _mixtures(sources: Sources) -> tuple[tuple[Float64, Float64], tuple[Float64, Float64]]:
    """Weights (bulge and disc together sum to 1) and variances (arcsec²) of bulges and of discs, ``[n, k]`` each."""
    weights, variances = mixture_table(sources.bulge_index)
    share = sources.bulge_fraction[:, None]
    disc = sersic_mixture(EXPONENTIAL)
    return (
        (share * weights, variances * np.square(sources.bulge_radius)[:, None]),
        ((1 - share) * disc.weights, disc.variances * np.square(sources.disc_radius)[:, None]),
    )


def _half_light(
    weights: Float64, variances: Float64, radius: Float64 | None = None, held: Float64 | None = None
) -> Float64:
    """Radius that holds half of the light of concentric Gaussians, ``[n, k]``, and points, ``[n, p]``."""
    # Wide enough for every galaxy: parts are at most some half-light radii across.
    high = 4 * np.sqrt(variances.max(1))
    low = 1e-4 * high
    inverse = -0.5 / np.maximum(variances, 1e-30)
    for _ in range(32):  # to 1e-8 in the logarithm
        middle = np.sqrt(low * high)
        inside = -np.sum(weights * np.expm1(inverse * np.square(middle)[:, None]), 1)
        if radius is not None and held is not None:
            inside += np.sum(held * (radius < middle[:, None]), 1)
        below = inside < 0.5
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    result: Float64 = np.sqrt(low * high)
    return result


def _extended(sources: Sources) -> Bool:
    """Whether a source has a size."""
    return np.maximum(sources.bulge_radius, sources.disc_radius) > 0


def _cosine(sources: Sources) -> Float64:
    """Cosine of the inclination of discs, from their axis ratio and thickness (Hubble 1926, ApJ 64, 321)."""
    tipped = (np.square(sources.disc_axis_ratio) - _THICKNESS**2) / (1 - _THICKNESS**2)
    cosine: Float64 = np.sqrt(np.clip(tipped, 0.01, 1.0))
    return cosine


def _none(bands: int) -> Components:
    none = np.zeros(0)
    return Components(np.zeros(0, np.int64), np.zeros((0, bands)), none, none, none, none, none)
