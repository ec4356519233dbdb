"""Augmented tiles in memory: fluxes, boxes, sky and rare sources are what the truth says."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from imcat.augment.assembly import Augmenter, augmented_stream
from imcat.augment.assembly_light import GeneratedLight, check_bands, conditions_of
from imcat.augment.assembly_rare import draw_rare
from imcat.augment.assembly_settings import AugmentSettings, parse_magnitudes
from imcat.augment.assembly_sky import blank_skies, offsets_from_reference
from imcat.augment.assembly_truth import AUGMENTED_COLUMNS, psf_half_light_radius
from imcat.augment.conditions import Ranges
from imcat.augment.trained import TrainedLight, TrainedSky
from imcat.errors import InputError, UsageError
from imcat.simulate.expose import expose
from imcat.simulate.galaxies import half_light_radius
from imcat.simulate.observation import Observation
from imcat.simulate.parts import Parts
from imcat.simulate.scene import Models, Scene, draw_exposure, make_scene
from imcat.simulate.settings import SimulateSettings
from imcat.simulate.sources import Kind, Morphology, Sources
from imcat.simulate.tiles import observe, simulate_tile, stream
from imcat.simulate.truth import truth_fields
from imcat.window import Window

SHAPE = (160, 192)
# An empty sky without artefacts.
EMPTY = SimulateSettings(
    depth_below_limit=0.0, density=0.0, star_density=0.0, lenses_per_deg2=0.0, lookalikes_per_deg2=0.0,
    clustering=False, cosmic_rays=False, trails_per_tile=0.0, bad_columns_per_tile=0.0, saturation=False,
    ghosts=False, sky_residual=0.0,
)  # fmt: skip
NONE = AugmentSettings(generated=0.0)


@pytest.fixture(scope="module")
def models() -> Models:
    return Models.load()


def one_galaxy(mag: float, radius: float, axis_ratio: float = 1.0) -> Sources:
    one = np.ones(1)
    return Sources(
        np.full(1, Kind.GALAXY, np.int8), np.full((1, 5), mag), 0.1 * one, 0 * one, 0 * one, radius * one, one,
        axis_ratio * one, 4 * one, 30 * one, np.full(1, Morphology.SPIRAL, np.int8),
    )  # fmt: skip


def alone(observation: Observation, models: Models, parts: Parts) -> Scene:
    return make_scene(observation, EMPTY, models, np.random.SeedSequence(1), parts)


def middle_of(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([0.5 * (shape[1] - 1)]), np.array([0.5 * (shape[0] - 1)])


class TestLight:
    def test_the_image_of_a_generated_galaxy_holds_the_flux_of_the_truth(
        self, models: Models, light: TrainedLight
    ) -> None:
        observation = observe("csst", 0, 3, EMPTY, SHAPE)
        drawn = GeneratedLight(light, 1.0, np.random.SeedSequence(2))
        parts = Parts(one_galaxy(16.5, 0.3), middle_of(SHAPE), drawn)
        tile, scene = simulate_tile(observation, EMPTY, models, 3, parts=parts)
        assert scene.replaced.tolist() == [True]
        errors = []
        for k, band in enumerate(tile.bands):
            for exposure in band.exposures:
                pixels = exposure.read(Window.whole(SHAPE))
                assert pixels.variance is not None
                light_noise = scene.flux[0, k] / float(exposure.gain or 1)
                sigma = np.sqrt(float(pixels.variance.sum()) + light_noise)
                assert abs(float(pixels.data.sum(dtype=float)) - scene.flux[0, k]) < 4 * sigma
                errors.append(sigma / scene.flux[0, k])
        assert min(errors) < 0.005  # some bands say it to better than two per cent

    def test_components_sum_to_the_scene_in_every_band(self, models: Models, light: TrainedLight) -> None:
        observation = observe("sdss", 1, 3, SimulateSettings(), SHAPE)
        parts = Parts(light=GeneratedLight(light, 1.0, np.random.SeedSequence(2)))
        scene = make_scene(observation, SimulateSettings(), models, np.random.SeedSequence(1), parts)
        assert scene.replaced.sum() > 10
        np.testing.assert_allclose(scene.components.total(len(scene.sources)), scene.flux, rtol=1e-9)
        # Places and fluxes are those of the same sky without generated light.
        plain = make_scene(observation, SimulateSettings(), models, np.random.SeedSequence(1))
        assert np.array_equal(plain.ra, scene.ra)
        assert np.array_equal(plain.mag, scene.mag)
        assert not plain.replaced.any()

    def test_only_galaxies_within_the_ranges_and_a_share_of_them(
        self, models: Models, light: TrainedLight
    ) -> None:
        rng = np.random.default_rng(1)
        sources = models.population.galaxies(rng, rng.uniform(13, 27, 3000))
        flux = 3.631e12 * 10 ** (-0.4 * sources.mag)
        waves = np.array([3551.0, 4686.0, 6166.0, 7480.0, 8932.0])
        made = GeneratedLight(light, 0.4, np.random.SeedSequence(2))(sources, flux, waves)
        asked = conditions_of(sources, flux, waves, light.ranges)
        inside = light.ranges.inside(asked)
        assert inside[made.rows].all()
        assert len(made.rows) / inside.sum() == pytest.approx(0.4, abs=0.05)
        assert not (sources.morphology[made.rows] == Morphology.MERGER).any()
        assert not made.structured.any()  # it knows no morphologies
        again = GeneratedLight(light, 0.4, np.random.SeedSequence(2))(sources, flux, waves)
        assert np.array_equal(made.components.xi, again.components.xi)
        bright = GeneratedLight(light, 1.0, np.random.SeedSequence(2), (17.0, 18.0))(sources, flux, waves)
        assert len(bright.rows) > 20
        assert asked.magnitude[bright.rows].min() >= 17
        assert asked.magnitude[bright.rows].max() <= 18

    def test_morphologies_that_the_generator_knows_are_asked_for(
        self, models: Models, light: TrainedLight
    ) -> None:
        ranges = replace(light.ranges, morphologies=("spiral", "merger"))
        sources = models.population.galaxies(np.random.default_rng(1), np.full(600, 18.0))
        asked = conditions_of(sources, np.ones((600, 1)), np.array([6200.0]), ranges)
        spiral = sources.morphology == Morphology.SPIRAL
        assert spiral.any()
        assert (asked.morphology[spiral] == Morphology.SPIRAL).all()
        other = ~np.isin(sources.morphology, (Morphology.SPIRAL, Morphology.MERGER))
        assert (asked.morphology[other] == -1).all()

    def test_lenses_and_lookalikes_keep_the_light_that_makes_them_such(
        self, models: Models, light: TrainedLight
    ) -> None:
        settings = SimulateSettings(lenses_per_deg2=20000.0, lookalikes_per_deg2=40000.0)
        observation = observe("sdss", 1, 3, settings, SHAPE)
        parts = Parts(light=GeneratedLight(light, 1.0, np.random.SeedSequence(2)))
        scene = make_scene(observation, settings, models, np.random.SeedSequence(1), parts)
        special = scene.lensed.lookalike != ""
        special[scene.lensed.rows] = True
        assert special.sum() > 5
        assert not scene.replaced[special].any()
        assert scene.replaced.any()

    def test_bands_and_magnitudes_outside_of_the_training_are_refused_with_the_range(self) -> None:
        ranges = Ranges((15.0, 20.0), (0.2, 4.0), (0.1, 1.0), (3000.0, 11000.0))
        check_bands(ranges, np.array([3551.0, 8932.0]), (15.0, 20.0))
        with pytest.raises(InputError, match=r"wavelength 2871 was asked for; expected 3000 to 1.1e\+04"):
            check_bands(ranges, np.array([2871.0, 8932.0]))
        with pytest.raises(InputError, match="magnitude 21 was asked for; expected 15 to 20"):
            check_bands(ranges, np.array([6166.0]), (17.0, 21.0))


class TestBoxes:
    @pytest.mark.parametrize(("survey", "radius"), [("sdss", 0.0), ("sdss", 1.5), ("csst", 0.6)])
    def test_half_of_the_light_lies_within_half_of_the_box(
        self, models: Models, light: TrainedLight, survey: str, radius: float
    ) -> None:
        observation = observe(survey, 0, 3, EMPTY, SHAPE)
        star = Sources.points(Kind.STAR, np.full((1, 5), 17.0))
        source = one_galaxy(17.0, radius) if radius else star
        augmenter = Augmenter(survey, replace(NONE, generated=1.0 if radius else 0.0), light)
        parts, rare = augmenter.parts(observation, models, 1, 0)
        assert len(rare) == 0
        parts = replace(parts, added=source, places=middle_of(SHAPE))
        scene = alone(observation, models, parts)
        columns = truth_of(scene, observation, augmenter, models)
        image = draw_exposure(scene, observation, observation.reference_exposure, EMPTY)
        x, y = columns["x"][0], columns["y"][0]
        half = 0.5 * (columns["x_max"][0] - columns["x_min"][0])
        assert columns["y_max"][0] - columns["y_min"][0] == pytest.approx(2 * half)
        assert columns["x_min"][0] + half == pytest.approx(x)
        assert columns["y_min"][0] + half == pytest.approx(y)
        # Pixels are split in parts, since they are not small beside the radius.
        fine = np.repeat(np.repeat(image, 8, axis=0), 8, axis=1) / 64
        v, u = np.mgrid[: fine.shape[0], : fine.shape[1]] / 8 - 0.4375
        inside = float(fine[np.hypot(u - x, v - y) < half / 2].sum() / fine.sum())
        assert inside == pytest.approx(0.5, abs=0.05 if radius else 0.02)

    def test_the_psf_of_a_star_holds_half_of_its_light_within_its_radius(self) -> None:
        exposure = observe("sdss", 0, 3, EMPTY, SHAPE).reference_exposure
        radius = psf_half_light_radius(exposure) / exposure.pixel_scale
        assert float(exposure.psf.encircled_energy(np.array([radius]))[0]) == pytest.approx(0.5, abs=1e-3)

    def test_boxes_of_lenses_hold_their_images(self, models: Models) -> None:
        settings = AugmentSettings(generated=0.0, lenses=20000.0)
        augmenter = Augmenter("sdss", settings)
        observation = observe("sdss", 0, 3, EMPTY, SHAPE)
        _, _, truth = augmenter.simulate(observation, SimulateSettings(), models, 3)
        lens = truth["is_lens"]
        assert lens.sum() > 2
        half = 0.5 * (truth["x_max"] - truth["x_min"])[lens] * observation.reference_exposure.pixel_scale
        assert (half > 2 * truth["einstein_radius"][lens]).all()


def truth_of(scene: Scene, observation: Observation, augmenter: Augmenter, models: Models) -> dict[str, Any]:
    from imcat.augment.assembly_truth import augmented_truth

    rare = draw_rare(models.population, NONE, observation, np.random.default_rng(1))
    return augmented_truth(scene, observation, EMPTY, replace_names(rare, len(scene.sources)))


def replace_names(rare: Any, n: int) -> Any:
    return replace(rare, name=np.full(n, "pair", "<U8"))


class FakeSky:
    """Sky of a known covariance, with marks at known places."""

    def __init__(self, marks: bool = False) -> None:
        self.marks = marks
        self.asked: tuple[int, int] | None = None

    def sky(self, rows: int, columns: int, seed: int) -> np.ndarray:
        self.asked = rows, columns
        rng = np.random.default_rng(seed)
        white = rng.standard_normal((5, rows + 1, columns + 1))
        out = 0.8 * white[:, 1:, 1:] + 0.6 * white[:, 1:, :-1]
        if self.marks:
            out[:, rows // 2, columns // 2] = 1000.0
        return out.astype(np.float32)


class TestSky:
    def observation(self, shape: tuple[int, int]) -> Observation:
        return observe("sdss", 0, 3, EMPTY, shape)

    def test_noise_and_covariance_of_the_canvas_are_those_of_the_tile(self, models: Models) -> None:
        shape = (500, 600)
        observation = self.observation(shape)
        fake = TrainedSky(FakeSky(), ("u", "g", "r", "i", "z"), {})  # type: ignore[arg-type]
        parts = Parts(skies=blank_skies(fake, observation, 5))
        tile, _ = simulate_tile(observation, EMPTY, models, 3, parts=parts)
        for band in tile.bands:
            pixels = band.exposures[0].read(Window.whole(shape))
            assert pixels.variance is not None
            noise = pixels.data / np.sqrt(pixels.variance)
            assert noise.std() == pytest.approx(1.0, abs=0.01)
            along_x = float((noise[:, 1:] * noise[:, :-1]).mean() / noise.var())
            along_y = float((noise[1:] * noise[:-1]).mean() / noise.var())
            assert along_x == pytest.approx(0.48, abs=0.01)
            assert along_y == pytest.approx(0.0, abs=0.01)

    def test_bands_see_one_canvas_at_their_own_places(self, models: Models) -> None:
        observation = self.observation(SHAPE)
        fake = FakeSky(marks=True)
        skies = blank_skies(TrainedSky(fake, ("u", "g", "r", "i", "z"), {}), observation, 5)  # type: ignore[arg-type]
        offsets = offsets_from_reference(observation)
        assert len(set(offsets)) > 3
        assert fake.asked is not None
        assert fake.asked[0] > SHAPE[0]
        reference = observation.reference_exposure
        places = []
        for sky, exposure in zip(skies, observation.exposures, strict=True):
            assert sky.shape == SHAPE
            y, x = np.unravel_index(int(sky.argmax()), SHAPE)
            assert sky[y, x] == 1000
            places.append(exposure.wcs.all_pix2world(x, y, 0))
        seen = [reference.wcs.all_world2pix(ra, dec, 0) for ra, dec in places]
        assert np.ptp(np.array(seen), axis=0).max() < 1.2  # whole pixels

    def test_photon_noise_of_light_is_added_and_nothing_else(self) -> None:
        model = self.observation((400, 400)).reference_exposure
        level = 500 / float(model.electrons_per_njy[0])
        image = np.full((400, 400), level / model.light_scale, np.float32)
        model = replace(model, quantum=0.0)
        done = expose(image, model, np.random.SeedSequence(1), np.zeros((400, 400), np.float32))
        electrons = done.image * model.electrons_per_njy
        assert float(electrons.mean()) == pytest.approx(500, abs=0.5)
        assert float(electrons.var()) == pytest.approx(500, rel=0.03)
        # Faint light follows the distribution of few photons, and no light makes no noise.
        few = expose(image * 1e-3, model, np.random.SeedSequence(1), np.zeros((400, 400), np.float32)).image
        assert float((few * model.electrons_per_njy).var()) == pytest.approx(0.5, rel=0.03)
        none = expose(0 * image, model, np.random.SeedSequence(1), np.zeros((400, 400), np.float32)).image
        assert float(np.abs(none).max()) == 0

    def test_bands_that_it_does_not_make_are_refused(self, sky: TrainedSky) -> None:
        with pytest.raises(InputError, match="sky of band z was asked for; expected bands among u, g"):
            blank_skies(replace(sky, bands=("u", "g", "r", "i")), self.observation(SHAPE), 1)

    def test_the_share_of_tiles_with_generated_sky(self, models: Models, sky: TrainedSky) -> None:
        augmenter = Augmenter("sdss", AugmentSettings(generated=0.0, generated_sky=0.5), None, sky)
        observation = self.observation((64, 64))
        made = [bool(augmenter.parts(observation, models, 1, k)[0].skies) for k in range(60)]
        assert 18 < sum(made) < 42


class TestRare:
    def test_numbers_kinds_and_places(self, models: Models) -> None:
        observation = observe("csst", 0, 3, EMPTY, (1000, 1000))
        area = 1e6 * (observation.reference_exposure.pixel_scale / 3600) ** 2
        settings = AugmentSettings(mergers=40 / area, quasars=50 / area, pairs=60 / area)
        rare = draw_rare(models.population, settings, observation, np.random.default_rng(3))
        names, counts = np.unique(rare.name, return_counts=True)
        assert names.tolist() == ["merger", "pair", "quasar"]
        assert abs(counts[0] - 40) < 20
        assert abs(counts[1] - 120) < 50
        assert abs(counts[2] - 50) < 22
        merger, quasar, pair = (rare.name == n for n in ("merger", "quasar", "pair"))
        assert (rare.sources.morphology[merger] == Morphology.MERGER).all()
        assert (rare.sources.kind[quasar] == Kind.QUASAR).all()
        limit = observation.limit("r")
        assert rare.sources.mag[:, 2].max() < limit
        assert rare.x.min() > -0.5
        assert rare.y.max() < 999.5
        x, y = (v[pair].reshape(-1, 2) for v in (rare.x, rare.y))
        apart = np.hypot(*(v[:, 1] - v[:, 0] for v in (x, y)))
        fwhm = observation.reference_exposure.psf.fwhm
        assert apart.min() >= 0.6 * fwhm
        assert apart.max() <= 10.0
        kinds = rare.sources.kind[pair]
        assert 0.3 < (kinds == Kind.STAR).mean() < 0.7
        fainter = np.diff(rare.sources.mag[pair, 2].reshape(-1, 2))
        assert fainter.min() > -0.51
        assert fainter.max() <= 2.0

    def test_no_rates_no_sources(self, models: Models) -> None:
        observation = observe("sdss", 0, 3, EMPTY, SHAPE)
        assert len(draw_rare(models.population, NONE, observation, np.random.default_rng(3))) == 0

    def test_the_truth_names_what_was_added(self, models: Models) -> None:
        settings = AugmentSettings(generated=0.0, mergers=8000.0, quasars=8000.0, pairs=8000.0)
        observation = observe("sdss", 0, 3, SimulateSettings(), SHAPE)
        _, _, truth = Augmenter("sdss", settings).simulate(observation, SimulateSettings(), models, 3)
        for name, what in (("merger", truth["is_merger"]), ("quasar", truth["type"] == "quasar")):
            own = truth["added"] == name
            assert own.any()
            assert what[own].all()
        assert (truth["added"] == "").sum() > 20
        pair = np.flatnonzero(truth["added"] == "pair")
        assert len(pair) % 2 == 0


class TestTiles:
    def test_a_tile_holds_what_the_stream_holds(
        self, tmp_path: Path, models: Models, light: TrainedLight, sky: TrainedSky
    ) -> None:
        settings = AugmentSettings.of_survey("sdss", generated_sky=1.0, quasars=3000.0)
        augmenter = Augmenter("sdss", settings, light, sky)
        simulate = SimulateSettings()
        items = list(islice(augmented_stream("sdss", 7, SHAPE, augmenter=augmenter, models=models), 2))
        other = next(augmented_stream("sdss", 7, SHAPE, augmenter=augmenter, models=models, start=1, step=2))
        assert np.array_equal(items[1].pixels, other.pixels)
        assert not np.array_equal(items[0].pixels, other.pixels)
        found = augmenter.write(
            tmp_path / "t", observe("sdss", 1, 7, simulate, SHAPE), simulate, models, 7, 1
        )
        table = pq.read_table(tmp_path / "t" / "truth.parquet")
        assert table.column_names == [c.name for c in truth_fields(tuple("ugriz"), AUGMENTED_COLUMNS)]
        assert found == table.num_rows == len(other.truth["ra"])
        for name in ("ra", "r_mag", "x_min", "generated"):
            np.testing.assert_allclose(table[name].to_numpy(), other.truth[name], rtol=1e-6)
        assert table["generated"].to_numpy().any()
        assert items[0].bands == tuple("ugriz")

    def test_without_generators_and_rates_it_is_the_simulator(self, models: Models) -> None:
        settings = SimulateSettings(lenses_per_deg2=0.0, lookalikes_per_deg2=0.0)
        plain = next(stream("sdss", 7, SHAPE, settings, models))
        same = next(augmented_stream("sdss", 7, SHAPE, augmenter=Augmenter("sdss", NONE), models=models))
        assert np.array_equal(plain.pixels, same.pixels)

    def test_some_bands(self, models: Models, light: TrainedLight) -> None:
        settings = AugmentSettings.of_survey("csst", bands=("i", "g"))
        item = next(
            augmented_stream("csst", 7, (96, 96), augmenter=Augmenter("csst", settings, light), models=models)
        )
        assert item.bands == ("g", "i")
        assert "r_mag" not in item.truth

    def test_threads_change_nothing(self, models: Models, light: TrainedLight) -> None:
        augmenter = Augmenter("sdss", AugmentSettings.of_survey("sdss", generated_sky=0.0), light)
        observation = observe("sdss", 0, 3, SimulateSettings(), SHAPE)
        torch.set_num_threads(2)
        one, two = (
            augmenter.simulate(observation, SimulateSettings(), models, 3, threads=n)[0] for n in (1, 2)
        )
        for a, b in zip(one.exposures(), two.exposures(), strict=True):
            whole = Window.whole(SHAPE)
            assert np.array_equal(a[1].read(whole).data, b[1].read(whole).data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generated": 1.2}, "generated is 1.2; expected a share, 0 to 1"),
        ({"generated_sky": float("nan")}, "generated-sky is nan"),
        ({"quasars": 1e6}, "quasars is 1e[+]06 on a square degree; expected at most 500000"),
        ({"generated": 0.0, "magnitudes": (17.0, 20.0)}, "generated is 0"),
        ({"lenses": -1.0}, "lenses is -1; expected a number on a square degree"),
        ({"pairs": float("inf")}, "pairs is inf"),
        ({"magnitudes": (20.0, 17.0)}, "magnitudes 20 to 17 are none"),
        ({"bands": ("i", "w")}, "sdss has no band 'w'; expected some of u, g, r, i, z"),
        ({"bands": ("u", "g")}, "expected r among them"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        AugmentSettings.of_survey("sdss", **changes)


def test_unknown_surveys_and_sky_that_nobody_saw_are_refused() -> None:
    with pytest.raises(UsageError, match="no camera of survey 'des'; expected one of sdss, csst"):
        AugmentSettings.of_survey("des")
    with pytest.raises(UsageError, match="no real sky to learn from; expected 0"):
        AugmentSettings.of_survey("csst", generated_sky=0.5)
    assert AugmentSettings.of_survey("csst", generated_sky=0.0).lenses > 1000
    with pytest.raises(UsageError, match="expected BRIGHT:FAINT"):
        parse_magnitudes("17-20")


def test_radii_are_those_of_the_truth() -> None:
    galaxy = one_galaxy(18.0, 1.2, 0.5)
    asked = conditions_of(
        galaxy, np.ones((1, 1)), np.array([6200.0]), Ranges((0, 40), (0, 9), (0, 1), (1, 1e5))
    )
    assert asked.radius == pytest.approx(half_light_radius(galaxy))
    assert asked.axis_ratio == pytest.approx(0.5)
