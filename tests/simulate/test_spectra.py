"""Template spectra: exact magnitudes in, sane magnitudes out, and the real sky as judge."""

from __future__ import annotations

import time

import numpy as np
import pytest

from imcat.errors import InputError
from imcat.simulate.filters import FilterSet
from imcat.simulate.sources import Kind
from imcat.simulate.spectra import MAX_REDSHIFT, SpectralLibrary
from imcat.simulate.spectra_file import GRID_SIZE, grid_wavelengths, read_spectra


@pytest.fixture(scope="module")
def library() -> SpectralLibrary:
    return SpectralLibrary.load()


def some_sources(n: int, seed: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    kind = rng.choice(3, n)
    redshift = np.where(kind > 0, rng.uniform(0, 3, n), 0.0)
    colours = rng.normal([[0.8, 0.5, 0.2, 0.1]], [[0.3, 0.2, 0.1, 0.1]], (n, 4))
    r = rng.uniform(16, 23, n)
    g, i = r + colours[:, 1], r - colours[:, 2]
    return kind, np.stack([g + colours[:, 0], g, r, i, i - colours[:, 3]], 1), redshift


def test_the_file_holds_complete_spectra():
    content = read_spectra()
    assert set(content.templates) == {"star", "galaxy", "quasar"}
    for kind, spectra in content.templates.items():
        assert spectra.shape == (len(content.names[kind]), GRID_SIZE)
        assert len(set(content.names[kind])) == len(spectra)
        assert np.isfinite(spectra).all()
    wave = grid_wavelengths()
    assert wave[0] < 600
    assert wave[-1] > 25000


def test_sdss_magnitudes_come_back_exactly(library):
    kind, mag, redshift = some_sources(300)
    template = library.choose(kind, mag, redshift, np.random.default_rng(1))
    sdss = FilterSet.named("sdss")
    assert np.array_equal(library.magnitudes(kind, template, redshift, mag, sdss), mag)
    dusty = library.magnitudes(kind, template, redshift, mag, sdss, 0.1)
    np.testing.assert_allclose(dusty - mag, np.broadcast_to(sdss.extinction(0.1), mag.shape), atol=1e-12)


def test_the_same_curves_by_another_name_differ_by_the_offset_of_sdss_alone(library):
    """A user who brings the SDSS curves gets AB magnitudes: u_AB = u - 0.04, z_AB = z + 0.02."""
    kind, mag, redshift = some_sources(200)
    template = library.choose(kind, mag, redshift, np.random.default_rng(1))
    own = FilterSet.from_curves(read_spectra().curves)
    ab = library.magnitudes(kind, template, redshift, mag, own)
    np.testing.assert_allclose(ab - mag, np.broadcast_to([-0.04, 0, 0, 0, 0.02], mag.shape), atol=1e-9)


def test_a_grey_change_of_brightness_changes_every_band_alike(library):
    kind, mag, redshift = some_sources(100)
    template = library.choose(kind, mag, redshift, np.random.default_rng(1))
    csst = FilterSet.named("csst")
    bright = library.magnitudes(kind, template, redshift, mag, csst)
    faint = library.magnitudes(kind, template, redshift, mag + 1.5, csst)
    np.testing.assert_allclose(faint - bright, 1.5, atol=1e-9)
    assert np.abs(bright[:, 3] - mag[:, 2]).max() < 0.3  # CSST r is close to SDSS r


@pytest.mark.parametrize("kind", list(Kind))
def test_a_template_finds_itself(library, kind):
    """Bare template magnitudes need no warp, and are most often explained by that template or its like."""
    count = len(library.names[kind])
    redshift = np.full(count, 0.0 if kind is Kind.STAR else 0.4)
    sdss, csst = FilterSet.named("sdss"), FilterSet.named("csst")
    mag = library.template_magnitudes(kind, np.arange(count), redshift, sdss) + 18
    again = library.magnitudes(np.full(count, kind), np.arange(count), redshift, mag, csst)
    bare = library.template_magnitudes(kind, np.arange(count), redshift, csst) + 18
    np.testing.assert_allclose(again, bare, atol=1e-9)
    chosen = library.choose(np.full(count, kind), mag, redshift, np.random.default_rng(2))
    found = library.template_magnitudes(kind, chosen, redshift, sdss)
    colour = np.diff(found, axis=1) - np.diff(mag, axis=1)
    assert np.percentile(np.abs(colour), 68) < 0.06
    assert len(np.unique(chosen)) > count / 3  # spectra vary


def test_light_below_the_lyman_limit_does_not_arrive(library):
    """A galaxy at redshift 4 drops out of u; a quasar at 3.5 is fainter in NUV than a flat spectrum."""
    sdss = FilterSet.named("sdss")
    z = np.array([0.5, 4.0])
    blue = library.names[Kind.GALAXY].index("brown-UGCA_166")
    mags = library.template_magnitudes(Kind.GALAXY, np.array([blue, blue]), z, sdss)
    assert mags[1, 0] - mags[1, 2] > 3 + mags[0, 0] - mags[0, 2]


def test_results_do_not_depend_on_what_stands_beside(library):
    kind, mag, redshift = some_sources(500)
    csst = FilterSet.named("csst")
    template = library.choose(kind, mag, redshift, np.random.default_rng(3))
    again = library.choose(kind, mag, redshift, np.random.default_rng(3))
    assert np.array_equal(template, again)
    whole = library.magnitudes(kind, template, redshift, mag, csst)
    part = library.magnitudes(kind[7:9], template[7:9], redshift[7:9], mag[7:9], csst)
    np.testing.assert_allclose(whole[7:9], part, rtol=0, atol=1e-12)


def test_no_sources_give_no_magnitudes(library):
    empty = np.zeros(0, np.int8), np.zeros((0, 5)), np.zeros(0)
    template = library.choose(*empty, np.random.default_rng(1))
    assert template.shape == (0,)
    csst = FilterSet.named("csst")
    assert library.magnitudes(empty[0], template, empty[2], empty[1], csst).shape == (0, 7)


def test_ten_thousand_sources_take_less_than_a_second(library):
    kind, mag, redshift = some_sources(10_000)
    csst = FilterSet.named("csst")
    rng = np.random.default_rng(4)
    template = library.choose(kind, mag, redshift, rng)
    library.magnitudes(kind, template, redshift, mag, csst)  # computes the grids
    start = time.process_time()
    library.choose(kind, mag, redshift, rng)
    library.magnitudes(kind, template, redshift, mag, csst, np.full(len(kind), 0.05))
    assert time.process_time() - start < 1.5  # measured 0.15 s on one idle core


def test_impossible_sources_are_refused(library):
    kind, mag, redshift = some_sources(4)
    rng = np.random.default_rng(1)
    with pytest.raises(InputError, match=r"redshift -0\.1"):
        library.choose(np.full(4, Kind.GALAXY), mag, np.full(4, -0.1), rng)
    with pytest.raises(InputError, match=f"expected 0 to {MAX_REDSHIFT:.2f}"):
        library.choose(np.full(4, Kind.QUASAR), mag, np.full(4, 9.0), rng)
    with pytest.raises(InputError, match="not finite"):
        library.choose(kind, np.full((4, 5), np.nan), redshift, rng)
    with pytest.raises(InputError, match="kind of source"):
        library.choose(np.full(4, 7), mag, redshift, rng)
    with pytest.raises(InputError, match="magnitudes; expected"):
        library.choose(kind, mag[:, :4], redshift, rng)
    with pytest.raises(InputError, match="no star template"):
        library.magnitudes(np.zeros(4, int), np.full(4, 10_000), redshift, mag, FilterSet.named("csst"))


def test_a_spoilt_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"there is no spectra\.safetensors"):
        read_spectra(tmp_path)
    (tmp_path / "spectra.safetensors").write_bytes(b"spoilt")
    (tmp_path / "spectra.toml").write_text('format = 1\nsha256 = "0"\n', encoding="utf-8")
    with pytest.raises(InputError, match="checksum"):
        read_spectra(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "spectra.safetensors").write_bytes(b"spoilt")
    (tmp_path / "other" / "spectra.toml").write_text("format = 99\n", encoding="utf-8")
    with pytest.raises(InputError, match="format 99"):
        read_spectra(tmp_path / "other")


