"""Four ugriz fields of SDSS, from .bz2 to catalogue: imcat against the usual chain of programs.

The chain is, per field, bunzip2 of five frames, SWarp of each to the r frame's grid and
SExtractor on each in dual-image mode (detection in r). imcat works with two workers; two chains
run side by side with half of the fields each, one thread per program, so that both have two
cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from astropy.io import fits
from common import (
    Cost,
    arguments,
    data_dir,
    imcat_run,
    in_turn,
    peer,
    print_costs,
    print_header,
    run_timed,
    save,
    scratch,
    sextractor_command,
    verdict,
)

FIELDS = ("003918-3-0213", "001035-6-0017", "001992-1-0087", "002820-3-0122")
BANDS = "ugriz"
WORKERS = 2
#: What imcat does without a report, in steps: name, options, and the share of the chain's time that was aimed at.
STAGES = (
    ("apertures alone", ("--detector", "threshold", "--no-classify"), 0.75),
    ("with fits", ("--detector", "threshold", "--no-classify"), 1.0),
    ("with fits and the network", ("--no-classify",), 1.2),
    ("everything", (), 1.3),
)
_GRID = ("CTYPE1", "CTYPE2", "CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "CD1_1", "CD1_2", "CD2_1", "CD2_2")


def write_chain(folder: Path, fields: Sequence[str], number: int) -> list[str]:
    """Write the shell script of one chain, and what it needs beside it; return the command."""
    place = folder / f"chain-{number}"
    place.mkdir()
    lines = ["set -e", f"cd '{place}'"]
    for field in fields:
        source = data_dir() / "sdss" / "fields" / field
        header = fits.getheader(source / f"frame-r-{field}.fits.bz2", 0)
        grid = fits.Header([(key, header[key]) for key in ("NAXIS1", "NAXIS2", *_GRID)])
        for band in BANDS:
            # SWarp takes the grid of its output from a header file beside it.
            (place / f"{field}-{band}.head").write_text(
                grid.tostring(sep="\n", endcard=True, padding=False) + "\n"
            )
            lines.append(f"bunzip2 -c '{source}/frame-{band}-{field}.fits.bz2' > {field}-{band}-raw.fits")
        for band in BANDS:
            lines.append(
                f"'{peer('swarp')}' '{field}-{band}-raw.fits[0]' -IMAGEOUT_NAME {field}-{band}.fits "
                f"-WEIGHTOUT_NAME {field}-{band}.weight.fits -SUBTRACT_BACK N -WRITE_XML N -NTHREADS 1 "
                "-VERBOSE_TYPE QUIET"
            )
        for band in BANDS:
            command = sextractor_command(
                place, f"{field}-{band}.fits", detect_on=f"{field}-r.fits", catalogue=f"{field}-{band}.cat",
                MAG_ZEROPOINT=22.5,
            )  # fmt: skip
            lines.append(" ".join(f"'{word}'" for word in command))
        lines.append(f"rm -f {field}-*.fits")
    script = place / "chain.sh"
    script.write_text("\n".join(lines) + "\n")
    return ["bash", str(script)]


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fields", nargs="+", default=list(FIELDS), help="other fields")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each, in turn")
    parser.add_argument("--chain-only", action="store_true", help="measure the peers alone")


def main() -> None:
    args = arguments(__doc__ or "", _options)
    about = print_header(
        f"{len(args.fields)} ugriz fields from .bz2 to catalogue", ["source-extractor", "swarp"]
    )
    folders = [data_dir() / "sdss" / "fields" / field for field in args.fields]
    with scratch() as folder:
        chains = [write_chain(folder, args.fields[i::WORKERS], i) for i in range(WORKERS)]

        def chain() -> Cost:
            return run_timed(chains)

        def imcat(*options: str) -> Cost:
            return run_timed([imcat_run(folder / "out", folders, "--workers", str(WORKERS), *options)])

        jobs = {"bunzip2 + SWarp + SExtractor, two chains": chain}
        if not args.chain_only:
            plain = folder / "plain.toml"
            plain.write_text("fit_models = false\n[measure]\nsurvey_quantities = false\n")
            for name, options, _ in STAGES:
                given = ["--config", str(plain)] if name == STAGES[0][0] else []
                jobs[name] = partial(imcat, "--no-report", *options, *given)
            jobs["everything, with the report"] = imcat
        costs = in_turn(jobs, 1 if args.quick else args.repeats)
    base = next(iter(jobs))
    rows = print_costs(costs, base)
    result = {**about, "fields": args.fields, "rows": rows}
    if not args.chain_only:
        result["verdicts"] = [
            verdict(
                f"wall time, {name}, imcat / chain",
                rows[name]["wall_ratio"],
                f"<= {aim:g}",
                rows[name]["wall_ratio"] <= aim,
            )
            for name, _, aim in STAGES
        ]
        save("sdss_chain", result, quick=args.quick)


if __name__ == "__main__":
    main()
