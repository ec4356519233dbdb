"""Recipe for stars: luminosity functions from star counts, and the stellar locus without errors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from imcat.simulate.milky_way import (
    COLOUR_NODES,
    COMPONENTS,
    StarModel,
    giant_density,
    white_dwarf_density,
)
from imcat.simulate.population_tables import PointSources, training
from imcat.simulate.stellar_locus import Locus

__all__ = ["colour_index", "fit_luminosity", "fit_locus", "fit_reddening", "is_star"]

Float64 = NDArray[np.float64]
_STEP = float(COLOUR_NODES[1] - COLOUR_NODES[0])
_MAG_STEP = 0.5
#: Main-sequence stars; bluer ones are horizontal-branch stars and white dwarfs.
_BLUEST = 0.15
# Where star counts say nothing (halo M dwarfs): halo over disc at the Sun (Jurić et al. 2008, table 10).
_HALO_SHARE = 0.0051


def colour_index(mag: Float64) -> Float64:
    """g-i."""
    return mag[:, 1] - mag[:, 3]


def is_star(mag: Float64) -> NDArray[np.bool_]:
    """Which unresolved sources are no quasars: those with an ultraviolet excess are left out.

    The cut is that of Richards et al. (2002, AJ 123, 2945): u-g < 0.6; white dwarfs go with them.
    """
    with np.errstate(invalid="ignore"):
        return ~((mag[:, 0] - mag[:, 1] < 0.65) & (colour_index(mag) < 1.2))


def fit_luminosity(tables: list[PointSources]) -> StarModel:
    """Local densities of stars by colour, from counts in magnitude and colour in several fields.

    A Poisson likelihood with a penalty on the second differences of the logarithms; halo over disc
    tends to a constant where nothing is seen of the halo.
    """
    from scipy.optimize import minimize

    bins, kernels = [], []
    empty = StarModel(np.zeros((len(COMPONENTS), len(COLOUR_NODES))))
    for table in tables:
        low, high = table.complete
        edges = np.arange(low, high + 1e-6, _MAG_STEP)
        use = training(table.split) & is_star(table.mag) & np.isfinite(table.mag[:, 1:4]).all(1)
        share = training(table.split).mean()
        bins.append(
            np.histogram2d(
                table.mag[use, 2],
                colour_index(table.mag[use]),
                [edges, np.append(COLOUR_NODES, COLOUR_NODES[-1] + _STEP) - _STEP / 2],
            )[0]
        )
        middle = 0.5 * (edges[1:] + edges[:-1])
        fine = [empty.kernel(middle + d, table.latitude, table.longitude) for d in (-0.19, 0.0, 0.19)]
        kernels.append(np.mean(fine, axis=0) * (_MAG_STEP * _STEP * table.area * share))
    nodes = len(COLOUR_NODES)
    main = COLOUR_NODES > _BLUEST
    branch = (COLOUR_NODES < _BLUEST) & (COLOUR_NODES > -0.6)
    giants = giant_density()
    counted = [k for k, name in enumerate(COMPONENTS) if name != "white dwarf"]

    def unpack(p: Float64) -> Float64:
        density = np.zeros((len(COMPONENTS), nodes))
        disc, ratio = p[:nodes], p[nodes : 2 * nodes]
        density[0] = np.exp(disc) * main
        density[1] = np.exp(disc + ratio) * main
        density[2] = np.exp(p[-1]) * branch
        density[3] = white_dwarf_density()
        density[4:] = np.exp(p[-3:-1, None]) * giants
        return density

    def loss(p: Float64) -> tuple[float, Float64]:
        density = unpack(p)
        value, slope = 0.0, np.zeros_like(p)
        for seen, kernel in zip(bins, kernels, strict=True):
            # White dwarfs were left out of the counts.
            parts = kernel[counted] * density[counted][:, None, :]
            mean = parts.sum(0) + 1e-6
            value += float((mean - seen * np.log(mean)).sum())
            pull = 1 - seen / mean
            slope[:nodes] += (pull * (parts[0] + parts[1])).sum(0)
            slope[nodes : 2 * nodes] += (pull * parts[1]).sum(0)
            slope[-1] += float((pull * parts[2]).sum())
            slope[-3:-1] += (pull * parts[3:]).sum((1, 2))
        for start, stiff in ((0, 3.0), (nodes, 10.0)):
            bend = np.diff(p[start : start + nodes], 2)
            value += 0.5 * stiff * float((bend**2).sum()) * 10
            slope[start : start + nodes] += stiff * 10 * np.convolve(bend, [1, -2, 1])
        away = p[nodes : 2 * nodes] - np.log(_HALO_SHARE)
        value += 0.02 * float((away**2).sum())
        slope[nodes : 2 * nodes] += 0.04 * away
        return value, slope

    start = np.concatenate(
        [np.full(nodes, np.log(3e-3)), np.full(nodes, np.log(_HALO_SHARE)), np.log([1e-4, 1e-7, 1e-6])]
    )
    result = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 2000, "maxfun": 4000})
    return StarModel(unpack(result.x))


_COLOURS = np.array([[1, -1, 0, 0, 0], [0, 1, -1, 0, 0], [0, 0, 0, 1, -1]], float)  # u-g, g-r, i-z from ugriz
_INDEX = np.array([0, 1, 0, -1, 0], float)


def _smooth(x: Float64, y: Float64, weight: Float64, stiffness: float) -> Float64:
    """Values at the nodes of a curve through points: penalised linear spline, robust to outliers."""
    position = np.clip((x - COLOUR_NODES[0]) / _STEP, 0, len(COLOUR_NODES) - 1.001)
    low = position.astype(int)
    part = position - low
    n = len(COLOUR_NODES)
    bend = np.diff(np.eye(n), 2, axis=0)
    penalty = stiffness * bend.T @ bend + 1e-9 * np.eye(n)
    w = weight.copy()
    curve = np.zeros(n)
    for _ in range(25):
        a = np.zeros((n, n))
        np.add.at(a, (low, low), w * (1 - part) ** 2)
        np.add.at(a, (low + 1, low + 1), w * part**2)
        np.add.at(a, (low, low + 1), w * part * (1 - part))
        np.add.at(a, (low + 1, low), w * part * (1 - part))
        b = np.bincount(low, w * (1 - part) * y, n) + np.bincount(low + 1, w * part * y, n)
        curve = np.linalg.solve(a + penalty, b)
        off = (y - (curve[low] * (1 - part) + curve[low + 1] * part)) * np.sqrt(weight)
        w = weight / np.maximum(np.abs(off), 0.3)  # the curve goes through the median
    return curve


def fit_locus(
    tables: list[PointSources],
    model: StarModel,
    dwarfs: Float64,
    brightest: float = 15.5,
    faintest: float = 20.0,
) -> Locus:
    """The locus and its intrinsic width, disc and halo apart; white dwarfs by themselves.

    Each star belongs to disc or halo with the probability that the counts give to its magnitude and
    colour; errors are taken out of the covariances (as extreme deconvolution with one Gaussian a
    node does).
    """
    mag = np.concatenate([t.mag for t in tables])
    error = np.concatenate([t.error for t in tables])
    halo = np.concatenate([_halo_share(t, model) for t in tables])
    use = np.concatenate([training(t.split) for t in tables]) & is_star(mag)
    with np.errstate(invalid="ignore"):
        use &= (
            (mag[:, 2] > brightest)
            & (mag[:, 2] < faintest)
            & np.isfinite(mag).all(1)
            & (colour_index(mag) > -0.5)
        )
    mag, error, halo = mag[use], error[use], halo[use]
    x = colour_index(mag)
    colours = mag @ _COLOURS.T
    centre = np.zeros((2, len(COLOUR_NODES), 3))
    for j in range(3):
        variance = (error**2) @ (_COLOURS[j] ** 2) + (0.08 if j == 0 else 0.02) ** 2
        everything = _smooth(x, colours[:, j], 1 / variance, 300.0)
        for k, share in enumerate((1 - halo, halo)):
            weight = share**2 / variance
            # Each tends to the common curve where it has no stars.
            shift = _smooth(x, colours[:, j] - np.interp(x, COLOUR_NODES, everything), weight, 3000.0)
            seen = np.bincount(
                np.clip(((x - COLOUR_NODES[0]) / _STEP + 0.5).astype(int), 0, len(COLOUR_NODES) - 1),
                share,
                len(COLOUR_NODES),
            )
            trust = np.convolve(seen, np.ones(3), "same") / (np.convolve(seen, np.ones(3), "same") + 5.0)
            centre[k, :, j] = everything + trust * shift
    slope: Float64 = np.asarray(np.gradient(centre, _STEP, axis=1))
    covariance = np.zeros((2, len(COLOUR_NODES), 3, 3))
    for k, share in enumerate((1 - halo, halo)):
        middle = np.stack([np.interp(x, COLOUR_NODES, centre[k, :, j]) for j in range(3)], 1)
        steep = np.stack([np.interp(x, COLOUR_NODES, slope[k, :, j]) for j in range(3)], 1)
        jacobian = _COLOURS[None] - steep[:, :, None] * _INDEX[None, None, :]  # [n, 3, 5]
        noise = np.einsum("nab,nb,ncb->nac", jacobian, error**2, jacobian)
        residual = colours - middle
        for node, at in enumerate(COLOUR_NODES):
            weight = share * np.exp(-0.5 * ((x - at) / 0.15) ** 2)
            covariance[k, node] = _deconvolved(residual, noise, weight)
    white, white_covariance = _fit_white_dwarfs(dwarfs)
    return Locus(np.concatenate([centre, white[None]]), np.concatenate([covariance, white_covariance[None]]))


def _fit_white_dwarfs(mag: Float64) -> tuple[Float64, Float64]:
    """Locus of white dwarfs among spectroscopic stars: those with an ultraviolet excess."""
    with np.errstate(invalid="ignore"):
        use = np.isfinite(mag).all(1) & (mag[:, 2] < 20.0) & (mag[:, 2] > 15.0)
        x = colour_index(mag)
        use &= (mag[:, 0] - mag[:, 1] < 0.75) & (x < 0.6) & (x > -1.1)
    mag, x = mag[use], x[use]
    colours = mag @ _COLOURS.T
    centre = np.stack([_smooth(x, colours[:, j], np.full(len(x), 1 / 0.05**2), 3000.0) for j in range(3)], 1)
    residual = colours - np.stack([np.interp(x, COLOUR_NODES, centre[:, j]) for j in range(3)], 1)
    spread = 1.48 * np.median(np.abs(residual), axis=0)
    return centre, np.repeat(np.diag(np.maximum(spread, 0.02) ** 2)[None], len(COLOUR_NODES), axis=0)


def _halo_share(table: PointSources, model: StarModel) -> Float64:
    """Probability of each star to be of the halo."""
    edges = np.arange(13.0, 24.0, 0.25)
    parts = model.kernel(edges, table.latitude, table.longitude) * model.density[:, None, :]
    share = (parts[1] + parts[2] + parts[5]) / np.maximum(parts.sum(0) - parts[3], 1e-30)
    with np.errstate(invalid="ignore"):
        row = np.nan_to_num(np.clip(np.rint((table.mag[:, 2] - 13.0) / 0.25), 0, len(edges) - 1)).astype(int)
        column = np.nan_to_num(
            np.clip(np.rint((colour_index(table.mag) - COLOUR_NODES[0]) / _STEP), 0, len(COLOUR_NODES) - 1)
        ).astype(int)
    result: Float64 = share[row, column]
    return result


def _deconvolved(residual: Float64, noise: Float64, weight: Float64) -> Float64:
    """Covariance of residuals without their errors.

    Widths are robust: such that half of the residuals lie within 0.6745 of width and error together, so that
    binaries and bad photometry do not count. Correlations are those of expectation-maximisation without the outliers.
    """
    start = np.diag([0.05, 0.012, 0.012]) ** 2
    used = weight > 1e-3 * max(weight.max(), 1e-12)
    residual, noise, weight = residual[used], noise[used], weight[used]
    if weight.sum() < 3:
        return start
    covariance = start.copy()
    for _ in range(30):
        inverse = np.linalg.inv(covariance[None] + noise)
        distance = np.einsum("ni,nij,nj->n", residual, inverse, residual)
        w = weight * (distance < 3.0**2)
        gain = np.einsum("ij,njk->nik", covariance, inverse)
        guess = np.einsum("nij,nj->ni", gain, residual)
        left = covariance[None] - np.einsum("nij,jk->nik", gain, covariance)
        new = np.einsum("n,nij->ij", w, guess[:, :, None] * guess[:, None, :] + left)
        covariance = (new + 3 * start) / (w.sum() + 3) + 1e-7 * np.eye(3)
    scale = np.sqrt(np.diag(covariance))
    robust = np.empty(3)
    trials = np.geomspace(0.002, 0.3, 60)
    for j in range(3):
        inside = np.array([_within(residual[:, j], np.sqrt(t**2 + noise[:, j, j]), weight) for t in trials])
        # Few stars: the usual width counts as four more.
        robust[j] = np.interp(0.5, inside, trials)
        robust[j] = (robust[j] * weight.sum() + 4 * np.sqrt(start[j, j])) / (weight.sum() + 4)
    result: Float64 = covariance * np.outer(robust / scale, robust / scale)
    return result


def _within(residual: Float64, width: Float64, weight: Float64) -> float:
    """Share of the residuals within 0.6745 widths."""
    return float(weight[np.abs(residual) < 0.6745 * width].sum() / weight.sum())


def fit_reddening(table: PointSources, locus: Locus, mag: Float64) -> float:
    """E(B-V) that brings the train rows of a table's stars (magnitudes as observed) onto the locus."""
    from scipy.optimize import minimize_scalar

    from imcat.surveys.extinction import SDSS_COEFFICIENTS

    coefficients = np.array([SDSS_COEFFICIENTS[b] for b in "ugriz"])
    with np.errstate(invalid="ignore"):
        use = (
            training(table.split)
            & is_star(mag)
            & (mag[:, 2] > 16)
            & (mag[:, 2] < 20.5)
            & np.isfinite(mag).all(1)
        )
    mag, error = mag[use], table.error[use]

    def loss(ebv: float) -> float:
        clean = mag - ebv * coefficients
        x = colour_index(clean)
        best = np.full(len(x), np.inf)
        for k in range(2):
            middle = np.stack([np.interp(x, COLOUR_NODES, locus.centre[k, :, j]) for j in range(3)], 1)
            node = np.clip(np.rint((x - COLOUR_NODES[0]) / _STEP), 0, len(COLOUR_NODES) - 1).astype(int)
            noise = np.einsum("ab,nb,cb->nac", _COLOURS, error**2, _COLOURS)
            inverse = np.linalg.inv(locus.covariance[k, node] + noise)
            offset = clean @ _COLOURS.T - middle
            best = np.minimum(best, np.einsum("ni,nij,nj->n", offset, inverse, offset))
        return float(np.log1p(best / 6.0).sum())

    return float(minimize_scalar(loss, bounds=(-0.05, 0.25), method="bounded").x)
