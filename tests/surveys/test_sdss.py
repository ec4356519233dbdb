"""SDSS frames: round trip, grouping, variance, time, companions."""

from __future__ import annotations

import bz2
import gzip
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from imcat.errors import InputError, OutputError
from imcat.flags import PixelFlag
from imcat.surveys import SurveySettings, find_tiles, read_tile
from imcat.surveys.sdss import FieldId
from imcat.surveys.sdss_constants import BANDS, NMGY_TO_NJY, dark_variance, gain
from imcat.surveys.sdss_mask import interpolated_cores, saturated_pixels
from imcat.surveys.sdss_psf import double_gaussian_fwhm
from imcat.surveys.sdss_write import float_compress, sky_grid, write_frames
from imcat.tile import Tile
from imcat.window import Window

FIELD = FieldId(3918, 3, 213)


def only(folder: Path, **how: Any) -> Tile:
    (source,) = find_tiles([folder])
    return read_tile(source, **how)


@pytest.mark.parametrize("pack", ["plain", "bz2", "gz", "fz"])
def test_round_trip_keeps_pixels_and_variance(
    tmp_path: Path, make_frame: Callable[..., Any], pack: str
) -> None:
    frame = make_frame("r")
    (path,) = write_frames(tmp_path, FIELD, [frame], compress=pack == "bz2", quantise=False)
    if pack == "gz":
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
        path.unlink()
    if pack == "fz":
        with fits.open(path) as hdus:
            image = fits.CompImageHDU(
                hdus[0].data, hdus[0].header, compression_type="GZIP_2", quantize_level=0.0
            )
            fits.HDUList([fits.PrimaryHDU(), image, *(h.copy() for h in hdus[1:])]).writeto(str(path) + ".fz")
        path.unlink()
    tile = only(tmp_path, threads=2)
    exposure = tile.reference_exposure
    whole = Window.whole(exposure.shape)
    np.testing.assert_allclose(exposure.image.read(whole), frame.data * NMGY_TO_NJY, rtol=1e-6)
    # The sky is a plane, which bilinear interpolation keeps exactly.
    y, x = np.mgrid[:48, :64]
    sky = 120.0 + 10.0 * ((y + 0.5) / 48 - 0.5) - 6.0 * ((x + 0.5) / 64 - 0.5)
    inside = (slice(4, -4), slice(4, -4))  # half a grid step at the edges takes the edge's value
    expected = (frame.calibration * NMGY_TO_NJY) ** 2 * (
        sky / gain(3918, 3, "r") + dark_variance(3918, 3, "r")
    )
    assert exposure.variance is not None
    np.testing.assert_allclose(exposure.variance.read(whole)[inside], expected[inside], rtol=2e-5)
    part = Window(11, 20, 7, 33)
    np.testing.assert_array_equal(exposure.variance.read(part), exposure.variance.read(whole)[part.slices])
    assert exposure.variance_source == "calibration"
    assert exposure.gain == pytest.approx(
        gain(3918, 3, "r") / (np.median(frame.calibration) * 3631.0), rel=1e-6
    )
    assert (tile.name, tile.reference, tile.primary_rows) == ("003918-3-0213", "r", None)
    assert exposure.wcs.pixel_to_world_values(31.5, 23.5) == pytest.approx((150.0, 2.0))


def test_written_bytes_depend_on_the_arguments_only(tmp_path: Path, make_frame: Callable[..., Any]) -> None:
    first = write_frames(tmp_path / "a", FIELD, [make_frame("i")])[0]
    second = write_frames(tmp_path / "b", FIELD, [make_frame("i")])[0]
    assert first.read_bytes() == second.read_bytes()
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["frame-i-003918-3-0213.fits.bz2"]


def test_float_compress_keeps_ten_bits() -> None:
    values = np.random.default_rng(0).normal(0, 1, 1000).astype(np.float32)
    rounded = float_compress(values)
    assert np.max(np.abs(rounded / values - 1)) <= 2.0**-10
    np.testing.assert_array_equal(float_compress(rounded), rounded)
    assert np.isnan(float_compress(np.array([np.nan], np.float32)))[0]


