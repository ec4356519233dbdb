"""The map of signal-to-noise ratio of the combined bands, and its own noise."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from astropy.wcs import WCS
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from imcat.align import AlignSettings, map_grids
from imcat.detect import Combiner, Plane
from imcat.noise import Mesh, NoiseCovariance, NoiseModel
from imcat.tile import ArrayPixels, Exposure
from imcat.window import Window

SHAPE = (420, 460)
RMS = 3.0


def _plane(
    image: NDArray[np.float64], shift: float = 0.0, claimed: float = RMS, weight: float = 1.0
) -> Plane:
    wcs = [WCS(naxis=2), WCS(naxis=2)]
    for k, one in enumerate(wcs):
        one.wcs.ctype = "RA---TAN", "DEC--TAN"
        one.wcs.cd = 1e-4 * np.diag([-1.0, 1.0])
        one.wcs.crpix = SHAPE[1] / 2 + k * shift, SHAPE[0] / 2
    data = ArrayPixels(np.ascontiguousarray(image, np.float32))
    variance = ArrayPixels(np.full(SHAPE, claimed**2, np.float32))
    exposure = Exposure("e", data, wcs[1], variance=variance)
    level, spread = np.zeros((2, 2)), np.full((2, 2), claimed)
    noise = NoiseModel(Mesh(64, level, spread, level, spread), covariance=NoiseCovariance.white())
    return Plane(exposure, noise, map_grids(wcs[0], SHAPE, wcs[1], SHAPE, AlignSettings()), 1.0, weight)


def _noise(seed: int, smooth: float = 0.0) -> NDArray[np.float64]:
    noise = np.random.default_rng(seed).normal(size=SHAPE)
    if smooth:
        noise = gaussian_filter(noise, smooth)
        noise /= noise.std()
    return RMS * noise


@pytest.mark.parametrize(
    ("planes", "expected"),
    [
        ([_plane(_noise(1))], 1.0),
        # Two bands, one of which has a weight that is not the best.
        ([_plane(_noise(1)), _plane(_noise(2), weight=0.3)], 1.0),
        # A variance that is four times too large.
        ([_plane(_noise(1), claimed=2 * RMS)], 0.5),
    ],
    ids=["one", "two", "wrong variance"],
)
def test_the_noise_of_the_map_is_measured(planes: list[Plane], expected: float) -> None:
    combiner = Combiner(planes, SHAPE, 3.0)
    # The lower quartile of the boxes is taken: some per cent less than their mean.
    assert combiner.calibrate() == pytest.approx(expected, rel=0.06)
    snr = combiner(Window(20, 400, 20, 440)).snr
    assert snr.std() == pytest.approx(1.0, rel=0.06)


@pytest.mark.parametrize(("smooth", "shift"), [(0.8, 0.0), (0.0, 0.5)], ids=["correlated", "interpolated"])
def test_neither_correlation_nor_interpolation_changes_it(smooth: float, shift: float) -> None:
    combiner = Combiner([_plane(_noise(3, smooth), shift)], SHAPE, 3.0)
    before = combiner(Window(20, 400, 20, 440)).snr.std()
    combiner.calibrate()
    after = combiner(Window(20, 400, 20, 440)).snr.std()
    assert after == pytest.approx(1.0, rel=0.06)
    assert (abs(before - 1) > 0.3) == (smooth > 0)


def test_neither_sources_nor_threads_change_it() -> None:
    image = _noise(4)
    blank = Combiner([_plane(image)], SHAPE, 3.0)
    blank.calibrate()
    image[::60, ::60] += 4000.0
    image[:, 300:340] = np.nan
    combiner = Combiner([_plane(image)], SHAPE, 3.0)
    scale = combiner.calibrate()
    assert scale == pytest.approx(blank.noise_scale, rel=0.05)
    with ThreadPoolExecutor(3) as pool:
        assert combiner.calibrate(pool) == scale


def test_a_tile_without_data_keeps_the_scale() -> None:
    combiner = Combiner([_plane(np.full(SHAPE, np.nan))], SHAPE, 3.0)
    assert combiner.calibrate() == 1.0
    assert not combiner(Window.whole(SHAPE)).snr.any()
