"""Realism: what the cutouts and features measure, that the classifiers see what is there, and the command."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from imcat.cli import main
from imcat.config import Config
from imcat.errors import InputError
from imcat.evaluate import cutout_network
from imcat.evaluate.cutout_features import Features, adaptive_moments, summarise
from imcat.evaluate.cutout_network import network_scores
from imcat.evaluate.cutouts import (
    KINDS,
    SIZE,
    Cutouts,
    Patch,
    Positions,
    aperture_sums,
    blank_positions,
    choose,
    cut,
    kinds_of,
    read_patch,
    widened,
)
from imcat.evaluate.realism import find_pairs
from imcat.evaluate.sky_statistics import (
    Comparison,
    SkyFacts,
    compare_skies,
    locus_ridge,
    overlap_coefficient,
)
from imcat.evaluate.two_sample import (
    Sample,
    area_error,
    area_under_curve,
    folds_of,
    pair_up,
    run_test,
    tree_scores,
)
from imcat.pipeline import catalogue_tile
from imcat.surveys import find_tiles, read_tile

PIXEL = 0.4  # arcsec
NOISE = 0.03  # nanomaggies, as in an SDSS r frame
BANDS = ("g", "r", "i")
STAR, GALAXY = KINDS.index("star"), KINDS.index("galaxy")


def _write(folder: Path, name: str, seed: int, sigma: float = 1.4, size: int = 460) -> Path:
    """A tile of stars and galaxies; the same name and another seed make a twin."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    spots = []
    for place in rng.permutation(81)[:64]:  # apart from one another, so that few are blended
        x, y = 30 + 50 * (place % 9) + rng.uniform(-9, 9), 30 + 50 * (place // 9) + rng.uniform(-9, 9)
        spots.append((x, y, 10 ** rng.uniform(0.8, 1.9), rng.random() < 0.5))
    lines = [f'name = "{name}"', 'reference = "r"']
    for k, band in enumerate(BANDS):
        image = rng.normal(0, NOISE, (size, size))
        for x, y, flux, extended in spots:
            width = np.hypot(sigma, 3.5 if extended else 0.0)
            reach = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * width**2))
            image += flux * 1.3 ** (k - 1) / (2 * np.pi * width**2) * reach
        wcs = WCS(naxis=2)
        wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [150.0, 2.0]
        wcs.wcs.crpix, wcs.wcs.cdelt = [size / 2 + 0.3 * k, size / 2], [-PIXEL / 3600, PIXEL / 3600]
        fits.writeto(
            folder / f"{name}-{band}.fits", image.astype(np.float32), wcs.to_header(), overwrite=True
        )
        lines += [f"[bands.{band}]", f'image = "{name}-{band}.fits"', "zero_point = 22.5"]
        lines.append(f"wavelength = {4700.0 + 1400 * k}")
    path = folder / f"{name}.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def _patch(path: Path, side: str = "real") -> Patch:
    tile = read_tile(find_tiles([path])[0])
    return read_patch(tile, lambda t: catalogue_tile(t, Config()), BANDS, side)


@pytest.fixture(scope="module")
def patch(tmp_path_factory: pytest.TempPathFactory) -> Patch:
    return _patch(_write(tmp_path_factory.mktemp("tile"), "field-1", 1))


def _cutouts(n: int = 40, seed: int = 0, sigma: float = 1.5, kind: int = STAR) -> Cutouts:
    """Round Gaussian sources of S/N well above 100 in unit noise, two bands."""
    rng = np.random.default_rng(seed)
    offset = rng.uniform(-0.5, 0.5, (n, 2, 2))
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    dx, dy = x - offset[..., 0, None, None], y - offset[..., 1, None, None]
    flux = 10 ** rng.uniform(3, 3.5, (n, 1, 1, 1)) / (2 * np.pi * sigma**2)
    pixels = flux * np.exp(-(dx**2 + dy**2) / (2 * sigma**2)) * (kind > 0) + rng.normal(
        0, 1, (n, 2, SIZE, SIZE)
    )
    codes = np.full(n, kind)
    return Cutouts(
        pixels.astype(np.float32), offset, codes, np.full(n, 18.0), rng.random(n) < 0.5, np.ones(2)
    )


