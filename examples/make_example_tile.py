"""Make the simulated tile in ``examples/tile``: SDSS frames in u, g, r, i, z and their truth.

    python examples/make_example_tile.py [--seed 1] [-o FOLDER]

The scene is small and plain on purpose: stars, quasars and galaxies (exponential or de Vaucouleurs) at random
places, drawn as mixtures of Gaussians, on a sky with Poisson noise. Every profile, point-spread function included,
is fitted once by a mixture of round Gaussians; a galaxy's ellipse stretches them and the point-spread function adds
its covariance, so a convolution is a sum of two matrices. The point-spread function is that of the *pixels* (their
response included), so values at pixel centres are fluxes per pixel.

`make_scene` returns arrays and the truth, and takes any size, density of sources, seeing and set of bands; `to_tile`
makes an `imcat.tile.Tile` of them without a detour over files, and `write_scene` writes SDSS frames.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray
from scipy.optimize import brentq, nnls
from scipy.special import gammaincinv

from imcat.surveys.sdss import FieldId
from imcat.surveys.sdss_constants import (
    BANDS,
    CLOCK_MICROSECONDS,
    EXPOSURE_SECONDS,
    NMGY_TO_NJY,
    WAVELENGTHS,
    dark_variance,
    gain,
)
from imcat.surveys.sdss_variance import SkyGrid
from imcat.surveys.sdss_write import SdssFrame, sky_grid, write_frames
from imcat.tile import ArrayPixels, Band, Exposure, Tile
from imcat.window import Window

__all__ = [
    "BandImage",
    "BandModel",
    "SDSS_BANDS",
    "Scene",
    "example_scene",
    "make_scene",
    "to_tile",
    "write_scene",
]

Array = NDArray[np.float64]

PIXEL_SCALE = 0.396  # arcsec: SDSS imaging camera (Gunn et al. 1998, AJ 116, 3040)
CENTRE = (180.0, 30.0)  # deg: right ascension and declination of the middle of the tile
POSITION_ANGLE = 57.0  # deg: of the columns, as SDSS scans at an angle to the equator
NANOMAGGY = 22.5  # AB magnitude of one nanomaggy, by definition
SCAN_DELAY = 71.72  # s: from one row of filters to the next; the sky passes r, i, u, z, g (York et al. 2000)

# Run 99 is no run of the survey's releases: nobody can take the tile for real data.
FIELD = FieldId(99, 1, 11)
TAI = 4_500_000_000.0  # s since MJD 0: a date of the survey's time


@dataclass(frozen=True)
class BandModel:
    """What the camera does in one band.

    Sky, calibration and seeing are of the order of those of real frames (their header and second HDU); gain and dark
    variance come from `imcat.surveys`, where the survey's table stands.

    Attributes
    ----------
    wavelength : float
        Å.
    sky : float
        AB magnitudes per square arcsec.
    calibration : float
        Nanomaggies per count.
    seeing : float
        Full width at half maximum relative to that of the scene.
    offset : (float, float)
        Shift of the band's pixel grid in columns and rows: the pixel ``x`` of the reference band is ``x + offset``.
    delay : float
        Seconds after the reference band.
    """

    wavelength: float
    sky: float
    calibration: float
    seeing: float
    offset: tuple[float, float]
    delay: float


SDSS_BANDS: dict[str, BandModel] = {
    "u": BandModel(WAVELENGTHS["u"], 22.1, 0.0098, 1.08, (-1.63, 2.27), 2 * SCAN_DELAY),
    "g": BandModel(WAVELENGTHS["g"], 21.9, 0.0037, 1.04, (1.41, -3.34), 4 * SCAN_DELAY),
    "r": BandModel(WAVELENGTHS["r"], 20.9, 0.0050, 1.00, (0.0, 0.0), 0.0),
    "i": BandModel(WAVELENGTHS["i"], 20.3, 0.0065, 0.96, (0.52, -0.79), SCAN_DELAY),
    "z": BandModel(WAVELENGTHS["z"], 19.1, 0.0350, 0.97, (2.18, 1.46), 3 * SCAN_DELAY),
}


@dataclass(frozen=True, eq=False)
class BandImage:
    """One band of a scene, arrays ``[y, x]``.

    Attributes
    ----------
    name : str
    model : BandModel
    data : float32 array
        Nanomaggies, sky subtracted, with noise.
    clean : float32 array
        The same without noise.
    calibration : float32 array ``[x]``
        Nanomaggies per count.
    sky : SkyGrid
        Counts: the level that was subtracted.
    variance : float32 array
        Nanomaggies²: of sky and detector, without the sources' own noise.
    gain : float
        Electrons per count.
    dark_variance : float
        Counts².
    psf_fwhm : float
        Arcsec.
    wcs : WCS
    """

    name: str
    model: BandModel
    data: NDArray[np.float32]
    clean: NDArray[np.float32]
    calibration: NDArray[np.float32]
    sky: SkyGrid
    variance: NDArray[np.float32]
    gain: float
    dark_variance: float
    psf_fwhm: float
    wcs: WCS


@dataclass(frozen=True, eq=False)
class Scene:
    """Images and the truth about them.

    Attributes
    ----------
    images : dict of BandImage
        By name of the band.
    truth : dict of array
        Columns, one row per source, sorted by ``y``, then ``x``; magnitudes are AB and total, sizes intrinsic, arcsec,
        along the major axis, and 0 for points.
    field : FieldId
        What the frames are called.
    reference : str
        The band of ``x`` and ``y``.
    """

    images: dict[str, BandImage]
    truth: dict[str, NDArray[Any]]
    field: FieldId
    reference: str


def make_scene(
    rng: np.random.Generator,
    shape: tuple[int, int] = (640, 760),
    density: float = 1.0,
    seeing: float = 1.3,
    *,
    bands: Mapping[str, BandModel] = SDSS_BANDS,
    reference: str = "r",
    faintest: float = 24.0,
    field: FieldId = FIELD,
) -> Scene:
    """Make a scene.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of everything random.
    shape : (int, int)
        Rows and columns.
    density : float
        Number of sources relative to a field at high galactic latitude; 0 gives empty sky.
    seeing : float
        Full width at half maximum in the reference band, arcsec.
    bands : dict of BandModel
        Bands by name.
    reference : str
        The band of the truth's ``x`` and ``y`` and of the counts of sources.
    faintest : float
        Magnitude in the reference band down to which there are sources.
    field : FieldId
        What the tile is called; run and camera column choose gain and dark variance.

    Returns
    -------
    Scene
    """
    truth = _population(rng, shape, density, bands, reference, faintest)
    images = {
        name: _image(rng, name, model, truth, shape, seeing * model.seeing, field)
        for name, model in bands.items()
    }
    ra, dec = images[reference].wcs.all_pix2world(truth["x"], truth["y"], 0)
    return Scene(images, truth | {"ra": ra, "dec": dec}, field, reference)


def to_tile(scene: Scene) -> Tile:
    """Make the tile that `imcat.surveys.read_tile` makes of the scene's files, less rounding and masks.

    Parameters
    ----------
    scene : Scene
        From `make_scene`.
    """
    bands = []
    for name, image in scene.images.items():
        njy_per_count = float(np.median(image.calibration)) * NMGY_TO_NJY
        middle = 0.5 * (image.data.shape[0] - 1) * CLOCK_MICROSECONDS * 1e-6 - 0.5 * EXPOSURE_SECONDS
        exposure = Exposure(
            name=f"frame-{name}-{scene.field.name}",
            image=ArrayPixels(image.data * np.float32(NMGY_TO_NJY)),
            wcs=image.wcs,
            variance=ArrayPixels(image.variance * np.float32(NMGY_TO_NJY**2)),
            zero_point=NANOMAGGY,
            gain=image.gain / njy_per_count,
            mjd=(TAI + image.model.delay + middle) / 86400.0,
            variance_source="calibration",
        )
        bands.append(Band(name, image.model.wavelength, (exposure,)))
    return Tile(scene.field.name, "sdss", scene.field.number, tuple(bands), scene.reference)


def write_scene(scene: Scene, folder: Path) -> list[Path]:
    """Write a scene of SDSS bands as frames, and its truth as ``truth.parquet``.

    Parameters
    ----------
    scene : Scene
        From `make_scene`.
    folder : Path
        Is made if it is not there.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    frames = [
        SdssFrame(name, image.data, image.calibration, image.sky, image.wcs, TAI + image.model.delay)
        for name, image in scene.images.items()
        if name in BANDS
    ]
    written = write_frames(folder, scene.field, frames)
    pq.write_table(pa.table(scene.truth), folder / "truth.parquet")
    return [*written, folder / "truth.parquet"]


