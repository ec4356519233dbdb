import numpy as np
import pytest
from astropy.io.votable.ucd import parse_ucd
from astropy.units import Unit

from imcat.catalogue import concatenate
from imcat.catalogue.fields import vo_unit
from imcat.catalogue.names import CONVENTIONS, SDSS_SOFTENING, asinh_magnitude, pogson_magnitude, rename
from imcat.catalogue.regions import format_regions
from imcat.errors import OutputError, UsageError
from imcat.flags import SourceFlag
from imcat.schema import COLUMNS


def test_asinh_magnitudes_of_zero_flux():
    # SDSS DR17, algorithms, "magnitudes": the magnitude of zero flux in each band.
    published = {"u": 24.63, "g": 25.11, "r": 24.80, "i": 24.36, "z": 22.83}
    for band, magnitude in published.items():
        assert asinh_magnitude(np.zeros(1), SDSS_SOFTENING[band])[0] == pytest.approx(magnitude, abs=0.01)


def test_bright_asinh_magnitude_is_pogson():
    flux = np.array([3631e9 * 10 ** (-0.4 * 17.0)])
    assert pogson_magnitude(flux)[0] == pytest.approx(17.0, abs=1e-9)
    assert asinh_magnitude(flux, SDSS_SOFTENING["r"])[0] == pytest.approx(17.0, abs=1e-4)


def test_sdss_names(make_catalogue):
    catalogue = make_catalogue(
        bands=("g", "r"), rows=2, flags=np.array([0, int(SourceFlag.SATURATED | SourceFlag.EDGE)])
    )
    table = rename(catalogue, "sdss").columns
    np.testing.assert_array_equal(table["objID"], catalogue["source_id"])
    np.testing.assert_array_equal(table["colc"], catalogue["x"] + 0.5)
    np.testing.assert_array_equal(table["rowc"], catalogue["y"] + 0.5)
    assert table["flags"].tolist() == [0, 0x40004]
    assert table["run"].tolist() == [42, 42]
    assert table["camcol"].tolist() == [3, 3]
    assert table["field"].tolist() == [7, 7]
    np.testing.assert_allclose(table["kronFlux_g"], catalogue["g_kron_flux"] / 3631, rtol=1e-6)
    np.testing.assert_allclose(
        table["kronFluxIvar_g"], (catalogue["g_kron_flux_err"] / 3631.0) ** -2, rtol=1e-5
    )
    # The error is the derivative of the magnitude.
    flux, error = catalogue["g_kron_flux"].astype(float), catalogue["g_kron_flux_err"]
    step = 1e-3
    slope = (asinh_magnitude(flux - step, 0.9e-10) - asinh_magnitude(flux + step, 0.9e-10)) / (2 * step)
    np.testing.assert_allclose(table["kronMagErr_g"], slope * error, rtol=1e-4)
    assert "petroR50_r" in table


def test_sdss_names_of_other_bands_are_pogson(make_catalogue):
    flux = np.array([-1.0, 3631e9], dtype=np.float32)
    table = rename(
        make_catalogue(bands=("nuv", "u"), rows=2, nuv_kron_flux=flux, u_kron_flux=flux), "sdss"
    ).columns
    assert np.isnan(table["kronMag_nuv"][0])
    assert np.isnan(table["kronMagErr_nuv"][0])
    assert np.isfinite(table["kronMag_u"]).all()
    assert table["kronMag_nuv"][1] == pytest.approx(0)


def test_tiles_of_other_surveys_have_no_run(make_catalogue):
    assert "run" not in rename(make_catalogue(tile="field-1"), "sdss").columns


