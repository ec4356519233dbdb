"""Places on the sky: the correlation that is asked for, and none where none is."""

from __future__ import annotations

import numpy as np
import pytest

from imcat.simulate.clustering import cluster_positions, galaxy_field
from imcat.simulate.counts import angular_amplitude


def test_density_has_the_mean_and_the_correlation_of_the_model() -> None:
    rng = np.random.default_rng(4)
    side, cell = 640.0, 10.0
    density = np.stack([galaxy_field(rng, side, side).density() for _ in range(150)])
    assert density.mean() == pytest.approx(1.0, abs=0.06)
    over = density - 1.0
    for lag in (6, 12, 24):
        measured = 0.5 * (
            np.mean(over[:, lag:] * over[:, :-lag]) + np.mean(over[..., lag:] * over[..., :-lag])
        )
        expected = angular_amplitude(20.5) * (lag * cell / 3600.0) ** -0.8
        assert measured == pytest.approx(expected, rel=0.3)


def test_galaxies_follow_the_density_and_stay_inside() -> None:
    rng = np.random.default_rng(5)
    field = galaxy_field(rng, 800.0, 600.0)
    u, v = field.positions(rng, np.full(20_000, 20.5))
    assert u.min() >= 0
    assert u.max() <= 800
    assert v.min() >= 0
    assert v.max() <= 600
    counts, _, _ = np.histogram2d(v, u, bins=field.log_density.shape, range=((0, 600), (0, 800)))
    expected = field.density(20.5) / field.density(20.5).sum() * 20_000
    chi2 = np.sum((counts - expected) ** 2 / expected) / expected.size
    assert chi2 == pytest.approx(1.0, abs=0.1)


def test_half_of_a_globular_cluster_lies_within_its_radius() -> None:
    u, v = cluster_positions(np.random.default_rng(6), 20_000, 400.0, 300.0, 25.0)
    assert np.mean(np.hypot(u - 200, v - 150) < 25.0) == pytest.approx(0.5, abs=0.015)
