"""Pre-training and training of the classifier on toy stamps and photometry: batches, gaps, checkpoints, learning."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import save
from torch import Tensor, nn

import imcat.train.classification as classification
import imcat.train.pretrain as pretraining
import imcat.train.recalibration as recalibration
from imcat.backbones.vit import VitSettings
from imcat.catalogue.fields import AB_FLUX
from imcat.classify.calibration import MODES, Calibration
from imcat.classify.network import MORPHOLOGIES, Answer, Measured, Seeing, measured
from imcat.classify.photometry import table_photometry
from imcat.classify.prior import EDGES
from imcat.classify.trained import FORMAT, load_classifier
from imcat.errors import ConfigError, InputError, UsageError
from imcat.simulate.scene import Models
from imcat.simulate.sources import Kind
from imcat.stamps import CONDITIONS, Stamps, StampSettings, band_conditions, compress
from imcat.surveys.extinction import band_extinction
from imcat.train.card_text import write_with_card
from imcat.train.classification import (
    ClassifierRecipe,
    _padded,
    _simulated_losses,
    answers,
    classification_loss,
    table_losses,
    train_classifier,
)
from imcat.train.classification_card import calibrate, write_classifier
from imcat.train.classification_data import (
    LabelledSet,
    Labels,
    TableSet,
    drop,
    simulated_sets,
    table_set,
    without_fits,
)
from imcat.train.lens_samples import lens_sample
from imcat.train.loop import Average, cosine_rate, load_checkpoint, parameter_groups, save_checkpoint
from imcat.train.pretrain import PretrainRecipe, pretrain
from imcat.train.source_samples import (
    SampleSettings,
    SourceSample,
    pack,
    read_sample,
    stamps_of,
    unpack,
    write_sample,
)
from imcat.train.spectroscopic import SpectroscopicTable
from imcat.train.stamp_sets import StampSet, stamp_batches, turned

WAVES = {"u": 3560.0, "g": 4720.0, "r": 6170.0, "i": 7490.0}
TINY = VitSettings(size=16, patch=8, width=16, depth=1, heads=2, mixtures=4)
SIDE = 16


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Networks as small as these only wait for more."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (classification, pretraining):
            patch.setattr(module, "use_all_cores", lambda: None)
        yield


def cut(n: int, bands: int, seed: int = 1, spread: float = 10.0) -> Stamps:
    """Noise, with some pixels that have no data."""
    rng = np.random.default_rng(seed)
    valid = (rng.random((n, bands, SIDE, SIDE)) < 0.9).astype(np.uint8)
    signal = rng.normal(0, spread, valid.shape).astype(np.float32) * valid
    noise = rng.uniform(1, 3, (n, bands)).astype(np.float32)
    return Stamps(signal, valid, noise, np.geomspace(3500, 9000, bands), np.full(bands, 1.2), 0.4)


def random_set(n: int = 40, bands: int = 3, seed: int = 1) -> StampSet:
    stamps = cut(n, bands, seed)
    return StampSet(pack(stamps), band_conditions(stamps))


def toy(n: int, seed: int, bands: tuple[str, ...] = ("g", "r")) -> SourceSample:
    """Stars, galaxies and quasars that colour and width tell apart."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 3, n)
    mag = rng.uniform(18, 20, n)
    colour = np.array([1.2, 0.6, 0.0])[kind] + rng.normal(0, 0.05, n)
    v, u = np.mgrid[:SIDE, :SIDE] - 0.5 * (SIDE - 1)
    width = np.where(kind == Kind.GALAXY, 3.0, 1.2)[:, None, None]
    blob = np.exp(-0.5 * (u**2 + v**2) / width**2) / width**2
    signal = np.zeros((n, len(bands), SIDE, SIDE), np.float32)
    columns: dict[str, NDArray[Any]] = {"half_light_radius": 0.5 * width[:, 0, 0]}
    for k, band in enumerate(bands):
        flux = AB_FLUX * 10 ** (-0.4 * (mag + colour * (np.log(6170 / WAVES[band]) / np.log(6170 / 4720))))
        columns |= {f"{band}_cmodel_flux": flux, f"{band}_cmodel_flux_err": flux * 0.02}
        signal[:, k] = 100 * (flux / flux.mean())[:, None, None] * blob + rng.normal(0, 1, blob.shape)
    names = np.array(["star", "galaxy", "quasar"])[kind]
    truth = {
        "type": names, "morphology": np.where(kind == Kind.GALAXY, rng.choice(["smooth", "spiral"], n), "point"),
        "is_lens": rng.random(n) < 0.1, "detailed": rng.random(n) < 0.5, "r_mag": mag,
        "bulge_fraction": np.where(kind == Kind.GALAXY, rng.random(n), np.nan), "ebv": rng.uniform(0, 0.1, n),
        "z_true": np.where(kind == Kind.QUASAR, 2.0, 0.3) + rng.uniform(-0.05, 0.05, n),
    }  # fmt: skip
    waves, fwhm = np.array([WAVES[b] for b in bands]), np.full(len(bands), 1.2)
    stamps = Stamps(
        signal, np.ones(signal.shape, np.uint8), np.ones(signal.shape[:2], np.float32), waves, fwhm, 0.4
    )
    return SourceSample(columns, truth, bands, waves, fwhm, pack(stamps), stamps.noise, 0.4)


