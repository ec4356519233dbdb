"""Photometry as the classifier takes it: soft magnitudes, the choice of a total, what is missing, a magnitude in r."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from imcat.catalogue.fields import AB_FLUX
from imcat.classify.photometry import (
    GLOBALS,
    Photometry,
    catalogue_photometry,
    soft_magnitude,
    table_photometry,
)
from imcat.schema import Schema

NAN = float("nan")


def mag(flux: float) -> float:
    """AB magnitude of a flux in nJy."""
    return float(-2.5 * np.log10(flux / AB_FLUX))


def measured(**columns: list[float]) -> dict[str, NDArray[np.float64]]:
    """Columns of a catalogue."""
    return {name: np.array(values) for name, values in columns.items()}


class TestSoftMagnitude:
    def test_well_above_the_noise_it_is_the_magnitude(self) -> None:
        flux = np.geomspace(1e3, 1e9, 40)
        value, error = soft_magnitude(flux, flux / 1000)
        np.testing.assert_allclose(value, -2.5 * np.log10(flux / AB_FLUX), atol=3e-6)
        np.testing.assert_allclose(error, 2.5 / np.log(10) / 1000, rtol=1e-4)

    def test_at_zero_it_is_that_of_the_error(self) -> None:
        value, error = soft_magnitude(0.0, 250.0)
        assert float(value) == pytest.approx(mag(250.0), abs=1e-5)
        assert float(error) == pytest.approx(1.0857 / 2, rel=1e-4)

    def test_negative_fluxes_fall_on_without_cancelling(self) -> None:
        signal = np.linspace(5, -1e5, 4001)
        value, _ = soft_magnitude(signal, 1.0)
        assert np.isfinite(value).all()
        assert (np.diff(value.astype(float)) > 0).all()
        # Far below, the root less the flux would lose every digit: the limit is sigma² / |f|.
        far, _ = soft_magnitude([-1e9, -1e12], [1.0, 1.0])
        np.testing.assert_allclose(far, [mag(1e-9), mag(1e-12)], rtol=1e-6)

    def test_both_forms_meet_at_zero(self) -> None:
        value, _ = soft_magnitude([-1e-9, 1e-9], [1.0, 1.0])
        assert value[0] == pytest.approx(value[1], abs=1e-6)

    @pytest.mark.parametrize(
        ("flux", "error"),
        [
            (100.0, 0.0),
            (100.0, -1.0),
            (100.0, NAN),
            (NAN, 1.0),
            (np.inf, 1.0),
            (-np.inf, 1.0),
            (100.0, np.inf),
        ],
    )
    def test_without_a_flux_and_an_error_there_is_none(self, flux: float, error: float) -> None:
        value, spread = soft_magnitude([flux, 100.0], [error, 1.0])
        assert np.isnan(value[0])
        assert np.isnan(spread[0])
        assert np.isfinite(value[1])

    @given(flux=st.floats(-1e8, 1e8), sigma=st.floats(1e-3, 1e6))
    @settings(max_examples=100, deadline=None)
    def test_it_exists_for_every_flux(self, flux: float, sigma: float) -> None:
        value, error = soft_magnitude(flux, sigma)
        assert np.isfinite(value)
        assert 0 < float(error) < 0.543
        # It is never below that of the flux's own, nor of the error's where the flux is negative.
        soft = AB_FLUX * 10 ** (-0.4 * float(value))
        assert soft >= max(flux, 0) * (1 - 1e-5)
        assert soft <= (max(flux, 0) + sigma) * (1 + 1e-5)


class TestCatalogue:
    def test_the_total_is_the_most_complete_flux_of_each_source_and_band(self) -> None:
        columns = measured(
            g_cmodel_flux=[1e4, NAN, NAN, NAN], g_cmodel_flux_err=[10.0, 10.0, 10.0, 10.0],
            g_model_flux=[2e4, 2e4, NAN, NAN], g_model_flux_err=[20.0, 20.0, 20.0, 20.0],
            g_kron_flux=[3e4, 3e4, 3e4, NAN], g_kron_flux_err=[30.0, 30.0, 30.0, 30.0],
            r_kron_flux=[5e4, 6e4, NAN, NAN], r_kron_flux_err=[50.0, 50.0, 50.0, 50.0],
        )  # fmt: skip
        p = catalogue_photometry(columns, ["g", "r"], [4700.0, 6200.0], "r")
        np.testing.assert_allclose(p.total[:, 0], [mag(1e4), mag(2e4), mag(3e4), NAN], atol=1e-5)
        np.testing.assert_allclose(p.total[:, 1], [mag(5e4), mag(6e4), NAN, NAN], atol=1e-5)
        # Magnitude and error come from the same flux; each of these has a relative error of a thousandth.
        np.testing.assert_allclose(p.total_err[:3, 0], 1.0857e-3, rtol=1e-4)
        assert np.isnan(p.total_err[3]).all()

    def test_a_flux_without_an_error_gives_way_to_the_next(self) -> None:
        columns = measured(
            r_cmodel_flux=[1e4, 1e4], r_cmodel_flux_err=[0.0, NAN], r_model_flux=[2e4, 2e4],
            r_model_flux_err=[20.0, 20.0],
        )  # fmt: skip
        p = catalogue_photometry(columns, ["r"], [6200.0], "r")
        np.testing.assert_allclose(p.total[:, 0], mag(2e4), atol=1e-5)

    def test_what_is_not_in_the_catalogue_is_missing(self) -> None:
        p = catalogue_photometry({"x": np.zeros(3)}, ["g", "r"], [4700.0, 6200.0], "r")
        assert len(p) == 3
        for field in fields(Photometry):
            if field.name != "wavelength":
                values = getattr(p, field.name)
                assert values.dtype == np.float32
                assert values.shape == (3, len(GLOBALS) if field.name == "extra" else 2)
                assert np.isnan(values).all()

    def test_psf_aperture_and_dust_have_their_places(self) -> None:
        columns = measured(
            g_psf_flux=[1e4],
            g_psf_flux_err=[10.0],
            r_aper_flux_3=[2e4],
            r_aper_flux_3_err=[40.0],
            r_extinction=[0.2],
        )
        p = catalogue_photometry(columns, ["r", "g"], [6200.0, 4700.0], "r")
        np.testing.assert_allclose(p.psf, [[NAN, mag(1e4)]], atol=1e-5)
        np.testing.assert_allclose(p.aperture, [[mag(2e4), NAN]], atol=1e-5)
        np.testing.assert_allclose(p.aperture_err, [[1.0857 * 2e-3, NAN]], rtol=1e-4)
        np.testing.assert_allclose(p.extinction, [[0.2, NAN]], rtol=1e-6)
        np.testing.assert_array_equal(p.wavelength, [6200.0, 4700.0])
        assert np.isnan(p.total).all()

    def test_apertures_of_images_from_space_are_those_for_colours(self) -> None:
        columns = {
            "r_kron_flux": [3e4], "r_kron_flux_err": [50.0], "r_aper_flux_3": [2e4], "r_aper_flux_3_err": [40.0],
            "r_color_flux": [1e4], "r_color_flux_err": [10.0],
        }  # fmt: skip
        for fwhm, flux in ((0.15, 1e4), (1.2, 2e4), (NAN, 2e4)):
            p = catalogue_photometry(columns, ["r"], [6170.0], "r", fwhm)
            np.testing.assert_allclose(p.aperture, [[mag(flux)]], atol=1e-5)
        del columns["r_color_flux"]
        np.testing.assert_allclose(
            catalogue_photometry(columns, ["r"], [6170.0], "r", 0.15).aperture, [[mag(2e4)]], atol=1e-5
        )

    def test_sizes_lie_in_their_order(self) -> None:
        columns = measured(
            half_light_radius=[1.5], semi_minor=[0.6], semi_major=[0.8], petrosian_radius=[4.0], petrosian_r50=[2.0],
            petrosian_r90=[5.0], spread_model=[0.03], spread_model_err=[0.01], r_psf_chi2=[150.0], r_model_chi2=[100.0],
            g_psf_chi2=[9.0], g_model_chi2=[1.0], model_radius=[0.7], r_fracdev=[0.25], g_fracdev=[0.75],
        )  # fmt: skip
        p = catalogue_photometry(columns, ["g", "r"], [4700.0, 6200.0], "r", psf_fwhm=1.3)
        expected = {
            "log_half_light": np.log(1.5), "axis_ratio": 0.75, "log_psf": np.log(1.3), "log_petrosian": np.log(4.0),
            "log_r50": np.log(2.0), "concentration": 2.5, "spread": np.arcsinh(3.0), "extended": np.arcsinh(50.0),
            "log_radius": np.log(0.7), "fracdev": 0.25,
        }  # fmt: skip
        assert tuple(expected) == GLOBALS
        np.testing.assert_allclose(p.extra[0], list(expected.values()), rtol=1e-6)

    def test_impossible_sizes_are_missing_and_tiny_ones_bounded(self) -> None:
        columns = measured(
            half_light_radius=[0.0, NAN], semi_minor=[0.0, 1.0], semi_major=[0.0, 2.0], petrosian_r50=[0.0, 1.0],
            petrosian_r90=[1.0, 2.0], spread_model=[0.1, 0.0], spread_model_err=[0.0, 1.0],
        )  # fmt: skip
        p = catalogue_photometry(columns, ["r"], [6200.0], "r")
        found = dict(zip(GLOBALS, p.extra.T, strict=True))
        np.testing.assert_allclose(found["log_half_light"], [np.log(0.01), NAN], rtol=1e-6)
        np.testing.assert_allclose(found["axis_ratio"], [NAN, 0.5])
        np.testing.assert_allclose(found["concentration"], [NAN, 2.0])
        np.testing.assert_allclose(found["spread"], [NAN, 0.0])

    def test_every_column_it_reads_is_one_of_the_schema(self) -> None:
        class Spy(dict[str, NDArray[np.float64]]):
            def __init__(self) -> None:
                super().__init__(x=np.zeros(1))
                self.asked: set[str] = set()

            def __contains__(self, name: object) -> bool:
                self.asked.add(str(name))
                return super().__contains__(name)

            def get(self, name: str, default: object = None) -> object:  # type: ignore[override]
                self.asked.add(name)
                return super().get(name, default)

        spy = Spy()
        catalogue_photometry(spy, ["r"], [6200.0], "r")
        assert len(spy.asked) > 15
        assert sorted(name for name in spy.asked if name not in Schema(["r"])) == []


class TestTable:
    def test_magnitudes_and_what_belongs_to_them(self) -> None:
        p = table_photometry(
            [4700.0, 6200.0], [[18.0, 17.5], [20.0, NAN]], error=[[0.01, 0.02], [0.1, 0.3]],
            extinction=[[0.3, 0.2], [0.3, 0.2]], psf=[[18.1, 17.6], [20.1, 19.0]], extra={"log_r50": [0.5, NAN]},
        )  # fmt: skip
        np.testing.assert_allclose(p.total, [[18.0, 17.5], [20.0, NAN]])
        # Where there is no magnitude, there is nothing else of the band.
        np.testing.assert_allclose(p.total_err, [[0.01, 0.02], [0.1, NAN]], rtol=1e-6)
        np.testing.assert_allclose(p.extinction, [[0.3, 0.2], [0.3, NAN]], rtol=1e-6)
        np.testing.assert_allclose(p.psf, [[18.1, 17.6], [20.1, NAN]], rtol=1e-6)
        for missing in (p.psf_err, p.aperture, p.aperture_err):
            assert missing.shape == (2, 2)
            assert np.isnan(missing).all()
        here = GLOBALS.index("log_r50")
        np.testing.assert_allclose(p.extra[:, here], [0.5, NAN])
        assert np.isnan(np.delete(p.extra, here, axis=1)).all()

    def test_magnitudes_alone_suffice(self) -> None:
        p = table_photometry([6200.0], np.array([[18.0]]))
        assert np.isnan(p.total_err).all()
        assert np.isnan(p.extinction).all()
        assert p.reference_magnitude() == pytest.approx([18.0])

    def test_a_number_that_no_network_knows_is_refused(self) -> None:
        with pytest.raises(ValueError, match="not in tuple"):
            table_photometry([6200.0], np.array([[18.0]]), extra={"colour": [1.0]})

    def test_some_of_the_sources(self) -> None:
        p = table_photometry(
            [4700.0, 6200.0], np.arange(8.0).reshape(4, 2), extra={"axis_ratio": np.arange(4.0)}
        )
        few = p.take(np.array([3, 0]))
        assert len(few) == 2
        np.testing.assert_array_equal(few.total, [[6, 7], [0, 1]])
        np.testing.assert_array_equal(few.extra[:, GLOBALS.index("axis_ratio")], [3, 0])
        np.testing.assert_array_equal(few.wavelength, p.wavelength)


class TestReferenceMagnitude:
    WAVES = np.array([3500.0, 4700.0, 7500.0, 9000.0])

    def test_it_is_linear_in_the_logarithm_of_the_wavelength(self) -> None:
        mags = np.array([[20.0, 19.0, 18.0, 17.0]])
        share = np.log(6200 / 4700) / np.log(7500 / 4700)
        found = table_photometry(self.WAVES.tolist(), mags).reference_magnitude()
        assert found == pytest.approx([19.0 - share], abs=1e-6)

    def test_a_band_at_the_reference_is_the_answer(self) -> None:
        found = table_photometry(
            [4700.0, 6200.0, 7500.0], np.array([[19.0, 18.25, 17.0]])
        ).reference_magnitude()
        assert found == pytest.approx([18.25])

    @given(seed=st.integers(0, 1000))
    @settings(max_examples=30, deadline=None)
    def test_the_order_of_the_bands_does_not_matter(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        mags = np.where(rng.random((6, 4)) < 0.4, NAN, rng.uniform(15, 25, (6, 4)))
        order = rng.permutation(4)
        first = table_photometry(self.WAVES.tolist(), mags).reference_magnitude()
        second = table_photometry(self.WAVES[order].tolist(), mags[:, order]).reference_magnitude()
        np.testing.assert_allclose(first, second, rtol=1e-12)
        np.testing.assert_array_equal(np.isnan(first), np.isnan(mags).all(axis=1))
        # An oracle: numpy's interpolation, source by source.
        for row, value in zip(mags.astype(np.float32).astype(float), first, strict=True):
            known = np.isfinite(row)
            if known.any():
                expected = np.interp(np.log(6200.0), np.log(self.WAVES[known]), row[known])
                assert value == pytest.approx(expected, rel=1e-9)

    def test_beyond_the_bands_it_is_constant(self) -> None:
        blue = table_photometry([3500.0, 4700.0], np.array([[20.0, 19.0], [20.0, NAN], [NAN, NAN]]))
        np.testing.assert_allclose(blue.reference_magnitude(), [19.0, 20.0, NAN])
        red = table_photometry([9000.0, 7500.0], np.array([[17.0, 18.0], [17.0, NAN]]))
        np.testing.assert_allclose(red.reference_magnitude(), [18.0, 17.0])

    def test_no_sources_have_no_magnitudes(self) -> None:
        assert table_photometry([6200.0], np.zeros((0, 1))).reference_magnitude().shape == (0,)
