import itertools
import json

import numpy as np
import pytest

from imcat.catalogue import Footprint, Footprints, read_footprints
from imcat.errors import InputError


def square(ra, dec, half, turn=0.0):
    """Corners of a square of that half side in degrees, on the tangent plane."""
    from astropy.wcs import WCS

    wcs = WCS(naxis=2)
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [1, 1]
    wcs.wcs.cdelt = [-1, 1]
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    angle = np.radians(turn)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corners = rotation @ np.array([[-1, 1, 1, -1], [-1, -1, 1, 1]]) * half
    return tuple((float(a), float(d)) for a, d in zip(*wcs.wcs_pix2world(*corners, 0), strict=True))


def grid(ra, dec, count, step, half, prefix="t", turn=0.0):
    spread = (np.arange(count) - (count - 1) / 2) * step
    return [
        Footprint(f"{prefix}{i}{j}", square((ra + dx / np.cos(np.radians(dec))) % 360, dec + dy, half, turn))
        for (i, dx), (j, dy) in itertools.product(enumerate(spread), enumerate(spread))
    ]


@pytest.mark.parametrize(("ra", "dec"), [(150.0, 2.0), (0.0, 0.0), (359.99, -60.0), (30.0, 80.0)])
def test_every_position_is_primary_in_exactly_one_tile(ra, dec):
    rng = np.random.default_rng(0)
    tiles = grid(ra, dec, 3, 0.1, 0.08) + grid(ra, dec, 2, 0.15, 0.1, "u", turn=30.0)
    footprints = Footprints(tiles)
    ra_points = (ra + rng.uniform(-0.12, 0.12, 4000) / np.cos(np.radians(dec))) % 360
    dec_points = dec + rng.uniform(-0.12, 0.12, 4000)
    counted = np.zeros(4000, dtype=int)
    for tile in tiles:  # as if each tile had found a source at every position inside it
        inside = Footprints([tile]).winner(ra_points, dec_points) == 0
        primary = footprints.primary(ra_points, dec_points, np.full(4000, tile.name), inside)
        assert not (primary & ~inside).any()
        counted += primary
    assert (counted == 1).all()


def test_nearest_centre_wins_in_units_of_the_radius():
    footprints = Footprints([Footprint("a", square(10, 0, 0.1)), Footprint("b", square(10.1, 0, 0.1))])
    assert [footprints.names[i] for i in footprints.winner([10.03, 10.07], [0.01, 0.0])] == ["a", "b"]
    unequal = Footprints([Footprint("big", square(10, 0, 0.3)), Footprint("small", square(10.3, 0, 0.1))])
    # At 0.2 and 0.1 degrees: 0.47 of the radius of the one, 0.71 of the other's.
    assert unequal.names[unequal.winner([10.2], [0.0])[0]] == "big"


def test_ties_go_by_name_whatever_the_order():
    same = square(10, 0, 0.1)
    for order in (("b", "a"), ("a", "b")):
        footprints = Footprints([Footprint(name, same) for name in order])
        assert footprints.names[footprints.winner([10.05], [0.02])[0]] == "a"


def test_poles_and_outside():
    footprints = Footprints([Footprint("n", square(0, 90, 0.5)), Footprint("s", square(0, -90, 0.5))])
    assert footprints.winner([0, 77, 200, 0, np.nan], [90, 89.8, -89.8, 0, 1]).tolist() == [0, 0, 1, -1, -1]


def test_corners_in_either_sense():
    corners = square(10, 0, 0.1)
    for polygon in (corners, corners[::-1]):
        assert Footprints([Footprint("a", polygon)]).winner([10.0, 10.2], [0.0, 0.0]).tolist() == [0, -1]


def test_fields_of_one_sdss_run_do_not_take_from_each_other(tmp_path):
    """Rows decide within a run and camera column; another run competes with both fields."""
    height, step = 0.15, 0.136  # the whole image, and the rows that are primary
    entries = {}
    for number in range(3):
        centre = number * step
        entries[f"000042-3-000{number}"] = {
            "survey": "sdss",
            "footprint": rectangle(20, centre, 0.1, height / 2),
            "primary_footprint": rectangle(20, centre, 0.1, step / 2),
        }
    entries["000099-1-0005"] = {"survey": "sdss", "footprint": rectangle(20.15, 0.2, 0.1, step / 2)}
    entries["failed"] = {"survey": "sdss", "status": "failed"}
    (tmp_path / "run.json").write_text(json.dumps({"tiles": entries}))
    footprints = read_footprints(tmp_path)
    assert len(footprints) == 4
    rng = np.random.default_rng(1)
    ra, dec = rng.uniform(19.91, 20.24, 3000), rng.uniform(-0.06, 0.33, 3000)
    # Some lie exactly on, and a rounding error beside, the seam of two fields.
    dec[:200] = step / 2 + rng.choice([0, 1e-13, -1e-13], 200)
    counted = np.zeros(3000, dtype=int)
    for number in range(3):
        rows = np.floor(dec / step + 0.5) == number  # the survey's rule
        own = rows & (np.abs(ra - 20) < 0.1)
        counted += footprints.primary(ra, dec, np.full(3000, f"000042-3-000{number}"), own)
    other = Footprints([Footprint("x", entries["000099-1-0005"]["footprint"])]).winner(ra, dec) == 0
    taken = footprints.primary(ra, dec, np.full(3000, "000099-1-0005"), other)
    counted += taken
    covered = (np.abs(ra - 20) < 0.1) | other
    assert (counted == covered).all()
    assert 0 < taken.sum() < other.sum()


def rectangle(ra, dec, half_ra, half_dec):
    """Corners of a rectangle near the equator, where ra and dec are nearly straight."""
    return (
        (ra - half_ra, dec - half_dec),
        (ra + half_ra, dec - half_dec),
        (ra + half_ra, dec + half_dec),
        (ra - half_ra, dec + half_dec),
    )


def test_one_tile_keeps_its_survey_primaries():
    footprints = Footprints([Footprint("a", square(10, 0, 0.1))])
    given = np.array([True, False, True])
    assert footprints.primary([10, 10, 50], [0, 0, 0], ["a", "a", "a"], given).tolist() == given.tolist()
    assert Footprints([]).primary([10], [0], ["x"], [True]).tolist() == [True]


def test_many_tiles_are_quick():
    # Ten thousand tiles that overlap their neighbours.
    side = 100
    tiles = [
        Footprint(f"{i:03d}-{j:03d}", rectangle(10 + 0.1 * i, -5 + 0.1 * j, 0.055, 0.055))
        for i, j in itertools.product(range(side), range(side))
    ]
    rng = np.random.default_rng(2)
    ra, dec = rng.uniform(10, 19.9, 20000), rng.uniform(-5, 4.9, 20000)
    winner = Footprints(tiles).winner(ra, dec)
    nearest = np.rint((ra - 10) / 0.1).astype(int) * side + np.rint((dec + 5) / 0.1).astype(int)
    # Lines halfway between centres are no straight lines in ra and dec, but nearly.
    assert (winner == nearest).mean() > 0.98
    assert (winner >= 0).all()


def test_bad_ledgers_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_footprints(tmp_path)
    for text in ("{", "[]", '{"tiles": {"a": {"footprint": [[1, 2]]}}}', '{"tiles": 3}'):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(InputError):
            read_footprints(tmp_path)