def _sample(name: str, first: Cutouts, second: Cutouts) -> Sample:
    return pair_up(name, (first, summarise(first, "gr")), (second, summarise(second, "gr")))


# Cutouts -------------------------------------------------------------------


def test_apertures_sum_the_light_inside() -> None:
    sums = aperture_sums(np.ones((60, 60), np.float32), np.array([30.3]), np.array([29.6]), (1.0, 3.0, 8.0))
    assert sums[0] == pytest.approx(np.pi * np.array([1.0, 3.0, 8.0]) ** 2, rel=0.1)
    assert sums[0, 2] == pytest.approx(np.pi * 64, rel=0.01)


def test_stars_and_galaxies_are_told_by_their_concentration(patch: Patch) -> None:
    kind, excess = kinds_of(patch)
    assert (kind == STAR).sum() > 15
    assert (kind == GALAXY).sum() > 15
    assert np.abs(excess[kind == STAR]).max() < 0.2
    assert excess[kind == GALAXY].min() > 0.12
    # A galaxy's half-light radius is that of the wider Gaussian.
    size = patch.catalogue["half_light_radius"]
    assert size[kind == GALAXY].min() > size[kind == STAR].max()


def test_blank_positions_keep_away_from_every_detection(patch: Patch) -> None:
    x, y = blank_positions(patch, 50, np.random.default_rng(3))
    assert x.size == 50
    nearest = np.hypot(x[:, None] - patch.catalogue["x"], y[:, None] - patch.catalogue["y"]).min(axis=1)
    assert nearest.min() * patch.pixel_scale > 10


def test_cutouts_are_native_pixels_in_units_of_the_noise(patch: Patch) -> None:
    ra, dec = patch.wcs[1].pixel_to_world_values(np.array([200.2]), np.array([150.4]))
    here = Positions(ra, dec, np.array([0]), np.array([np.nan]))
    found = cut(patch, here)
    assert found.pixels.shape == (1, 3, SIZE, SIZE)
    expected = patch.images[1][150 - 32 : 150 + 32, 200 - 32 : 200 + 32] / np.float32(patch.rms[1])
    np.testing.assert_array_equal(found.pixels[0, 1], expected)
    np.testing.assert_allclose(found.offset[0, 1], [0.2, 0.4], atol=1e-6)
    # The other bands' pixels are shifted, and the nearest pixel of each is taken.
    np.testing.assert_allclose(found.offset[0, 2], [-0.5, 0.4], atol=1e-6)
    turned = cut(patch, here, mirror=True)
    np.testing.assert_allclose(turned.offset[0, 1], [-0.2, 0.4], atol=1e-6)
    np.testing.assert_array_equal(turned.pixels[0, 1, :, 1:], found.pixels[0, 1, :, :0:-1])


def test_noise_is_added_to_each_side_by_itself(tmp_path: Path) -> None:
    path = _write(tmp_path, "field-1", 1, size=200)
    real, again, twin = (_patch(path, side) for side in ("real", "real", "twin"))
    np.testing.assert_array_equal(real.images[0], again.images[0])
    assert not np.array_equal(real.images[0], twin.images[0])
    difference = (real.images[0] - twin.images[0]) / real.rms[0]
    assert difference.std() == pytest.approx(0.2 * np.sqrt(2), rel=0.02)


def test_a_tile_too_small_to_cut_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 128 x 128 to compare cutouts"):
        _patch(_write(tmp_path, "field-1", 1, size=120))


def test_widening_changes_the_psf_and_not_the_noise(patch: Patch) -> None:
    wide = widened(patch, 1.25)
    chosen = choose(patch, 100, np.random.default_rng(3))
    stars, blank = (chosen.select(chosen.kind == KINDS.index(name)) for name in ("star", "blank"))
    before, after = (cut(p, stars) for p in (patch, wide))
    widths = [adaptive_moments(c.pixels[:, 1], c.offset[:, 1])[0] for c in (before, after)]
    assert np.nanmedian(widths[1] / widths[0]) == pytest.approx(1.25, abs=0.02)
    table = [summarise(cut(p, blank), BANDS) for p in (patch, wide)]
    for name, allowed in (("noise r rms", 0.015), ("correlation r x 1", 0.01), ("correlation r y 2", 0.01)):
        medians = [np.median(t.values[:, t.names.index(name)]) for t in table]
        assert medians[1] == pytest.approx(medians[0], abs=allowed), name


