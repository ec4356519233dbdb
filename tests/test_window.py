"""Rectangles of pixels."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from imcat.errors import ConfigError
from imcat.window import Window, tile_windows


def test_shape_and_index() -> None:
    window, image = Window(2, 5, 1, 8), np.arange(100).reshape(10, 10)
    assert window.shape == image[window.slices].shape == (3, 7)
    assert image[window.slices][0, 0] == 21


@pytest.mark.parametrize(
    ("window", "empty"),
    [
        (Window(0, 1, 0, 1), False),
        (Window(3, 3, 0, 5), True),
        (Window(0, 5, 4, 4), True),
        (Window(4, 2, 0, 5), True),
    ],
)
def test_empty(window: Window, empty: bool) -> None:
    assert window.empty is empty


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        (Window(-3, 5, 2, 40), Window(0, 5, 2, 20)),
        (Window(1, 2, 3, 4), Window(1, 2, 3, 4)),
        (Window(-9, -2, 0, 5), Window(0, 0, 0, 5)),
        (Window(30, 40, 50, 60), Window(10, 10, 20, 20)),
    ],
)
def test_clip(window: Window, expected: Window) -> None:
    assert window.clip((10, 20)) == expected


def test_grow_stops_at_the_edges() -> None:
    assert Window(2, 5, 6, 9).grow(3, (100, 10)) == Window(0, 8, 3, 10)
    assert Window(2, 5, 6, 9).grow(0, (100, 10)) == Window(2, 5, 6, 9)


def test_whole() -> None:
    assert Window.whole((7, 9)) == Window(0, 7, 0, 9)


@pytest.mark.parametrize("size", [1, 3, 7, 20, 1000])
@pytest.mark.parametrize("shape", [(20, 33), (1, 1), (7, 21)])
def test_windows_cover_each_pixel_once(shape: tuple[int, int], size: int) -> None:
    seen = np.zeros(shape, int)
    windows = tile_windows(shape, size)
    for window in windows:
        assert not window.empty
        assert max(window.shape) <= size
        assert (window.y0 % size, window.x0 % size) == (0, 0)
        seen[window.slices] += 1
    assert (seen == 1).all()
    assert windows == sorted(windows, key=lambda w: (w.y0, w.x0))


def test_an_image_without_pixels_has_no_windows() -> None:
    assert tile_windows((0, 5), 3) == []


@pytest.mark.parametrize("size", [0, -4])
def test_impossible_size(size: int) -> None:
    with pytest.raises(ConfigError, match=f"window of {size} pixels is impossible"):
        tile_windows((5, 5), size)


def test_window_is_a_key_and_travels() -> None:
    window = Window(1, 2, 3, 4)
    assert {window: 1}[pickle.loads(pickle.dumps(window))] == 1
    with pytest.raises(AttributeError):
        window.y0 = 5  # type: ignore[misc]
