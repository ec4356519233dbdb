"""PSF and model photometry on real SDSS frames: against PHOTO's own, and telling stars from galaxies.

The u frame of 003900-6-0269 is measured with the PSF of its psField; the stars and galaxies of its photoObj are the
truth, and since pixels and noise are the same, agreement must be closer than the errors. Galaxies are measured at
given places with PHOTO's shapes in r. The listed stars and galaxies of 003918-3-0213 judge how well PSF minus model
magnitude tells them apart, beside CLASS_STAR and SPREAD_MODEL of SExtractor with a PSF from PSFEx.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from common import (
    IMCAT,
    arguments,
    data_dir,
    imcat_catalogue,
    print_header,
    run_timed,
    save,
    scratch,
    sextractor,
    verdict,
)
from numpy.typing import NDArray
from sdss_field_detection import FIELD, PIXEL, r_frame, read_list

from imcat.catalogue import match_xy
from imcat.evaluate.measurement import robust_scatter
from imcat.render.profiles import DE_VAUCOULEURS, EXPONENTIAL, half_light_ratio

OBJECTS = "003900-6-0269"
STAR, GALAXY = 6, 3  # OBJC_TYPE
BRIGHT_U = 20.0  # magnitude in u of stars that are compared
LARGEST_ERROR = 0.1  # magnitudes in u of galaxies that are compared


def magnitude(flux: Any) -> NDArray[np.float64]:
    """AB magnitude of nJy; NaN where there is none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(31.4 - 2.5 * np.log10(np.asarray(flux, np.float64)))