# Features ------------------------------------------------------------------


def test_adaptive_moments_of_gaussians() -> None:
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    covariance = np.array([[4.0, 0.8], [0.8, 2.5]])
    inverse = np.linalg.inv(covariance)
    dx, dy = x - 0.3, y + 0.2
    q = inverse[0, 0] * dx**2 + 2 * inverse[0, 1] * dx * dy + inverse[1, 1] * dy**2
    sigma, e1, e2 = adaptive_moments(np.exp(-0.5 * q)[None].astype(np.float32), np.array([[0.3, -0.2]]))
    assert sigma[0] == pytest.approx(np.linalg.det(covariance) ** 0.25, rel=0.003)
    assert (e1[0], e2[0]) == pytest.approx((1.5 / 6.5, 1.6 / 6.5), abs=0.003)
    assert np.isnan(adaptive_moments(np.full((1, SIZE, SIZE), -1, np.float32), np.zeros((1, 2)))[0]).all()


def test_features_measure_noise_and_correlation() -> None:
    white = _cutouts(kind=0)
    table = summarise(white, "gr")
    column = dict(zip(table.names, table.values.T, strict=True))
    assert np.median(column["noise g rms"]) == pytest.approx(0.0, abs=0.01)
    assert np.median(column["correlation g x 1"]) == pytest.approx(0.0, abs=0.01)
    assert np.median(column["low frequencies g blocks"]) == pytest.approx(1.0, abs=0.1)
    smooth = replace(white, pixels=(white.pixels + np.roll(white.pixels, 1, axis=3)) / np.float32(np.sqrt(2)))
    column = dict(zip(table.names, summarise(smooth, "gr").values.T, strict=True))
    assert np.median(column["correlation g x 1"]) == pytest.approx(0.5, abs=0.04)  # clipping takes some
    assert np.median(column["correlation g y 1"]) == pytest.approx(0.0, abs=0.02)
    assert np.median(column["stripes g rows"]) == pytest.approx(2.0, abs=0.3)


def test_features_of_a_mirrored_cutout_are_the_same() -> None:
    found = _cutouts(10)
    offset = found.offset * np.array([-1.0, 1.0])
    # The middle pixel stays where it is when the first column is left out of the mirror.
    pixels = found.pixels.copy()
    pixels[..., 1:] = found.pixels[..., :0:-1]
    tables = [summarise(c, "gr") for c in (found, replace(found, pixels=pixels, offset=offset))]
    for family in ("concentration", "size", "shape"):
        columns = tables[0].family(family)
        np.testing.assert_allclose(
            tables[0].values[:, columns], tables[1].values[:, columns], rtol=1e-3, atol=1e-4
        )


# Classifiers ---------------------------------------------------------------


def test_area_under_the_curve() -> None:
    assert area_under_curve([1, 2, 3, 4], [0, 0, 1, 1]) == 1
    assert area_under_curve([1, 1, 1, 1], [0, 0, 1, 1]) == 0.5
    assert np.isnan(area_under_curve([1, 2], [1, 1]))
    rng = np.random.default_rng(0)
    areas = [area_under_curve(rng.normal(size=100), np.repeat([0, 1], 50)) for _ in range(300)]
    assert area_error(0.5, 50) == pytest.approx(np.std(areas), rel=0.15)


def test_sides_are_balanced_and_profiles_relative_to_the_pair() -> None:
    sample = _sample("a", _cutouts(30, 1), _cutouts(20, 2))
    assert [(sample.label == k).sum() for k in (0, 1)] == [20, 20]
    column = sample.features.values[:, sample.features.names.index("size g moments")]
    assert np.nanmedian(column) == pytest.approx(0.0, abs=1e-6)


