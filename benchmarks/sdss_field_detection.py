"""Listed stars and galaxies of one SDSS field recovered by imcat and by SExtractor.

The lists hold 372 galaxies and 271 stars; SExtractor works on the r frame alone, with its
default settings and with a lower threshold.
"""

from __future__ import annotations

import bz2
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    arguments,
    data_dir,
    imcat_catalogue,
    print_header,
    save,
    scratch,
    sextractor,
    verdict,
)
from numpy.typing import NDArray

from imcat.catalogue import match_xy

FIELD = "003918-3-0213"
PIXEL = 0.396  # arcsec (SDSS imaging camera: Gunn et al. 1998, AJ 116, 3040)


def read_list(kind: str) -> NDArray[np.float64]:
    """Columns x and y of the listed sources."""
    path = data_dir() / "sdss" / "catalogues" / f"{FIELD}_{kind}.csv"
    return np.loadtxt(path, delimiter=",")


def recovered(x: NDArray[Any], y: NDArray[Any], lists: Mapping[str, NDArray[Any]]) -> dict[str, float]:
    """Fractions of the lists within 1 arcsec, and the median offset of what was found, in arcsec."""
    result: dict[str, float] = {"detections": len(x)}
    offsets = []
    for kind, listed in lists.items():
        found = match_xy(x, y, listed[:, 0], listed[:, 1], 1 / PIXEL)
        result[kind] = found.first.size / len(listed)
        offsets.append(found.distance * PIXEL)
    result["median_offset_arcsec"] = float(np.median(np.concatenate(offsets)))
    return result


def show(name: str, row: Mapping[str, float]) -> None:
    print(
        f"   {name:44} {row['detections']:6.0f} detections  galaxies {row['galaxies']:6.1%}  "
        f"stars {row['stars']:6.1%}  median offset {row['median_offset_arcsec']:.3f} arcsec"
    )


def r_frame(folder: Path) -> Path:
    """The r frame without its compression."""
    packed = data_dir() / "sdss" / "fields" / FIELD / f"frame-r-{FIELD}.fits.bz2"
    path = folder / "r.fits"
    path.write_bytes(bz2.decompress(packed.read_bytes()))
    return path


#: Detections that the targets allow.
LIMIT = 900


def main() -> None:
    args = arguments(__doc__ or "")
    about = print_header(f"Detection in SDSS {FIELD}", ["source-extractor"])
    lists = {"galaxies": read_list("gals"), "stars": read_list("stars")}
    rows: dict[str, dict[str, float]] = {}
    with scratch() as folder:
        frame = r_frame(folder)
        for name, settings in (
            ("SExtractor, r, default settings", {}),
            ("SExtractor, r, threshold 1.0", {"DETECT_THRESH": 1.0, "ANALYSIS_THRESH": 1.0}),
        ):
            table = sextractor(folder, frame, **settings)
            rows[name] = recovered(table["X_IMAGE"] - 1, table["Y_IMAGE"] - 1, lists)
            show(name, rows[name])
            windowed = recovered(table["XWIN_IMAGE"] - 1, table["YWIN_IMAGE"] - 1, lists)
            rows[f"{name}, windowed"] = windowed
            show("    windowed centroids", windowed)
        field = [data_dir() / "sdss" / "fields" / FIELD]
        catalogue = imcat_catalogue(folder, field)
        # The listed places come from the r frame, with its noise: r alone shares it, all bands together do not.
        quick = ("--no-models", "--no-classify")
        alone = imcat_catalogue(folder / "r", field, "--bands", "r", *quick)
        settings_file = folder / "files.toml"
        settings_file.write_text("[measure]\nregistration_stars = 0\nregistration_error = 0.1\n")
        as_files = imcat_catalogue(folder / "files", field, "--config", str(settings_file), *quick)
    order = np.argsort(-np.asarray(catalogue["detection_snr"]), kind="stable")
    x, y = np.asarray(catalogue["x"])[order], np.asarray(catalogue["y"])[order]
    rows["imcat, ugriz"] = recovered(x, y, lists)
    show("imcat, ugriz", rows["imcat, ugriz"])
    rows["imcat, r alone"] = recovered(np.asarray(alone["x"]), np.asarray(alone["y"]), lists)
    show("imcat, r alone", rows["imcat, r alone"])
    # What the places are where the files' registration is taken for granted to a tenth of an arcsecond.
    first = np.argsort(-np.asarray(as_files["detection_snr"]), kind="stable")[:LIMIT]
    name = "imcat, registration_error 0.1, at the limit"
    rows[name] = recovered(np.asarray(as_files["x"])[first], np.asarray(as_files["y"])[first], lists)
    show(name, rows[name])
    # The list is in order of significance, so that its head is a list of equal length.
    for name in ("SExtractor, r, default settings", "SExtractor, r, threshold 1.0"):
        length = int(rows[name]["detections"])
        if length < len(x):
            key = f"imcat, the {length} most significant"
            rows[key] = recovered(x[:length], y[:length], lists)
            show(key, rows[key])
    # The working point of the targets: what `detect.min_snr` at this value leaves.
    length = min(LIMIT, len(x))
    level = float(np.asarray(catalogue["detection_snr"])[order][length - 1])
    own = recovered(x[:length], y[:length], lists) | {"min_snr": level}
    rows["imcat, at the limit"] = own
    show(f"imcat, detect.min_snr = {level:.2f}", own)
    verdicts = [
        verdict("detections", own["detections"], f"<= {LIMIT}", own["detections"] <= LIMIT),
        verdict("listed galaxies", own["galaxies"], ">= 0.94", own["galaxies"] >= 0.94),
        verdict("listed stars", own["stars"], ">= 0.83", own["stars"] >= 0.83),
        verdict(
            "median offset", own["median_offset_arcsec"], "<= 0.045", own["median_offset_arcsec"] <= 0.045
        ),
    ]
    save("sdss_field_detection", {**about, "rows": rows, "verdicts": verdicts}, quick=args.quick)


if __name__ == "__main__":
    main()