def test_sextractor_names(make_catalogue):
    flags = np.array(
        [0, int(SourceFlag.NEIGHBOUR | SourceFlag.BLENDED | SourceFlag.SATURATED | SourceFlag.EDGE)]
    )
    catalogue = make_catalogue(rows=2, flags=flags, position_angle=np.array([30.0, 170.0]))
    table = rename(catalogue, "sextractor").columns
    assert table["NUMBER"].tolist() == [1, 2]
    np.testing.assert_array_equal(table["X_IMAGE"], catalogue["x"] + 1)
    np.testing.assert_allclose(table["A_IMAGE"], catalogue["semi_major"] / 0.396, rtol=1e-6)
    np.testing.assert_allclose(table["THETA_J2000"], [30, -10], rtol=1e-6)
    np.testing.assert_allclose(
        table["KRON_RADIUS"] * table["A_IMAGE"] * 0.396, catalogue["kron_radius"], rtol=1e-5
    )
    np.testing.assert_array_equal(table["FLUX_AUTO_r"], catalogue["r_kron_flux"])
    np.testing.assert_allclose(table["MAG_APER_3_g"], pogson_magnitude(catalogue["g_aper_flux_3"]), rtol=1e-6)
    assert "FLUXERR_APER_7p43_r" in table
    assert table["FLAGS"].tolist() == [0, 15]
    np.testing.assert_allclose(table["ERRX2_WORLD"], (catalogue["ra_err"].astype(float) / 3600) ** 2)
    windowed = catalogue["position_source"] == "windowed"
    np.testing.assert_array_equal(np.isfinite(table["XWIN_IMAGE"]), windowed)


def test_pixels_need_a_scale(make_catalogue):
    catalogue = make_catalogue(rows=2)
    del catalogue.meta["pixel_scale"]
    table = rename(catalogue, "sextractor").columns
    assert "A_IMAGE" not in table
    assert "A_WORLD" in table


def test_scale_of_each_tile(make_catalogue):
    tiles = [make_catalogue(seed=s, tile=f"t{s}", rows=2) for s in (1, 2)]
    tiles[1].meta["pixel_scale"] = 0.2
    both = concatenate(tiles)
    expected = both["semi_major"] / np.array([0.396, 0.396, 0.2, 0.2])
    np.testing.assert_allclose(rename(both, "sextractor").columns["A_IMAGE"], expected, rtol=1e-6)


@pytest.mark.parametrize("names", ["sdss", "sextractor"])
def test_every_source_column_is_declared(names):
    declared = {c.name for c in COLUMNS}
    for renamed in CONVENTIONS[names]:
        for source in renamed.sources:
            assert source in declared or source == "{b}_aper_flux_3" or source == "{b}_aper_flux_3_err"


@pytest.mark.parametrize("names", CONVENTIONS)
def test_ucds_and_units_are_valid(make_catalogue, names):
    table = rename(make_catalogue(bands=("nuv", "u", "z")), names)
    for declared in (*table.fields, *table.parameters):
        assert declared.ucd
        parse_ucd(declared.ucd, check_controlled_vocabulary=True)
        Unit(vo_unit(declared.unit), format="vounit", parse_strict="raise")
        assert "flux" not in declared.name or declared.unit or "Ivar" in declared.name


def test_unknown_convention(make_catalogue):
    with pytest.raises(UsageError, match="'hsc'"):
        rename(make_catalogue(rows=1), "hsc")


def test_regions():
    columns = {
        "ra": np.array([10.0, 20.0]),
        "dec": np.array([-5.0, 5.0]),
        "semi_major": np.array([1.0, np.nan]),
        "semi_minor": np.array([0.5, np.nan]),
        "position_angle": np.array([30.0, np.nan]),
        "class": np.array(["galaxy", ""]),
        "source_id": np.array([2**60 + 1, 2]),
    }
    lines = format_regions(columns).splitlines()
    assert lines[2] == "icrs"
    assert lines[3] == (
        'ellipse(10.0000000,-5.0000000,3.000",1.500",120.00) '
        "# color=yellow text={1152921504606846977} tag={galaxy}"
    )
    assert lines[4] == "point(20.0000000,5.0000000) # point=x color=green text={2}"
    kron = format_regions({**columns, "kron_radius": np.array([4.0, np.nan])}).splitlines()[3]
    assert '4.000",2.000"' in kron
    with pytest.raises(OutputError, match="need the columns ra and dec"):
        format_regions({"ra": columns["ra"]})
