"""Tiles, bands and exposures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from imcat.errors import InputError
from imcat.flags import PixelFlag
from imcat.tile import ArrayPixels, Band, Exposure, Pixels, Tile
from imcat.window import Window

SHAPE = (6, 8)
WHOLE = Window.whole(SHAPE)


class OwnPixels:
    """A reader that hands out its own fresh arrays, as one of files does."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array

    @property
    def shape(self) -> tuple[int, int]:
        return (self._array.shape[0], self._array.shape[1])

    def read(self, window: Window) -> NDArray[Any]:
        return self._array[window.slices].copy()


def _exposure(image: NDArray[Any] | None = None, **keywords: Any) -> Exposure:
    image = np.ones(SHAPE, np.float32) if image is None else image
    for kind in ("variance", "mask"):
        if isinstance(keywords.get(kind), np.ndarray):
            keywords[kind] = ArrayPixels(keywords[kind])
    return Exposure("a.fits", ArrayPixels(image), None, **keywords)


def _tile(*names: str, reference: str = "r", **keywords: Any) -> Tile:
    bands = tuple(
        Band(n, 4000.0 + 1000 * k, (_exposure(np.full((4 + k, 9), 1.0)),)) for k, n in enumerate(names)
    )
    return Tile("field", "generic", 1, bands, reference, **keywords)


def test_arrays_are_pixels() -> None:
    assert isinstance(ArrayPixels(np.zeros(SHAPE)), Pixels)
    assert ArrayPixels(np.zeros(SHAPE)).shape == SHAPE
    assert not isinstance(np.zeros(SHAPE), Pixels)


def test_without_variance_and_mask_all_pixels_are_good() -> None:
    image = np.arange(48, dtype=np.float32).reshape(SHAPE)
    cutout = _exposure(image).read(Window(1, 4, 2, 7))
    np.testing.assert_array_equal(cutout.data, image[1:4, 2:7])
    assert cutout.variance is None
    assert not cutout.mask.any()
    assert not cutout.any_bad
    assert not cutout.bad.any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_not_finite_are_bad(value: float) -> None:
    image = np.ones(SHAPE, np.float32)
    image[2, 3] = value
    image[4, 4] = -value
    cutout = _exposure(image).read(WHOLE)
    assert cutout.any_bad
    assert list(zip(*np.nonzero(cutout.bad), strict=True)) == [(2, 3), (4, 4)]
    assert cutout.data[2, 3] == 0
    assert cutout.mask[2, 3] == PixelFlag.NO_DATA


def test_finite_pixels_whose_sum_is_not_finite_are_good() -> None:
    cutout = _exposure(np.full(SHAPE, 3e38, np.float32)).read(WHOLE)
    assert not cutout.any_bad


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_pixels_without_variance_are_bad(value: float) -> None:
    variance = np.full(SHAPE, 2.0, np.float32)
    variance[1, 1] = value
    cutout = _exposure(variance=variance).read(WHOLE)
    assert cutout.bad.sum() == 1
    assert cutout.bad[1, 1]
    assert cutout.data[1, 1] == 0
    assert cutout.mask[1, 1] & PixelFlag.NO_DATA
    assert cutout.variance is not None
    np.testing.assert_array_equal(cutout.variance[~cutout.bad], 2)


@pytest.mark.parametrize("bit", list(PixelFlag))
def test_bits_of_the_mask_decide_what_is_bad(bit: PixelFlag) -> None:
    mask = np.zeros(SHAPE, np.uint16)
    mask[3, 5] = bit
    cutout = _exposure(mask=mask).read(WHOLE)
    useless = {"BAD", "HOT", "COSMIC_RAY", "TRAIL", "NO_DATA"}
    assert cutout.bad[3, 5] == (bit.name in useless)
    assert cutout.data[3, 5] == (0 if bit.name in useless else 1)
    assert cutout.mask[3, 5] == bit
    assert cutout.bad.sum() == cutout.any_bad


def test_saturation_is_flagged_and_its_pixels_are_used() -> None:
    image = np.ones(SHAPE, np.float32)
    image[2, 2], image[2, 3], image[0, 0] = 50.0, 49.9, np.nan
    cutout = _exposure(image, saturation=50.0).read(WHOLE)
    assert cutout.mask[2, 2] == PixelFlag.SATURATED
    assert cutout.mask[2, 3] == 0
    assert cutout.data[2, 2] == 50
    assert not cutout.bad[2, 2]
    assert cutout.mask[0, 0] == PixelFlag.NO_DATA


@pytest.mark.parametrize("reader", [ArrayPixels, OwnPixels])
def test_the_source_of_the_pixels_is_never_written_to(reader: type) -> None:
    image, variance = np.ones(SHAPE, np.float32), np.ones(SHAPE, np.float32)
    mask = np.zeros(SHAPE, np.uint16)
    image[1, 1], variance[2, 2], mask[3, 3] = np.nan, 0, PixelFlag.BAD
    before = [a.copy() for a in (image, variance, mask)]
    exposure = Exposure("a.fits", reader(image), None, reader(variance), reader(mask), saturation=0.5)
    cutout = exposure.read(WHOLE)
    assert cutout.bad.sum() == 3
    cutout.data[:], cutout.mask[:] = 7, 7
    for now, then in zip((image, variance, mask), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize("dtype", [">f4", "<f8", "int16", "uint8"])
def test_any_type_of_pixel_becomes_native_float32(dtype: str) -> None:
    image = np.arange(48).reshape(SHAPE).astype(dtype)
    cutout = _exposure(image, mask=np.zeros(SHAPE, ">u2")).read(WHOLE)
    assert cutout.data.dtype == np.dtype(np.float32)
    assert cutout.data.dtype.isnative
    assert cutout.mask.dtype == np.dtype(np.uint16)
    np.testing.assert_array_equal(cutout.data, np.arange(48).reshape(SHAPE))


@pytest.mark.parametrize("kind", ["variance", "mask"])
def test_arrays_of_different_shapes_are_refused(kind: str) -> None:
    with pytest.raises(
        InputError, match=rf"^a\.fits: the {kind} has 9 x 6 pixels; expected the image's 8 x 6$"
    ):
        _exposure(**{kind: np.zeros((6, 9), np.uint16)})


def test_a_band_needs_an_exposure() -> None:
    with pytest.raises(InputError, match="band g has no exposure"):
        Band("g", 4700.0, ())


def test_tile_knows_its_bands() -> None:
    tile = _tile("g", "r", "i")
    assert tile.band_names == ("g", "r", "i")
    assert tile.band("i").wavelength == 6000
    assert tile.reference_exposure is tile.band("r").exposures[0]
    assert tile.shape == (5, 9)
    assert [(band.name, e.shape) for band, e in tile.exposures()] == [
        ("g", (4, 9)),
        ("r", (5, 9)),
        ("i", (6, 9)),
    ]


def test_tile_without_bands() -> None:
    with pytest.raises(InputError, match="tile field has no band; expected at least one"):
        _tile()


def test_tile_with_a_band_twice() -> None:
    with pytest.raises(InputError, match="names a band twice: g, r, g"):
        _tile("g", "r", "g")


def test_tile_without_its_reference() -> None:
    with pytest.raises(InputError, match="no band 'z' to be the reference; expected one of g, r"):
        _tile("g", "r", reference="z")


def test_unknown_band() -> None:
    with pytest.raises(InputError, match="tile field has no band 'z'; expected one of g, r"):
        _tile("g", "r").band("z")
