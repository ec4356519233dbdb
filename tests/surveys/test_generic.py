"""Generic tiles: keywords, variance maps, bad input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from imcat.errors import InputError
from imcat.flags import PixelFlag
from imcat.surveys import find_tiles, read_tile
from imcat.tile import Exposure, Tile
from imcat.window import Window

SHAPE = (48, 64)
SCALE = 3631.0  # nJy per unit at a zero point of 22.5: 3631 Jy is AB magnitude 0
Make = Callable[..., Path]


def open_tile(path: Path) -> Tile:
    (source,) = find_tiles([path])
    return read_tile(source)


def band_r(path: Path) -> Exposure:
    return open_tile(path).band("r").exposures[0]


def write(path: Path, value: Any, dtype: str = "f4") -> None:
    fits.PrimaryHDU(np.broadcast_to(np.asarray(value, dtype), SHAPE).copy()).writeto(path)


def test_pixels_scale_and_facts(tmp_path: Path, make_generic: Make) -> None:
    path = make_generic(tmp_path, gain=900.0, sky=0.7, psf_fwhm=1.3, mjd=58000.5, saturation=40.0)
    tile = open_tile(path)
    exposure = tile.band("r").exposures[0]
    data = fits.getdata(tmp_path / "r.fits")
    np.testing.assert_allclose(exposure.image.read(Window.whole(SHAPE)), data * SCALE, rtol=1e-6)
    assert exposure.gain == pytest.approx(900.0 / SCALE)
    assert exposure.variance is not None
    assert float(exposure.variance.read(Window(0, 1, 0, 1))[0, 0]) == pytest.approx(SCALE**2 * 0.7 / 900)
    assert (exposure.psf_fwhm, exposure.mjd, exposure.variance_source) == (1.3, 58000.5, "gain+sky")
    assert exposure.saturation == pytest.approx(40.0 * SCALE)
    assert (tile.name, tile.reference, tile.survey) == ("field-1", "r", "generic")
    assert tile.band_names == ("g", "r")
    assert tile.band("g").exposures[0].variance_source == "measured"
    assert 0 <= tile.number < 2**36
    assert len(tile.files) == 3


@pytest.mark.parametrize("kind", ["variance", "weight", "rms"])
def test_variance_from_each_kind_of_map(tmp_path: Path, make_generic: Make, kind: str) -> None:
    values = {"variance": 4.0, "weight": 0.25, "rms": 2.0}
    map_values = np.full(SHAPE, values[kind])
    map_values[2, 3] = 0  # no information there
    write(tmp_path / "map.fits", map_values)
    exposure = band_r(make_generic(tmp_path, **{kind: "map.fits"}))
    cutout = exposure.read(Window.whole(SHAPE))
    assert exposure.variance_source == kind
    assert exposure.notes == ()
    assert cutout.variance is not None
    assert cutout.variance[10, 10] == pytest.approx(4.0 * SCALE**2, rel=1e-5)
    assert cutout.bad[2, 3]
    assert cutout.bad.sum() == 1


@pytest.mark.parametrize(
    ("given", "value", "used"), [("variance", 0.25, "weight"), ("weight", 4.0, "variance")]
)
def test_swapped_weight_and_variance_are_noticed(
    tmp_path: Path, make_generic: Make, given: str, value: float, used: str
) -> None:
    write(tmp_path / "map.fits", value)
    exposure = band_r(make_generic(tmp_path, **{given: "map.fits"}))
    assert exposure.variance_source == used
    assert f"given as {given}, but fits the noise of the image only as {used}" in exposure.notes[0]
    assert exposure.variance is not None
    assert float(exposure.variance.read(Window(0, 1, 0, 1))[0, 0]) == pytest.approx(4 * SCALE**2, rel=1e-5)


def test_a_map_that_fits_neither_way_is_kept_and_reported(tmp_path: Path, make_generic: Make) -> None:
    write(tmp_path / "map.fits", 400.0)
    exposure = band_r(make_generic(tmp_path, variance="map.fits"))
    assert exposure.variance_source == "variance"
    assert "implies a noise 10" in exposure.notes[0].replace("9.9", "10")


def test_mask_selectors_and_several_exposures(tmp_path: Path, make_generic: Make) -> None:
    path = make_generic(tmp_path)
    mask = np.zeros(SHAPE, np.uint8)
    mask[4, 5] = 2
    header = fits.getheader(tmp_path / "r.fits")
    data = fits.getdata(tmp_path / "r.fits")
    fits.HDUList(
        [fits.PrimaryHDU(), fits.ImageHDU(data, header, name="SCI"), fits.CompImageHDU(mask, name="DQ")]
    ).writeto(tmp_path / "multi.fits")
    text = path.read_text().split("[bands.r]")[0]
    entry = (
        '[[bands.R]]\nimage = "multi.fits[{}]"\nmask = "multi.fits[dq]"\nzero_point = 25\nwavelength = 6166\n'
    )
    path.write_text(text + entry.format("SCI") + entry.format(1))
    band = open_tile(path).band("r")
    assert len(band.exposures) == 2
    for exposure in band.exposures:
        found = exposure.read(Window.whole(SHAPE)).mask
        assert found[4, 5] == PixelFlag.BAD
        assert np.count_nonzero(found) == 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("zero_point", "zeropoint", r"unknown keyword 'zeropoint' in \[bands.g\].*did you mean 'zero_point'"),
        ('name = "field-1"', 'nam = "x"', "unknown keyword 'nam'.*did you mean 'name'"),
        ('name = "field-1"', 'name = "../x"', "the name of the tile is '../x'"),
        ('reference = "r"', 'reference = "k"', "reference is 'k'; expected one of g, r"),
        ("zero_point = 22.5", "zero_point = true", "zero_point is True"),
        ("zero_point = 22.5", "zero_point = nan", "zero_point is nan"),
        ("wavelength = 4686", "wavelength = -1", "wavelength is -1"),
        ('image = "g.fits"', 'image = "h.fits"', r"h\.fits: no such file; it is named in"),
        ('image = "g.fits"', 'image = "g.fits[3]"', r"g\.fits\[3\]: no such HDU"),
        ('image = "g.fits"', "image = 3", "image is 3"),
        ("[bands.g]", "[bands.r]", "is no valid TOML"),
        ("[bands.g]", "[bands.R]", "the band r is described twice"),
        ("[bands.g]", "[bands.'a b']", "a band is named 'a b'"),
        ('name = "field-1"', "name = [", "is no valid TOML"),
        (
            "wavelength = 4686",
            'weight = "r.fits"\nrms = "r.fits"\nwavelength = 4686',
            "weight and rms are given",
        ),
        ('image = "g.fits"\n', "", r"image is missing in \[bands.g\]"),
    ],
)
def test_bad_descriptions(tmp_path: Path, make_generic: Make, old: str, new: str, message: str) -> None:
    path = make_generic(tmp_path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        open_tile(path)


def test_bad_maps(tmp_path: Path, make_generic: Make) -> None:
    write(tmp_path / "zero.fits", 0)
    write(tmp_path / "negative.fits", -1)
    for kind in ("variance", "weight", "rms"):
        for name in ("zero", "negative"):
            with pytest.raises(InputError, match=rf"{name}\.fits\[0\]: the {kind} map is nowhere positive"):
                open_tile(make_generic(tmp_path, **{kind: f"{name}.fits"}))
    fits.PrimaryHDU(np.ones((48, 63), "f4")).writeto(tmp_path / "narrow.fits")
    with pytest.raises(InputError, match=r"the mask has 63 x 48 pixels; expected the image's 64 x 48"):
        open_tile(make_generic(tmp_path, mask="narrow.fits"))


def test_bands_that_do_not_overlap(tmp_path: Path, make_generic: Make) -> None:
    with pytest.raises(InputError, match=r"g\.fits\[0\] \(band g\) does not overlap r\.fits\[0\] \(band r\)"):
        open_tile(make_generic(tmp_path, ra=151.0))


def test_constant_and_empty_images(tmp_path: Path, make_generic: Make) -> None:
    path = make_generic(tmp_path)
    header = fits.getheader(tmp_path / "g.fits")
    for value, message in ((np.nan, "no pixel of the image is finite"), (1.0, "every pixel of the image is")):
        fits.PrimaryHDU(np.full(SHAPE, value, "f4"), header).writeto(tmp_path / "g.fits", overwrite=True)
        with pytest.raises(InputError, match=message):
            open_tile(path)


def test_bands_can_be_chosen(tmp_path: Path, make_generic: Make) -> None:
    (source,) = find_tiles([make_generic(tmp_path)], bands=["g"])
    tile = read_tile(source)
    assert (tile.band_names, tile.reference) == (("g",), "g")