def example_scene(seed: int = 1) -> Scene:
    """Make the scene of ``examples/tile``: somewhat denser than the sky, so that a small tile has much to find."""
    return make_scene(np.random.default_rng(seed), density=2.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-o", "--out", type=Path, default=Path(__file__).parent / "tile", metavar="FOLDER")
    arguments = parser.parse_args()
    scene = example_scene(arguments.seed)
    size = sum(path.stat().st_size for path in write_scene(scene, arguments.out))
    print(f"{len(scene.truth['x'])} sources in {arguments.out}, {size / 1e6:.2f} MB")


# --- the sky -----------------------------------------------------------------------------------------------------


def _population(
    rng: np.random.Generator,
    shape: tuple[int, int],
    density: float,
    bands: Mapping[str, BandModel],
    reference: str,
    faintest: float,
) -> dict[str, NDArray[Any]]:
    """Draw the sources: places, kinds, shapes, redshifts, magnitudes."""
    area = shape[0] * shape[1] * (PIXEL_SCALE / 3600) ** 2 * density  # effective square degrees
    # Counts brighter than m: 92 galaxies per square degree at r = 17.77 (Strauss et al. 2002, AJ 124, 1810); the
    # slope reaches the counts of deep fields at r = 24. Stars and quasars: round numbers for high latitudes.
    magnitudes = [
        _magnitudes(rng, area, count, at, slope, (15.0, faintest))
        for count, at, slope in ((92.0, 17.77, 0.45), (1500.0, 20.0, 0.2), (30.0, 20.5, 0.35))
    ]
    sizes = [len(m) for m in magnitudes]
    n = sum(sizes)
    kind = np.repeat(np.array(["galaxy", "star", "quasar"]), sizes)
    galaxy = kind == "galaxy"
    mag = np.concatenate(magnitudes) if n else np.zeros(0)
    early = galaxy & (rng.random(n) < 0.4)

    # Sizes follow the trend of SDSS galaxies with magnitude, with 0.2 dex of scatter.
    radius = np.where(galaxy, 10 ** (-0.12 * (mag - 20.0) + rng.normal(0, 0.2, n)), 0.0)
    axis_ratio = np.where(galaxy, rng.uniform(np.where(early, 0.5, 0.2), 1.0), 1.0)
    depth = 0.1 * 10 ** (0.12 * (mag - 18.0))  # typical redshift of a galaxy of that magnitude
    redshift = np.where(galaxy, depth * rng.gamma(4.0, 0.25, n), 0.0)
    redshift = np.where(kind == "quasar", rng.uniform(0.3, 3.0, n), redshift)
    temperature = rng.uniform(0.0, 1.0, n) ** 1.5 * 4200.0 + 3300.0  # K: stars; cool ones are many
    old = np.where(early, rng.uniform(0.8, 1.0, n), rng.uniform(0.1, 0.7, n))

    columns: dict[str, NDArray[Any]] = {
        "type": kind,
        "x": rng.uniform(-0.5, shape[1] - 0.5, n),
        "y": rng.uniform(-0.5, shape[0] - 0.5, n),
        "half_light_radius": radius,
        "axis_ratio": axis_ratio,
        "position_angle": np.where(galaxy, rng.uniform(0, 180, n), 0.0),
        "fracdev": early.astype(np.float64),
        "z_true": redshift,
    }
    flux = {b: _spectrum(m.wavelength, kind, temperature, old, redshift) for b, m in bands.items()}
    for band, f in flux.items():
        columns[f"{band}_mag"] = mag - 2.5 * np.log10(f / flux[reference])
    order = np.lexsort((columns["x"], columns["y"]))
    columns = {name: values[order] for name, values in columns.items()}
    return {"source_id": np.arange(n, dtype=np.int64)} | columns


def _magnitudes(
    rng: np.random.Generator, area: float, count: float, at: float, slope: float, limits: tuple[float, float]
) -> Array:
    """Draw magnitudes whose cumulative counts per square degree are ``count * 10**(slope * (m - at))``."""
    low, high = (10 ** (slope * (m - at)) for m in limits)
    n = rng.poisson(area * count * (high - low))
    return at + np.log10(rng.uniform(low, high, n)) / slope


def _spectrum(
    wavelength: float, kind: NDArray[Any], temperature: Array, old: Array, redshift: Array
) -> Array:
    """Flux per unit frequency at a wavelength (Å), on an arbitrary scale per source.

    Stars are black bodies, galaxies a mix of an old and a young one with a break at 4000 Å, quasars a power law with
    the slope −0.44 of the composite of Vanden Berk et al. (2001, AJ 122, 549). That gives colours of about the right
    range and scatter for any set of bands.
    """
    rest = wavelength / (1 + redshift)
    break_ = np.where(rest < 4000.0, 0.6, 1.0)

    def planck(rest: Array, kelvin: Array | float) -> Array:
        x = 1.4388e8 / (rest * kelvin)  # second radiation constant, Å K
        x0 = 1.4388e8 / (5500.0 * np.asarray(kelvin))
        return np.asarray((x / x0) ** 3 * np.expm1(x0) / np.expm1(x))

    galaxy = old * planck(rest, 5000.0) * break_ + (1 - old) * planck(rest, 9000.0)
    star = planck(np.full_like(rest, wavelength), temperature)
    return np.where(kind == "galaxy", galaxy, np.where(kind == "star", star, wavelength**0.44))


# --- profiles ----------------------------------------------------------------------------------------------------


@cache
def _mixture(name: str) -> tuple[Array, Array]:
    """Round Gaussians that add up to a profile: fractions of the flux, and variances in units of its radius squared.

    Profiles ``exponential`` and ``de_vaucouleurs`` (Sérsic index 1 and 4) have half of their flux within radius 1;
    ``psf`` is a Moffat profile with β = 3 and a full width at half maximum of 1. Non-negative least squares over
    widths in equal steps of their logarithm, in the manner of Cappellari (2002, MNRAS 333, 400).
    """
    profile: Callable[[Array], Array]
    if name == "psf":
        limits, step = (0.05, 4.0), 1.5
        profile = lambda r: (1 + 4 * (2 ** (1 / 3) - 1) * r**2) ** -3.0  # noqa: E731
    else:
        index = {"exponential": 1, "de_vaucouleurs": 4}[name]
        b = float(gammaincinv(2 * index, 0.5))
        limits, step = ((0.02, 4.0), 1.6) if index == 1 else ((0.005, 24.0), 1.8)
        profile = lambda r: np.exp(-b * (r ** (1 / index)))  # noqa: E731
    r = np.geomspace(*limits, 400)
    sigma = limits[0] * step ** np.arange(np.ceil(np.log(limits[1] / limits[0] / 2) / np.log(step)))
    # Rows weighted by r²: equal flux per logarithm of the radius counts the same.
    weight = r**2 / (r**2 * profile(r)).max()
    basis = np.exp(-0.5 * (r[:, None] / sigma) ** 2) / (2 * np.pi * sigma**2)
    amplitude, _ = nnls(basis * weight[:, None], profile(r) * weight)
    keep = amplitude > 1e-4 * amplitude.sum()
    fraction, variance = amplitude[keep] / amplitude[keep].sum(), sigma[keep] ** 2
    if name == "psf":
        peak = np.sum(fraction / variance)
        half = brentq(
            lambda r: np.sum(fraction / variance * np.exp(-0.5 * r**2 / variance)) - peak / 2, 0.1, 2.0
        )
        return fraction, variance / (2 * half) ** 2
    half = brentq(lambda r: np.sum(fraction * np.exp(-0.5 * r**2 / variance)) - 0.5, 0.1, 3.0)
    return fraction, variance / half**2


def _components(
    radius: float, axis_ratio: float, angle: float, fracdev: float, fwhm: float
) -> tuple[Array, Array]:
    """Gaussians of one source as seen: fractions of the flux ``[k]`` and covariances ``[k, 2, 2]`` (x, y) in pixels².

    `radius` and `fwhm` in pixels; `angle` in radians from the columns' axis; `radius` 0 is a point.
    """
    psf_fraction, psf_variance = _mixture("psf")
    psf_cov = psf_variance[:, None, None] * fwhm**2 * np.eye(2)
    if radius == 0:
        return psf_fraction, psf_cov
    fraction, variance = _mixture("de_vaucouleurs" if fracdev > 0.5 else "exponential")
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, -s], [s, c]])
    shape = turn @ np.diag([radius**2, (radius * axis_ratio) ** 2]) @ turn.T
    weights = fraction[:, None] * psf_fraction[None, :]
    cov = (variance[:, None, None] * shape)[:, None] + psf_cov[None]
    return weights.ravel(), cov.reshape(-1, 2, 2)