def toy_table(n: int, seed: int, name: str = "sdss17") -> TableSet:
    """The same sources as rows of a table."""
    sample = simulated_sets([toy(n, seed)])[0]
    table = SpectroscopicTable(
        name, sample.photometry, sample.labels.kind.numpy().astype(np.int8),
        sample.labels.kind.numpy().astype(np.int8), sample.labels.redshift.numpy(), np.zeros(n, np.int8),
    )  # fmt: skip
    return table_set(table)


class TestPack:
    def test_pixels_come_back_within_half_a_step(self) -> None:
        stamps = cut(20, 3, spread=300.0)
        values, valid = unpack(pack(stamps))
        np.testing.assert_array_equal(valid, stamps.valid)
        wanted = compress(stamps.signal)
        assert np.abs(wanted).max() < 12.7
        assert np.abs(values - wanted).max() <= 0.05 + 1e-6
        assert np.abs(values - wanted).max() > 0.04
        assert (values[stamps.valid == 0] == 0).all()

    def test_no_data_is_a_number_of_its_own(self) -> None:
        stamps = cut(1, 1)
        stamps.signal[0, 0, 0, :3], stamps.valid[0, 0, 0, :3] = [-1e12, 1e12, 0], [1, 1, 0]
        assert pack(stamps)[0, 0, 0, :3].tolist() == [-127, 127, -128]
        values, valid = unpack(pack(stamps))
        np.testing.assert_allclose(values[0, 0, 0, :3], [-12.7, 12.7, 0], rtol=1e-6)
        assert valid[0, 0, 0, :3].tolist() == [1, 1, 0]

    def test_samples_are_written_and_read(self, tmp_path: Path) -> None:
        sample = toy(7, 1)
        write_sample(tmp_path / "a.npz", sample)
        again = read_sample(tmp_path / "a.npz")
        assert (again.bands, again.pixel, len(again)) == (("g", "r"), 0.4, 7)
        np.testing.assert_array_equal(again.packed, sample.packed)
        for one, two in ((again.columns, sample.columns), (again.truth, sample.truth)):
            assert list(one) == list(two)
            assert all(np.array_equal(one[k], two[k], equal_nan=one[k].dtype.kind == "f") for k in one)


class TestStampSets:
    def test_batches_are_turned_by_the_eight_symmetries(self) -> None:
        stamps, rows = random_set(5), np.array([3, 1])
        plain = stamps.batch(rows)
        found = [stamps.batch(rows, turn) for turn in range(8)]
        assert torch.equal(found[0].values, plain.values)
        square = [torch.rot90(plain.values, k, (2, 3)) for k in range(4)]
        square += [s.flip(3) for s in square]
        pixels = [torch.rot90(plain.valid, k, (2, 3)) for k in range(4)]
        pixels += [s.flip(3) for s in pixels]
        for one, values, valid in zip(found, square, pixels, strict=True):
            # Data and the map of data go together, in all bands; the conditions stay.
            assert torch.equal(one.values, values)
            assert torch.equal(one.valid, valid)
            assert torch.equal(one.conditions, plain.conditions)
        assert len({one.values.numpy().tobytes() for one in found}) == 8

    def test_two_turns_are_a_turn(self) -> None:
        image = np.arange(9, dtype=np.int8).reshape(3, 3)
        every = {turned(image, k).tobytes() for k in range(8)}
        assert {turned(turned(image, a), b).tobytes() for a in range(8) for b in range(8)} == every

    def test_sets_are_gathered_by_the_number_of_bands(self) -> None:
        samples = [toy(4, 1), toy(5, 2, ("g", "r", "i")), toy(6, 3, ("r", "i"))]
        sets = StampSet.gather(samples)
        assert [s.packed.shape[:2] for s in sets] == [(10, 2), (5, 3)]
        np.testing.assert_array_equal(sets[0].packed[4:], samples[2].packed)
        assert sets[0].conditions.shape == (10, 2, CONDITIONS)
        expected = band_conditions(stamps_of(samples[2], np.arange(6)))
        np.testing.assert_array_equal(sets[0].conditions[4:], expected)
        # Each sample has the wavelengths of its own bands.
        assert not np.allclose(sets[0].conditions[0, 0], sets[0].conditions[4, 0])

    def test_batches_come_from_sets_in_proportion_to_their_size(self) -> None:
        sets = [random_set(30, 2), random_set(10, 3)]
        drawn = stamp_batches(sets, 16, np.random.default_rng(3))
        seen = [next(drawn) for _ in range(400)]
        which = np.array([w for w, _, _ in seen])
        assert (which == 0).mean() == pytest.approx(0.75, abs=0.09)
        assert {turn for _, _, turn in seen} == set(range(8))
        for w, rows, _ in seen:
            assert len(rows) == len(set(rows.tolist())) == min(16, len(sets[w]))
            assert rows.max() < len(sets[w])


