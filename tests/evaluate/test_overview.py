"""The overview figure: its arrays, its geometry, that it is drawn and the same each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from imcat.catalogue import Catalogue
from imcat.errors import InputError
from imcat.evaluate.overview import (
    Preview,
    _ellipses,
    _oriented,
    bin_plane,
    draw_overview,
    make_preview,
)
from imcat.schema import Schema

CD = np.array([[-0.4, 0.0], [0.0, 0.4]])  # north up, east left
SCHEMA = Schema(["g", "r"], [3.0])


def _catalogue(n: int) -> Catalogue:
    rng = np.random.default_rng(0)
    columns = {}
    for name in SCHEMA.required:
        dtype = SCHEMA[name].dtype
        columns[name] = np.full(n, "t") if dtype == "str" else np.zeros(n, dtype)
    columns.update(source_id=np.arange(n), x=rng.uniform(0, 300, n), y=rng.uniform(0, 200, n))
    columns.update(semi_major=np.full(n, 2.0), semi_minor=np.full(n, 1.0), position_angle=np.full(n, 90.0))
    columns.update(flags=rng.choice([0, 1, 8, 4], n), r_kron_flux=rng.uniform(1e2, 1e5, n))
    return Catalogue.build(columns, SCHEMA, {"tile": "t"})


def _preview(shape: tuple[int, int] = (200, 300), cd: np.ndarray | None = CD) -> Preview:
    rng = np.random.default_rng(1)
    planes = {b: rng.normal(0, 1, shape).astype(np.float32) for b in ("r", "g")}
    planes["r"][0, 0] = np.nan
    binned = {name: bin_plane(plane, 2) for name, plane in planes.items()}
    return make_preview(
        "t", binned, {"r": 1.0, "g": 1.0}, rng.normal(5, 1, (4, 6)), factor=2, background_band="r", cd=cd
    )


def test_preview_of_one_band_is_grey() -> None:
    plane = bin_plane(np.arange(15.0).reshape(3, 5), 2)
    np.testing.assert_allclose(plane, [[3, 5]])
    p = make_preview("t", {"r": plane}, {"r": 2.0}, np.zeros((1, 1)), factor=2, shape=(3, 5))
    assert p.rgb.shape == (3, 1, 2)
    assert p.rgb_noise.tolist() == [1, 1, 1]
    assert (p.bands, p.shape) == (("r", "r", "r"), (3, 5))


def test_shifted_bands_are_put_on_top_of_each_other() -> None:
    red, green = np.zeros((20, 30)), np.zeros((19, 33))
    red[5, 6], green[8, 4] = 1, 1
    noise = {"r": 1, "g": 1}
    p = make_preview("t", {"r": red, "g": green}, noise, np.zeros((1, 1)), shifts={"g": (-2.2, 3.1)})
    assert np.argwhere(p.rgb[0]).tolist() == np.argwhere(p.rgb[2]).tolist() == [[5, 6]]
    far = make_preview("t", {"r": red, "g": green}, noise, np.zeros((1, 1)), shifts={"g": (-50, 0)})
    assert not far.rgb[2].any()


def test_no_plane_is_refused() -> None:
    with pytest.raises(InputError, match="the preview of t has no plane; expected one to three"):
        make_preview("t", {}, {}, np.zeros((1, 1)))


def test_directions_come_from_the_catalogue_where_nothing_else_tells() -> None:
    catalogue = _catalogue(50)
    xi, eta = (CD / 3600) @ np.stack([catalogue["x"], catalogue["y"]])
    catalogue = catalogue.with_columns({"ra": 10 + xi / np.cos(np.radians(2.0)), "dec": 2 + eta})
    np.testing.assert_allclose(_oriented(_preview(cd=None), catalogue).cd, CD, atol=0.002)
    assert np.isfinite(_oriented(_preview(cd=None), _catalogue(0)).cd).all()


def test_files_are_the_same_and_come_back(tmp_path: Path) -> None:
    preview = _preview()
    preview.save(tmp_path / "a.npz")
    preview.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    back = Preview.load(tmp_path / "a.npz")
    assert (back.tile, back.bands, back.shape, back.factor) == ("t", ("r", "g", "g"), (200, 300), 2)
    np.testing.assert_array_equal(back.rgb, preview.rgb)
    np.testing.assert_array_equal(back.cd, CD)
    (tmp_path / "a.npz").write_bytes((tmp_path / "b.npz").read_bytes()[:500])
    with pytest.raises(InputError, match="cannot be read"):
        Preview.load(tmp_path / "a.npz")


def test_ellipse_points_along_its_position_angle() -> None:
    catalogue = _catalogue(3)
    outline = _ellipses(catalogue, CD, np.array([1])) - [catalogue["x"][1], catalogue["y"][1]]
    # Position angle 90: the major axis lies east-west, along x; 3 rms axes of 2 arcsec are 15 pixels.
    assert np.ptp(outline[0, :, 0]) == pytest.approx(30, rel=1e-6)
    assert np.ptp(outline[0, :, 1]) == pytest.approx(15, rel=1e-2)
    turned = _ellipses(catalogue.with_columns({"position_angle": np.full(3, 45.0)}), CD, np.array([1]))[0]
    turned = turned - [catalogue["x"][1], catalogue["y"][1]]
    far = turned[np.argmax(np.hypot(*turned.T))]
    assert far[0] * far[1] < 0  # north-east is up and to the left


@pytest.mark.parametrize("n", [0, 400])
def test_figure_is_drawn_and_reproducible(tmp_path: Path, n: int) -> None:
    for name in ("a.png", "b.png"):
        draw_overview(tmp_path / name, _catalogue(n), _preview())
    first = (tmp_path / "a.png").read_bytes()
    assert first[:4] == b"\x89PNG"
    assert first == (tmp_path / "b.png").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.png"]
