"""Classification as part of the main job, with the weights that come with imcat."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from imcat.classify import stage
from imcat.classify.settings import ClassifySettings
from imcat.config import Config
from imcat.errors import ConfigError
from imcat.pipeline import catalogue_tile, process_tile
from imcat.scale.preload import practice_tile
from imcat.simulate.tiles import stream
from imcat.tile import Tile

QUICK = Config(detector="threshold", fit_models=False)
KINDS = ("star", "galaxy", "quasar")


def shares(catalogue: object) -> np.ndarray:
    return np.stack([np.asarray(catalogue[f"p_{k}"], float) for k in KINDS], 1)  # type: ignore[index]


def at_wavelength(tile: Tile, factor: float) -> Tile:
    bands = tuple(replace(band, wavelength=band.wavelength * factor) for band in tile.bands)
    return replace(tile, bands=bands)


def test_every_source_has_a_class_and_the_prior_is_bayes_rule() -> None:
    tile = practice_tile()
    sky = catalogue_tile(tile, QUICK)
    flat = catalogue_tile(tile, QUICK.replace(classify={"prior": "flat"}))
    assert shares(sky).sum(1) == pytest.approx(1, abs=1e-5)
    assert np.array_equal(np.asarray(sky["class"]), np.array(KINDS)[shares(sky).argmax(1)])
    log = np.stack([np.asarray(flat[f"class_loglike_{k}"], float) for k in KINDS], 1)
    assert np.exp(log) == pytest.approx(shares(flat), abs=1e-5)  # as many of each: the likelihoods themselves
    assert np.asarray(sky["class_loglike_star"]) == pytest.approx(np.asarray(flat["class_loglike_star"]))
    assert np.abs(shares(sky) - shares(flat)).max() > 0.01


def test_classes_do_not_depend_on_the_number_of_threads() -> None:
    tile = practice_tile()
    first, second = (process_tile(tile, QUICK, threads=n).catalogue for n in (1, 2))
    for name in ("p_star", "z_phot", "p_lens", "morph_disc", "unlike_training"):
        assert np.array_equal(np.asarray(first[name]), np.asarray(second[name]), equal_nan=True)


def test_without_it_there_are_no_such_columns() -> None:
    catalogue = catalogue_tile(practice_tile(), QUICK.replace(classify_sources=False))
    assert not {"class", "p_star", "z_phot", "p_lens"} & set(catalogue.columns)


def test_bands_that_it_does_not_know_are_left_out_and_named() -> None:
    result = process_tile(at_wavelength(practice_tile(), 4.0), QUICK, threads=1)
    assert sum("outside 2500 to 10500" in w for w in result.warnings) == 2
    assert np.isnan(shares(result.catalogue)).all()
    assert set(np.asarray(result.catalogue["class"]).tolist()) == {""}


def test_an_unknown_prior_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected one of sky, flat, spectroscopic"):
        ClassifySettings("bright")


def test_lenses_are_looked_for_in_stamps_wide_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    tile = next(stream("csst", 3, (256, 256))).tile
    wide = catalogue_tile(tile, QUICK)
    monkeypatch.setattr(stage, "lens_binning", lambda size, pixel: 1)
    narrow = catalogue_tile(tile, QUICK)
    assert len(wide) > 5
    assert np.array_equal(shares(wide), shares(narrow), equal_nan=True)
    assert np.abs(np.asarray(wide["lens_loglike"]) - np.asarray(narrow["lens_loglike"])).max() > 0.01
    # Ground-based pixels show enough as they are.
    plain = catalogue_tile(practice_tile(), QUICK)
    monkeypatch.undo()
    again = catalogue_tile(practice_tile(), QUICK)
    assert np.array_equal(np.asarray(plain["lens_loglike"]), np.asarray(again["lens_loglike"]))
