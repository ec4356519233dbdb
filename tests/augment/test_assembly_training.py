"""Augmented tiles as samples of the detector's and the classifiers' training."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from imcat.augment.assembly import generators_key
from imcat.errors import ConfigError
from imcat.simulate.scene import Models
from imcat.stamps import StampSettings
from imcat.train.detection_packs import load_views, sample_jobs, simulate_samples, view_jobs
from imcat.train.detection_recipe import DetectionRecipe
from imcat.train.detection_samples import sample_stream
from imcat.train.source_samples import SampleSettings, simulated_sample


def test_a_share_of_the_samples_for_detection_is_augmented(weights: Path) -> None:
    def draw(generated: float) -> list[np.ndarray]:
        found = sample_stream("sdss", 5, 64, generated=generated, generators=str(weights))
        return [sample.signal for sample in islice(found, 6)]

    plain, all_of_them, some = draw(0.0), draw(1.0), draw(0.5)
    assert not any(np.array_equal(a, b) for a, b in zip(plain, all_of_them, strict=True))
    augmented = [np.array_equal(a, b) for a, b in zip(some, all_of_them, strict=True)]
    untouched = [np.array_equal(a, b) for a, b in zip(some, plain, strict=True)]
    assert 0 < sum(augmented) < 6
    assert [not a for a in augmented] == untouched


def test_only_training_samples_of_a_recipe_are_augmented(tmp_path: Path, weights: Path) -> None:
    recipe = replace(DetectionRecipe().smoke(), side=64, crop=64, generated=1.0, generators=str(weights))
    judged, trained = (view_jobs(recipe, tmp_path, 2, 1, 1, augmented=a)[0] for a in (False, True))
    assert (judged.generated, trained.generated) == (0.0, 1.0)
    names = [sample_jobs(recipe, tmp_path, 2, 1, augmented=a)[0][0].name for a in (False, True)]
    key = generators_key("sdss", str(weights))
    assert names == ["sdss-1-64-0000.npz", f"sdss-1-64-0000-generated-1-{key}.npz"]
    # Other generators, other samples.
    assert key != generators_key("sdss")
    paths = simulate_samples(recipe, tmp_path, 1, 2, 1, augmented=True)
    assert len(load_views(paths, recipe)) == 2
    with pytest.raises(ConfigError, match="generated is 2; expected a share of the samples"):
        DetectionRecipe(generated=2)


def test_samples_for_classifiers_hold_augmented_tiles(weights: Path) -> None:
    settings = SampleSettings(
        width=192, height=160, stars=6, galaxies=10, quasars=4, lenses=0.0, lookalikes=0.0, fit_models=False,
        generators=str(weights),
    )  # fmt: skip
    models, stamps = Models.load(), StampSettings(size=16)
    plain = simulated_sample(settings, 0, models, stamps)
    made = simulated_sample(replace(settings, generated=1.0), 0, models, stamps)
    assert len(plain) > 5
    assert len(made) > 5
    assert set(made.truth) == set(plain.truth)
    assert not np.array_equal(plain.packed[:5], made.packed[:5])
    assert np.array_equal(plain.packed, simulated_sample(settings, 0, models, stamps).packed)


def test_settings_without_a_share_name_the_files_that_they_always_named() -> None:
    settings = SampleSettings()
    assert settings.name == "sdss-71-cf9eb4ff"
    assert SampleSettings(role="lenses", spacing=16.0, survey="csst").name == "csst-71-f3247dc3"
    assert replace(settings, generated=0.5).name != settings.name
    with pytest.raises(
        ConfigError, match=r"samples.generated is 0\.5; expected a share of the tiles, 0 to 1, and 0 where"
    ):
        SampleSettings(role="lenses", spacing=16.0, generated=0.5)
    with pytest.raises(ConfigError, match=r"samples.generated is -0\.5"):
        SampleSettings(generated=-0.5)