def test_writer_refuses_parts_of_different_shapes(tmp_path: Path, make_frame: Callable[..., Any]) -> None:
    with pytest.raises(OutputError, match="expected one shape"):
        write_frames(tmp_path, FIELD, [replace(make_frame("r"), sky=sky_grid((48, 63)))])


def test_bands_of_a_field_are_one_tile_and_missing_ones_are_fine(
    tmp_path: Path, make_frame: Callable[..., Any]
) -> None:
    write_frames(tmp_path / "a", FIELD, [make_frame(b) for b in "ugz"], compress=False)
    write_frames(tmp_path / "b", FieldId(3918, 3, 214), [make_frame("r")], compress=False)
    sources = find_tiles([tmp_path, str(tmp_path / "a" / "frame-*")])
    assert [s.name for s in sources] == ["003918-3-0213", "003918-3-0214"]
    assert sources[0].number == 3918 << 16 | 3 << 12 | 213 < 2**36
    assert pickle.loads(pickle.dumps(sources[0])) == sources[0]
    tile = read_tile(sources[0], SurveySettings(ebv=0.03), threads=2)
    assert tile.band_names == ("u", "g", "z")
    assert tile.reference == "g"
    assert tile.extinction == {"ebv": 0.03}
    (chosen,) = find_tiles([tmp_path / "a"], bands=["g"])
    assert read_tile(chosen).band_names == ("g",)
    assert len(chosen.files) == 1
    with pytest.raises(InputError, match="no tile has the band i"):
        find_tiles([tmp_path], bands=["g", "i"])


def test_header_decides_where_it_disagrees_with_the_name(sdss_folder: Path) -> None:
    path = sdss_folder / "frame-r-003918-3-0213.fits.bz2"
    path.rename(sdss_folder / "frame-r-003918-3-0999.fits.bz2")
    (source,) = find_tiles([sdss_folder])
    assert source.name == "003918-3-0213"
    assert "unlike the name" in source.notes[0]
    assert read_tile(source).band_names == ("g", "r")


def test_name_decides_where_the_header_says_nothing(sdss_folder: Path) -> None:
    path = sdss_folder / "frame-r-003918-3-0213.fits.bz2"
    raw = bz2.decompress(path.read_bytes())
    for key in (b"RUN     ", b"CAMCOL  ", b"FRAME   "):
        raw = raw.replace(key, b"X" + key[1:], 1)
    path.write_bytes(bz2.compress(raw))
    (source,) = find_tiles([sdss_folder])
    assert [band for band, _ in source.parts] == ["g", "r"]
    assert read_tile(source).band_names == ("g", "r")


def test_two_files_of_one_band_are_refused(sdss_folder: Path) -> None:
    path = sdss_folder / "frame-r-003918-3-0213.fits.bz2"
    (sdss_folder / path.name.removesuffix(".bz2")).write_bytes(bz2.decompress(path.read_bytes()))
    with pytest.raises(InputError, match="one file for each band"):
        find_tiles([sdss_folder])


def test_frame_without_calibration_is_measured(tmp_path: Path, make_frame: Callable[..., Any]) -> None:
    (path,) = write_frames(tmp_path, FIELD, [make_frame("r")], compress=False)
    with fits.open(path) as hdus:
        image = hdus[0].copy()
    image.writeto(path, overwrite=True)
    exposure = only(tmp_path).reference_exposure
    assert exposure.variance is None
    assert exposure.variance_source == "measured"
    assert "measured from the image" in exposure.notes[0]


def test_calibration_of_another_width_is_refused(tmp_path: Path, make_frame: Callable[..., Any]) -> None:
    (path,) = write_frames(tmp_path, FIELD, [make_frame("r")], compress=False)
    with fits.open(path) as hdus:
        fits.HDUList([hdus[0].copy(), fits.ImageHDU(np.ones(63, "f4")), hdus[2].copy()]).writeto(
            path, overwrite=True
        )
    with pytest.raises(InputError, match=r"\[1\]: the calibration vector has 63 columns; expected 64"):
        only(tmp_path)


