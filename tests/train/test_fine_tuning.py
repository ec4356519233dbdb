"""A user's own classes: split by object, learned, calibrated, saved, and used from the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.table import Table

from imcat.backbones.vit import VitSettings
from imcat.classify.own_classes import OwnHead, load_own
from imcat.cli import main
from imcat.errors import ConfigError, InputError, UsageError
from imcat.train.fine_tuning import FineTuneRecipe, Labelled, fine_tune, macro_f1, split_objects
from imcat.train.own_data import read_rows
from imcat.train.recipes import run_recipe

SMALL = VitSettings(size=16, patch=8, width=32, depth=1, heads=2)


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imcat.train.fine_tuning.use_all_cores", lambda: None)


def slopes(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images whose middle is bright or dark."""
    rng = np.random.default_rng(seed)
    bright = rng.random(n) < 0.4
    y, x = np.mgrid[:24, :24] - 11.5
    images = rng.normal(0, 1, (n, 24, 24)) + np.where(bright, 6, -6)[:, None, None] * np.exp(
        -(x**2 + y**2) / 20
    )
    return images, np.where(bright, "bright", "dark")


class TestSplit:
    def test_is_stratified_and_keeps_objects_together(self) -> None:
        rng = np.random.default_rng(1)
        objects = rng.integers(0, 100, 400)
        label = (objects % 10 == 0).astype(int)
        rows, judged = split_objects(label, objects, 0.2, 3)
        assert np.array_equal(np.sort(np.concatenate([rows, judged])), np.arange(400))
        assert not set(objects[rows]) & set(objects[judged])
        held = np.unique(objects[judged])
        assert (held % 10 == 0).sum() == 2  # of ten
        assert len(held) == pytest.approx(20, abs=1)

    def test_each_class_is_on_both_sides(self) -> None:
        rows, judged = split_objects(np.array([0] * 50 + [1, 1]), None, 0.02, 1)
        assert (rows >= 50).sum() == (judged >= 50).sum() == 1

    def test_a_class_of_one_object_is_refused(self) -> None:
        with pytest.raises(UsageError, match="class 1 has 1 object"):
            split_objects(np.array([0, 0, 0, 1]), None, 0.3, 1)


def test_macro_f1_is_that_of_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(2)
    label, said = rng.integers(0, 4, 300), rng.integers(0, 3, 300)
    wanted = sklearn.f1_score(label, said, average="macro", labels=range(4), zero_division=0)
    assert macro_f1(label, said, 4) == pytest.approx(wanted)


def test_training_stops_when_it_gets_no_better_and_keeps_the_best() -> None:
    chance = torch.Generator().manual_seed(1)
    values = torch.randn(60, 1, 16, 16, generator=chance)
    rows = Labelled((values, torch.ones_like(values), torch.zeros(60, 1, 4)), torch.arange(60) % 2)
    torch.manual_seed(1)
    recipe = FineTuneRecipe(epochs=40, patience=3, batch=20, rate=3e-3)
    # There is nothing to learn: the loss on other rows soon grows.
    tuned = fine_tune(OwnHead(SMALL, 2), rows.take(np.arange(30)), rows.take(np.arange(30, 60)), recipe)
    losses = [h["validation"] for h in tuned.history]
    assert len(losses) < 40
    assert tuned.best == int(np.argmin(losses)) == len(losses) - 1 - 3
    with torch.no_grad():
        logits = tuned.network(*rows.take(np.arange(30, 60)).given)
    again = torch.nn.functional.cross_entropy(logits, rows.label[30:], torch.ones(2))
    assert float(again) == pytest.approx(losses[tuned.best], rel=0.02)