@pytest.mark.realdata
def test_templates_have_the_colours_of_the_real_sky(data_dir, library):
    """Main-sample galaxies and quasars of SDSS: medians and spread of template minus real colour."""
    pq = pytest.importorskip("pyarrow.parquet")
    rng = np.random.default_rng(6)
    folder = data_dir / "populations"
    galaxies = pq.read_table(folder / "sdss_main_galaxies_photoz_train.parquet")
    quasars = pq.read_table(folder / "sdss_quasars_ugriz_z.parquet")
    for kind, table, columns, z, spread in (
        (Kind.GALAXY, galaxies, "{}", "zs", (0.16, 0.06, 0.05, 0.06)),
        (Kind.QUASAR, quasars, "{}_mag", "z", (0.16, 0.09, 0.08, 0.10)),
    ):
        mag = np.stack([table[columns.format(b)].to_numpy() for b in "ugriz"], 1)
        redshift = table[z].to_numpy()
        rows = (mag > 10).all(1) & (redshift > 0) & (redshift < 2.2)
        mag, redshift = mag[rows][:4000], redshift[rows][:4000]
        template = library.choose(np.full(len(mag), kind), mag, redshift, rng)
        bare = library.template_magnitudes(kind, template, redshift, library.anchors)
        residual = np.diff(bare, axis=1) - np.diff(mag, axis=1)
        assert np.all(np.abs(np.median(residual, axis=0)) < (0.10, 0.04, 0.04, 0.04))
        assert np.all(np.percentile(np.abs(residual), 68, axis=0) < spread)