NOTHING_LOST = {"bands": 0.0, "kinds": 0.0, "errors": 0.0, "dust": 0.0, "all_of_it": 0.0}


class TestDrop:
    def given(self, n: int = 4000, bands: int = 4) -> Measured:
        mags = np.full((n, bands), 20.0)
        p = table_photometry(
            [3500.0, 4700.0, 6200.0, 7500.0][:bands], mags, mags / 1000, mags / 100, mags + 0.1, mags + 0.2,
            {"axis_ratio": np.ones(n), "log_r50": np.ones(n)},
        )  # fmt: skip
        return measured(p)

    def lost(self, **shares: float) -> tuple[Measured, Tensor]:
        return drop(self.given(), np.random.default_rng(2), **{**NOTHING_LOST, **shares})

    def test_nothing_is_lost_unless_asked(self) -> None:
        given = self.given()
        found, kept = self.lost()
        for name, value in vars(given).items():
            assert torch.equal(torch.nan_to_num(getattr(found, name), -1), torch.nan_to_num(value, -1))
        assert (kept == 1).all()

    def test_what_was_given_stays(self) -> None:
        given = self.given()
        before = {k: v.clone() for k, v in vars(given).items()}
        drop(given, np.random.default_rng(2), bands=1, kinds=1, errors=1, dust=1, all_of_it=1)
        for name, value in before.items():
            assert torch.equal(torch.nan_to_num(getattr(given, name), -1), torch.nan_to_num(value, -1))

    def test_bands_are_lost_but_never_all(self) -> None:
        found, kept = self.lost(bands=1.0)
        there = torch.isfinite(found.mags[..., 0])
        assert torch.equal(there.float(), kept)
        assert there.any(1).all()
        share = float((~there).float().mean())
        assert 0.3 < share < 0.45  # each source keeps 30 to 95 % of them
        # One band alone cannot be lost.
        _, alone = drop(self.given(bands=1), np.random.default_rng(2), **{**NOTHING_LOST, "bands": 1.0})
        assert (alone == 1).all()
        half = (~torch.isfinite(self.lost(bands=0.5)[0].mags[..., 0])).any(1).float().mean()
        assert 0.35 < float(half) < 0.5

    @pytest.mark.parametrize("share", [0.1, 0.6])
    def test_the_rest_is_lost_for_the_shares_asked(self, share: float) -> None:
        error = 4 * (share * (1 - share) / 4000) ** 0.5
        errors = torch.isnan(self.lost(errors=share)[0].errors[..., 0])
        dust = torch.isnan(self.lost(dust=share)[0].extinction)
        kinds = torch.isnan(self.lost(kinds=share)[0].mags)
        for gone in (errors, dust, kinds[..., 1], kinds[..., 2]):
            assert torch.equal(gone.any(1), gone.all(1))  # in all bands, or none
            assert float(gone.float().mean()) == pytest.approx(share, abs=error)
        assert not kinds[..., 0].any()
        # PSF and aperture magnitudes are lost apart.
        assert not torch.equal(kinds[..., 1], kinds[..., 2])
        whole = self.lost(all_of_it=share)[0]
        gone = torch.isnan(whole.mags).all(2).all(1)
        assert float(gone.float().mean()) == pytest.approx(share, abs=error)
        assert torch.isnan(whole.extra[gone]).all()
        assert torch.isfinite(whole.mags[~gone][..., 0]).all()


class TestLoop:
    def test_the_rate_rises_and_falls(self) -> None:
        rates = np.array([cosine_rate(2.0, step, 1000) for step in range(1000)])
        top = int(rates.argmax())
        assert 40 <= top <= 55
        assert (np.diff(rates[: top + 1]) > 0).all()
        assert (np.diff(rates[top:]) < 0).all()
        assert rates[top] == pytest.approx(2.0, rel=0.01)
        assert rates[0] == pytest.approx(2.0 / 50, rel=1e-3)
        assert rates[525] == pytest.approx(2 * (0.02 + 0.49 * (1 + np.cos(np.pi * 0.525))))
        assert rates[-1] == pytest.approx(0.02 * 2.0, rel=1e-3)
        assert cosine_rate(1.0, 0, 1) == pytest.approx(1.0)

    def step(self, network: nn.Module, optimiser: torch.optim.Optimizer, average: Average, k: int) -> None:
        given = torch.randn(8, 3, generator=torch.Generator().manual_seed(k))
        optimiser.zero_grad()
        ((network(given) - given.sum(1, keepdim=True)) ** 2).mean().backward()
        optimiser.step()
        average.update(network, k)

    def begun(self) -> tuple[nn.Module, Average, torch.optim.Optimizer]:
        torch.manual_seed(1)
        network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        return network, Average(network), torch.optim.AdamW(parameter_groups(network, 0.1), lr=0.01)

    def test_training_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(self, tmp_path: Path) -> None:
        network, average, optimiser = self.begun()
        for k in range(5):
            self.step(network, optimiser, average, k)
        save_checkpoint(tmp_path / "c.pt", 5, network, average, optimiser)
        torch.manual_seed(99)
        other = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        mean, again = Average(other), torch.optim.AdamW(parameter_groups(other, 0.1), lr=0.5)
        assert load_checkpoint(tmp_path / "c.pt", other, mean, again, "cpu") == 5
        for k in range(5, 10):
            self.step(network, optimiser, average, k)
            self.step(other, again, mean, k)
        for name, value in network.state_dict().items():
            assert torch.equal(other.state_dict()[name], value)
            assert torch.equal(mean.state[name], average.state[name])
        assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]

    def test_the_average_follows_the_weights(self) -> None:
        network, average, _ = self.begun()
        weight = network[0].weight  # type: ignore[index]
        nn.init.constant_(weight, 3.0)
        average.update(network, 0)
        average.update(network, 1)
        # Nine tenths of the first step's weights count, and 9 of 11 of the second's.
        start = self.begun()[0][0].weight  # type: ignore[index]
        expected = 3 + (start.detach() - 3) * (1 / 10) * (2 / 11)
        assert torch.allclose(average.state["0.weight"], expected, atol=1e-6)
        assert int(average.state["1.num_batches_tracked"]) == 0

    def test_norms_and_biases_do_not_decay(self) -> None:
        network = self.begun()[0]
        decayed, others = parameter_groups(network, 0.1)
        assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
        assert [p.ndim for p in decayed["params"]] == [2, 2]
        assert len(others["params"]) == 4


