"""Fixtures of the measurement's tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from imcat.align import AlignSettings, map_grids
from imcat.measure.views import Layer, View
from imcat.noise import Mesh, NoiseCovariance, NoiseModel, SkyCutout
from imcat.tile import ArrayPixels, Exposure
from imcat.window import Window


@pytest.fixture(scope="session")
def make_view() -> Callable[..., View]:
    """A function that makes the view of an image without sky.

    ``make_view(image, x, y, band="r", scale=0.396, rms=1.0, gain=None, psf_sigma=0.55, owner=None, jacobian=None,
    covariance=None)``: `x`, `y` are the sources' positions in the image, `jacobian` ``[2, 2]`` leads from reference
    to native offsets (default: they are the same), `scale` is the size of a native pixel in arcsec.
    """
    return _make_view


def _make_view(
    image: NDArray[Any],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    band: str = "r",
    scale: float = 0.396,
    rms: float = 1.0,
    gain: float | None = None,
    psf_sigma: float = 0.55,
    owner: NDArray[np.int32] | None = None,
    jacobian: NDArray[np.float64] | None = None,
    covariance: NoiseCovariance | None = None,
) -> View:
    from astropy.wcs import WCS

    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.cd = scale / 3600 * np.diag([-1.0, 1.0])
    wcs.wcs.crpix = image.shape[1] / 2, image.shape[0] / 2
    data = np.ascontiguousarray(image, np.float32)
    exposure = Exposure(band, ArrayPixels(data), wcs, gain=gain)
    level, spread = np.zeros((2, 2)), np.full((2, 2), rms)
    mesh = Mesh(64, level, spread, level, spread)
    noise = NoiseModel(mesh, covariance=covariance or NoiseCovariance.white())
    grid = map_grids(wcs, data.shape, wcs, data.shape, AlignSettings())
    cut = SkyCutout(
        Window.whole(data.shape), data, np.full(data.shape, rms**2, np.float32),
        np.zeros(data.shape, np.uint16), np.zeros(data.shape, bool),
    )  # fmt: skip
    n = len(x)
    matrix = np.broadcast_to(np.eye(2) if jacobian is None else jacobian, (n, 2, 2)).copy()
    return View(
        Layer(band, exposure, noise, grid, psf_sigma, 1.0), cut,
        np.zeros(data.shape, np.int32) if owner is None else owner,
        np.asarray(x, np.float64), np.asarray(y, np.float64), matrix, np.linalg.inv(matrix),
        np.sqrt(np.abs(np.linalg.det(matrix))), np.full(n, scale),
    )  # fmt: skip
