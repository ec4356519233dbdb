"""Whatever is done to a file, a reader returns a tile or raises InputError."""

from __future__ import annotations

import bz2
import gzip
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from astropy.io import fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imcat.errors import InputError
from imcat.surveys import find_tiles, read_tile
from imcat.surveys.sdss import FieldId
from imcat.surveys.sdss_write import write_frames
from imcat.tile import Tile
from imcat.window import Window

HOW = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@st.composite
def damage(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Truncation or changed bytes, at places that favour the headers."""
    place = st.one_of(st.floats(0, 1), st.floats(0, 0.1))
    cut = draw(st.one_of(st.none(), place))
    changes = draw(st.lists(st.tuples(place, st.integers(0, 255)), max_size=4))

    def apply(raw: bytes) -> bytes:
        data = bytearray(raw if cut is None else raw[: int(cut * len(raw))])
        for where, value in changes:
            if data:
                data[min(int(where * len(data)), len(data) - 1)] = value
        return bytes(data)

    return apply


def use(folder: Path) -> Tile | None:
    """Find, open and read everything; None if it was refused."""
    try:
        (source,) = find_tiles([folder])
        tile = read_tile(source, threads=2)
        for _, exposure in tile.exposures():
            cutout = exposure.read(Window.whole(exposure.shape))
            assert cutout.data.shape == exposure.shape
    except InputError as error:
        message = str(error)
    else:
        return tile
    assert "\n" not in message
    return None


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory, make_frame: Callable[..., Any]) -> dict[str, bytes]:
    """One frame in every packing."""
    folder = tmp_path_factory.mktemp("frames")
    (path,) = write_frames(folder, FieldId(94, 1, 12), [make_frame("r", (24, 32))], compress=False)
    raw = path.read_bytes()
    with fits.open(path) as hdus:
        image = fits.CompImageHDU(hdus[0].data, hdus[0].header, compression_type="RICE_1")
        fits.HDUList([fits.PrimaryHDU(), image, *(h.copy() for h in hdus[1:])]).writeto(folder / "x.fz")
    return {
        "": raw,
        ".bz2": bz2.compress(raw),
        ".gz": gzip.compress(raw, mtime=0),
        ".fz": (folder / "x.fz").read_bytes(),
    }


@pytest.mark.parametrize("suffix", ["", ".bz2", ".gz", ".fz"])
def test_undamaged_frames_are_read(tmp_path: Path, frames: dict[str, bytes], suffix: str) -> None:
    (tmp_path / f"frame-r-000094-1-0012.fits{suffix}").write_bytes(frames[suffix])
    assert use(tmp_path) is not None


@pytest.mark.parametrize("suffix", ["", ".bz2", ".gz", ".fz"])
@HOW
@given(change=damage())
def test_damaged_frames(frames: dict[str, bytes], suffix: str, change: Callable[[bytes], bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / f"frame-r-000094-1-0012.fits{suffix}").write_bytes(change(frames[suffix]))
        use(Path(folder))


@HOW
@given(change=damage(), which=st.sampled_from(["img", "wht", "flg"]))
def test_damaged_level1(
    tmp_path_factory: pytest.TempPathFactory,
    make_level1: Callable[..., list[Path]],
    change: Callable[[bytes], bytes],
    which: str,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = make_level1(Path(folder), 7, 100000100, shape=(24, 32))
        (path,) = (p for p in paths if f"_{which}_" in p.name)
        path.write_bytes(change(path.read_bytes()))
        use(Path(folder))


VALUES = st.one_of(
    st.text(max_size=8).map(
        lambda s: '"' + "".join(c for c in s if c.isprintable() and c not in '"\\') + '"'
    ),
    st.integers(-(10**6), 10**6).map(str),
    st.floats().map(str),
    st.sampled_from(["true", "[]", "{}", "1979-05-27", '"r.fits"', '"r.fits[0]"', '"g.fits[1]"', '"."']),
)
KEYS = st.sampled_from(
    [
        "image",
        "zero_point",
        "wavelength",
        "gain",
        "sky",
        "variance",
        "weight",
        "rms",
        "mask",
        "psf_fwhm",
        "mjd",
        "x",
    ]
)


@HOW
@given(changes=st.dictionaries(KEYS, VALUES, max_size=4), junk=st.text(max_size=10), where=st.floats(0, 1))
def test_random_descriptions(
    tmp_path: Path, make_generic: Callable[..., Path], changes: dict[str, str], junk: str, where: float
) -> None:
    path = make_generic(tmp_path / "tile", shape=(16, 20))
    kept = [line for line in path.read_text().splitlines() if line.split(" =")[0] not in changes]
    text = "\n".join(itertools.chain(kept, (f"{k} = {v}" for k, v in changes.items())))
    use_or_refuse(path, text)
    at = int(where * len(text))
    use_or_refuse(path, text[:at] + junk + text[at:])


def use_or_refuse(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="replace")
    use(path)
