"""Opening FITS files: layouts, pixel types, damage."""

from __future__ import annotations

import bz2
import gzip
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from imcat.errors import InputError
from imcat.surveys.fits_bytes import first_bytes, open_bytes
from imcat.surveys.fits_header import Header
from imcat.surveys.fits_io import FitsFile, check_image, read_first_headers, split_selector
from imcat.surveys.fits_pixels import CompressedPixels, FilePixels
from imcat.surveys.sky_wcs import celestial_wcs, overlap_fraction
from imcat.tile import ArrayPixels
from imcat.window import Window, tile_windows

SHAPE = (37, 53)


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "i8", "f4", "f8"])
@pytest.mark.parametrize("compressed", [False, True])
def test_pixels_are_those_of_astropy(tmp_path: Path, dtype: str, compressed: bool) -> None:
    if compressed and dtype in ("i8", "f8"):
        pytest.skip("not a type that is tile-compressed without loss")
    data = np.random.default_rng(0).integers(0, 250, SHAPE).astype(dtype)
    kind = fits.CompImageHDU if compressed else fits.ImageHDU
    how = {"compression_type": "GZIP_1", "quantize_level": 0.0} if compressed else {}
    path = tmp_path / "a.fits"
    fits.HDUList([fits.PrimaryHDU(), kind(data, name="SCI", **how)]).writeto(path)
    file = FitsFile(path)
    assert file.image_hdu("sci").index == file.image_hdu().index == file.image_hdu("1").index == 1
    pixels = file.pixels(file.image_hdu(), factor=2.0)
    assert pixels.shape == SHAPE
    for window in [Window.whole(SHAPE), *tile_windows(SHAPE, 16), Window(3, 4, 50, 53)]:
        values = pixels.read(window)
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, 2 * data[window.slices].astype("f4"))
    whole = file.pixels(file.image_hdu(), integer=True).read(Window.whole(SHAPE))
    np.testing.assert_array_equal(whole, data)


def test_scaled_and_blank_integers(tmp_path: Path) -> None:
    raw = np.arange(12, dtype=np.int16).reshape(3, 4)
    hdu = fits.PrimaryHDU(raw)
    hdu.header["BSCALE"], hdu.header["BZERO"], hdu.header["BLANK"] = 0.5, 10.0, 5
    hdu.writeto(tmp_path / "a.fits", output_verify="ignore")
    # astropy drops the scaling of an array in memory, so it goes in as bytes.
    text = (tmp_path / "a.fits").read_bytes()
    assert b"BLANK" in text
    file = FitsFile(tmp_path / "a.fits")
    values = file.pixels(file.image_hdu()).read(Window(0, 3, 0, 4))
    scale = file.hdus[0].header.get("BSCALE", 1.0)
    zero = file.hdus[0].header.get("BZERO", 0.0)
    expected = raw * scale + zero
    expected = np.where(raw == 5, np.nan, expected)
    np.testing.assert_allclose(values, expected.astype("f4"))


def test_plain_files_are_read_in_pieces_by_many_threads(tmp_path: Path) -> None:
    data = np.random.default_rng(0).normal(0, 1, (300, 200)).astype("f4")
    fits.PrimaryHDU(data).writeto(tmp_path / "a.fits")
    file = FitsFile(tmp_path / "a.fits")
    pixels = file.pixels(file.image_hdu())
    assert isinstance(pixels, FilePixels)
    windows, wrong = tile_windows(data.shape, 64), []

    def work() -> None:
        wrong.extend(w for w in windows if not np.array_equal(pixels.read(w), data[w.slices]))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_big_compressed_images_are_unpacked_tile_by_tile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imcat.surveys.fits_pixels._UNPACK_PIXELS", 100)
    data = np.arange(40 * 30, dtype="i4").reshape(40, 30)
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(data)]).writeto(tmp_path / "a.fits.fz")
    file = FitsFile(tmp_path / "a.fits.fz")
    pixels = file.pixels(file.image_hdu())
    assert isinstance(pixels, CompressedPixels)
    np.testing.assert_array_equal(pixels.read(Window(7, 9, 3, 20)), data[7:9, 3:20])
    pixels.close()