def test_gain_and_dark_variance_change_with_the_run() -> None:
    assert dark_variance(1400, 4, "z") == 9.61
    assert dark_variance(1500, 4, "z") == 12.6025
    assert all(gain(5000, c, b) > 1 and dark_variance(5000, c, b) > 0.5 for c in range(1, 7) for b in BANDS)
    with pytest.raises(InputError, match="column 1 to 6"):
        gain(5000, 7, "r")


def test_saturation_from_counts_and_from_interpolated_cores() -> None:
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:60, :60]
    star = 30000.0 * np.exp(-0.5 * ((y - 30) ** 2 + (x - 30) ** 2) / 4.0)
    counts = star + rng.normal(0, 1, star.shape) * np.sqrt(100 + star / 4.7)
    calibration = np.full(60, 0.005, np.float32)
    clean = saturated_pixels((counts * 0.005).astype("f4"), calibration, 100.0, 40000.0, 4.7)
    assert not clean.any()
    level = saturated_pixels((counts * 0.005).astype("f4"), calibration, 100.0, 20000.0, 4.7)
    np.testing.assert_array_equal(level > 0, counts >= 19900.0)
    for row in range(28, 33):
        counts[row, 26:34] = 9000.0 + 200 * row  # a bled core, filled along rows
    filled = saturated_pixels((counts * 0.005).astype("f4"), calibration, 100.0, 40000.0, 4.7)
    assert (filled[28:33, 26:34] == PixelFlag.SATURATED).all()
    off = saturated_pixels((counts * 0.005).astype("f4"), calibration, 100.0, 4e4, 4.7, cores=False)
    assert not off.any()


def test_rows_sharper_than_any_seeing_are_interpolated() -> None:
    counts = np.full((3, 5), 1000.0, np.float32)
    counts[1, 2] = 45000.0
    found = interpolated_cores(counts, np.arange(3), 4.7)
    assert found.sum() == 1
    assert found[1, 2]
    assert not interpolated_cores(counts, np.array([1, 5, 9]), 4.7).any()


def fpm_file(path: Path, shape: tuple[int, int]) -> None:
    """Ten planes; INTERP has spans, SATUR boxes only, the others are empty."""
    primary = fits.PrimaryHDU()
    primary.header["MASKROWS"], primary.header["MASKCOLS"] = shape
    spans = np.array([5, 2, 6, 6, 3, 3], ">i2").view("u1")
    interp = fits.BinTableHDU.from_columns(
        [
            fits.Column("nspan", "J", array=[2]),
            fits.Column("s", "PB()", array=np.array([spans, spans[:0]], dtype=object)[:1]),
        ]
    )
    boxes = [
        fits.Column(n, "J", array=[v])
        for n, v in zip(("rmin", "rmax", "cmin", "cmax"), (9, 10, 1, 2), strict=True)
    ]
    empty = [
        fits.BinTableHDU.from_columns([fits.Column("nspan", "J", array=np.zeros(0, int))]) for _ in range(8)
    ]
    fits.HDUList([primary, interp, fits.BinTableHDU.from_columns(boxes), *empty]).writeto(path)


def test_mask_from_fpm_file(sdss_folder: Path) -> None:
    fpm_file(sdss_folder / "fpM-003918-r3-0213.fit", (48, 64))
    (source,) = find_tiles([sdss_folder])
    assert any("fpM" in name for name in source.files)
    exposure = read_tile(source).reference_exposure
    assert exposure.mask is not None
    mask = exposure.mask.read(Window.whole(exposure.shape))
    expected = np.zeros((48, 64), np.uint16)
    expected[5, 2:7] = expected[6, 3] = PixelFlag.INTERPOLATED
    expected[9:11, 1:3] = PixelFlag.SATURATED
    np.testing.assert_array_equal(mask, expected)


def test_mask_of_another_size_is_refused(sdss_folder: Path) -> None:
    fpm_file(sdss_folder / "fpM-003918-r3-0213.fit", (48, 65))
    with pytest.raises(InputError, match=r"fpM.*65 x 48 pixels; expected 64 x 48"):
        only(sdss_folder)


def test_double_gaussian_width() -> None:
    assert double_gaussian_fwhm(2.0, 2.0, 0.3) == pytest.approx(2 * 2.3548200, rel=1e-6)
    assert np.isnan(double_gaussian_fwhm(-1.0, 2.0, 0.1))