def _add(image: Array, x: float, y: float, flux: float, weights: Array, cov: Array, floor: float) -> None:
    """Add one source to an image, out to where its surface brightness falls below `floor` per pixel."""
    largest = np.linalg.eigvalsh(cov)[:, 1]
    peak = flux * weights / (2 * np.pi * np.sqrt(np.linalg.det(cov)))
    reach = np.sqrt(2 * largest * np.log(np.maximum(peak * len(peak) / floor, 1.0))).max()
    size = int(np.ceil(max(reach, 5.0)))
    x0, y0 = round(x) - size, round(y) - size
    rows = slice(max(y0, 0), min(y0 + 2 * size + 1, image.shape[0]))
    columns = slice(max(x0, 0), min(x0 + 2 * size + 1, image.shape[1]))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    dy = np.arange(rows.start, rows.stop)[:, None] - y
    dx = np.arange(columns.start, columns.stop)[None, :] - x
    for p, inverse in zip(peak, np.linalg.inv(cov), strict=True):
        q = inverse[0, 0] * dx**2 + 2 * inverse[0, 1] * dx * dy + inverse[1, 1] * dy**2
        image[rows, columns] += p * np.exp(-0.5 * q)


# --- images ------------------------------------------------------------------------------------------------------


def _image(
    rng: np.random.Generator,
    name: str,
    model: BandModel,
    truth: dict[str, NDArray[Any]],
    shape: tuple[int, int],
    fwhm: float,
    field: FieldId,
) -> BandImage:
    """Draw one band: sources, sky, noise. `fwhm` in arcsec."""
    electrons_per_count = gain(field.run, field.camcol, name)
    dark = dark_variance(field.run, field.camcol, name)
    wcs = _wcs(shape, model.offset)
    level = 10 ** (-0.4 * (model.sky - NANOMAGGY)) * PIXEL_SCALE**2 / model.calibration
    grid = sky_grid(shape, level, (0.01 * level, 0.005 * level))
    sky = grid.read(Window.whole(shape))  # counts
    # A per cent over the width of the chip, as the flat field of a drift scan leaves it.
    calibration = model.calibration * (1 + 0.005 * np.cos(np.linspace(0, np.pi, shape[1])))
    variance = (sky / electrons_per_count + dark) * calibration**2

    clean = np.zeros(shape)
    floor = 0.02 * float(np.sqrt(variance.mean()))
    flux = 10 ** (-0.4 * (truth[f"{name}_mag"] - NANOMAGGY))
    # On the tile's grid north is POSITION_ANGLE away from the columns; angles are east of north.
    angle = np.deg2rad(_pixel_angle(wcs, truth["position_angle"]))
    for k in range(len(flux)):
        radius = truth["half_light_radius"][k] / PIXEL_SCALE
        parts = _components(radius, truth["axis_ratio"][k], angle[k], truth["fracdev"][k], fwhm / PIXEL_SCALE)
        x, y = truth["x"][k] + model.offset[0], truth["y"][k] + model.offset[1]
        _add(clean, x, y, flux[k], *parts, floor)

    electrons = rng.poisson((clean / calibration + sky) * electrons_per_count)
    # The camera writes whole counts; their rounding is what lets frames compress.
    counts = np.rint(electrons / electrons_per_count + rng.normal(0, np.sqrt(dark), shape)) - sky
    return BandImage(
        name=name,
        model=model,
        data=(counts * calibration).astype(np.float32),
        clean=clean.astype(np.float32),
        calibration=calibration.astype(np.float32),
        sky=grid,
        variance=variance.astype(np.float32),
        gain=electrons_per_count,
        dark_variance=dark,
        psf_fwhm=fwhm,
        wcs=wcs,
    )


def _wcs(shape: tuple[int, int], offset: tuple[float, float]) -> WCS:
    """Make a TAN projection like that of SDSS frames: the pixels' axes and the sky are turned."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.crval = list(CENTRE)
    wcs.wcs.crpix = [(shape[1] + 1) / 2 + offset[0], (shape[0] + 1) / 2 + offset[1]]
    c, s = np.cos(np.deg2rad(POSITION_ANGLE)), np.sin(np.deg2rad(POSITION_ANGLE))
    wcs.wcs.cd = PIXEL_SCALE / 3600 * np.array([[c, s], [s, -c]])
    wcs.wcs.set()
    return wcs


def _pixel_angle(wcs: WCS, position_angle: Array) -> Array:
    """Angle in degrees from the first pixel axis towards the second of a direction given east of north."""
    radians = np.deg2rad(position_angle)
    step = np.linalg.inv(wcs.wcs.cd) @ np.array([np.sin(radians), np.cos(radians)])  # [2, n]: east, north
    return np.asarray(np.rad2deg(np.arctan2(step[1], step[0])))


if __name__ == "__main__":
    main()