@pytest.mark.parametrize(
    ("pack", "message"),
    [
        (lambda raw: raw[:-3000], r"truncated: it ends after \d+ bytes; expected at least"),
        (lambda raw: raw[:1000], "truncated inside a header"),
        (lambda raw: b"", "the file is empty"),
        (lambda raw: b"\xff" * 5000, "is no FITS file"),
        (lambda raw: bz2.compress(raw)[:-20], "the bzip2 stream is truncated"),
        (lambda raw: gzip.compress(raw)[:-20], "the gzip stream is truncated"),
        (lambda raw: b"BZh9" + b"x" * 500, "the bzip2 stream is damaged"),
        (
            lambda raw: raw.replace(b"BITPIX  =                  -32", b"BITPIX  =                  -31"),
            "BITPIX",
        ),
        (lambda raw: raw.replace(b"NAXIS1  ", b"NAXISX  "), "NAXIS1 = None"),
        (lambda raw: raw[:200] + b"\xfe" + raw[201:], "not ASCII"),
    ],
)
def test_damage_is_one_line(tmp_path: Path, pack: Callable[[bytes], bytes], message: str) -> None:
    path = tmp_path / "a.fits"
    fits.PrimaryHDU(np.random.default_rng(0).normal(0, 1, (50, 60)).astype("f4")).writeto(path)
    path.write_bytes(pack(path.read_bytes()))
    with pytest.raises(InputError, match=message) as caught:
        FitsFile(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        FitsFile(tmp_path / "a.fits")
    with pytest.raises(InputError, match="is a folder"):
        open_bytes(tmp_path)


def test_hdus_without_an_image(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    table = fits.BinTableHDU.from_columns([fits.Column("A", "J", array=[1, 2])])
    cube = fits.ImageHDU(np.zeros((2, 3, 4), "f4"))
    fits.HDUList([fits.PrimaryHDU(), table, cube]).writeto(path)
    file = FitsFile(path)
    with pytest.raises(InputError, match=r"a\.fits: no HDU holds a 2-D image"):
        file.image_hdu()
    with pytest.raises(InputError, match=r"a\.fits\[0\]: the HDU has no data"):
        file.image_hdu("0")
    with pytest.raises(InputError, match=r"\[1\]: the HDU is a table"):
        file.image_hdu("1")
    with pytest.raises(InputError, match=r"\[2\]: the image has 3 dimensions \(4 x 3 x 2\)"):
        file.image_hdu("2")
    with pytest.raises(InputError, match=r"\[SCI\]: no such HDU; expected one of 0, 1, 2"):
        file.image_hdu("SCI")


def test_tables(tmp_path: Path) -> None:
    columns = [
        fits.Column("A", "2J", array=[[1, 2], [3, 4]]),
        fits.Column("B", "6E", dim="(3,2)", array=np.arange(12.0).reshape(2, 2, 3)),
        fits.Column("C", "5A", array=["ab", "c"]),
        fits.Column("D", "PE()", array=np.array([[1.0], [2.0, 3.0]], dtype=object)),
        fits.Column("E", "L", array=[True, False]),
    ]
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "a.fits")
    table = FitsFile(tmp_path / "a.fits").table(1)
    np.testing.assert_array_equal(table.column("a"), [[1, 2], [3, 4]])
    np.testing.assert_array_equal(table.column("B"), np.arange(12.0).reshape(2, 2, 3))
    assert list(table.column("C")) == [b"ab", b"c"]
    np.testing.assert_array_equal(table.array("D", 1), [2.0, 3.0])
    with pytest.raises(InputError, match="no column X; expected one of A, B"):
        table.column("X")


def test_first_headers_take_few_bytes(tmp_path: Path) -> None:
    data = np.random.default_rng(0).normal(0, 1, (400, 500)).astype("f4")
    hdu = fits.PrimaryHDU(data)
    hdu.header["RUN"] = 94
    hdu.writeto(tmp_path / "a.fits")
    raw = (tmp_path / "a.fits").read_bytes()
    (tmp_path / "a.bz2").write_bytes(bz2.compress(raw, 1)[:200_000])
    assert first_bytes(tmp_path / "a.bz2", 5760) == raw[:5760]
    assert read_first_headers(tmp_path / "a.bz2")["RUN"] == 94
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(data, name="X")]).writeto(tmp_path / "b.fits")
    assert read_first_headers(tmp_path / "b.fits")["EXTNAME"] == "X"


