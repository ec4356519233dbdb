"""imcat's renderer beside GalSim on the same random stars and galaxies: for the benchmark and for a test."""

from __future__ import annotations

from dataclasses import dataclass

import galsim
import numpy as np
from numpy.typing import NDArray

from imcat.psf.mixture import PsfMixture, moffat_mixture
from imcat.render.components import Components, ellipses, points
from imcat.render.draw import draw
from imcat.render.profiles import half_light_ratio, sersic_mixture, truncation_radius

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Camera:
    """What random sources of a camera are drawn from.

    Attributes
    ----------
    pixel_scale : float
        arcsec.
    fwhm : (float, float)
        Smallest and largest width of the Moffat PSF before the pixel, pixels.
    beta : (float, float)
        Its exponent.
    radius : (float, float)
        Half-light radii along the major axis, arcsec.
    """

    pixel_scale: float
    fwhm: tuple[float, float]
    beta: tuple[float, float]
    radius: tuple[float, float]


#: SDSS: seeing of 1 to 1.6 arcsec.
SDSS = Camera(0.396, (2.5, 4.0), (3.0, 4.765), (0.2, 2.5))
#: As undersampled as CSST: a FWHM of 1.1 to 1.6 pixels, pixel included, as its bands from r to y have. (The
#: packaged PSFs are images of one sample a pixel, which say nothing between the samples, so that
#: GalSim's interpolation of them is no truth.)
CSST = Camera(0.074, (0.8, 1.4), (3.0, 4.765), (0.05, 0.6))


@dataclass(frozen=True, eq=False)
class Deviations:
    """What differs between the two images of sources, arrays ``[n]``.

    Attributes
    ----------
    flux : float64
        Relative difference of the sums.
    pixel : float64
        Largest difference of a pixel, over the peak.
    sigma : float64
        Relative difference of the adaptive size.
    e1, e2 : float64
        Differences of the adaptive ellipticity (distortion). NaN, like `sigma`, where GalSim's adaptive moments of
        its own image do not converge, as for most sources that are as narrow as a pixel.
    lost : bool
        GalSim's adaptive moments converge on its own image and not on imcat's.
    """

    flux: Float64
    pixel: Float64
    sigma: Float64
    e1: Float64
    e2: Float64
    lost: NDArray[np.bool_]


def compare(camera: Camera, number: int, seed: int, stars: float = 0.2) -> Deviations:
    """Draw random sources with both.

    Parameters
    ----------
    camera : Camera
        Pixels, PSFs and sizes.
    number : int
        Sources: points, discs, bulges of any Sérsic index from 0.5 to 4.5, sums of both.
    seed : int
        Of the random numbers.
    stars : float
        Share of points.
    """
    rng = np.random.default_rng(seed)
    rows = [_compare_one(camera, rng, rng.random() < stars) for _ in range(number)]
    table = np.array(rows)
    return Deviations(*table[:, :5].T, lost=table[:, 5] > 0)


def _compare_one(camera: Camera, rng: np.random.Generator, star: bool) -> tuple[float, ...]:
    scale = camera.pixel_scale
    fwhm, beta = rng.uniform(*camera.fwhm), rng.uniform(*camera.beta)
    e1, e2 = rng.normal(0, 0.03, 2)
    psf = moffat_mixture(fwhm, beta, (e1, e2))
    truth_psf = galsim.Moffat(beta=beta, fwhm=fwhm * scale).shear(e1=e1, e2=e2)
    if star:
        components, profile, extent = points(np.ones((1, 1))), galsim.DeltaFunction(), 0.0
    else:
        components, profile, extent = _galaxy(camera, rng)
    side = int(2 * np.ceil(max(9 * extent / scale + 4 * fwhm, 24)))
    x, y = side / 2 - 0.5 + rng.uniform(-0.5, 0.5, 2)
    ours = _ours(components, psf, side, x, y, scale)
    image = galsim.Convolve(profile, truth_psf).drawImage(
        nx=side, ny=side, scale=scale, offset=(x - (side - 1) / 2, y - (side - 1) / 2), dtype=float
    )
    theirs = image.array
    mine, truth = (_moments(a, x, y, fwhm, extent / scale) for a in (ours, theirs))
    good = truth is not None and mine is not None
    shape = (mine[0] / truth[0] - 1, mine[1] - truth[1], mine[2] - truth[2]) if good else (np.nan,) * 3
    return (
        ours.sum() / theirs.sum() - 1,
        np.abs(ours - theirs).max() / theirs.max(),
        *shape,
        float(truth is not None and mine is None),
    )


def _ours(components: Components, psf: PsfMixture, side: int, x: float, y: float, scale: float) -> Float64:
    image = np.zeros((side, side))
    # East is left: x falls as xi rises.
    draw(image, components, 0, [x], [y], np.diag([-1.0, 1.0]) / scale, psf)
    return image


def _galaxy(camera: Camera, rng: np.random.Generator) -> tuple[Components, galsim.GSObject, float]:
    """A bulge, a disc or both as Gaussians, the same for GalSim, and the larger radius in arcsec."""
    bulge = float(rng.choice([0.0, 1.0, rng.random()]))
    parts, profiles, extent = [], [], 0.0
    for share, index in ((bulge, float(rng.choice(np.linspace(0.5, 4.5, 9)))), (1 - bulge, 1.0)):
        radius = float(np.exp(rng.uniform(*np.log(camera.radius))))
        ratio, angle = rng.uniform(0.15, 1), rng.uniform(0, 180)
        if share:
            parts.append(ellipses([0], [[share]], [radius], [ratio], [angle], sersic_mixture(index)))
            profiles.append(share * sersic(index, radius, ratio, angle))
            extent = max(extent, radius)
    return Components.concatenate(parts), galsim.Sum(profiles), extent


def sersic(index: float, radius: float, ratio: float, angle: float) -> galsim.GSObject:
    """Profile of a given half-light radius along its major axis (arcsec) and position angle (degrees).

    GalSim ends profiles at once, imcat over the last R_e before `truncation_radius`: an end 0.45 R_e before
    that leaves out as much light.
    """
    end = (truncation_radius(index) - 0.45) * radius / half_light_ratio(index)
    profile = galsim.Sersic(index, half_light_radius=radius, trunc=end)
    # Angles of GalSim run from x to y; a shear keeps the area, imcat's radius is that of the major axis.
    return profile.shear(q=ratio, beta=(90 + angle) * galsim.degrees).dilate(np.sqrt(ratio))


def _moments(image: Float64, x: float, y: float, fwhm: float, radius: float) -> tuple[float, ...] | None:
    """Adaptive size and distortion (Hirata & Seljak 2003), or None where they do not converge."""
    found = galsim.hsm.FindAdaptiveMom(
        galsim.Image(image, scale=1.0),
        guess_centroid=galsim.PositionD(x + 1, y + 1),
        guess_sig=float(np.hypot(0.5 * fwhm, 0.5 * radius)),
        strict=False,
    )
    if found.error_message:
        return None
    return found.moments_sigma, found.observed_e1, found.observed_e2
