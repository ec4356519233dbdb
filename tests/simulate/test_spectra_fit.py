"""The recipe's pieces and the card."""

from __future__ import annotations

import hashlib
import tomllib

import numpy as np
import pytest

import imcat.simulate.spectra_fit as recipe
from imcat.errors import InputError
from imcat.registry import weights_folder
from imcat.simulate.spectra_check import metrics_table, write_metrics
from imcat.simulate.spectra_file import FORMAT_VERSION, grid_wavelengths


def test_bins_keep_the_energy_of_a_line():
    wave = np.arange(4000.0, 8000.0, 1.0)
    line = np.where(np.abs(wave - 6000) < 3, 50.0, 0.0)
    binned = recipe._bin(wave, line)
    inside = np.isfinite(binned)
    area = np.sum(binned[inside]) * np.log(grid_wavelengths()[1] / grid_wavelengths()[0])
    assert area == pytest.approx(np.trapezoid(line * wave, wave), rel=0.01)
    assert not np.isfinite(binned[grid_wavelengths() < 3990]).any()


def test_ends_are_continued_without_a_step():
    wave = grid_wavelengths()
    black_body = 1 / wave**3 / np.expm1(1.4388e8 / wave / 6000)
    good = (wave > 3000) & (wave < 12000)
    filled = recipe._fill_ends(np.where(good, black_body, np.nan), good, recipe._wien)
    near = (wave > 2600) & (wave < 13500)
    np.testing.assert_allclose(filled[near], black_body[near], rtol=0.25)


def test_the_card_describes_the_file():
    folder = weights_folder()
    card = tomllib.loads(folder.joinpath("spectra.toml").read_text(encoding="utf-8"))
    data = folder.joinpath("spectra.safetensors").read_bytes()
    assert card["sha256"] == hashlib.sha256(data).hexdigest()
    assert card["format"] == FORMAT_VERSION
    assert len(data) < 600_000
    assert all({"what", "paper", "package", "licence"} <= set(origin) for origin in card["origin"])
    assert card["metrics"]
    assert card["known_failures"]


def test_metrics_replace_those_of_before(tmp_path):
    card = tmp_path / "spectra.toml"
    card.write_text('name = "spectra"\n', encoding="utf-8")
    write_metrics({"warp": {"u-g": 0.123456}, "speed": {"s": 1.0}}, card)
    write_metrics({"warp": {"u-g": 0.2}}, card)
    assert tomllib.loads(card.read_text(encoding="utf-8")) == {
        "name": "spectra",
        "metrics": {"warp": {"u-g": 0.2}},
    }
    assert "u-g 0.2" in metrics_table({"warp": {"u-g": 0.2}})


def test_a_folder_without_templates_is_refused(tmp_path):
    with pytest.raises(InputError, match="unpacked package"):
        recipe.main(["-o", str(tmp_path), "--barak", str(tmp_path)])
