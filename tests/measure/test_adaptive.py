"""Adaptive moments, held to GalSim's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import galsim
import numpy as np
import pytest
from numpy.typing import NDArray

from imcat.measure.adaptive import AdaptiveMoments, measure_adaptive
from imcat.measure.pixels import MASK, MIRROR
from imcat.measure.views import View

Float64 = NDArray[np.float64]
SIDE = 61
FAR = 200.0
#: East is left, north is up.
SKY = 0.396 * np.diag([-1.0, 1.0])
MakeView = Callable[..., View]


def _stamps(n: int, seed: int) -> tuple[list[Float64], Float64, Float64]:
    """Galaxies and stars through Moffat PSFs, one to a stamp, off the middle."""
    rng = np.random.default_rng(seed)
    images, x, y = [], rng.uniform(29.5, 30.5, n), rng.uniform(29.5, 30.5, n)
    for k in range(n):
        psf = galsim.Moffat(beta=3.2, fwhm=rng.uniform(2.8, 4)).shear(g1=0.02, g2=-0.03)
        profile: Any = psf
        if k % 4:
            shape = galsim.Sersic(rng.choice([0.7, 1.0, 2.5]), half_light_radius=rng.uniform(0.5, 3.5))
            profile = galsim.Convolve(shape.shear(g1=rng.uniform(-0.4, 0.4), g2=rng.uniform(-0.4, 0.4)), psf)
        offset = x[k] - (SIDE - 1) / 2, y[k] - (SIDE - 1) / 2
        images.append(1e4 * profile.drawImage(nx=SIDE, ny=SIDE, scale=1.0, offset=offset, dtype=float).array)
    return images, x, y


def _tiled(images: list[Float64]) -> Float64:
    return np.concatenate(images, axis=1)


def _measure(view: View | list[View], n: int, mode: int = MASK, **changes: Any) -> AdaptiveMoments:
    views = view if isinstance(view, list) else [view]
    zero = np.zeros(n)
    arguments: dict[str, Any] = {
        "label": np.arange(1, n + 1), "dx": zero, "dy": zero, "size": np.full(n, 1.5), "limit": np.full(n, FAR),
        "sky": np.broadcast_to(SKY, (n, 2, 2)),
    } | changes  # fmt: skip
    return measure_adaptive(views, "r", mode=mode, **arguments)


def _assert_like_galsim(found: AdaptiveMoments, k: int, truth: Any, tolerance: float = 1e-3) -> None:
    trace = (found.xx[k] + found.yy[k]) / 0.396**2
    e = np.hypot(found.e1[k], found.e2[k])
    sigma = np.sqrt(0.5 * trace) * (1 - e**2) ** 0.25
    assert sigma == pytest.approx(truth.moments_sigma, rel=tolerance)
    assert found.e1[k] == pytest.approx(truth.observed_e1, abs=tolerance)
    assert found.e2[k] == pytest.approx(truth.observed_e2, abs=tolerance)
    assert found.rho4[k] == pytest.approx(truth.moments_rho4, rel=2 * tolerance)


def test_moments_are_those_of_galsim(make_view: MakeView) -> None:
    n = 24
    images, x, y = _stamps(n, 1)
    view = make_view(_tiled(images), x + SIDE * np.arange(n), y)
    found = _measure(view, n)
    assert found.converged.all()
    for k, image in enumerate(images):
        truth = galsim.hsm.FindAdaptiveMom(galsim.Image(image, scale=1.0))
        _assert_like_galsim(found, k, truth)
        assert x[k] + found.dx[k] == pytest.approx(truth.moments_centroid.x - 1, abs=2e-3)
        assert y[k] + found.dy[k] == pytest.approx(truth.moments_centroid.y - 1, abs=2e-3)


def test_pixels_of_neighbours_are_left_out(make_view: MakeView) -> None:
    images, x, y = _stamps(8, 2)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for k, image in enumerate(images):
        taken = np.hypot(columns - x[k] - 8, rows - y[k] + 5) < 5
        disturbed = image + 1e3 * taken
        owner = np.where(taken, 99, 0).astype(np.int32)
        found = _measure(make_view(disturbed, x[k : k + 1], y[k : k + 1], owner=owner), 1)
        bad = galsim.Image(taken.astype(np.int32))
        truth = galsim.hsm.FindAdaptiveMom(galsim.Image(disturbed, scale=1.0), badpix=bad)
        _assert_like_galsim(found, 0, truth)
        # The mirror image of a symmetric source is the source, but for the part of a pixel by which it is shifted.
        mirrored = _measure(make_view(disturbed, x[k : k + 1], y[k : k + 1], owner=owner), 1, MIRROR)
        _assert_like_galsim(mirrored, 0, galsim.hsm.FindAdaptiveMom(galsim.Image(image, scale=1.0)), 0.04)


def test_axes_are_those_of_the_sky(make_view: MakeView) -> None:
    image = galsim.Gaussian(sigma=3, flux=1e5).shear(q=0.6, beta=30 * galsim.degrees)
    array = image.drawImage(nx=SIDE, ny=SIDE, scale=1.0, method="no_pixel", dtype=float).array
    at = np.array([30.0])
    found = _measure(make_view(array, at, at), 1)
    # In the image the major axis lies at 30 degrees from x to y: 60 degrees west of north.
    angle = 0.5 * np.degrees(np.arctan2(2 * found.xy[0], found.yy[0] - found.xx[0]))
    assert angle == pytest.approx(-60, abs=0.01)
    eigenvalues = np.linalg.eigvalsh([[found.xx[0], found.xy[0]], [found.xy[0], found.yy[0]]])
    np.testing.assert_allclose(eigenvalues, 0.396**2 * 9 * np.array([0.6, 1 / 0.6]), rtol=1e-3)
    assert found.rho4[0] == pytest.approx(2, abs=2e-3)


def test_exposures_are_joined_on_the_sky(make_view: MakeView) -> None:
    profile = galsim.Gaussian(sigma=3, flux=1e5).shear(g1=0.2, g2=0.1)
    turned = 0.8 * np.array([[np.cos(0.7), -np.sin(0.7)], [np.sin(0.7), np.cos(0.7)]])
    at = np.array([30.0])
    views = []
    for matrix in (np.eye(2), turned):
        drawn = profile.transform(*matrix.ravel())
        array = drawn.drawImage(nx=SIDE, ny=SIDE, scale=1.0, method="no_pixel", dtype=float).array
        views.append(make_view(array, at, at, jacobian=matrix, scale=0.396 / np.sqrt(np.linalg.det(matrix))))
    first, both = _measure(views[:1], 1), _measure(views, 1)
    for name in ("xx", "xy", "yy", "e1", "e2"):
        assert getattr(both, name)[0] == pytest.approx(getattr(first, name)[0], abs=2e-3)
    assert both.snr[0] > 1.2 * first.snr[0]


@pytest.mark.parametrize("gain", [None, 0.5])
def test_errors_are_true(make_view: MakeView, gain: float | None) -> None:
    rng = np.random.default_rng(3)
    n, rms = 400, 1.0
    profile = galsim.Convolve(galsim.Gaussian(sigma=2.0).shear(g1=0.15), galsim.Pixel(1.0)) * 800
    image = profile.drawImage(nx=31, ny=31, scale=1.0, method="no_pixel", dtype=float).array
    whole = _tiled([image] * n)
    noise = rms**2 + (0 if gain is None else whole / gain)
    whole = whole + rng.normal(size=whole.shape) * np.sqrt(noise)
    at = np.full(n, 15.0)
    found = _measure(make_view(whole, at + 31 * np.arange(n), at, rms=rms, gain=gain), n)
    assert found.converged.mean() > 0.99
    keep = found.converged
    size = np.log(found.xx + found.yy)[keep]
    for values, error in (
        (found.e1[keep], found.e_err),
        (found.e2[keep], found.e_err),
        (size, found.size_err),
    ):
        # 400 values give the scatter to 3.5 %.
        assert values.std() == pytest.approx(np.median(error[keep]), rel=0.14)


def test_nothing_there_does_not_converge(make_view: MakeView) -> None:
    at = np.array([30.0])
    rng = np.random.default_rng(4)
    assert not _measure(make_view(np.zeros((SIDE, SIDE)), at, at), 1).converged.any()
    negative = _measure(make_view(-np.ones((SIDE, SIDE)), at, at), 1)
    assert not negative.converged.any()
    assert np.isnan(negative.xx).all()
    flat = _measure(make_view(5 + rng.normal(0, 0.01, (SIDE, SIDE)), at, at), 1, limit=np.array([30.0]))
    assert not flat.converged.any()
    assert not _measure([], 1).converged.any()
    outside = _measure(make_view(np.ones((SIDE, SIDE)), np.array([np.nan]), at), 1)
    assert not outside.converged.any()


def test_a_source_does_not_depend_on_others(make_view: MakeView) -> None:
    n = 6
    images, x, y = _stamps(n, 5)
    view = make_view(_tiled(images), x + SIDE * np.arange(n), y)
    whole = _measure(view, n)
    for k in range(n):
        index = np.array([k])
        one = _measure(view.take(index), 1, label=index + 1)
        for name in ("xx", "xy", "yy", "rho4", "e_err"):
            assert getattr(one, name)[0] == getattr(whole, name)[k]
