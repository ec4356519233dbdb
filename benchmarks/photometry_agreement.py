"""Fluxes of imcat and SExtractor on the same single image.

The image is the r frame of an SDSS field. Compared are sources without flags in either list
and without a neighbour within 15 arcsec, at S/N above 20. SExtractor's background is that of
its 128-pixel mesh, imcat's its own; beside the fluxes as they are stands the comparison with both
backgrounds left at zero (the frames are sky-subtracted).
"""

from __future__ import annotations

import warnings
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning
from astropy.wcs.utils import proj_plane_pixel_area
from common import (
    arguments,
    imcat_catalogue,
    print_header,
    save,
    scratch,
    sextractor,
    verdict,
    write_generic_tile,
)
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from sdss_field_detection import FIELD, PIXEL, r_frame

from imcat.catalogue import match_xy
from imcat.evaluate.measurement import robust_scatter

NANOMAGGY = 3631.0  # nJy
ISOLATED = 15.0  # arcsec
MIN_SNR = 20.0
DIAMETER = 3.0  # arcsec


def isolated(x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.bool_]:
    """Sources without another within the radius of isolation."""
    points = np.column_stack([x, y])
    distance, _ = cKDTree(points).query(points, k=2)
    return np.asarray(distance[:, 1] > ISOLATED / PIXEL)


def compare(
    folder: Path, tile: Path, image: Path, scale: float, engine: str, *, background: bool
) -> dict[str, Any]:
    """Flux ratios imcat / SExtractor of isolated sources, on the footprints of one of imcat's engines."""
    own = folder / "config.toml"
    own.write_text("" if background else "[noise]\nsubtract_background = false\n")
    # Without fits x and y are where the apertures lie.
    options = ("--config", str(own), "--detector", engine, "--no-models", "--no-classify")
    catalogue = imcat_catalogue(folder, [tile], *options)
    settings: dict[str, Any] = {"BACK_SIZE": 128, "PHOT_APERTURES": DIAMETER / scale, "DETECT_THRESH": 1.5}
    if not background:
        settings |= {"BACK_TYPE": "MANUAL", "BACK_VALUE": 0}
    table = sextractor(folder, image, **settings)
    sx, sy = table["X_IMAGE"] - 1, table["Y_IMAGE"] - 1
    # SExtractor's apertures lie on the isophotal barycentre: only where that is imcat's position,
    # to a fifth of a pixel, are the apertures the same.
    pairs = match_xy(catalogue["x"], catalogue["y"], sx, sy, 0.2)
    i, j = pairs.first, pairs.second
    good = isolated(sx, sy)[j] & (table["FLAGS"][j] == 0) & (np.asarray(catalogue["flags"])[i] == 0)
    good &= isolated(np.asarray(catalogue["x"]), np.asarray(catalogue["y"]))[i]
    good &= table["FLUX_AUTO"][j] > MIN_SNR * table["FLUXERR_AUTO"][j]
    i, j = i[good], j[good]
    result: dict[str, Any] = {"sources": int(good.sum())}
    for name, column, theirs in (
        ("kron", "r_kron_flux", table["FLUX_AUTO"]),
        ("aperture", "r_aper_flux_3", table["FLUX_APER"]),
    ):
        ratio = np.asarray(catalogue[column], dtype=np.float64)[i] / NANOMAGGY / theirs[j]
        result[name] = {"median": float(np.median(ratio)), "scatter": robust_scatter(ratio)}
    # Kron ratios by brightness: a median over all could hide a trend.
    flux = table["FLUX_AUTO"][j]
    thirds = np.quantile(flux, [0, 1 / 3, 2 / 3, 1])
    ratio = np.asarray(catalogue["r_kron_flux"], dtype=np.float64)[i] / NANOMAGGY / flux
    result["kron_by_flux"] = [
        {"above_nanomaggies": float(low), "median": float(np.median(ratio[(flux >= low) & (flux <= high)]))}
        for low, high in pairwise(thirds)
    ]
    return result


def main() -> None:
    args = arguments(__doc__ or "")
    about = print_header(f"Fluxes in the r frame of SDSS {FIELD}", ["source-extractor"])
    rows, verdicts = {}, []
    with scratch() as folder:
        image = r_frame(folder)
        with fits.open(image, mode="update") as hdus:
            # Only the image: what else an SDSS frame holds, SExtractor would take for images.
            plane, header = hdus[0].data.copy(), hdus[0].header.copy()
        fits.PrimaryHDU(plane, header).writeto(image, overwrite=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FITSFixedWarning)  # old spellings of SDSS headers
            scale = 3600 * float(np.sqrt(proj_plane_pixel_area(WCS(header))))  # arcsec per pixel
        tile = write_generic_tile(
            folder, "agreement", {"r": {"image": "r.fits", "zero_point": 22.5, "wavelength": 6166.0}}, "r"
        )
        for engine, background in product(("threshold", "network"), (False, True)):
            row = compare(folder, tile, image, scale, engine, background=background)
            name = f"{engine}, {'own backgrounds' if background else 'no background subtracted'}"
            rows[name] = row
            print(f"   {name}: {row['sources']} isolated sources")
            for kind, label in (("kron", "Kron / FLUX_AUTO"), ("aperture", "3 arcsec aperture / FLUX_APER")):
                print(
                    f"      {label:30} median {row[kind]['median']:.5f}  scatter {row[kind]['scatter']:.5f}"
                )
            trend = ", ".join(f"{part['median']:.4f}" for part in row["kron_by_flux"])
            print(f"      Kron by thirds of flux, faint to bright: {trend}")
    for engine, (kind, limit) in product(("threshold", "network"), (("kron", 0.01), ("aperture", 0.001))):
        difference = abs(rows[f"{engine}, no background subtracted"][kind]["median"] - 1)
        verdicts.append(
            verdict(f"{engine}: {kind} median difference", difference, f"<= {limit}", difference <= limit)
        )
    save("photometry_agreement", {**about, "rows": rows, "verdicts": verdicts}, quick=args.quick)


if __name__ == "__main__":
    main()