def test_stamps_from_recipe_to_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, kind = slopes(160, 1)
    np.savez(tmp_path / "s.npz", images=images, kind=kind)
    text = '[fine_tuning]\nname = "mine"\ndata = "s.npz"\nlabels = "kind"\nepochs = 6\nbatch = 16\nbackbone = ""\n'
    (tmp_path / "r.toml").write_text(text)
    card = run_recipe(tmp_path / "r.toml", tmp_path / "out")
    own = load_own(card)
    assert own.classes == ("bright", "dark")
    assert own.card["accuracy"] > 0.9
    new, truth = slopes(50, 2)
    np.savez(tmp_path / "new.npz", images=new)
    out = tmp_path / "classes.csv"
    assert main(["classify", str(tmp_path / "new.npz"), "-o", str(out), "--model", str(card)]) == 0
    assert "50 of 50 rows classified" in capsys.readouterr().out
    table = Table.read(out)
    assert np.mean(np.asarray(table["class"]) == truth) > 0.9
    assert np.asarray(table["p_bright"]) + np.asarray(table["p_dark"]) == pytest.approx(1, abs=1e-5)
    # A table is not what it learned from.
    (tmp_path / "t.csv").write_text("r_mag\n20\n")
    assert main(["classify", str(tmp_path / "t.csv"), "-o", str(out), "--model", str(card)]) == 2
    assert "was trained on stamps" in capsys.readouterr().err


def test_labels_that_cannot_be_learned_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", images=np.zeros((20, 24, 24)), kind=np.zeros(20), short=np.zeros(3))
    recipe = tmp_path / "r.toml"
    for labels, message in (
        ("kind", "20 labels of 1 classes"),
        ("other", "no column 'other'"),
        ("short", "expected 20 values"),
    ):
        recipe.write_text(f'[fine_tuning]\ndata = "s.npz"\nlabels = "{labels}"\nbackbone = ""\n')
        with pytest.raises(InputError, match=message):
            run_recipe(recipe, tmp_path / "out")
    recipe.write_text('[fine_tuning]\ndata = "s.npz"\nvalidation = 1.5\n')
    with pytest.raises(ConfigError, match=r"validation is 1\.5"):
        run_recipe(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('pixel = "a"', r"fine_tuning\.pixel is 'a'; expected"),
        ("pixel = 0.0", r"fine_tuning\.pixel is 0\.0"),
        ("rate = -1.0", r"fine_tuning\.rate is -1\.0"),
        ("seed = -1", r"fine_tuning\.seed is -1"),
        ('wavelengths = "r"', r"fine_tuning\.wavelengths is 'r'"),
        ("wavelengths = [-5.0]", r"fine_tuning\.wavelengths are"),
        ('name = "../up"', r"fine_tuning\.name is '\.\./up'"),
    ],
)
def test_impossible_settings_are_named(tmp_path: Path, line: str, message: str) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(f'[fine_tuning]\ndata = "s.npz"\nbackbone = ""\n{line}\n')
    with pytest.raises(ConfigError, match=rf"r\.toml: {message}"):
        run_recipe(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["fine_tuning = 3\n", '[pretraining]\n[samples]\nsurvey = "sdss"\n'])
def test_what_is_no_table_is_named(tmp_path: Path, content: str) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(content)
    with pytest.raises(ConfigError, match="expected lines below"):
        run_recipe(recipe, tmp_path / "out")


def test_rows_without_a_label_teach_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    table = Table(
        {"r_mag": rng.uniform(16, 20, 60), "kind": np.arange(60) % 2 + 1, "object": np.arange(60) // 2}
    )
    table = Table(table, masked=True)
    table["kind"].mask[:20] = True
    table["object"].mask[40:] = True
    table.write(tmp_path / "t.ecsv")
    own = read_rows(tmp_path / "t.ecsv", FineTuneRecipe(labels="kind", objects="object"), (3000.0, 10000.0))
    assert own.classes == ["1", "2"]
    assert len(own.rows) == 40
    assert own.objects is not None
    assert len(np.unique(own.objects[:20])) == 10
    assert len(np.unique(own.objects[20:])) == 20  # each without a name is one of its own


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("format = 1\n")
    with pytest.raises(InputError, match=r"there is no x\.safetensors"):
        load_own(tmp_path / "x.toml")
