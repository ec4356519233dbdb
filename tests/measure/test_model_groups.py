"""Blend groups, and the bias of the largest likelihood."""

from __future__ import annotations

import numpy as np

from imcat.measure.model_errors import close_neighbours
from imcat.measure.model_stack import light_reach
from imcat.measure.model_stage import blend_groups
from imcat.psf.mixture import moffat_mixture


def _sets(group: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(group == g).tolist()) for g in np.unique(group)}


def test_overlapping_circles_make_friends() -> None:
    x = np.array([0.0, 9.0, 18.0, 40.0, np.nan])
    y = np.zeros(5)
    reach, parent = np.full(5, 5.0), np.arange(5)
    assert _sets(blend_groups(x, y, reach, parent)) == {frozenset({0, 1, 2}), frozenset({3}), frozenset({4})}
    # Siblings are friends within three times the distance.
    parent = np.array([0, 1, 2, 2, 4])
    assert _sets(blend_groups(x, y, reach, parent)) == {frozenset({0, 1, 2, 3}), frozenset({4})}


def test_a_bright_source_takes_in_what_lies_in_its_light() -> None:
    x, y = np.array([0.0, 25.0, 60.0]), np.zeros(3)
    light = np.array([30.0, 4.0, 4.0])
    group = blend_groups(x, y, np.full(3, 5.0), np.arange(3), light)
    assert _sets(group) == {frozenset({0, 1}), frozenset({2})}


def test_large_groups_are_split_where_they_are_thin() -> None:
    # Two clumps that a chain connects.
    rng = np.random.default_rng(2)
    clump = rng.uniform(-3, 3, (2, 10))
    x = np.concatenate([clump[0], [12.0, 21.0], clump[0] + 33])
    y = np.concatenate([clump[1], [0.0, 0.0], clump[1]])
    reach, parent = np.full(x.size, 5.0), np.zeros(x.size, np.int64)
    assert len(_sets(blend_groups(x, y, reach, parent))) == 1
    sets = _sets(blend_groups(x, y, reach, parent, most=12))
    assert max(len(s) for s in sets) <= 12
    assert frozenset(range(10)) in sets
    assert frozenset(range(12, 22)) in sets


def test_light_reaches_to_where_it_falls_below_the_level() -> None:
    psf = moffat_mixture(3.0, 3.0)
    radius, area = light_reach(psf, np.array([1e2, 1e4]), 0.5, 100)
    image = psf.image(201)
    assert np.isclose(area, 1 / np.sum(image**2), rtol=0.03)
    for snr, r in zip((1e2, 1e4), radius, strict=True):
        brightness = snr * np.sqrt(area) * image[100, 100 + round(float(r))]
        assert 0.3 < brightness < 0.8


def test_neighbours_are_chosen_even_where_nothing_is_known_of_them() -> None:
    # Four members, all of them neighbours; what the first shares with two of them is no number.
    start = np.array([0, 3, 6, 9, 12])
    other = np.array([1, 2, 3, 0, 2, 3, 0, 1, 3, 0, 1, 2])
    own = np.ones((4, 1, 1))
    pair = np.full((12, 1, 1), 0.1)
    pair[:3, 0, 0] = [np.nan, 0.2, np.nan]
    assert close_neighbours(0, own, start, other, pair, 2).tolist() == [0, 2]
    assert sorted(close_neighbours(0, own, start, other, pair, 4).tolist()) == [0, 1, 2, 3]
    pair[:] = np.nan
    assert sorted(close_neighbours(3, own, start, other, pair, 3).tolist())[-1] == 3
    assert len(set(close_neighbours(3, own, start, other, pair, 3).tolist())) == 3