def test_images_without_information() -> None:
    shape = (200, 30)
    for value, message in (
        (np.nan, "no pixel of the image is finite"),
        (3.0, "every pixel of the image is 3"),
    ):
        image = np.full(shape, value, np.float32)
        with pytest.raises(InputError, match=message):
            check_image(ArrayPixels(image), "x.fits", 0)
        image[1, 1], image[2, 2] = 1.0, 2.0  # rows that the sample does not see
        check_image(ArrayPixels(image), "x.fits", 0)


def test_selectors() -> None:
    assert split_selector("a[b].fits") == ("a[b].fits", None)
    assert split_selector("a.fits[ 2 ]") == ("a.fits", "2")


def header_of(wcs: Any, **changes: Any) -> Header:
    header = Header(dict(wcs.to_header()))
    header.update(changes)
    return header


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"CTYPE1": "", "CTYPE2": ""}, "has no celestial WCS"),
        ({"CTYPE1": "GLON-TAN", "CTYPE2": "GLAT-TAN"}, "has the axes 'GLON-TAN'"),
        ({"CDELT1": 0.0}, "makes no sense"),
        ({"CDELT1": 3000.0}, "a pixel is .* arcsec wide"),
        ({"CRVAL2": float("nan")}, "makes no sense"),
        ({"CRVAL2": 95.0}, "makes no sense"),
        ({"CRPIX1": 1e9}, "makes no sense"),
        ({"CUNIT1": "furlong"}, "makes no sense"),
        ({"CTYPE1": "RA---XYZ"}, "makes no sense"),
        ({"RADESYS": "FK4", "EQUINOX": 1950.0}, "is in FK4, equinox 1950.0"),
    ],
)
def test_nonsense_wcs(make_wcs: Callable[..., Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=rf"x\.fits\[0\]: .*{message}"):
        celestial_wcs(header_of(make_wcs((50, 60)), **changes), (50, 60), "x.fits", 0)


def test_wcs_of_old_and_distorted_headers(make_wcs: Callable[..., Any]) -> None:
    plain = header_of(make_wcs((50, 60)))
    expected = make_wcs((50, 60)).pixel_to_world_values(3.0, 7.0)
    del plain["RADESYS"]
    old = Header({**plain, "RADECSYS": "FK5", "CUNIT1": "degree", "CUNIT2": "degrees"})

    def check(header: Header) -> None:
        found = celestial_wcs(header, (50, 60), "x").pixel_to_world_values(3.0, 7.0)
        np.testing.assert_allclose(found, expected, rtol=1e-12)

    check(old)
    failed = Header({**plain, "CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV", "PV1_0": -9999, "PV1_1": -9999})
    check(failed)
    scamp = Header({**plain, "PV1_1": 1.0, "PV1_5": 0.0, "PV2_1": 1.0, "PV2_7": 0.0})
    check(scamp)


def test_overlap_on_the_sky(make_wcs: Callable[..., Any]) -> None:
    shape = (100, 100)
    first = make_wcs(shape, 10.0, 0.0)
    half = make_wcs(shape, 10.0 + 50 * 0.396 / 3600, 0.0)
    assert overlap_fraction(first, shape, half, shape) == pytest.approx(0.5, abs=0.03)
    for ra, dec in ((10.1, 0.0), (190.0, 0.0), (10.0, 89.0)):
        assert overlap_fraction(first, shape, make_wcs(shape, ra, dec), shape) == 0
    assert overlap_fraction(first, shape, first, shape) == 1