def test_one_pair_is_split_into_halves_and_several_into_pairs() -> None:
    samples = [_sample(name, _cutouts(30, k), _cutouts(30, k + 9)) for k, name in enumerate("abc")]
    folds = folds_of(samples[:1])
    assert [len(test) + len(training[0]) for training, test in folds] == [60, 60]
    assert not folds[0][0][0].upper.any()
    assert folds[0][1].upper.all()
    assert [[s.name for s in training] for training, _ in folds_of(samples)] == [
        ["b", "c"],
        ["a", "c"],
        ["a", "b"],
    ]


def test_trees_tell_a_wider_psf_in_any_seeing_and_not_the_same_one() -> None:
    seeing = (1.2, 1.5, 1.9)
    wide = [_sample(str(s), _cutouts(40, k, s), _cutouts(40, k + 50, 1.1 * s)) for k, s in enumerate(seeing)]
    same = [_sample(str(s), _cutouts(40, k, s), _cutouts(40, k + 50, s)) for k, s in enumerate(seeing)]
    importance: dict[str, list[float]] = {}
    told, scores = run_test(wide, lambda a, b: tree_scores(a, b, importance=importance))
    assert told.auc["star"] > 0.95
    assert told.auc["all"] == told.auc["star"]
    assert np.isnan(told.auc["galaxy"])
    assert [s.size for s in scores] == [80, 80, 80]
    families = {name: np.mean(v) for name, v in importance.items() if name.startswith("family: ")}
    assert max(families, key=lambda name: families[name]) in ("family: size", "family: concentration")
    assert abs(run_test(same, tree_scores)[0].auc["all"] - 0.5) < 0.15


def test_the_network_sees_and_repeats_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutout_network, "_STEPS", 25)
    samples = [_sample(str(k), _cutouts(24, k), _cutouts(24, k + 50, 3.0)) for k in range(2)]
    first, scores = run_test(samples, network_scores)
    assert first.auc["all"] > 0.9
    _, again = run_test(samples, network_scores, workers=1)
    for one, other in zip(scores, again, strict=True):
        np.testing.assert_array_equal(one, other)


# Statistics ----------------------------------------------------------------


def _facts(
    seed: int, *, colour: float = 0.0, size: float = 1.0, number: int = 4000, noise: float = 1.0
) -> SkyFacts:
    rng = np.random.default_rng(seed)
    kind = rng.choice([STAR, GALAXY], number)
    blue = rng.uniform(0.3, 1.5, number)
    return SkyFacts(
        name="a",
        bands=("g", "r", "i"),
        area=0.1,
        magnitude=16 + 5.5 * rng.random(number) ** 0.5,
        kind=kind,
        colours={"g-r": blue, "r-i": 0.4 * blue + colour + rng.normal(0, 0.03, number)},
        half_light_radius=size * rng.lognormal(0.3, 0.3, number),
        noise={"g": noise, "r": 1.0, "i": 1.0},
        star_shapes={("r", "sigma"): rng.normal(1.5, 0.03, 200)},
    )


def _verdicts(rows: list[Comparison], quantity: str) -> set[str]:
    return {row.verdict for row in rows if row.quantity == quantity}


def test_equal_skies_pass() -> None:
    rows = compare_skies([_facts(1), _facts(2)], [_facts(3), _facts(4)])
    for quantity in ("noise", "psf", "ridge", "locus width", "colour"):
        assert _verdicts(rows, quantity) == {"PASS"}, quantity
    for quantity in ("counts", "size"):  # bins of few sources may stay open
        assert "FAIL" not in _verdicts(rows, quantity), quantity


@pytest.mark.parametrize(
    ("quantity", "change"),
    [
        ("counts", {"number": 6000}),
        ("noise", {"noise": 1.06}),
        ("ridge", {"colour": 0.05}),
        ("colour", {"colour": 0.07}),
        ("size", {"size": 1.2}),
    ],
)
def test_a_difference_beyond_the_tolerance_fails(quantity: str, change: dict[str, float]) -> None:
    rows = compare_skies([_facts(1), _facts(2)], [_facts(3, **change), _facts(4, **change)])  # type: ignore[arg-type]
    assert "FAIL" in _verdicts(rows, quantity)


def test_few_sources_leave_it_open() -> None:
    rows = compare_skies([_facts(1, number=60)], [_facts(3, number=90)])
    assert "OPEN" in _verdicts(rows, "counts")


