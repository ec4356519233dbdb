"""Sources on batches of stamps in torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from imcat.psf.mixture import PsfMixture, moffat_mixture
from imcat.render.components import Components, ellipses, points
from imcat.render.draw import draw_stamps
from imcat.render.profiles import sersic_mixture, sersic_mixtures
from imcat.render.stamps import SkyGaussians, StampPsf, render_stamps, sersic_gaussians, stamp_gaussians

Float64 = NDArray[np.float64]
SHAPE = (40, 36)
# Tilted pixels, and those of another band turned against them.
JACOBIANS = np.array([[[-2.4, 0.2], [0.1, 2.5]], [[-2.5, -0.3], [0.2, 2.4]]])
PSFS = (
    moffat_mixture(3.0, 3.0, (0.05, -0.03)),
    PsfMixture(np.array([0.8, 0.2]), np.array([[1.4, 0.2, 1.1], [6.0, -1.0, 5.0]])),
)


def _varying(shape: tuple[int, int] = (900, 700)) -> PsfMixture:
    variation = np.zeros((2, 3, 5))
    variation[0, :, 0] = 0.3, 0.1, -0.2
    variation[1, :, 4] = 0.5, -0.2, 0.4
    return PsfMixture(PSFS[1].weights, PSFS[1].covariances, variation, shape)


def _galaxies(n: int, seed: int) -> Components:
    """A bulge and a disc in each of n sources, in two bands."""
    rng = np.random.default_rng(seed)
    parts = [
        ellipses(
            np.arange(n), rng.uniform(1, 100, (n, 2)), rng.uniform(0.2, 2, n), rng.uniform(0.2, 1, n),
            rng.uniform(0, 180, n), sersic_mixture(index), xi=rng.uniform(-1, 1, n), eta=rng.uniform(-1, 1, n),
        )
        for index in (1.0, 4.0)
    ]  # fmt: skip
    return Components.concatenate(parts)


def _places(n: int, seed: int) -> tuple[Float64, Float64]:
    rng = np.random.default_rng(seed)
    return rng.uniform(14, 22, n), rng.uniform(15, 24, n)


def _numba(components: Components, x: Float64, y: Float64, psfs: Sequence[PsfMixture]) -> Float64:
    images = np.zeros((len(x), 2, *SHAPE))
    # A floor this low leaves out nothing that would show.
    draw_stamps(images, np.arange(len(x)), components, x, y, JACOBIANS, psfs, floors=[1e-12, 1e-12])
    return images


def _torch(sources: SkyGaussians, x: Float64, y: Float64, psf: StampPsf) -> Float64:
    dtype = sources.flux.dtype
    matrix = torch.as_tensor(JACOBIANS, dtype=dtype)
    images = render_stamps(
        sources, torch.as_tensor(x, dtype=dtype), torch.as_tensor(y, dtype=dtype), matrix, psf, SHAPE
    )
    return np.asarray(images, np.float64)


def _assert_same(found: Float64, expected: Float64, tolerance: float = 1e-5) -> None:
    peak = np.abs(expected).max(axis=(2, 3), keepdims=True)
    assert np.abs(found - expected).max() > 0  # they are two computations
    np.testing.assert_array_less(np.abs(found - expected) / peak, tolerance)


_UNDERSAMPLED = (moffat_mixture(1.1, 3.0), moffat_mixture(1.6, 4.0, (0.1, 0.05)))


# As fits to CSST's PSFs are: Gaussians off the centre, a negative one, parts of pixels.
_LOPSIDED = (
    PsfMixture(
        np.array([0.7, 0.45, -0.15]),
        np.array([[0.8, 0.1, 0.9], [3.0, -0.4, 2.2], [1.5, 0.0, 1.4]]),
        subpixels=2,
        offsets=np.array([[0.05, -0.1], [-0.3, 0.2], [-0.2, 0.1]]),
    ),
    _UNDERSAMPLED[0],
)
_KINDS = {"smooth": PSFS, "undersampled": _UNDERSAMPLED, "lopsided": _LOPSIDED}


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("sources", ["stars", "galaxies"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_renderers_agree(kind: str, sources: str, dtype: torch.dtype) -> None:
    n, psfs = 12, _KINDS[kind]
    x, y = _places(n, 1)
    components = (
        points(np.random.default_rng(2).uniform(1, 9, (n, 2))) if sources == "stars" else _galaxies(n, 2)
    )
    found = _torch(stamp_gaussians(components, n, dtype=dtype), x, y, StampPsf.stack(psfs, dtype=dtype))
    _assert_same(found, _numba(components, x, y, psfs))


def test_the_psf_is_that_of_each_place() -> None:
    rng = np.random.default_rng(3)
    n = 10
    psfs = (_varying(), PSFS[0])
    # What the whole image is to numba is a stamp cut from it to torch.
    x, y = rng.uniform(50, 650, n), rng.uniform(50, 850, n)
    left, top = np.floor(x) - 17, np.floor(y) - 20
    components = _galaxies(n, 4)
    psf = StampPsf.stack(psfs, x, y, dtype=torch.float64)
    assert psf.covariances.shape[0] == n
    found = _torch(stamp_gaussians(components, n, dtype=torch.float64), x - left, y - top, psf)
    for i in range(n):
        here = [PsfMixture(p.weights, p.at(x[i : i + 1], y[i : i + 1])[0]) for p in psfs]
        keep = components.source == i
        one = Components(
            np.zeros(keep.sum(), np.int64),
            *(getattr(components, name)[keep] for name in ("flux", "xi", "eta", "xx", "xy", "yy")),
        )
        _assert_same(found[i : i + 1], _numba(one, (x - left)[i : i + 1], (y - top)[i : i + 1], here))


def test_bands_may_have_their_own_positions() -> None:
    n = 6
    x, y = _places(n, 5)
    shift = np.array([0.0, 0.7])
    sources = stamp_gaussians(_galaxies(n, 6), n, dtype=torch.float64)
    psf = StampPsf.stack(PSFS, dtype=torch.float64)
    found = _torch(sources, x[:, None] + shift, y[:, None] - shift, psf)
    for band, by in enumerate(shift):
        np.testing.assert_array_equal(found[:, band], _torch(sources, x + by, y - by, psf)[:, band])


def test_a_batch_is_the_same_as_its_stamps(monkeypatch: pytest.MonkeyPatch) -> None:
    n = 7
    x, y = _places(n, 7)
    sources = stamp_gaussians(_galaxies(n, 8), n)
    psf = StampPsf.stack(PSFS)
    whole = _torch(sources, x, y, psf)
    names = ("flux", "xi", "eta", "xx", "xy", "yy")
    for i in range(n):
        one = SkyGaussians(*(getattr(sources, name)[i : i + 1] for name in names))
        np.testing.assert_array_equal(whole[i : i + 1], _torch(one, x[i : i + 1], y[i : i + 1], psf))
    # Neither does it matter how many of them fit into memory at once.
    monkeypatch.setattr("imcat.render.stamps._AT_ONCE", 3 * 2 * 16 * 4 * SHAPE[0] * SHAPE[1])
    np.testing.assert_array_equal(whole, _torch(sources, x, y, psf))


@pytest.mark.parametrize("index", [0.5, 0.8, 1.0, 2.3, 4.0, 6.6, 8.0])
def test_profiles_are_those_of_the_other_renderer(index: float) -> None:
    radius, ratio, angle = np.array([0.7, 1.4]), np.array([0.3, 0.8]), np.array([20.0, 130.0])
    flux = np.array([[10.0, 20.0], [5.0, 7.0]])
    expected = ellipses([0, 1], flux, radius, ratio, angle, sersic_mixtures([index, index]), xi=0.3, eta=-0.6)
    found = sersic_gaussians(
        *(torch.as_tensor(v) for v in (flux, radius, ratio, angle, np.full(2, index))), xi=0.3, eta=-0.6
    )
    # `Components` hold no Gaussians without weight.
    keep = np.asarray(found.flux[..., 0] != 0)
    for name in ("flux", "xi", "eta", "xx", "xy", "yy"):
        values = np.asarray(getattr(found, name))
        np.testing.assert_allclose(values[keep], getattr(expected, name), rtol=1e-7, atol=1e-14)


def test_sources_are_put_together() -> None:
    n = 4
    x, y = _places(n, 9)
    galaxies, stars = _galaxies(n, 10), points(np.full((n, 2), 30.0))
    psf = StampPsf.stack(PSFS, dtype=torch.float64)
    first, second = (stamp_gaussians(c, n, dtype=torch.float64) for c in (galaxies, stars))
    both = _torch(SkyGaussians.concatenate([first, second]), x, y, psf)
    np.testing.assert_allclose(both, _torch(first, x, y, psf) + _torch(second, x, y, psf), rtol=1e-12)


def test_a_stamp_without_sources_is_empty() -> None:
    stars = points(np.ones((2, 2)), source=[0, 2])
    x, y = _places(3, 11)
    found = _torch(stamp_gaussians(stars, 3), x, y, StampPsf.stack(PSFS))
    assert not found[1].any()
    assert found[[0, 2]].sum(axis=(2, 3)) == pytest.approx(1, rel=2e-3)


@pytest.mark.parametrize(("index", "kind"), [(0.9, "smooth"), (1.7, "lopsided"), (4.4, "undersampled")])
def test_derivatives_are_right(index: float, kind: str) -> None:
    psf = StampPsf.stack(_KINDS[kind], dtype=torch.float64)
    matrix = torch.as_tensor(JACOBIANS)
    # A few sums of pixels stand for all: each needs a run of its own.
    some = torch.as_tensor(np.random.default_rng(12).normal(size=(4, 9 * 8)))

    def sums(
        flux: Tensor, x: Tensor, y: Tensor, radius: Tensor, ratio: Tensor, angle: Tensor, n: Tensor
    ) -> Tensor:
        image = render_stamps(sersic_gaussians(flux, radius, ratio, angle, n), x, y, matrix, psf, (9, 8))
        return image.flatten(2) @ some.T

    values = ([[3.0, 5.0], [2.0, 1.0]], [3.2, 4.4], [4.1, 3.7], [0.7, 1.1], [0.4, 0.9], [20.0, 75.0])
    inputs = [
        torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (*values, [index, index + 0.1])
    ]
    assert torch.autograd.gradcheck(sums, inputs, eps=1e-6, atol=1e-6, rtol=1e-4)


def test_a_point_source_has_finite_derivatives() -> None:
    radius = torch.zeros(1, requires_grad=True)
    one = torch.ones(1)
    sources = sersic_gaussians(torch.ones(1, 2), radius, one, one, 1.0)
    matrix = torch.as_tensor(JACOBIANS, dtype=torch.float32)
    image = render_stamps(sources, 15 * one, 15 * one, matrix, StampPsf.stack(PSFS), SHAPE)
    (gradient,) = torch.autograd.grad(image.square().sum(), radius)
    assert torch.isfinite(gradient).all()
