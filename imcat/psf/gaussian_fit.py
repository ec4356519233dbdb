"""Least squares for sums of Gaussians: on the pixels of a PSF image, and on a Moffat profile."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["fit_gaussians", "moffat_gaussians"]

Float64 = NDArray[np.float64]

#: Narrowest standard deviation of a Gaussian that is drawn, in parts of a pixel: sampled at their centres, its sum
#: depends on where in a pixel it lies by 2 exp(-2π² 0.57²) = 0.3 % (Poisson's summation formula).
_NARROWEST = 0.57
#: Smallest element of the root of what a covariance has in addition, pixels.
_LEAST = 0.02
#: A Gaussian wider than this, pixels, is compared with an image as one, whatever the parts of a pixel: the
#: pixel changes it by 1e-4 of its peak.
_WIDE = 2.0
#: Beyond this many widths of the core, samples are compared in square blocks of this side.
_CORE, _BLOCK = 10.0, 4
#: Weight of the condition that the weights sum to the flux of the image.
_HOLD = 1e3
#: Weight of the condition that Gaussians keep their common shape and centre, against residuals in units of the
#: peak. A PSF sampled once a pixel says little about what is narrower: without it a fit invents it.
_PRIOR = 0.03
#: Parameters of a Gaussian.
_EACH = 5
#: Weight of the condition that weights be small, which keeps two like Gaussians from cancelling.
_SMALL = 3e-2


class _Residuals:
    """A sum of Gaussians against an image.

    The parameters of each Gaussian are its centre and the lower triangle of the root of its
    covariance, beyond the narrowest: (x, y, log l11, l21, log l22). The weights enter linearly and are solved
    for at each step (variable projection: Golub & Pereyra 1973, SIAM J. Numer. Anal. 10, 413).
    """

    def __init__(
        self, image: Float64, oversampling: int, parts: Float64, softening: float, signed: bool
    ) -> None:
        self.total = float(image.sum()) / oversampling**2
        self.height = float(image.max())
        # Width of a Gaussian of the same peak and flux.
        self.sigma = float(np.sqrt(self.total / (2 * np.pi * self.height)))
        self.x, self.y, data, count = _samples(image, oversampling, _CORE * self.sigma)
        self.peak = int(data.argmax())
        # Between equal absolute errors, where the core alone counts, and equal relative ones.
        self.weight = np.sqrt(count / (np.clip(data, 0, None) * self.height + softening * self.height**2))
        self.target = np.append(data * self.weight, _HOLD * self.total)
        self.parts = parts
        self.narrow = (_NARROWEST / len(parts)) ** 2
        # Variance of a pixel less that of one of its parts, which `narrow` holds.
        self.rest = (1 - 1 / len(parts) ** 2) / 12
        self.signed = signed

    def __call__(self, p: Float64) -> Float64:
        """Weighted residuals, ``[samples + 1]``."""
        shapes = self.shapes(p)
        return np.asarray(np.einsum("k,ks->s", self.weights(shapes), shapes) - self.target)

    def weights(self, shapes: Float64) -> Float64:
        """Weights that fit best, ``[k]``."""
        from scipy.optimize import nnls

        # Not by a matrix product: it would wake all threads of the library for this little.
        matrix, vector = np.einsum("ks,ls->kl", shapes, shapes), np.einsum("ks,s->k", shapes, self.target)
        matrix[np.diag_indices(len(matrix))] += _SMALL**2
        return np.asarray(np.linalg.solve(matrix, vector) if self.signed else nnls(matrix, vector)[0])

    def shapes(self, p: Float64) -> Float64:
        """Each Gaussian with a flux of 1, weighted, ``[k, samples + 1]``."""
        each = p.reshape(-1, _EACH)
        result = np.zeros((len(each), len(self.target)))
        for q, row in zip(each, result, strict=True):
            self._add(q, row[:-1])
        result[:, :-1] *= self.weight
        result[:, -1] = _HOLD
        return result

    def _add(self, q: Float64, result: Float64) -> None:
        l11, l21, l22 = np.exp(q[2]), q[3], np.exp(q[4])
        xx, xy, yy = l11**2 + self.narrow, l11 * l21, l21**2 + l22**2 + self.narrow
        parts = self.parts
        if len(parts) > 1 and min(l11, l22) > _WIDE:
            parts = np.zeros(1)
            xx, yy = xx + self.rest, yy + self.rest
        determinant = xx * yy - xy * xy
        norm = 1 / (2 * np.pi * np.sqrt(determinant) * len(parts) ** 2)
        for part_y in parts:
            for part_x in parts:
                dx, dy = self.x - q[0] - part_x, self.y - q[1] - part_y
                result += norm * np.exp(
                    (-0.5 / determinant) * (yy * dx * dx - 2 * xy * dx * dy + xx * dy * dy)
                )


def _samples(image: Float64, oversampling: int, core: float) -> tuple[Float64, Float64, Float64, Float64]:
    """Offsets x, y from the middle in native pixels, values, and how many samples each is the mean of."""
    rows, columns = image.shape
    v, u = np.indices(image.shape)
    x, y = (u - (columns - 1) / 2) / oversampling, (v - (rows - 1) / 2) / oversampling
    # The core sample by sample, the wings block by block.
    block = (v // _BLOCK) * columns + u // _BLOCK + rows * columns
    y_peak, x_peak = np.unravel_index(int(image.argmax()), image.shape)
    inner = np.hypot(x - x[y_peak, x_peak], y - y[y_peak, x_peak]) <= core
    block[inner] = np.arange(int(inner.sum()))
    _, group, count = np.unique(block.ravel(), return_inverse=True, return_counts=True)
    means = (np.bincount(group, weights=a.ravel()) / count for a in (x, y, image))
    return (*means, count.astype(np.float64))  # type: ignore[return-value]


def fit_gaussians(
    image: Float64,
    oversampling: int,
    components: int,
    parts: Float64,
    softening: float,
    *,
    concentric: bool = True,
    signed: bool = False,
) -> tuple[Float64, Float64, Float64]:
    """Fit Gaussians to an image.

    Parameters
    ----------
    image : float64 array, ``[y, x]``
        Flux per native pixel at each sample.
    oversampling : int
        Samples per native pixel along each axis.
    components : int
        Gaussians.
    parts : float64 array
        Centres of the parts of a pixel along each axis, pixels; (0) for a pixel in one piece.
    softening : float
        Brightness relative to the peak below which residuals count equally.
    concentric : bool
        Whether all have one centre.
    signed : bool
        Whether weights may be negative.

    Returns
    -------
    weights : float64 array, ``[k]``
        Flux of each.
    covariances : float64 array, ``[k, 3]``
        Native pixels², pixel included, from core to wing.
    centres : float64 array, ``[k, 2]``
        x and y from the middle of the image, native pixels.
    """
    from scipy.optimize import least_squares

    model = _Residuals(image, oversampling, parts, softening, signed)
    size, sigma = min(image.shape) / oversampling, model.sigma
    widest = size / 3
    widths = np.geomspace(0.5 * sigma, max(2.5 * sigma, min(0.1 * size, 15 * sigma)), components)
    # First all of one shape, which few parameters describe and no minimum aside traps; then each its own.
    start = [model.x[model.peak], model.y[model.peak], 0.0, 0.0, *np.log(widths)]
    low = [-widest, -widest, -0.8, -0.8] + [np.log(_LEAST)] * components
    high = [widest, widest, 0.8, 0.8] + [np.log(widest)] * components
    q = least_squares(
        lambda q: model(_alike(q)), np.clip(start, low, high), bounds=(low, high), x_scale="jac", max_nfev=40
    ).x
    p = _own_shapes(model, _alike(q), concentric=True)
    if not concentric:
        p = _own_shapes(model, p, concentric=False)
    each = p.reshape(-1, _EACH)
    l11, l21, l22 = np.exp(each[:, 2]), each[:, 3], np.exp(each[:, 4])
    # Most concentrated first, so that a mixture reads from core to wing.
    order = np.argsort(l11 * l22)
    least = model.narrow + model.rest
    covariances = np.column_stack([l11**2 + least, l11 * l21, l21**2 + l22**2 + least])
    return model.weights(model.shapes(p))[order], covariances[order], each[order, :2]


def _own_shapes(model: _Residuals, p: Float64, *, concentric: bool) -> Float64:
    """Fit the shape of each Gaussian, and its centre or that of all, near a first guess."""
    from scipy.optimize import least_squares

    k = len(p) // _EACH
    width = np.sqrt(np.exp(p[2::_EACH] + p[4::_EACH]) + model.narrow)
    # What a step of one is: a width for places and slopes, a factor of e for widths.
    unit = np.column_stack([width, width, np.ones(k), width, np.ones(k)])
    if concentric:
        unit[:, :2] = model.sigma

    def moved(free: Float64) -> Float64:
        if concentric:
            steps = np.column_stack([np.tile(free[:2], (k, 1)), free[2:].reshape(k, _EACH - 2)])
        else:
            steps = free.reshape(k, _EACH)
        return np.asarray(p + (steps * unit).ravel())

    prior = np.full(2 + (_EACH - 2) * k if concentric else _EACH * k, _PRIOR)
    if concentric:
        prior[:2] = 0
    solution = least_squares(
        lambda free: np.append(model(moved(free)), prior * free), np.zeros(len(prior)),
        bounds=(-3.0, 3.0), ftol=1e-5, xtol=1e-5, max_nfev=40,
    )  # fmt: skip
    return moved(solution.x)


def _alike(q: Float64) -> Float64:
    """Parameters of Gaussians of one shape: from centre, logarithm of the axis ratio, shear, widths."""
    k = len(q) - 4
    columns = [np.full(k, q[0]), np.full(k, q[1]), q[4:] + q[2] / 2, np.exp(q[4:]) * q[3], q[4:] - q[2] / 2]
    return np.stack(columns, axis=1).ravel()


@cache
def moffat_gaussians(beta: float, components: int) -> tuple[Float64, Float64]:
    """Sum of Gaussians for a round Moffat profile.

    Brightness and encircled energy are fitted together.

    Parameters
    ----------
    beta : float
        Exponent.
    components : int
        Gaussians.

    Returns
    -------
    weights : float64 array, ``[k]``
        They sum to 1.
    variances : float64 array, ``[k]``
        Units of FWHM², rising.
    """
    from scipy.optimize import least_squares

    radius = np.geomspace(1e-2, 30, 400)
    core2 = 0.25 / (2 ** (1 / beta) - 1)
    profile = (1 + radius**2 / core2) ** -beta
    height = (beta - 1) / (np.pi * core2)
    energy = 1 - (1 + radius**2 / core2) ** (1 - beta)

    def residuals(p: Float64) -> Float64:
        weights, variances = np.exp(p[:components]), np.exp(p[components:])
        weights = weights / weights.sum()
        power = np.exp(-0.5 * radius[:, None] ** 2 / variances)
        shape = power @ (weights / (2 * np.pi * variances)) / height
        return np.concatenate([(shape - profile) / np.sqrt(profile + 1e-3), 1 - power @ weights - energy])

    # From the core to where the last few 1e-3 of the light lie.
    outermost = np.sqrt(core2 * (1e-3 ** (1 / (1 - beta)) - 1)) / 2
    start = np.log(
        np.concatenate([0.5 ** np.arange(components), np.geomspace(0.3, outermost, components) ** 2])
    )
    # The wings lie within the radii that are compared, the core is no spike.
    low = np.concatenate([np.full(components, -15.0), np.full(components, np.log(0.1**2))])
    high = np.concatenate([np.full(components, 5.0), np.full(components, np.log(15.0**2))])
    p = least_squares(residuals, np.clip(start, low, high), bounds=(low, high), x_scale="jac", max_nfev=500).x
    order = np.argsort(p[components:])
    weights, variances = np.exp(p[:components])[order], np.exp(p[components:])[order]
    weights /= weights.sum()
    for array in (weights, variances):
        array.flags.writeable = False  # the cache hands the same arrays to every caller
    return weights, variances