def log(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


class TestPretraining:
    RECIPE = PretrainRecipe(
        width=16,
        depth=1,
        heads=2,
        patch=8,
        size=SIDE,
        mixtures=4,
        steps=8,
        batch=8,
        tokenizer_steps=4,
        words=8,
    )

    @pytest.fixture(autouse=True)
    def quickly(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pretraining, "_CHECKED", 2)

    def run(self, recipe: PretrainRecipe, out: Path, resume: bool = False) -> dict[str, Tensor]:
        training, validation = [random_set(40, 3, 1), random_set(20, 2, 2)], [random_set(16, 3, 3)]
        network = pretrain(recipe, training, validation, out, resume=resume, device="cpu")
        assert not network.training
        return network.state_dict()

    @pytest.mark.parametrize("method", ["mae", "beit"])
    def test_a_training_that_is_done_stays_done(self, method: str, tmp_path: Path) -> None:
        recipe = replace(self.RECIPE, method=method)
        first = self.run(recipe, tmp_path)
        lines = log(tmp_path / "log.jsonl")
        assert [line["step"] for line in lines] == list(range(1, 9))
        assert all(np.isfinite(line["loss"]) and np.isfinite(line["validation"]) for line in lines)
        assert (tmp_path / "tokenizer" / "checkpoint.pt").exists() == (method == "beit")
        again = self.run(recipe, tmp_path, resume=True)
        assert all(torch.equal(again[name], value) for name, value in first.items())
        assert log(tmp_path / "log.jsonl") == lines
        # Without resuming it begins anew, the same way.
        anew = self.run(recipe, tmp_path)
        assert len(log(tmp_path / "log.jsonl")) == 16
        assert all(torch.allclose(anew[name], value, atol=1e-5) for name, value in first.items())

    @pytest.mark.parametrize("method", ["mae", "beit"])
    def test_a_training_that_was_stopped_goes_on(
        self, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        recipe = replace(self.RECIPE, method=method)

        def stop(path: Path, step: int, *state: Any) -> None:
            save_checkpoint(path, step, *state)
            if path.parent == tmp_path and step == 4:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(pretraining, "save_checkpoint", stop)
            with pytest.raises(KeyboardInterrupt):
                self.run(recipe, tmp_path)
        kept = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
        assert kept["step"] == 4
        done = self.run(recipe, tmp_path, resume=True)
        assert [line["step"] for line in log(tmp_path / "log.jsonl")] == list(range(1, 9))
        assert not torch.equal(done["encoder.place"], kept["average"]["encoder.place"])
        if method == "beit":
            # The tokenizer was done, and stays.
            assert [line["step"] for line in log(tmp_path / "tokenizer" / "log.jsonl")] == [1, 2, 3, 4]
            assert torch.allclose(done["tokenizer.book"], kept["average"]["tokenizer.book"], atol=1e-6)

    def test_it_learns_what_the_stamps_have_in_common(self, tmp_path: Path) -> None:
        stamps = StampSet.gather([toy(128, 1)])
        recipe = replace(self.RECIPE, steps=60, batch=32, masked=0.5, rate=5e-3)
        pretrain(recipe, stamps, stamps, tmp_path, device="cpu")
        lines = log(tmp_path / "log.jsonl")
        assert lines[-1]["validation"] < 0.7 * lines[0]["validation"]

    @pytest.mark.parametrize("method", ["mae", "beit"])
    def test_a_minute_s_training_is_small(self, method: str) -> None:
        recipe = PretrainRecipe(method=method, real=("a",)).smoke()
        assert (recipe.method, recipe.steps, recipe.real) == (method, 4, ())
        assert recipe.vit.width < PretrainRecipe().vit.width

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"size": 40, "patch": 7}, "size 40 and patch 7"),
            ({"masked": 1.0}, "masked is 1.0"),
            ({"method": "jepa"}, "method is 'jepa'; expected mae or beit"),
            ({"patch": 0}, "expected positive numbers"),
            ({"heads": 3}, "width 128 and heads 3"),
        ],
    )
    def test_impossible_recipes_are_refused(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            PretrainRecipe(**changes)


class TestLabels:
    def test_sets_have_the_labels_of_the_truth(self) -> None:
        sample = toy(200, 5)
        sample.truth["morphology"][:2], sample.truth["detailed"][:2] = "spiral", [True, False]
        sample.truth["type"][:2] = "galaxy"
        sample.truth["bulge_fraction"][:2] = [0.0, 1.0]
        (found,) = simulated_sets([sample])
        label, truth = found.labels, sample.truth
        assert [Kind(k).name.lower() for k in label.kind.tolist()] == truth["type"].tolist()
        star = label.kind == Kind.STAR
        assert torch.isnan(label.redshift[star]).all()
        np.testing.assert_allclose(label.redshift[~star], truth["z_true"][~star.numpy()], rtol=1e-6)
        # A spiral whose arms were not drawn is a disc.
        assert [MORPHOLOGIES[k] for k in label.morphology[:2].tolist()] == ["spiral", "disc"]
        assert label.structure[:2].tolist() == [
            pytest.approx([0.005, 0.0], abs=1e-6),
            pytest.approx([0.995, np.log(4)], abs=1e-6),
        ]
        assert torch.isnan(label.structure[label.kind != Kind.GALAXY]).all()
        np.testing.assert_array_equal(label.lens, truth["is_lens"])
        share = truth["is_lens"].mean()
        np.testing.assert_allclose(label.lens_mix, np.log(share / (1 - share)), rtol=1e-5)
        np.testing.assert_allclose(label.mix.exp().sum(1), 1, rtol=1e-5)
        np.testing.assert_allclose(found.magnitude, truth["r_mag"], atol=0.02)
        unit = band_extinction("sdss", {"g": 4720.0, "r": 6170.0}, 1.0)
        np.testing.assert_allclose(found.photometry.extinction[:, 0], unit["g"] * truth["ebv"], rtol=1e-5)

    def test_sets_are_those_of_the_same_bands(self) -> None:
        sets = simulated_sets([toy(6, 1), toy(7, 2, ("r", "i")), toy(8, 3)])
        assert [len(s) for s in sets] == [14, 7]
        assert sets[1].photometry.wavelength.tolist() == [WAVES["r"], WAVES["i"]]

    def test_rows_of_tables_have_no_stamps_and_no_shapes(self) -> None:
        table = toy_table(50, 6)
        assert (table.measured.spectroscopic == 1).all()
        assert torch.isnan(table.labels.lens).all()
        assert torch.isnan(table.labels.structure).all()
        assert (table.labels.morphology == -1).all()

    def test_a_sample_without_fits_has_what_was_measured_without_them(self) -> None:
        sample = toy(30, 7)
        more = {"r_kron_flux": 0.9 * sample.columns["r_cmodel_flux"], "r_kron_flux_err": np.ones(30)}
        more |= {"spread_model": np.ones(30), "model_radius": np.ones(30), "r_psf_flux": np.ones(30)}
        sample.columns.update(more)
        plain = without_fits(sample)
        assert sorted(plain.columns) == ["half_light_radius", "r_kron_flux", "r_kron_flux_err"]
        (found,) = simulated_sets([plain])
        assert np.isnan(found.photometry.total[:, 0]).all()  # g has nothing else
        np.testing.assert_allclose(
            found.photometry.total[:, 1], sample.truth["r_mag"] - 2.5 * np.log10(0.9), atol=0.02
        )
        assert "g_cmodel_flux" in sample.columns

    def answer(self, n: int) -> Answer:
        chance = torch.Generator().manual_seed(1)
        shapes = ((n, 3), (n,), (n, 8), (n, 4), (n, 2, 3, 4), (n, 8))
        return Answer(*(torch.randn(shape, generator=chance) for shape in shapes))

    def test_what_has_no_label_has_no_loss(self) -> None:
        label = toy_table(40, 6).labels
        assert set(classification_loss(self.answer(40), label)) == {
            "kind",
            "redshift_galaxy",
            "redshift_quasar",
        }
        unknown = replace(label, kind=torch.full((40,), -1), redshift=torch.full((40,), float("nan")))
        assert classification_loss(self.answer(40), unknown) == {}
        whole = simulated_sets([toy(40, 6)])[0].labels
        losses = classification_loss(self.answer(40), whole)
        heads = {"kind", "lens", "morphology", "structure", "redshift_galaxy", "redshift_quasar"}
        assert set(losses) == heads
        assert all(torch.isfinite(v) for v in losses.values())

    def test_likelihoods_are_learned_and_not_the_mix(self) -> None:
        label = simulated_sets([toy(40, 6)])[0].labels
        even = replace(self.answer(40), kind=torch.zeros(40, 3), lens=torch.zeros(40))
        losses = classification_loss(even, label)
        # With equal likelihoods what is said is the mix of the sample.
        expected = -label.mix[torch.arange(40), label.kind].mean()
        assert float(losses["kind"]) == pytest.approx(float(expected), rel=1e-5)
        share = float(label.lens.mean())
        entropy = -share * np.log(share) - (1 - share) * np.log(1 - share)
        assert float(losses["lens"]) == pytest.approx(entropy, rel=1e-4)


CLASSIFIER = ClassifierRecipe(
    backbone="", steps=160, stamps=64, rows=64, rate=5e-3, vision_rate=3e-3, width=32, depth=1, heads=2,
    components=3, tables=(),
)  # fmt: skip


@pytest.fixture(scope="module")
def sets() -> list[LabelledSet]:
    return simulated_sets([toy(600, 11)])


@pytest.fixture(scope="module")
def checked() -> list[LabelledSet]:
    return simulated_sets([toy(300, 12)])


@pytest.fixture(scope="module")
def network(
    sets: list[LabelledSet], checked: list[LabelledSet], tmp_path_factory: pytest.TempPathFactory
) -> Seeing:
    tables, judged = [toy_table(300, 13)], [toy_table(100, 14)]
    out = tmp_path_factory.mktemp("classifier")
    network = train_classifier(CLASSIFIER, TINY, None, sets, checked, tables, judged, out, device="cpu")
    lines = log(out / "log.jsonl")
    assert len(lines) == 20
    print(lines[0])
    print(lines[-1])
    assert lines[-1]["kind"] < 0.8 * lines[0]["kind"]
    assert {"2b_kind", "2b_kind_image", "2b_kind_photometry", "2b_z", "sdss17_kind", "sdss17_z"} <= set(
        lines[0]
    )
    return network


class TestLensSamples:
    def test_stamps_are_of_lenses_lookalikes_and_some_others(self, lenses: SourceSample) -> None:
        lens, alike = lenses.truth["is_lens"], lenses.truth["lookalike"] != ""
        assert lenses.packed.shape[1:] == (5, 16, 16)
        assert lenses.bands == ("u", "g", "r", "i", "z")
        assert lenses.columns == {}
        assert 60 < (lens | alike).sum() < 82
        assert 0.3 < lens[lens | alike].mean() < 0.7
        assert 0 < (~lens & ~alike).sum() <= 0.25 * (lens | alike).sum() + 1
        # Deflectors and galaxies stand in the middle: there is more light than at the rim.
        stamps = stamps_of(lenses, np.flatnonzero(lens))
        assert stamps.signal[:, 2, 6:10, 6:10].mean() > 3 * stamps.signal[:, 2, :2].mean()

    def test_they_are_a_set_without_photometry_whose_stamps_always_count(self, lenses: SourceSample) -> None:
        alone, other = simulated_sets([lenses, toy(30, 1, ("u", "g", "r", "i"))])
        assert torch.isnan(alone.measured.mags).all()
        assert np.isfinite(alone.magnitude).all()
        recipe = ClassifierRecipe(no_stamp=0.99, no_photometry=0.0, width=16, depth=1, heads=2)
        network = Seeing(TINY, recipe.network(32))
        losses = _simulated_losses(
            network, recipe, alone, np.arange(30), np.random.default_rng(1), torch.device("cpu")
        )
        torch.stack(list(losses.values())).sum().backward()
        slope = next(network.vision.parameters()).grad
        assert slope is not None
        assert float(slope.abs().max()) > 0
        assert len(other.labels.lens) == 30

    def test_impossible_ones_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="spacing"):
            SampleSettings(role="lenses")
        with pytest.raises(ConfigError, match="role"):
            SampleSettings(role="other")

    def test_their_settings_name_their_files(self) -> None:
        plain = SampleSettings(role="lenses", spacing=16.0)
        assert replace(plain, spacing=12.0).name != plain.name
        assert replace(plain, binning=2).name != plain.name
        assert replace(plain, tiles=3).name == plain.name

    @pytest.fixture(scope="class")
    @staticmethod
    def lenses() -> SourceSample:
        settings = SampleSettings(
            role="lenses", spacing=16.0, lenses=3e4, lookalikes=3e4, width=400, height=400, seed=3
        )
        return lens_sample(settings, 0, Models.load(), StampSettings(size=16))


