"""Every numbered example runs; the scene of the example tile is what it claims to be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

import imcat
from imcat.surveys import find_tiles, read_tile

ROOT = Path(imcat.__file__).parents[1]
EXAMPLES = ROOT / "examples"
TILE = EXAMPLES / "tile"


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    """The script that makes the tile, imported by its path."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("make_example_tile", EXAMPLES / "make_example_tile.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("script", sorted(p.name for p in EXAMPLES.glob("[0-9]*.py")))
def test_example_runs(script: str, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, EXAMPLES / script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert any(word in done.stdout for word in ("sources", "new stamps are right"))
    assert list(tmp_path.iterdir()) == []  # nothing is left where it was started


def test_tile_is_small_and_complete() -> None:
    frames = {f"frame-{b}-000099-1-0011.fits.bz2" for b in "ugriz"}
    assert {p.name for p in TILE.iterdir()} == frames | {"truth.parquet"}
    assert sum(p.stat().st_size for p in TILE.iterdir()) < 4e6


def test_script_makes_the_same_bytes_again(maker: ModuleType, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        scene = maker.make_scene(np.random.default_rng(3), (60, 80), density=20.0)
        maker.write_scene(scene, tmp_path / folder)
    names = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert len(names) == 6
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_committed_tile_is_what_the_script_makes(maker: ModuleType) -> None:
    scene = maker.example_scene()
    truth = pq.read_table(TILE / "truth.parquet")
    assert truth["type"].to_pylist() == list(scene.truth["type"])
    for column in ("x", "y", "r_mag", "half_light_radius"):
        np.testing.assert_allclose(truth[column].to_numpy(), scene.truth[column], rtol=1e-9, atol=1e-9)
    for name, image in scene.images.items():
        with fits.open(TILE / f"frame-{name}-000099-1-0011.fits.bz2") as hdus:
            difference = np.abs(hdus[0].data - image.data)
        # Ten bits of mantissa: half a step is one part in 2048 of the value.
        assert (difference <= np.abs(image.data) / 1000).mean() > 0.999


def test_noise_is_that_of_sky_and_detector(maker: ModuleType) -> None:
    scene = maker.make_scene(np.random.default_rng(1), (200, 300), density=0.0)
    assert len(scene.truth["x"]) == 0
    for image in scene.images.values():
        pull = image.data / np.sqrt(image.variance)
        # 60,000 pixels: the mean is known to 0.004, the width to 0.003.
        assert abs(pull.mean()) < 0.02
        assert pull.std() == pytest.approx(1.0, abs=0.015)


def test_bands_show_the_same_source_at_its_offset(maker: ModuleType) -> None:
    scene = maker.make_scene(np.random.default_rng(2), (120, 160), density=30.0, faintest=20.0)
    inside = (np.abs(scene.truth["x"] - 80) < 50) & (np.abs(scene.truth["y"] - 60) < 30)
    ra, dec = scene.truth["ra"][inside], scene.truth["dec"][inside]
    assert inside.sum() > 3
    for image in scene.images.values():
        x, y = image.wcs.all_world2pix(ra, dec, 0)
        np.testing.assert_allclose(x - image.model.offset[0], scene.truth["x"][inside], atol=1e-6)
        np.testing.assert_allclose(y - image.model.offset[1], scene.truth["y"][inside], atol=1e-6)


@pytest.mark.parametrize(("radius", "ratio", "fracdev"), [(2.0, 0.6, 0.0), (2.0, 0.6, 1.0), (4.0, 0.3, 0.0)])
def test_profiles_agree_with_galsim(maker: ModuleType, radius: float, ratio: float, fracdev: float) -> None:
    galsim = pytest.importorskip("galsim", reason="galsim absent: install imcat[simulate]")
    fwhm = 3.3
    weights, cov = maker._components(radius, ratio, np.deg2rad(30.0), fracdev, fwhm)
    image = np.zeros((101, 101))
    maker._add(image, 50.0, 50.0, 1.0, weights, cov, 1e-12)
    kind = galsim.DeVaucouleurs if fracdev else galsim.Exponential
    # GalSim's shear keeps the area; here the radius is that of the major axis.
    galaxy = (
        kind(half_light_radius=radius).transform(1, 0, 0, ratio).rotate(30 * galsim.degrees).withFlux(1.0)
    )
    seen = galsim.Convolve(galaxy, galsim.Moffat(beta=3, fwhm=fwhm))
    reference = seen.drawImage(nx=101, ny=101, scale=1, method="no_pixel").array
    np.testing.assert_allclose(image, reference, atol=0.004 * reference.max())


def test_scene_becomes_the_tile_that_its_files_give(maker: ModuleType, tmp_path: Path) -> None:
    scene = maker.make_scene(np.random.default_rng(4), (80, 100), density=10.0)
    maker.write_scene(scene, tmp_path)
    (source,) = find_tiles([tmp_path])
    read, made = read_tile(source), maker.to_tile(scene)
    assert read.name == made.name
    assert read.band_names == made.band_names
    for (band, a), (_, b) in zip(read.exposures(), made.exposures(), strict=True):
        from imcat.window import Window

        window = Window.whole(a.shape)
        one, two = a.read(window), b.read(window)
        assert one.variance is not None
        assert two.variance is not None
        # Pixels differ by the mantissa's ten bits, variances by the calibration's.
        np.testing.assert_allclose(one.data, two.data, rtol=2e-3, atol=1e-3 * float(np.abs(two.data).max()))
        np.testing.assert_allclose(one.variance, two.variance, rtol=0.01)
        assert a.gain == pytest.approx(b.gain, rel=0.01), band.name
        assert a.mjd == pytest.approx(b.mjd, abs=2e-3)
