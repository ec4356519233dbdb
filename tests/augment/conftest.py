"""Untrained generators for tests, in memory and as files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from imcat.augment.conditions import Ranges
from imcat.augment.light import LightGenerator, LightSettings
from imcat.augment.sky import SkyGenerator, SkySettings
from imcat.augment.trained import TrainedLight, TrainedSky

RANGES = Ranges((15.0, 24.0), (0.1, 6.0), (0.1, 1.0), (2500.0, 11000.0))
UGRIZ = ("u", "g", "r", "i", "z")
_LIGHT = LightSettings(latent=8, width=32, depth=2, patches=6)
_SKY = SkySettings(bands=5, width=8, depth=2)


@pytest.fixture(scope="session")
def light() -> TrainedLight:
    """A generator of galaxies away from the start, where all are smooth."""
    torch.manual_seed(3)
    generator = LightGenerator(_LIGHT)
    with torch.no_grad():
        generator.parts.weight.mul_(20)
        generator.whole.weight.mul_(30)
    return TrainedLight(generator.eval(), RANGES, {"sha256": "light"})


@pytest.fixture(scope="session")
def sky() -> TrainedSky:
    """A generator of sky of the bands of SDSS."""
    torch.manual_seed(4)
    return TrainedSky(SkyGenerator(_SKY).eval(), UGRIZ, {"sha256": "sky"})


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory, light: TrainedLight, sky: TrainedSky) -> Path:
    """A folder with their files, as training leaves them."""
    folder = tmp_path_factory.mktemp("weights")
    ranges = "".join(
        f"{name} = {list(getattr(RANGES, name))}\n" for name in ("magnitude", "radius", "axis_ratio", "wavelength")
    )  # fmt: skip
    settings = _LIGHT
    generator = f"latent = {settings.latent}\nwidth = {settings.width}\ndepth = {settings.depth}\npatches = {settings.patches}\n"
    for survey in ("sdss", "csst"):
        _write(
            folder, f"light_{survey}", save(light.generator.state_dict()),
            f"[generator]\n{generator}[ranges]\n{ranges}morphologies = []\n",
        )  # fmt: skip
    _write(
        folder, "sky_sdss", save(sky.generator.state_dict()),
        f'bands = ["u", "g", "r", "i", "z"]\n[generator]\nbands = 5\nwidth = {_SKY.width}\ndepth = {_SKY.depth}\nchannels = 2\n',
    )  # fmt: skip
    return folder


def _write(folder: Path, name: str, data: bytes, card: str) -> None:
    (folder / f"{name}.safetensors").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    (folder / f"{name}.toml").write_text(f'format = 1\nsha256 = "{digest}"\n{card}')