class TestClassifier:
    @pytest.mark.parametrize(
        ("see", "measure", "least"), [(True, True, 0.7), (True, False, 0.55), (False, True, 0.8)]
    )
    def test_it_tells_kinds_apart_by_whatever_there_is(
        self, network: Seeing, checked: list[LabelledSet], see: bool, measure: bool, least: float
    ) -> None:
        chosen = checked[0]
        said = answers(network, chosen, np.arange(300), torch.device("cpu"), see=see, measure=measure)
        right = (said.kind + chosen.labels.mix).argmax(1) == chosen.labels.kind
        assert not network.training
        assert float(right.float().mean()) > least  # by chance: a third

    def test_it_is_calibrated_in_every_mode(self, network: Seeing, checked: list[LabelledSet]) -> None:
        found = calibrate(network, checked, [])
        bins = EDGES.size - 1
        assert found.temperature.shape == (len(MODES), bins)
        assert found.threshold.shape == (len(MODES), bins, 3)
        assert all(np.isfinite(v).all() for v in found.arrays().values())
        # Without tables, photometry alone stands for them.
        assert MODES[2:4] == ("photometry", "spectroscopic")
        np.testing.assert_array_equal(found.temperature[2], found.temperature[3])
        real = calibrate(network, checked, [toy_table(300, 15)])
        assert not np.array_equal(real.threshold[2], real.threshold[3])

    def test_tables_of_different_bands_are_answered_as_each_would_be_alone(self, network: Seeing) -> None:
        few, many = toy_table(20, 16), simulated_sets([toy(30, 17, ("u", "g", "r", "i"))])[0]
        parts = [few.measured, many.measured]
        together = _padded(parts)
        assert together.mags.shape == (50, 4, 3)
        with torch.inference_mode():
            whole = network.classifier(together, torch.zeros(50, 32), torch.zeros(50))
            alone = [
                network.classifier(p, torch.zeros(len(p.extra), 32), torch.zeros(len(p.extra))) for p in parts
            ]
        for name in Answer.__dataclass_fields__:
            one = torch.cat([getattr(a, name) for a in alone])
            torch.testing.assert_close(getattr(whole, name), one, rtol=1e-4, atol=1e-4)

    def test_a_table_counts_by_the_root_of_its_size(self, network: Seeing) -> None:
        small, large = toy_table(25, 18), toy_table(400, 18)
        found = table_losses(network, [small, large], 200, np.random.default_rng(1), torch.device("cpu"))
        names = [name for name, _ in found]
        assert names == ["kind", "redshift_galaxy", "redshift_quasar"] * 2
        assert all(float(v.detach()) == pytest.approx(float(v.detach())) for _, v in found)
        alone = table_losses(network, [large], 200, np.random.default_rng(1), torch.device("cpu"))
        # Four fifths of the weight: the same sources, nearly the same loss.
        ratio = float(found[3][1].detach()) / float(alone[0][1].detach())
        assert ratio == pytest.approx(0.8, abs=0.2)
        assert table_losses(network, [], 200, np.random.default_rng(1), torch.device("cpu")) == []

    def test_it_goes_on_from_a_whole_classifier(
        self, network: Seeing, sets: list[LabelledSet], tmp_path: Path
    ) -> None:
        nothing = replace(CLASSIFIER, steps=0, weights="imcat")
        same = train_classifier(
            nothing, TINY, None, sets, [], [], [], tmp_path, device="cpu", whole=network.state_dict()
        )
        assert all(
            torch.equal(same.state_dict()[name], value) for name, value in network.state_dict().items()
        )

    def test_it_is_calibrated_anew_without_training(
        self, network: Seeing, checked: list[LabelledSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        samples = [asdict(SampleSettings(role="calibration", tiles=1)), asdict(SampleSettings())]
        before = {
            "sha256": "0" * 64,
            "recipe": {"steps": 3, "tables": ["sdss17"]},
            "samples": samples,
            "licence": "none",
        }
        path = write_classifier(
            network,
            replace(CLASSIFIER, tables=()),
            checked,
            [],
            [],
            np.array([19.0]),
            samples,
            {"5b_kind": 0.9, "5b_morphology": 0.5},
            tmp_path,
            before,
        )
        first = load_classifier("classifier", str(tmp_path))
        assert first.card["before"] == {k: v for k, v in before.items() if k != "licence"}
        kept = tmp_path / "one.npz"
        asked: list[int] = []
        roles: list[str] = []
        write_sample(kept, toy(300, 99))

        def made(folder: Path, settings: SampleSettings, stamps: StampSettings, workers: int) -> list[Path]:
            roles.append(settings.role)
            asked.append(settings.tiles)
            return [kept]

        monkeypatch.setattr(recalibration, "build_samples", made)
        assert recalibration.recalibrate("classifier", tmp_path, weights=tmp_path) == path
        second = load_classifier("classifier", str(tmp_path))
        for name, value in first.network.state_dict().items():
            assert torch.equal(second.network.state_dict()[name], value)
        assert not np.array_equal(first.calibration.threshold, second.calibration.threshold)
        assert {k: v for k, v in first.card.items() if k != "sha256"} == {
            k: v for k, v in second.card.items() if k != "sha256"
        }
        # Of one survey: what its tiles calibrate, and with the same tiles the same numbers; the rest stays.
        shapes = ("looks", "structure")
        fitted = ("temperature", "offset", "threshold", "levels", "distance", *shapes)
        right = second.calibration.arrays()
        wrong = {name: value + 1.0 if name in fitted else value for name, value in right.items()}
        data = save(replace(second, calibration=Calibration.from_arrays(wrong)).arrays())
        plain_card = {k: v for k, v in second.card.items() if k not in ("format", "sha256")}
        write_with_card(tmp_path, "classifier", data, FORMAT, plain_card)
        recalibration.recalibrate("classifier", tmp_path, weights=tmp_path, survey="sdss")
        third = load_classifier("classifier", str(tmp_path)).calibration.arrays()
        others = [k for k, mode in enumerate(MODES) if any(w in mode for w in ("spectro", "sharp", "ultra"))]
        renewed = [k for k in range(len(MODES)) if k not in others]
        for name in fitted:
            np.testing.assert_allclose(third[name][others], wrong[name][others], rtol=1e-6)
            np.testing.assert_allclose(third[name][renewed], right[name][renewed], rtol=1e-6, atol=1e-6)
        # Of shapes alone: as many tiles as are asked for, and nothing else changes.
        write_with_card(tmp_path, "classifier", data, FORMAT, plain_card)
        recalibration.recalibrate("classifier", tmp_path, weights=tmp_path, shapes=7)
        after = load_classifier("classifier", str(tmp_path))
        fourth = after.calibration.arrays()
        assert asked[-1] == 1  # no more than the card has
        assert after.card["shapes"] == {"sdss": 1}
        assert set(roles) == {"calibration"}
        # The layer of the looks is fitted on the training's tiles, and no other weight moves.
        recalibration.recalibrate("classifier", tmp_path, weights=tmp_path, shapes=1, looks=True)
        assert set(roles) == {"calibration", "training"}
        again = load_classifier("classifier", str(tmp_path))
        read = again.network.state_dict()
        moved = {k for k, v in after.network.state_dict().items() if not torch.equal(v, read[k])}
        assert moved == {"classifier.morphology.weight", "classifier.morphology.bias"}
        # What was judged with the layer before is said no longer.
        assert after.card["metrics"] == {"5b_kind": 0.9, "5b_morphology": 0.5}
        assert again.card["metrics"] == {"5b_kind": 0.9}
        with pytest.raises(UsageError, match="shapes is -1"):
            recalibration.recalibrate("classifier", tmp_path, weights=tmp_path, shapes=-1)
        stamped = [MODES.index("both"), MODES.index("stamp")]
        for name in fitted:
            new = stamped if name in shapes else []
            rest = [k for k in range(len(MODES)) if k not in new]
            np.testing.assert_allclose(fourth[name][rest], wrong[name][rest], rtol=1e-6)
            np.testing.assert_allclose(fourth[name][new], right[name][new], rtol=1e-6, atol=1e-6)
        with pytest.raises(InputError, match="role calibration of csst"):
            recalibration.recalibrate("classifier", tmp_path, weights=tmp_path, survey="csst")
        # Nothing to calibrate with: said so, and nothing written.
        write_classifier(
            network,
            replace(CLASSIFIER, tables=()),
            checked,
            [],
            [],
            np.array([19.0]),
            samples[1:],
            {},
            tmp_path,
        )
        held = path.read_bytes()
        with pytest.raises(InputError, match="no samples of the role calibration"):
            recalibration.recalibrate("classifier", tmp_path, weights=tmp_path)
        assert path.read_bytes() == held

    def test_a_training_that_was_stopped_goes_on(
        self, sets: list[LabelledSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        recipe = replace(CLASSIFIER.smoke(), tables=())

        def run(resume: bool) -> dict[str, Tensor]:
            few = simulated_sets([toy(40, 12)])
            return train_classifier(
                recipe, TINY, None, sets, few, [], [], tmp_path, resume=resume, device="cpu"
            ).state_dict()

        def stop(path: Path, step: int, *state: Any) -> None:
            save_checkpoint(path, step, *state)
            if step == 2:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(classification, "save_checkpoint", stop)
            with pytest.raises(KeyboardInterrupt):
                run(resume=False)
        first = run(resume=True)
        assert [line["step"] for line in log(tmp_path / "log.jsonl")] == [1, 2, 3, 4]
        second = run(resume=True)
        assert all(torch.equal(second[name], value) for name, value in first.items())

    def test_it_begins_with_the_weights_of_a_backbone(self, sets: list[LabelledSet], tmp_path: Path) -> None:
        torch.manual_seed(77)
        start = Seeing(TINY, CLASSIFIER.network(32)).vision.state_dict()
        still = replace(CLASSIFIER.smoke(), steps=1, vision_rate=0.0)
        network = train_classifier(still, TINY, start, sets, [], [], [], tmp_path, device="cpu")
        found = network.vision.state_dict()
        assert all(torch.allclose(found[name], value, atol=1e-7) for name, value in start.items())

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"steps": 0}, "steps, stamps and rows"),
            ({"no_stamp": 0.7, "no_photometry": 0.7}, "sum is at most 1"),
            ({"depth": 0}, "width, depth, heads and components"),
            ({"heads": 5}, "width 128 and heads 5"),
        ],
    )
    def test_impossible_recipes_are_refused(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            ClassifierRecipe(**changes)


def test_labels_are_taken_row_by_row() -> None:
    label = simulated_sets([toy(20, 1)])[0].labels
    few = label.take(torch.tensor([5, 2]))
    assert isinstance(few, Labels)
    assert few.kind.tolist() == [int(label.kind[5]), int(label.kind[2])]
    assert torch.equal(few.mix, label.mix[[5, 2]])
