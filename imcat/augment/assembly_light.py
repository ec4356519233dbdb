"""Galaxies of a scene whose light a network generates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from imcat.augment.conditions import Conditions, Ranges
from imcat.augment.trained import TrainedLight
from imcat.catalogue.fields import AB_FLUX
from imcat.simulate.galaxies import half_light_radius
from imcat.simulate.parts import DrawnGalaxies
from imcat.simulate.sources import Morphology, Sources

__all__ = ["GeneratedLight", "check_bands", "conditions_of"]

Float64 = NDArray[np.float64]

_LITTLE = 1e-3  # mag


def conditions_of(sources: Sources, flux: Float64, wavelengths: Float64, ranges: Ranges) -> Conditions:
    """What a generator is asked for, so that it makes the galaxies of a scene.

    A morphology or redshift that it does not know is left open, but for mergers: their light is asked for by name or not at all.

    Parameters
    ----------
    sources : Sources
        Galaxies.
    flux : float64 array, ``[n, bands]``
        Total, nJy.
    wavelengths : float64 array, ``[bands]``
        Effective, Å.
    ranges : Ranges
        Of the generator.
    """
    known = [int(Morphology[name.upper()]) for name in ranges.morphologies]
    told = np.isin(sources.morphology, [*known, int(Morphology.MERGER)])
    bulge = sources.bulge_fraction > 0.5
    return Conditions(
        flux=np.asarray(flux, np.float64),
        wavelength=np.asarray(wavelengths, np.float64),
        radius=half_light_radius(sources),
        axis_ratio=np.where(bulge, sources.bulge_axis_ratio, sources.disc_axis_ratio),
        position_angle=sources.position_angle,
        bulge_fraction=sources.bulge_fraction,
        redshift=np.where(ranges.knows_redshift(sources.redshift), sources.redshift, np.nan),
        morphology=np.where(told, sources.morphology, -1).astype(np.int8),
    )


def check_bands(ranges: Ranges, wavelengths: Float64, magnitudes: tuple[float, float] | None = None) -> None:
    """Refuse bands, and a range of magnitudes, that a generator was not trained on.

    Raises
    ------
    InputError
        With the range that it was trained on.
    """
    middle = {name: 0.5 * sum(getattr(ranges, name)) for name in ("magnitude", "radius", "axis_ratio")}
    # A magnitude there and back must not refuse the ends of the range themselves.
    ends = (magnitudes[0] + _LITTLE, magnitudes[1] - _LITTLE) if magnitudes else (middle["magnitude"],)
    one = np.ones(len(ends))
    flux = AB_FLUX * 10 ** (-0.4 * np.array(ends, np.float64))
    ranges.check(
        Conditions(
            flux=np.repeat(flux[:, None], len(wavelengths), axis=1),
            wavelength=np.asarray(wavelengths, np.float64),
            radius=middle["radius"] * one,
            axis_ratio=middle["axis_ratio"] * one,
            position_angle=0 * one,
            bulge_fraction=0 * one,
            redshift=np.nan * one,
            morphology=np.full(len(ends), -1, np.int8),
        )
    )


class GeneratedLight:
    """Draws a share of the galaxies that a generator can make (`imcat.simulate.parts.GalaxyLight`).

    Parameters
    ----------
    trained : TrainedLight
        The generator.
    share : float
        Of the galaxies within its ranges.
    seed : numpy.random.SeedSequence
        Decides which, and how each looks.
    magnitudes : (float, float), optional
        Only galaxies between these.
    """

    def __init__(
        self,
        trained: TrainedLight,
        share: float,
        seed: np.random.SeedSequence,
        magnitudes: tuple[float, float] | None = None,
    ) -> None:
        self.trained, self.share, self.seed, self.magnitudes = trained, share, seed, magnitudes

    def __call__(self, sources: Sources, flux: Float64, wavelengths: Float64) -> DrawnGalaxies:
        """Choose galaxies and make their light, see `imcat.simulate.parts.GalaxyLight`."""
        import torch

        torch.set_num_threads(1)  # sums over more of them differ in their last bits
        rng = np.random.default_rng(self.seed)
        asked = conditions_of(sources, flux, wavelengths, self.trained.ranges)
        good = self.trained.ranges.inside(asked) & (rng.random(len(sources)) < self.share)
        if self.magnitudes is not None:
            good &= (asked.magnitude >= self.magnitudes[0]) & (asked.magnitude <= self.magnitudes[1])
        rows = np.flatnonzero(good)
        chosen = asked.take(rows)
        chance = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
        return DrawnGalaxies(rows, self.trained.components(chosen, chance), chosen.morphology >= 0)