def test_the_ridge_is_found_and_overlaps_are_shares() -> None:
    x = np.linspace(0, 1, 400)
    ridge, _, number = locus_ridge(x, 2 * x, np.array([0.0, 0.5, 0.9999]))
    np.testing.assert_allclose(ridge, [0.5, 1.5], atol=0.01)
    assert number.sum() == 399
    assert np.isnan(locus_ridge(x[:5], x[:5], np.array([0.0, 1.0]))[0]).all()
    rng = np.random.default_rng(0)
    near, far = rng.normal(0, 1, 4000), rng.normal(10, 1, 4000)
    assert overlap_coefficient(near, rng.normal(0, 1, 4000)) > 0.95
    assert overlap_coefficient(near, far) < 0.01


# The command ---------------------------------------------------------------


def test_pairs_are_found_by_name(tmp_path: Path) -> None:
    real = [_write(tmp_path / "real", f"field-{k}", k, size=64) for k in (1, 2)]
    _write(tmp_path / "twins" / "tile-0001", "field-2", 5, size=64)
    with pytest.raises(InputError, match=r"holds no twin of field-1 .*imcat simulate --like"):
        find_pairs(real, tmp_path / "twins")
    _write(tmp_path / "twins" / "tile-0002", "field-1", 6, size=64)
    _write(tmp_path / "twins" / "tile-0003", "field-1", 7, size=64)
    pairs, notes = find_pairs(real, tmp_path / "twins")
    assert [(a.name, b.name) for a, b in pairs] == [("field-1", "field-1"), ("field-2", "field-2")]
    assert "tile-0002" in pairs[0][1].files[0]
    assert notes == ["1 further twin(s) of the same tiles were left out; the first of each is used."]
    with pytest.raises(InputError, match="no such folder"):
        find_pairs(real, tmp_path / "none")


def test_the_command_writes_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutout_network, "_STEPS", 6)
    real = [str(_write(tmp_path / "real", f"field-{k}", k)) for k in (1, 2)]
    for k in (1, 2):
        _write(tmp_path / "twins" / f"tile-{k}", f"field-{k}", 10 + k, sigma=1.75)
    out = tmp_path / "report"
    code = main(["evaluate", "--realism", *real, "--twins", str(tmp_path / "twins"), "-o", str(out)])
    printed, said = capsys.readouterr()
    assert code == 0, said
    assert "AUC of trees" in printed
    report = json.loads((out / "report.json").read_text())
    assert report["tiles"] == ["field-1", "field-2"]
    # This twin's PSF is much too wide: the trees must say so, and so must the statistics.
    assert report["test"]["trees, star profiles"]["auc"]["star"] > 0.9
    assert report["give_away"]["families"][0][0] in ("size", "concentration", "flux")
    assert not report["verdicts"]["overall_passed"]
    assert {row["verdict"] for row in report["statistics"] if row["name"].startswith("sigma")} == {"FAIL"}
    assert abs(report["controls"]["mirrored"]["trees"]["auc"]["all"] - 0.5) < 0.1
    text = (out / "report.md").read_text()
    for figure in ("auc", "cutouts", "give-away", "counts", "sizes", "locus"):
        assert f"({figure}.png)" in text
        assert (out / f"{figure}.png").stat().st_size > 5000
    shutil.rmtree(out)
    (out / "letters").mkdir(parents=True)
    assert main(["evaluate", "--realism", *real, "--twins", str(tmp_path / "twins"), "-o", str(out)]) == 2
    assert "holds something else than a report" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a"], "evaluate got 1 path; expected CATALOGUE TRUTH, or --realism REAL... --twins DIR"),
        (["a", "b", "c"], "evaluate got 3 paths"),
        (["--realism", "a"], "expected --twins DIR"),
        (["a", "b", "--twins", "c"], "--twins goes with --realism"),
        (["--realism", "--twins", "c"], "missing argument"),
    ],
)
def test_unclear_usage(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", *words, "-o", str(tmp_path / "report")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert said in error
    assert not (tmp_path / "report").exists()


def test_features_keep_their_families() -> None:
    table = Features(np.zeros((2, 3), np.float32), ("a g", "b g", "a r"), ("a", "b", "a"))
    np.testing.assert_array_equal(table.family("a"), [0, 2])
