"""Tests of generated stamps against real ones, and the analytic galaxies that they are measured against."""

from __future__ import annotations

import numpy as np
import pytest

from imcat.augment.analytic import analytic_components, analytic_sources
from imcat.augment.conditions import Conditions
from imcat.augment.looks import Looks
from imcat.augment.quality import nearest_distances, precision_recall, standardised, two_sample_area
from imcat.simulate.galaxies import half_light_radius
from imcat.simulate.sources import Morphology


def normal(n: int, middle: float = 0.0, width: float = 1.0, seed: int = 1) -> Looks:
    rng = np.random.default_rng(seed)
    return Looks(rng.normal(middle, width, (n, 3)), ("size", "ellipticity", "asymmetry"))


def test_trees_cannot_tell_samples_of_one_distribution_and_can_tell_others() -> None:
    real = normal(300)
    same, error = two_sample_area(real, normal(300, seed=2))
    assert abs(same - 0.5) < 3 * error
    other, _ = two_sample_area(real, normal(300, 1.5, seed=3))
    assert other > 0.85


def test_a_generator_of_one_kind_is_precise_and_recalls_little() -> None:
    real, narrow, wide = standardised(normal(400), normal(400, 0.0, 0.1, 2), normal(400, 0.0, 1.0, 3))
    precision, recall = precision_recall(real, narrow)
    assert precision > 0.95
    assert recall < 0.3
    assert min(precision_recall(real, wide)) > 0.8


def test_gaps_are_filled_and_outliers_clipped() -> None:
    looks = normal(50)
    looks.values[0] = np.nan
    looks.values[1] = 1e9
    (values,) = standardised(looks)
    assert np.isfinite(values).all()
    assert np.abs(values).max() <= 6


def test_a_copy_is_at_no_distance() -> None:
    rng = np.random.default_rng(5)
    training = rng.normal(size=(40, 100))
    copies, others = 3 * training[:5], rng.normal(size=(5, 100))
    np.testing.assert_allclose(nearest_distances(copies, training), 0, atol=1e-6)
    assert nearest_distances(others, training).min() > 0.5


@pytest.fixture
def asked() -> Conditions:
    rng = np.random.default_rng(2)
    n = 12
    return Conditions(
        10 ** rng.uniform(4, 6, (n, 3)), np.array([4800.0, 6200.0, 7600.0]), rng.uniform(0.5, 3, n), rng.uniform(0.2, 1, n),
        rng.uniform(0, 180, n), rng.uniform(0, 1, n), np.full(n, np.nan),
        np.array([-1, Morphology.SPIRAL] * 6, np.int8),
    )  # fmt: skip


def test_analytic_galaxies_are_as_asked_for(asked: Conditions) -> None:
    made = analytic_sources(asked, np.random.default_rng(1))
    np.testing.assert_allclose(half_light_radius(made), asked.radius, rtol=0.01)
    assert (made.morphology[1::2] == Morphology.SPIRAL).all()
    light = analytic_components(asked, np.random.default_rng(1))
    np.testing.assert_allclose(light.total(len(asked)), asked.flux, rtol=1e-6)
    plain = analytic_components(asked, np.random.default_rng(1), detail=np.zeros(len(asked), bool))
    assert len(plain) < len(light)


def test_magnitudes_between_the_bands_are_interpolated(asked: Conditions) -> None:
    made = analytic_sources(asked, np.random.default_rng(1))
    r = 31.4 - 2.5 * np.log10(asked.flux[:, 1])
    np.testing.assert_allclose(made.mag[:, 2], r, atol=0.1)  # the band lies 60 Å beside
