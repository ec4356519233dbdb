import itertools

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord

from imcat.catalogue import cross_match, match_xy
from imcat.errors import UsageError


def brute_force(distance, radius):
    """Pairs one by one, nearest first."""
    pairs = sorted(
        (distance[i, j], i, j)
        for i, j in itertools.product(*map(range, distance.shape))
        if distance[i, j] <= radius
    )
    used_i, used_j, kept = set(), set(), []
    for _, i, j in pairs:
        if i not in used_i and j not in used_j:
            used_i.add(i)
            used_j.add(j)
            kept.append((i, j))
    return sorted(kept)


@pytest.mark.parametrize("seed", range(5))
def test_plane_matches_as_by_hand(seed):
    rng = np.random.default_rng(seed)
    # On a coarse grid, so that many distances are equal.
    x1, y1 = rng.integers(0, 12, (2, 40)).astype(float)
    x2, y2 = rng.integers(0, 12, (2, 60)).astype(float)
    found = match_xy(x1, y1, x2, y2, 2.5)
    distance = np.hypot(x1[:, None] - x2, y1[:, None] - y2)
    assert list(zip(found.first, found.second, strict=True)) == brute_force(distance, 2.5)
    np.testing.assert_allclose(found.distance, distance[found.first, found.second])


@pytest.mark.parametrize(("ra", "dec"), [(0.0, 0.0), (359.9995, 45.0), (120.0, 89.9995), (10.0, -90.0)])
def test_sky_matches_as_by_hand(ra, dec):
    rng = np.random.default_rng(3)
    offset = 5e-4  # degrees
    spread = offset / max(np.cos(np.radians(dec)), 1e-5)
    ra1, dec1 = (ra + rng.uniform(-spread, spread, 30)) % 360, dec + rng.uniform(-offset, offset, 30)
    ra2, dec2 = (ra + rng.uniform(-spread, spread, 50)) % 360, dec + rng.uniform(-offset, offset, 50)
    dec1, dec2 = np.clip(dec1, -90, 90), np.clip(dec2, -90, 90)
    first, second = SkyCoord(ra1, dec1, unit=u.deg), SkyCoord(ra2, dec2, unit=u.deg)
    distance = first[:, None].separation(second[None]).arcsec
    found = cross_match(ra1, dec1, ra2, dec2, 0.6)
    assert list(zip(found.first, found.second, strict=True)) == brute_force(distance, 0.6)
    np.testing.assert_allclose(found.distance, distance[found.first, found.second], atol=1e-7)


def test_order_of_rows_does_not_matter():
    rng = np.random.default_rng(4)
    first, second = rng.uniform(0, 5, (2, 80)), rng.uniform(0, 5, (2, 90))
    order = rng.permutation(80)
    a = match_xy(*first, *second, 0.5)
    b = match_xy(*first[:, order], *second, 0.5)
    assert set(zip(a.first, a.second, strict=True)) == set(zip(order[b.first], b.second, strict=True))


def test_nothing_to_match():
    assert len(cross_match([], [], [1.0], [2.0], 1)) == 0
    found = cross_match([np.nan, 10.0], [0.0, 20.0], [10.0, np.nan], [20.0, 0.0], 1)
    assert found.first.tolist() == [1]
    assert found.second.tolist() == [0]
    with pytest.raises(UsageError, match="radius of -1"):
        cross_match([0], [0], [0], [0], -1)
