"""Augmented CSST tiles of 256 pixels a side: rate, and what ten thousand take.

Beside them the simulator's own tiles of the same size, in turn in the same run: generated light, rare sources and boxes
should cost little more.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from common import (
    IMCAT,
    Cost,
    arguments,
    in_turn,
    print_costs,
    print_header,
    run_timed,
    save,
    scratch,
    verdict,
)

SIZE = "256x256"
MANY = 10_000
HOURS = 24.0  # in which ten thousand should be there


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights", metavar="DIR", help="folder of the generators' weights (default: imcat's own)"
    )
    parser.add_argument("--workers", type=int, default=2)


def _make(command: list[str], count: int, out: Path, workers: int) -> Cost:
    shutil.rmtree(out, ignore_errors=True)
    what = [
        "csst",
        "-n",
        str(count),
        "--seed",
        "1",
        "--size",
        SIZE,
        "-o",
        str(out),
        "--workers",
        str(workers),
    ]
    return run_timed([[*IMCAT, *command, *what]])


def main() -> None:
    options = arguments(__doc__ or "", _options)
    count, repeats = (24, 1) if options.quick else (60, 2)
    about = print_header("Speed of augmented tiles")
    commands = {
        "imcat augment tiles": [
            "augment",
            "tiles",
            *(["--weights", options.weights] if options.weights else []),
        ],
        "imcat simulate": ["simulate"],
    }
    with scratch() as folder:
        outs = {name: folder / name.replace(" ", "-") for name in commands}
        jobs: dict[str, Any] = {
            name: lambda command=command, out=outs[name]: _make(command, count, out, options.workers)
            for name, command in commands.items()
        }
        costs = in_turn(jobs, repeats, warm_up=False)
        rows = print_costs(costs, "imcat simulate")
        for name, out in outs.items():
            sources = sum(pq.read_metadata(p).num_rows for p in out.glob("*/truth.parquet"))
            size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
            wall = rows[name]["wall_s"]
            rows[name] |= {
                "tiles": count, "workers": options.workers, "tiles_per_s": count / wall, "sources_per_s": sources / wall, "mb_per_tile": size / count / 1e6,
            }  # fmt: skip
            print(
                f"   {name}: {count / wall:.3g} tiles/s, {sources / wall:.3g} sources/s, {size / count / 1e6:.3g} MB a tile"
            )
    made = rows["imcat augment tiles"]
    hours = MANY / made["tiles_per_s"] / 3600
    gigabytes = MANY * made["mb_per_tile"] / 1000
    print(f"   {MANY} tiles: {hours:.2g} hours with {options.workers} workers, {gigabytes:.3g} GB")
    verdicts = [verdict(f"hours for {MANY} images", hours, f"<= {HOURS:g}", hours <= HOURS)]
    result = {**about, "speed": rows, "verdicts": verdicts}
    save("augment_speed", result, quick=options.quick)


if __name__ == "__main__":
    main()
