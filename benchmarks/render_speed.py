"""Renderer against GalSim: objects per second on one scene, training stamps, whole fields, and deviations.

The scene is a ugriz field of the simulator's SDSS: the same positions, fluxes, bulges and discs for
both, Moffat PSFs. GalSim draws each object on a stamp of the size that it finds good, with its default
parameters, by Fourier transform, and adds it to the image; its tables of profiles are warm.
Both work on one core there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import galsim
import numpy as np
from common import IMCAT, arguments, print_header, run_timed, save, scratch, verdict
from galsim_oracle import CSST, SDSS, Deviations, compare, sersic
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from imcat.psf.mixture import moffat_mixture
from imcat.render.components import Components
from imcat.render.draw import draw_stamps
from imcat.simulate.galaxies import band_bulge_fraction
from imcat.simulate.observation import ExposureModel, Observation
from imcat.simulate.scene import Models, Scene, draw_exposure, make_scene
from imcat.simulate.settings import SimulateSettings
from imcat.simulate.sources import Kind
from imcat.simulate.tiles import observe

SEED = 4
BETA = 3.2
#: FWHM of the PSF by band, arcsec.
FWHM = {"u": 1.45, "g": 1.40, "r": 1.32, "i": 1.27, "z": 1.25}
#: No structure, lenses or ghosts: GalSim gets bulges and discs.
PLAIN = SimulateSettings(
    detail_from=1e9, lenses_per_deg2=0.0, lookalikes_per_deg2=0.0, ghosts=False, seeing=1.32
)
STAMP = 32
WORKERS = 2


@dataclass(frozen=True, eq=False)
class Sky:
    """A scene and how it is observed."""

    observation: Observation
    scene: Scene


def make_sky(models: Models, shape: tuple[int, int] | None, settings: SimulateSettings) -> Sky:
    """Draw a sky; its PSFs are Moffat profiles that GalSim can have as well."""
    observation = observe("sdss", 0, SEED, settings, shape)
    exposures = tuple(
        replace(e, psf=moffat_mixture(FWHM[e.band] / e.pixel_scale, BETA)) for e in observation.exposures
    )
    observation = replace(observation, exposures=exposures)
    return Sky(observation, make_scene(observation, settings, models, np.random.SeedSequence(SEED)))


def quickest(job: Callable[[], Any], repeats: int) -> float:
    """Seconds of the quickest of some runs."""
    spent = []
    for _ in range(repeats):
        start = time.perf_counter()
        job()
        spent.append(time.perf_counter() - start)
    return min(spent)


def inside(sky: Sky, model: ExposureModel) -> NDArray[np.int64]:
    """Sources whose position lies on an exposure."""
    x, y = model.wcs.all_world2pix(sky.scene.ra, sky.scene.dec, 0)
    rows, columns = model.shape
    return np.flatnonzero((x > -0.5) & (y > -0.5) & (x < columns - 0.5) & (y < rows - 0.5))


def only(components: Components, sources: NDArray[np.int64]) -> Components:
    """Components of some sources; they keep their numbers."""
    keep = np.isin(components.source, sources)
    names = ("source", "flux", "xi", "eta", "xx", "xy", "yy")
    return Components(*(getattr(components, name)[keep] for name in names))


def galsim_profiles(
    sky: Sky, model: ExposureModel, sources: NDArray[np.int64], endless: bool
) -> Iterator[galsim.GSObject]:
    """Sources before the PSF; profiles end where imcat's do, or nowhere as GalSim's own."""
    s, band = sky.scene.sources, sky.observation.bands.index(model.band)
    wavelengths = sky.observation.filters.wavelengths[[sky.observation.filters.names.index(model.band)]]
    fraction = band_bulge_fraction(s, sky.scene.flux[:, [band]], wavelengths)[:, 0]
    for i in sources:
        flux = float(sky.scene.flux[i, band])
        if s.kind[i] != Kind.GALAXY:
            yield galsim.DeltaFunction(flux=flux)
            continue
        parts = []
        bulge = (fraction[i], float(np.clip(np.round(s.bulge_index[i] / 0.25) * 0.25, 0.5, 6)))
        for (share, index), radius, ratio in (
            (bulge, s.bulge_radius[i], s.bulge_axis_ratio[i]),
            ((1 - fraction[i], 1.0), s.disc_radius[i], s.disc_axis_ratio[i]),
        ):
            if share <= 0:
                continue
            if endless:
                shape = galsim.Exponential if index == 1 else galsim.Sersic
                kind = {} if index == 1 else {"n": index}
                part = shape(half_light_radius=radius, **kind)
                part = part.shear(q=ratio, beta=(90 + s.position_angle[i]) * galsim.degrees).dilate(
                    np.sqrt(ratio)
                )
            else:
                part = sersic(index, radius, ratio, s.position_angle[i])
            parts.append(share * flux * part)
        yield galsim.Sum(parts)


def draw_galsim(
    sky: Sky, model: ExposureModel, sources: NDArray[np.int64], endless: bool = False
) -> NDArray[np.float32]:
    """Draw the scene as GalSim's own demos do."""
    rows, columns = model.shape
    x, y = model.wcs.all_world2pix(sky.scene.ra, sky.scene.dec, 0)
    image = galsim.ImageF(columns, rows, init_value=0.0)
    psf = galsim.Moffat(beta=BETA, fwhm=FWHM[model.band])
    # Offsets on the sky are those of imcat's Jacobian; GalSim wants its inverse.
    (dudx, dudy), (dvdx, dvdy) = np.linalg.inv(model.jacobian)
    wcs = galsim.JacobianWCS(dudx, dudy, dvdx, dvdy)
    for i, profile in zip(sources, galsim_profiles(sky, model, sources, endless), strict=True):
        # imcat's position angle runs from north over east in (xi east, eta north): mirrored against x to y.
        source = galsim.Convolve(profile.transform(-1, 0, 0, 1), psf)
        stamp = source.drawImage(center=galsim.PositionD(x[i] + 1, y[i] + 1), wcs=wcs)
        overlap = stamp.bounds & image.bounds
        if overlap.isDefined():
            image[overlap] += stamp[overlap]
    return np.asarray(image.array)


