"""The classifier's network: any bands, anything missing, dust at the input, and its redshift densities against scipy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import norm
from torch import Tensor

from imcat.backbones.vit import VitSettings
from imcat.classify.densities import Densities
from imcat.classify.network import (
    MORPHOLOGIES,
    Answer,
    Classifier,
    ClassifierSettings,
    Measured,
    Seeing,
    measured,
    mixture_parts,
    redshift_loss,
    tokens,
)
from imcat.classify.photometry import GLOBALS, Photometry

SMALL = ClassifierSettings(vision=24, width=32, depth=2, heads=2, components=4)
FIELDS = tuple(Answer.__dataclass_fields__)
_NUMBERS = 2 * len(GLOBALS)
MEAN, SOME, KNOWN_DUST, DUST, SPECTROSCOPIC = range(_NUMBERS, _NUMBERS + 5)  # places in `extra`


def photometry(n: int, bands: int, seed: int = 0) -> Photometry:
    """Sources with everything measured."""
    rng = np.random.default_rng(seed)
    total = rng.uniform(17, 23, (n, bands)).astype(np.float32)
    error = rng.uniform(0.01, 0.3, (n, bands)).astype(np.float32)
    return Photometry(
        wavelength=np.geomspace(3000, 10000, bands), total=total, total_err=error,
        psf=total + rng.uniform(0, 1, (n, bands)).astype(np.float32), psf_err=error,
        aperture=total + rng.uniform(0, 1, (n, bands)).astype(np.float32), aperture_err=error,
        extinction=rng.uniform(0, 0.5, (n, bands)).astype(np.float32),
        extra=rng.normal(0, 1, (n, len(GLOBALS))).astype(np.float32),
    )  # fmt: skip


def by_band(p: Photometry, act: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Photometry:
    """Something done to the bands, which lie along the last axis."""
    names = [n for n in Photometry.__dataclass_fields__ if n not in ("extra", "wavelength")]
    return replace(p, **{n: act(getattr(p, n)) for n in names})


def vectors(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, SMALL.vision, generator=torch.Generator().manual_seed(seed))


def same(first: Answer, second: Answer, atol: float = 2e-5) -> bool:
    return all(torch.allclose(getattr(first, f), getattr(second, f), atol=atol) for f in FIELDS)


@pytest.fixture(scope="module")
def network() -> Classifier:
    torch.manual_seed(1)
    return Classifier(SMALL).eval()


@pytest.mark.parametrize("bands", [1, 2, 5, 7])
@torch.inference_mode()
def test_any_number_of_bands_in_any_order(network: Classifier, bands: int) -> None:
    given, order = photometry(4, bands), np.roll(np.arange(bands), 1)
    first = network(measured(given), vectors(4), torch.ones(4))
    assert first.kind.shape == (4, 3)
    assert first.lens.shape == (4,)
    assert first.morphology.shape == (4, len(MORPHOLOGIES))
    assert first.structure.shape == (4, 4)
    assert first.redshift.shape == (4, 2, 3, SMALL.components)
    assert first.vector.shape == (4, SMALL.width)
    assert all(torch.isfinite(getattr(first, f)).all() for f in FIELDS)
    turned = replace(by_band(given, lambda v: v[:, order]), wavelength=given.wavelength[order])
    assert same(network(measured(turned), vectors(4), torch.ones(4)), first)
    # Magnitudes of other bands are another source.
    if bands > 1:
        mixed = replace(given, wavelength=given.wavelength[::-1].copy())
        assert not same(network(measured(mixed), vectors(4), torch.ones(4)), first, atol=1e-3)


@torch.inference_mode()
def test_a_band_without_magnitudes_is_as_if_absent(network: Classifier) -> None:
    given = photometry(4, 5)
    few = replace(by_band(given, lambda v: v[:, :4]), wavelength=given.wavelength[:4])

    def lost(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.where(np.arange(5) == 4, np.float32(np.nan), values)

    first = network(measured(few), vectors(4), torch.ones(4))
    assert same(network(measured(by_band(given, lost)), vectors(4), torch.ones(4)), first)
    # A PSF magnitude or an error without a total tells nothing, either.
    odd = replace(given, total=lost(given.total), extinction=lost(given.extinction))
    assert same(network(measured(odd), vectors(4), torch.ones(4)), first)
    assert not same(network(measured(given), vectors(4), torch.ones(4)), first, atol=1e-3)


@torch.inference_mode()
def test_without_a_stamp_the_vector_is_irrelevant(network: Classifier) -> None:
    given, seen = measured(photometry(4, 3)), torch.tensor([0.0, 1.0, 0.0, 1.0])
    first, second = network(given, vectors(4, 1), seen), network(given, 50 * vectors(4, 2), seen)
    for name in FIELDS:
        one, two = getattr(first, name), getattr(second, name)
        assert torch.equal(one[seen < 0.5], two[seen < 0.5])
        assert not torch.allclose(one[seen > 0.5], two[seen > 0.5], atol=1e-3)


@torch.inference_mode()
def test_without_photometry_the_stamp_still_answers(network: Classifier) -> None:
    bare = by_band(photometry(4, 3), lambda v: np.full_like(v, np.nan))
    bare = replace(bare, extra=np.full_like(bare.extra, np.nan))
    first = network(measured(bare), vectors(4, 1), torch.ones(4))
    assert all(torch.isfinite(getattr(first, f)).all() for f in FIELDS)
    assert not same(first, network(measured(bare), vectors(4, 2), torch.ones(4)), atol=1e-3)
    # With nothing at all every source is the same, and still a number.
    nothing = network(measured(bare), vectors(4, 1), torch.zeros(4))
    assert torch.allclose(nothing.kind, nothing.kind[:1].expand(4, 3), atol=1e-6)
    assert torch.isfinite(nothing.kind).all()


@torch.inference_mode()
def test_the_answer_does_not_depend_on_the_batch(network: Classifier) -> None:
    given = photometry(6, 5)
    holes = np.random.default_rng(5).random((6, 5)) < 0.3
    given = replace(given, total=np.where(holes, np.float32(np.nan), given.total))
    seen = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 1.0])
    whole = network(measured(given), vectors(6), seen)
    single = [
        network(measured(given.take(np.array([k]))), vectors(6)[k : k + 1], seen[k : k + 1]) for k in range(6)
    ]
    joined = Answer(*(torch.cat([getattr(s, f) for s in single]) for f in FIELDS))
    assert same(joined, whole)


@torch.inference_mode()
def test_numbers_of_the_source_count_where_they_are_there(network: Classifier) -> None:
    given = photometry(4, 3)
    first = network(measured(given), vectors(4), torch.ones(4))
    for k in range(len(GLOBALS)):
        extra = given.extra.copy()
        extra[:, k] = np.nan
        assert not same(
            network(measured(replace(given, extra=extra)), vectors(4), torch.ones(4)), first, 1e-4
        )
    assert not same(network(measured(given, spectroscopic=True), vectors(4), torch.ones(4)), first, 1e-4)


class TestTokens:
    def test_extinction_is_taken_off(self) -> None:
        given = photometry(5, 4)
        none = np.zeros_like(given.extinction)
        clean = replace(
            given, total=given.total - given.extinction, psf=given.psf - given.extinction,
            aperture=given.aperture - given.extinction, extinction=none,
        )  # fmt: skip
        bands, extra, there = tokens(measured(given))
        again, more, present = tokens(measured(clean))
        assert torch.allclose(bands, again, atol=2e-5)
        assert torch.equal(there, present)
        others = [k for k in range(extra.shape[1]) if k != DUST]
        assert torch.allclose(extra[:, others], more[:, others], atol=2e-5)
        # The one number that tells them apart is how much dust there was.
        assert torch.allclose(extra[:, DUST], torch.from_numpy(given.extinction.max(1)))
        assert torch.equal(more[:, DUST], torch.zeros(5))

    def test_unknown_dust_is_not_no_dust(self) -> None:
        given = photometry(5, 4)
        none = replace(given, extinction=np.zeros_like(given.extinction))
        unknown = replace(given, extinction=np.full_like(given.extinction, np.nan))
        (bands, extra, _), (again, more, _) = tokens(measured(none)), tokens(measured(unknown))
        assert torch.equal(extra[:, KNOWN_DUST], torch.ones(5))
        assert torch.equal(more[:, KNOWN_DUST], torch.zeros(5))
        assert torch.isfinite(again).all()
        assert (bands != again).sum() == 5 * 4  # the flag of each band, and nothing else
        assert (extra != more).sum() == 5

    def test_colours_are_relative_to_the_weighted_mean(self) -> None:
        given = photometry(1, 2)
        total, error = np.array([[18.0, 20.0]], np.float32), np.array([[0.1, 0.3]], np.float32)
        given = replace(given, total=total, total_err=error, extinction=np.zeros_like(total))
        bands, extra, _ = tokens(measured(given))
        weight = 1 / (0.1**2 + error**2)
        mean = float((weight * total).sum() / weight.sum())
        assert bands[0, :, 0].tolist() == pytest.approx([18 - mean, 20 - mean], abs=1e-5)
        assert float(extra[0, MEAN]) == pytest.approx((mean - 20) / 3, abs=1e-6)
        assert float(extra[0, SOME]) == 1
        # A source that is fainter in every band differs in that number alone.
        again, more, _ = tokens(
            measured(replace(given, total=total + 1, psf=given.psf + 1, aperture=given.aperture + 1))
        )
        assert torch.allclose(bands, again, atol=1e-5)
        assert float(more[0, MEAN] - extra[0, MEAN]) == pytest.approx(1 / 3, abs=1e-5)

    def test_missing_values_leave_finite_numbers(self) -> None:
        empty = by_band(photometry(2, 3), lambda v: np.full_like(v, np.nan))
        bands, extra, there = tokens(measured(replace(empty, extra=np.full_like(empty.extra, np.nan))))
        assert torch.isfinite(bands).all()
        assert torch.isfinite(extra).all()
        assert not there.any()
        assert torch.equal(extra, torch.zeros_like(extra))
        _, spectroscopic, _ = tokens(measured(empty, spectroscopic=True))
        assert torch.equal(spectroscopic[:, SPECTROSCOPIC], torch.ones(2))

    def test_measured_goes_elsewhere_whole(self) -> None:
        given = measured(photometry(2, 3))
        moved = given.to(torch.float64)
        assert isinstance(moved, Measured)
        assert all(v.dtype == torch.float64 for v in vars(moved).values())
        assert torch.allclose(
            given.wavelength[1].exp() * 6000, torch.tensor([3000.0, 5477.2256, 10000.0]), rtol=1e-6
        )


class TestRedshift:
    def mixture(self, n: int = 6, components: int = 5) -> Tensor:
        return torch.randn(n, 3, components, generator=torch.Generator().manual_seed(7))

    def test_the_loss_is_minus_the_logarithm_of_the_density(self) -> None:
        mixture = self.mixture()
        z = torch.tensor([0.0, 0.1, 0.5, 1.0, 3.0, 6.0])
        raw = mixture.numpy().astype(float)
        weight = raw[:, 0] - logsumexp(raw[:, 0], axis=1, keepdims=True)
        mean = np.linspace(0.05, 1.6, 5) + raw[:, 1]
        width = np.log1p(np.exp(raw[:, 2] - 2)) + 0.002
        log = weight + norm.logpdf(np.log1p(z.numpy().astype(float))[:, None], mean, width)
        np.testing.assert_allclose(redshift_loss(mixture, z), -logsumexp(log, axis=1), rtol=1e-4, atol=1e-5)

    def test_one_component_is_a_gaussian(self) -> None:
        # softplus(x - 2) + 0.002 = 0.1 for this x; the component starts at 0.05.
        raw = 2 + float(np.log(np.expm1(0.098)))
        mixture = torch.tensor([[[0.0], [0.15], [raw]]])
        z = np.expm1(0.35)
        loss = float(redshift_loss(mixture, torch.tensor([z], dtype=torch.float32)))
        assert loss == pytest.approx(-norm.logpdf(0.35, 0.2, 0.1), abs=1e-4)

    def test_arrays_and_tensors_say_the_same(self) -> None:
        mixture = self.mixture(20, 10)
        weight, mean, width = mixture_parts(mixture)
        density = Densities.of(mixture.numpy())
        assert len(density) == 20
        np.testing.assert_allclose(density.weight, weight.exp(), rtol=2e-5)
        np.testing.assert_allclose(density.mean, mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(density.width, width, rtol=1e-5)
        np.testing.assert_allclose(density.weight.sum(axis=1), 1, rtol=1e-12)

    def test_no_component_is_narrower_than_the_least_width(self) -> None:
        mixture = self.mixture()
        mixture[:, 2] = -100
        assert mixture_parts(mixture)[2].min() == pytest.approx(0.002, rel=1e-6)
        assert Densities.of(mixture.numpy()).width.min() == pytest.approx(0.002, rel=1e-6)
        assert torch.isfinite(redshift_loss(mixture, torch.full((6,), 6.0))).all()


def test_backbone_and_classifier_fit_together() -> None:
    seeing = Seeing(
        VitSettings(size=16, patch=8, width=12, depth=1, heads=2), ClassifierSettings(24, 32, 1, 2, 4)
    )
    assert seeing.vision.width == seeing.classifier.settings.vision
    names = [name.split(".")[0] for name in seeing.state_dict()]
    assert set(names) == {"vision", "classifier"}