def same_pixels(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The u frame of photoObj's field."""
    source, field = data_dir() / "sdss" / "catalogues", folder / "field"
    field.mkdir()
    for name in (f"frame-u-{OBJECTS}.fits.bz2", f"psField-{OBJECTS}.fit", "photoField-003900-6.fits"):
        shutil.copy(source / name, field / name)
    table = fits.getdata(source / f"photoObj-{OBJECTS}.fits")
    kind, u = table["OBJC_TYPE"], 0
    catalogue = imcat_catalogue(folder, [field])
    x, y = table["COLC"][:, u].astype(float) - 0.5, table["ROWC"][:, u].astype(float) - 0.5
    found = match_xy(np.asarray(catalogue["x"]), np.asarray(catalogue["y"]), x, y, 1 / PIXEL)
    theirs = 22.5 - 2.5 * np.log10(np.maximum(table["PSFFLUX"][found.second, u], 1e-3))
    ours = magnitude(catalogue["u_psf_flux"])[found.first]
    error = (
        1.0857
        * np.asarray(catalogue["u_psf_flux_err"])[found.first]
        / np.asarray(catalogue["u_psf_flux"])[found.first]
    )
    quoted = 1.0857 / (
        np.maximum(table["PSFFLUX"][found.second, u], 1e-6)
        * np.sqrt(np.maximum(table["PSFFLUX_IVAR"][found.second, u], 1e-12))
    )
    star = (kind[found.second] == STAR) & (theirs < BRIGHT_U) & np.isfinite(ours)
    star &= (np.asarray(catalogue["u_flags"])[found.first] & 1) == 0  # saturated
    off = (ours - theirs)[star]
    median, scatter = float(np.median(off)), robust_scatter(off / quoted[star])
    own = robust_scatter(off / error[star])
    print(
        f"   {star.sum()} stars, u < {BRIGHT_U}: offset {median:+.4f}, scatter {robust_scatter(off):.4f} mag, {scatter:.2f} of PHOTO's errors, {own:.2f} of imcat's"
    )
    rows = {
        "stars": int(star.sum()),
        "offset": median,
        "scatter": robust_scatter(off),
        "scatter over PHOTO's error": scatter,
        "scatter over imcat's error": own,
    }
    verdicts = [
        verdict("u PSF magnitudes against photoObj: median offset", median, "<= 0.02", abs(median) <= 0.02),
        verdict("u PSF magnitudes: scatter over PHOTO's error", scatter, "<= 0.5", scatter <= 0.5),
    ]
    more, judged = forced_galaxies(folder, field, table)
    return {**rows, **more}, verdicts + judged


def forced_galaxies(folder: Path, field: Path, table: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Model fluxes in u at PHOTO's places, with PHOTO's shapes in r."""
    r, u = 2, 0
    # MODELFLUX takes the likelier of the two profiles in r.
    dev = table["DEV_LNL"][:, r] > table["EXP_LNL"][:, r]
    flux, inverse = table["MODELFLUX"][:, u], table["MODELFLUX_IVAR"][:, u]
    # An object that was deblended stands in the table as parent and child.
    good = (table["OBJC_TYPE"] == GALAXY) & (table["NCHILD"] == 0) & (flux > 0) & (inverse > 0)
    good &= 1.0857 / np.maximum(flux * np.sqrt(np.maximum(inverse, 1e-12)), 1e-6) < LARGEST_ERROR
    shape = {
        "ra": table["RA"], "dec": table["DEC"],
        "model": np.where(dev, "de Vaucouleurs", "exponential"),
        "model_radius": np.where(
            dev,
            table["THETA_DEV"][:, r] * half_light_ratio(DE_VAUCOULEURS),
            table["THETA_EXP"][:, r] * half_light_ratio(EXPONENTIAL),
        ),
        "model_axis_ratio": np.where(dev, table["AB_DEV"][:, r], table["AB_EXP"][:, r]),
        "model_angle": np.where(dev, table["PHI_DEV_DEG"][:, r], table["PHI_EXP_DEG"][:, r]),
    }  # fmt: skip
    from astropy.table import Table

    positions = folder / "positions.ecsv"
    Table({k: np.asarray(v)[good] for k, v in shape.items()}).write(positions)
    out = folder / "forced.fits"
    run_timed([[*IMCAT, "measure", str(field), "--positions", str(positions), "-o", str(out)]])
    measured = Table.read(out)
    off = magnitude(measured["u_model_flux"]) - (22.5 - 2.5 * np.log10(flux[good]))
    off = off[np.isfinite(off)]
    median = float(np.median(off))
    print(
        f"   {off.size} galaxies with an error below {LARGEST_ERROR}: offset of model magnitudes {median:+.3f}, scatter {robust_scatter(off):.3f}"
    )
    return {"galaxies": int(off.size), "galaxy offset": median, "galaxy scatter": robust_scatter(off)}, [
        verdict(
            f"u model magnitudes of {off.size} galaxies: median offset",
            median,
            "<= 0.05",
            abs(median) <= 0.05,
        )
    ]


def area(star: NDArray[np.float64], galaxy: NDArray[np.float64]) -> float:
    """Area under the curve of a statistic that is larger for galaxies."""
    star, galaxy = star[np.isfinite(star)], galaxy[np.isfinite(galaxy)]
    greater = (galaxy[:, None] > star).mean()
    return float(greater + 0.5 * (galaxy[:, None] == star).mean())


def separation(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Stars and galaxies of the lists, told apart."""
    lists = {"stars": read_list("stars"), "galaxies": read_list("gals")}
    catalogue = imcat_catalogue(folder, [data_dir() / "sdss" / "fields" / FIELD])
    peer = with_psfex(folder)
    ours = {
        "PSF minus model": np.asarray(catalogue["psf_minus_model"], np.float64),
        "spread_model": np.asarray(catalogue["spread_model"], np.float64),
    }
    theirs = {
        "SExtractor CLASS_STAR": -np.asarray(peer["CLASS_STAR"], np.float64),
        "SExtractor SPREAD_MODEL": np.asarray(peer["SPREAD_MODEL"], np.float64),
    }
    x, y = np.asarray(catalogue["x"]), np.asarray(catalogue["y"])
    px, py = peer["X_IMAGE"] - 1.0, peer["Y_IMAGE"] - 1.0
    values: dict[str, dict[str, NDArray[np.float64]]] = {name: {} for name in (*ours, *theirs)}
    numbers = {}
    for kind, listed in lists.items():
        a = match_xy(x, y, listed[:, 0], listed[:, 1], 1 / PIXEL)
        b = match_xy(px, py, listed[:, 0], listed[:, 1], 1 / PIXEL)
        # Only what both found.
        both = np.intersect1d(a.second, b.second)
        numbers[kind] = int(both.size)
        first, second = (m.first[np.isin(m.second, both)] for m in (a, b))
        for name, column in ours.items():
            values[name][kind] = column[first]
        for name, column in theirs.items():
            values[name][kind] = column[second]
    areas = {name: area(v["stars"], v["galaxies"]) for name, v in values.items()}
    for name, value in areas.items():
        print(f"   {name:26} area {value:.4f} ({numbers['stars']} stars, {numbers['galaxies']} galaxies)")
    best = max(areas[name] for name in theirs)
    return {"areas": areas, **numbers}, [
        verdict("stars and galaxies: area of PSF minus model", areas["PSF minus model"], f"> {best:.4f} of SExtractor",
                areas["PSF minus model"] > best)
    ]  # fmt: skip


def with_psfex(folder: Path) -> Any:
    """SExtractor's catalogue of the r frame with a PSF from PSFEx."""
    frame = r_frame(folder)
    sextractor(
        folder, frame, catalogue="first.cat",
        columns=("VIGNET(35,35)", "X_IMAGE", "Y_IMAGE", "FLUX_RADIUS", "SNR_WIN", "FLUX_APER(1)", "FLUXERR_APER(1)",
                 "ELONGATION", "FLAGS"),
        CATALOG_TYPE="FITS_LDAC", PHOT_APERTURES=18, BACK_SIZE=128,
    )  # fmt: skip
    command = shutil.which("psfex") or "psfex"
    subprocess.run(
        [command, "first.cat", "-CHECKPLOT_DEV", "NULL", "-CHECKIMAGE_TYPE", "NONE", "-WRITE_XML", "N", "-VERBOSE_TYPE", "QUIET",
         "-PSFVAR_DEGREES", "2"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    return sextractor(
        folder, frame, catalogue="second.cat",
        columns=("X_IMAGE", "Y_IMAGE", "CLASS_STAR", "SPREAD_MODEL", "SPREADERR_MODEL", "FLAGS"),
        PSF_NAME="first.psf", BACK_SIZE=128, SEEING_FWHM=1.3, PIXEL_SCALE=PIXEL, DETECT_THRESH=1.2,
        ANALYSIS_THRESH=1.2,
    )  # fmt: skip


def main() -> None:
    args = arguments(__doc__ or "")
    about = print_header("Photometry of real SDSS frames", ["source-extractor"])
    with scratch() as folder:
        (folder / "u").mkdir()
        (folder / "r").mkdir()
        pixels, verdicts = same_pixels(folder / "u")
        classes, judged = separation(folder / "r")
    rows = {"same pixels": pixels, "stars and galaxies": classes}
    save("sdss_photometry", {**about, "rows": rows, "verdicts": verdicts + judged}, quick=args.quick)


if __name__ == "__main__":
    main()