def against_galsim(models: Models, quick: bool) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Objects per second of both on the same scene."""
    side = 256 if quick else 512
    sky = make_sky(models, (side, side), PLAIN)
    bands = [m for m in sky.observation.exposures if not quick or m.band == "r"]
    seconds = {"imcat": 0.0, "GalSim": 0.0, "GalSim, profiles without end": 0.0}
    objects, worst, flux = 0, 0.0, []
    for model in bands:
        chosen = inside(sky, model)
        components = only(sky.scene.components, chosen)

        def ours(model: ExposureModel = model, components: Components = components) -> NDArray[np.float32]:
            return draw_exposure(sky.scene, sky.observation, model, PLAIN, components)

        image = ours()
        seconds["imcat"] += quickest(ours, 5)
        for name, endless in (("GalSim", False), ("GalSim, profiles without end", True)):
            draw_galsim(sky, model, chosen[:100], endless)  # fills its tables
            start = time.perf_counter()
            truth = draw_galsim(sky, model, chosen, endless)
            seconds[name] += time.perf_counter() - start
            if not endless:
                worst = max(worst, float(np.abs(image - truth).max() / truth.max()))
                flux.append(float(image.sum(dtype=np.float64) / truth.sum(dtype=np.float64)))
        objects += len(chosen)
    print(f"   {objects} objects ({len(bands)} bands of {side} x {side} pixels), one core each")
    rows = {}
    for name, spent in seconds.items():
        rows[name] = {"objects": objects, "seconds": spent, "objects_per_s": objects / spent}
        print(f"   {name:30} {spent:8.3f} s {objects / spent:10.0f} objects/s")
    print(
        f"   images: flux ratio {min(flux):.5f} to {max(flux):.5f}, largest difference {worst:.2e} of the peak"
    )
    ratio = seconds["GalSim"] / seconds["imcat"]
    other = seconds["GalSim, profiles without end"] / seconds["imcat"]
    return rows, [
        verdict("objects per second, imcat / GalSim", ratio, ">= 20", ratio >= 20),
        verdict("the same, profiles without end for GalSim", other, ">= 20", other >= 20),
    ]


def training_stamps(models: Models, quick: bool) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Five-band stamps around the sources of a field, with what else lies on them, on two threads."""
    sky = make_sky(models, None, PLAIN)
    reference = sky.observation.reference_exposure
    x, y = reference.wcs.all_world2pix(sky.scene.ra, sky.scene.dec, 0)
    chosen = np.random.default_rng(SEED).permutation(inside(sky, reference))
    chosen = chosen[: 2000 if quick else 10000]
    number = len(chosen)
    tree = cKDTree(np.column_stack([x, y]))
    exposures = sky.observation.exposures
    jacobians, psfs = [reference.jacobian] * len(exposures), [e.psf for e in exposures]
    floors = [0.01 * e.noise for e in exposures]
    components, stamps = sky.scene.components, np.zeros((number, len(exposures), STAMP, STAMP), np.float32)
    count = np.bincount(components.source, minlength=len(x))
    first = np.cumsum(count) - count

    def batch(rows: NDArray[np.int64]) -> None:
        centre = np.column_stack([x, y])[chosen[rows]]
        found = tree.query_ball_point(centre, 0.75 * STAMP)
        members = np.concatenate(found).astype(np.int64)
        stamp = np.repeat(np.arange(len(rows)), [len(f) for f in found])
        # Components of every member, one source for each time that it lies on a stamp.
        source = np.repeat(np.arange(len(members)), count[members])
        place = np.arange(len(source)) - np.repeat(np.cumsum(count[members]) - count[members], count[members])
        at = first[members][source] + place
        some = Components(
            source, *(getattr(components, n)[at] for n in ("flux", "xi", "eta", "xx", "xy", "yy"))
        )
        offset = (STAMP - 1) / 2 - centre[stamp]
        draw_stamps(
            stamps[rows[0] : rows[-1] + 1], stamp, some, x[members] + offset[:, 0], y[members] + offset[:, 1],
            jacobians, psfs, floors=floors,
        )  # fmt: skip

    batches = np.array_split(np.arange(number), max(number // 250, 1))

    def everything() -> None:
        stamps[:] = 0
        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(batch, batches))

    everything()
    spent = quickest(everything, 1 if quick else 3)
    rate = number / spent
    torch_rate = torch_stamps(sky, chosen[: 500 if quick else 2000])
    rows = {
        "draw_stamps, all sources of a stamp": {"stamps": number, "stamps_per_s": rate},
        "torch render_stamps, the central source": {"stamps_per_s": torch_rate},
    }
    for name, row in rows.items():
        print(
            f"   {name:42} {row['stamps_per_s']:8.0f} five-band {STAMP} x {STAMP} stamps/s on {WORKERS} cores"
        )
    return rows, [
        verdict("training stamps per second (imcat.render.draw.draw_stamps)", rate, ">= 1500", rate >= 1500)
    ]


def torch_stamps(sky: Sky, chosen: NDArray[np.int64]) -> float:
    """Stamps per second of the renderer that can be differentiated, without derivatives."""
    import torch

    from imcat.render.stamps import StampPsf, render_stamps, stamp_gaussians

    torch.set_num_threads(WORKERS)
    place = np.full(len(sky.scene.ra), -1)
    place[np.sort(chosen)] = np.arange(len(chosen))
    some = only(sky.scene.components, chosen)
    sources = stamp_gaussians(replace(some, source=place[some.source]), len(chosen))
    psf = StampPsf.stack([e.psf for e in sky.observation.exposures])
    matrix = torch.as_tensor(sky.observation.reference_exposure.jacobian, dtype=torch.float32)
    centre = torch.full((len(chosen),), (STAMP - 1) / 2)
    with torch.no_grad():
        spent = quickest(lambda: render_stamps(sources, centre, centre, matrix, psf, (STAMP, STAMP)), 2)
    return len(chosen) / spent


def whole_field(models: Models, quick: bool) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Wall time of an SDSS ugriz field: its light alone, and the command that writes it."""
    settings = SimulateSettings()
    shape = (512, 512) if quick else None
    start = time.perf_counter()
    sky = make_sky(models, shape, settings)
    made = time.perf_counter() - start

    def light(threads: int) -> None:
        def one(model: ExposureModel) -> None:
            draw_exposure(sky.scene, sky.observation, model, settings)

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(one, sky.observation.exposures))

    light(1)
    repeats = 1 if quick else 3
    rows: dict[str, Any] = {"scene (population, spectra, structure)": {"wall_s": made}}
    for threads in (1, WORKERS):
        rows[f"light of ugriz, threads: {threads}"] = {
            "wall_s": quickest(lambda t=threads: light(t), repeats)
        }
    with scratch() as folder:
        size = ["--size", "512x512"] if quick else []
        command = [*IMCAT, "simulate", "sdss", "-n", "1", "--seed", str(SEED), *size]
        run_timed([[*command, "-o", str(folder / "warm")]])
        costs = [run_timed([[*command, "-o", str(folder / str(k))]]) for k in range(repeats)]
    cost = min(costs, key=lambda c: c.wall)
    rows["imcat simulate sdss -n 1, start to end"] = {
        "wall_s": cost.wall,
        "cpu_s": cost.cpu,
        "peak_mib": cost.peak,
    }
    for name, row in rows.items():
        print(f"   {name:42} {row['wall_s']:8.2f} s")
    print(f"   {len(sky.scene.ra)} sources, {len(sky.scene.components)} Gaussians before the PSF")
    return rows, [verdict("wall time of a ugriz field (s)", cost.wall, "<= 10", cost.wall <= 10)]


def deviations(quick: bool) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Largest deviations from GalSim of random stars and galaxies."""
    limits = {"flux": 0.003, "pixel": 0.01, "sigma": 0.01, "e1": 0.01, "e2": 0.01}
    rows, verdicts = {}, []
    print(f"   {'':28} " + " ".join(f"{name:>16}" for name in limits) + "   (largest, 99 %)")
    found: list[Deviations] = []
    for name, camera, number in (("SDSS", SDSS, 350), ("undersampled as CSST", CSST, 150)):
        one = compare(camera, number // 10 if quick else number, seed=number)
        found.append(one)
        row: dict[str, Any] = {
            "sources": len(one.flux),
            "without adaptive moments": int(np.isnan(one.sigma).sum()),
        }
        cells = []
        for key in limits:
            values = np.abs(getattr(one, key))
            row[key] = {"largest": float(np.nanmax(values)), "99 %": float(np.nanpercentile(values, 99))}
            cells.append(f"{row[key]['largest']:8.5f} {row[key]['99 %']:7.5f}")
        rows[name] = row
        print(f"   {name:20} {len(one.flux):7} " + " ".join(cells))
    for key, limit in limits.items():
        worst = max(float(np.nanmax(np.abs(getattr(one, key)))) for one in found)
        verdicts.append(verdict(f"largest deviation, {key}", worst, f"<= {limit}", worst <= limit))
    return rows, verdicts


def whole_ccd(quick: bool) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Wall time and memory of all exposures of one CCD of CSST (512 pixels a side in a quick run)."""
    size = ["--size", "512x512" if quick else "full"]
    with scratch() as folder:
        cost = run_timed(
            [[*IMCAT, "simulate", "csst", "-n", "1", "--seed", str(SEED), *size, "-o", str(folder / "sky")]]
        )
    row = {"wall_s": cost.wall, "cpu_s": cost.cpu, "peak_mib": cost.peak}
    print(f"   imcat simulate csst {' '.join(size)}: {cost.wall:.0f} s, {cost.peak:.0f} MiB")
    return {"imcat simulate csst, all exposures of a CCD": row}, []


def main() -> None:
    args = arguments(__doc__ or "")
    about = print_header("Renderer against GalSim")
    about["versions"]["galsim"] = galsim.version
    print(f"   galsim {galsim.version}")
    models = Models.load()
    tables: dict[str, Any] = {}
    verdicts: list[dict[str, Any]] = []
    for key, part in (
        ("same_scene", lambda: against_galsim(models, args.quick)),
        ("stamps", lambda: training_stamps(models, args.quick)),
        ("field", lambda: whole_field(models, args.quick)),
        ("ccd", lambda: whole_ccd(args.quick)),
        ("deviations", lambda: deviations(args.quick)),
    ):
        tables[key], reached = part()
        verdicts += reached
    save("render_speed", {**about, **tables, "verdicts": verdicts}, quick=args.quick)


if __name__ == "__main__":
    main()
