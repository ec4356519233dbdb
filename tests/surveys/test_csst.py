"""CSST level 1: round trip, grouping, zero points, weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.time import Time

from imcat.errors import InputError, OutputError
from imcat.flags import PixelFlag
from imcat.surveys import SurveySettings, find_tiles, read_tile
from imcat.surveys.csst_constants import CHIP_BANDS, WAVELENGTHS
from imcat.surveys.csst_level1 import band_of, parse_name
from imcat.surveys.csst_write import Level1Exposure, write_level1
from imcat.surveys.fits_header import Header
from imcat.window import Window

Make = Callable[..., list[Path]]
WHOLE = Window(0, 96, 0, 128)


@pytest.mark.parametrize("source_noise", [True, False])
def test_round_trip(tmp_path: Path, make_level1: Make, source_noise: bool) -> None:
    image, weight, _ = make_level1(tmp_path, 7, 100000100, source_noise=source_noise)
    (source,) = find_tiles([tmp_path])
    assert (source.name, source.survey, len(source.files)) == ("100000100-07", "csst", 3)
    tile = read_tile(source)
    exposure = tile.reference_exposure
    scale = 3631e9 * 10 ** (-0.4 * 25.5)
    np.testing.assert_allclose(exposure.image.read(WHOLE), fits.getdata(image) * scale, rtol=1e-6)
    cutout = exposure.read(WHOLE)
    # Sky and detector only, whether or not the weights contain the star.
    assert cutout.variance is not None
    assert np.median(cutout.variance[~cutout.bad]) == pytest.approx(55 / 150**2 * scale**2, rel=1e-4)
    assert cutout.variance[48, 64] == pytest.approx(55 / 150**2 * scale**2, rel=0.05)
    assert cutout.mask[3, 4] == PixelFlag.BAD | PixelFlag.NO_DATA
    assert cutout.mask[5, 6] == PixelFlag.SATURATED | PixelFlag.COSMIC_RAY | PixelFlag.NO_DATA
    assert cutout.mask[7, 8] == PixelFlag.GHOST | PixelFlag.NO_DATA
    assert exposure.gain == pytest.approx(150 / scale)
    assert exposure.psf_fwhm == pytest.approx(0.15)
    assert exposure.variance_source == "weight"
    assert exposure.notes == tile.notes == ()
    start = Time("2027-08-10T08:19:50", scale="utc").tai.mjd
    assert exposure.mjd == pytest.approx(start + 75 / 86400, abs=1e-8)
    assert exposure.wcs.pixel_to_world_values(63.5, 47.5) == pytest.approx((30.0, 5.0))
    assert (tile.reference, tile.band_names) == ("i", ("i",))
    del weight


def test_grouping(tmp_path: Path, make_level1: Make) -> None:
    width = 128 * 0.074 / 3600
    make_level1(tmp_path, 7, 100000100)  # i, defines a tile
    make_level1(tmp_path, 24, 100000101, ra=30 + 0.1 * width)  # i again, nearly the same sky
    make_level1(tmp_path, 9, 100000102, ra=30 - 0.3 * width)  # r, 70 % of it
    make_level1(tmp_path, 12, 100000103, ra=30 + 0.2 * width)  # nuv
    make_level1(tmp_path, 24, 100000104, ra=30 + 0.6 * width)  # i, a tile of its own
    make_level1(tmp_path, 8, 100000105, ra=40.0)  # g, far away
    make_level1(tmp_path, 14, 100000106, ra=40.0)  # u, with it
    sources = {s.name: s for s in find_tiles([tmp_path])}
    assert sorted(sources) == ["100000100-07", "100000104-24", "100000105-08"]
    first = sources["100000100-07"]
    assert [band for band, _ in first.parts] == ["i", "i", "r", "nuv"]
    assert [band for band, _ in sources["100000104-24"].parts] == ["i", "nuv"]  # nuv covers 60 % of it
    assert [band for band, _ in sources["100000105-08"].parts] == ["g", "u"]
    tile = read_tile(first)
    assert tile.band_names == ("nuv", "r", "i")
    assert tile.reference == "i"
    assert len(tile.band("i").exposures) == 2
    assert "100000100_07" in tile.reference_exposure.name
    strict = find_tiles([tmp_path], settings=SurveySettings(csst_min_overlap=0.95))
    assert len(strict) == 6
    by_r = find_tiles([tmp_path], settings=SurveySettings(csst_reference="r"))
    assert "100000102-09" in [s.name for s in by_r]
    assert read_tile(by_r[0]).reference == by_r[0].parts[0][0]
    (only_nuv, *_) = find_tiles([tmp_path], bands=["nuv"])
    assert all("_12_" in name for name in only_nuv.files)
    assert len(only_nuv.files) == 3


@pytest.mark.parametrize("value", [-1, -9999.0, -99, 0.0])
@pytest.mark.parametrize("key", ["ZP", "CCDZP"])
def test_failed_flux_calibration_is_refused(
    tmp_path: Path, make_level1: Make, key: str, value: float
) -> None:
    image = make_level1(tmp_path, 7, 100000100)[0]
    with fits.open(image, mode="update") as hdus:
        hdus[1].header.rename_keyword("ZP", key) if key != "ZP" else None
        hdus[1].header[key] = value
    (source,) = find_tiles([image])
    with pytest.raises(InputError, match=rf"the flux calibration failed \({key} = {value}"):
        read_tile(source)


def test_old_zero_point_and_failed_distortion(tmp_path: Path, make_level1: Make) -> None:
    image = make_level1(tmp_path, 7, 100000100, zero_point=25.0)[0]
    with fits.open(image, mode="update") as hdus:
        hdus[1].header.rename_keyword("ZP", "CCDZP")
        for axis, name in ((1, "RA---TPV"), (2, "DEC--TPV")):
            hdus[1].header[f"CTYPE{axis}"] = name
            for n in range(7):
                hdus[1].header[f"PV{axis}_{n}"] = -9999.0
    (source,) = find_tiles([image])
    exposure = read_tile(source).reference_exposure
    assert exposure.zero_point == 25.0
    assert exposure.wcs.pixel_to_world_values(63.5, 47.5) == pytest.approx((30.0, 5.0))


def test_missing_weight_and_flags(tmp_path: Path, make_level1: Make) -> None:
    image, weight, flags = make_level1(tmp_path, 7, 100000100)
    weight.unlink()
    flags.unlink()
    (source,) = find_tiles([image])
    assert ["wht" in note for note in source.notes] == [True, False]
    exposure = read_tile(source).reference_exposure
    assert exposure.variance_source == "measured"
    assert exposure.mask is None


def test_weight_file_with_variances(tmp_path: Path, make_level1: Make) -> None:
    _, weight, _ = make_level1(tmp_path, 7, 100000100, source_noise=False)
    with fits.open(weight, mode="update") as hdus, np.errstate(divide="ignore"):
        hdus[1].data = np.where(hdus[1].data > 0, 1 / hdus[1].data, 0).astype("f4")
    (source,) = find_tiles([tmp_path])
    exposure = read_tile(source).reference_exposure
    assert "holds variances" in exposure.notes[0]
    scale = 3631e9 * 10 ** (-0.4 * 25.5)
    assert exposure.variance is not None
    assert np.nanmedian(exposure.variance.read(WHOLE)) == pytest.approx(55 / 150**2 * scale**2, rel=1e-3)


def test_weights_that_are_nowhere_positive(tmp_path: Path, make_level1: Make) -> None:
    _, weight, _ = make_level1(tmp_path, 7, 100000100)
    with fits.open(weight, mode="update") as hdus:
        hdus[1].data[:] = 0
    (source,) = find_tiles([tmp_path])
    with pytest.raises(InputError, match=r"_wht_L1\.fits: the weight is nowhere positive"):
        read_tile(source)


@pytest.mark.parametrize(
    ("name", "key", "kind"),
    [
        ("MSC_MS_210525220000_100000020_06_img.fits", "100000020-06", "img"),
        ("CSST_MSC_MS_SCI_20270810081950_20270810082220_100000100_06_wht_L1.fits", "100000100-06", "wht"),
        ("CSST_MSC_MS_SCI_20270810081950_20270810082220_100000100_06_flg_L1_1.fits", "100000100-06", "flg"),
        (
            "CSST_MSC_MS_SCIE_20270810081950_20270810082220_10100000100_25_L1_V01_img.fits.gz",
            "10100000100-25",
            "img",
        ),
        (
            "CSST_MSC_MS_SCIE_20270810081950_20270810082220_10100000100_25_img_L1_V01.fits",
            "10100000100-25",
            "img",
        ),
    ],
)
def test_names_of_all_cycles(name: str, key: str, kind: str) -> None:
    parsed = parse_name(f"/a/b/{name}")
    assert parsed is not None
    assert (parsed.key, parsed.kind) == (key, kind)


def test_band_from_filter_or_detector() -> None:
    assert band_of(Header({"FILTER": "NUV"}), "x") == "nuv"
    assert band_of(Header({"FILTER": "y1"}), "x") == "y"
    assert band_of(Header({"DETECTOR": "CHIP08"}), "x") == "g"
    assert band_of(Header(), "MSC_MS_210525220000_100000020_06_img.fits") == "y"
    with pytest.raises(InputError, match="expected a filter NUV"):
        band_of(Header({"FILTER": "GV"}), "x.fits")
    assert set(CHIP_BANDS.values()) == set(WAVELENGTHS)


def test_writer_refuses_what_is_no_level1(tmp_path: Path, make_wcs: Callable[..., object]) -> None:
    ones = np.ones((4, 4), np.float32)
    good = Level1Exposure(
        ones,
        ones,
        ones.astype(np.uint16),
        make_wcs((4, 4)),
        7,
        100000100,
        datetime(2027, 1, 1, tzinfo=UTC),
        25.0,
    )
    for bad in (replace(good, detector=10), replace(good, weight=ones[:3]), replace(good, obsid=1)):
        with pytest.raises(OutputError, match="cannot be CSST level 1"):
            write_level1(tmp_path, bad)
    assert list(tmp_path.iterdir()) == []
    first, second = write_level1(tmp_path / "a", good)[0], write_level1(tmp_path / "b", good)[0]
    assert first.read_bytes() == second.read_bytes()


def test_headers_are_valid_and_compressed_maps_hold_the_same(
    tmp_path: Path, make_wcs: Callable[..., object]
) -> None:
    rng = np.random.default_rng(1)
    image, weight = (rng.normal(5, 1, (6, 9)).astype(np.float32) for _ in range(2))
    flags = rng.integers(0, 1 << 16, (6, 9)).astype(np.uint16)
    exposure = Level1Exposure(
        image, weight, flags, make_wcs((6, 9)), 7, 100000100, datetime(2027, 1, 1, tzinfo=UTC), 25.0
    )
    plain, packed = (write_level1(tmp_path / str(p), exposure, packed=p) for p in (False, True))
    assert [p.name.partition(".")[2] for p in packed] == ["fits", "fits.gz", "fits.gz"]
    for one, two, data in zip(plain, packed, (image, weight, flags), strict=True):
        with fits.open(one) as a, fits.open(two) as b:
            a.verify("exception")
            assert np.array_equal(a[1].data, data)
            assert np.array_equal(b[1].data, data)
            assert a[1].header.tostring() == b[1].header.tostring()
            assert (a[1].header["NAXIS1"], a[1].header["FILTER"], a[0].header["OBSID"]) == (
                9,
                "i",
                "100000100",
            )
    assert write_level1(tmp_path / "again", exposure, packed=True)[2].read_bytes() == packed[2].read_bytes()
