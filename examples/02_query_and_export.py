"""From a run to tables that others read: SQL over the catalogue, and files in other formats.

    python examples/02_query_and_export.py [FOLDER]

The same as these commands:

    imcat run examples/tile -o FOLDER/out
    imcat query FOLDER/out "SELECT ..." -o FOLDER/red.csv
    imcat export FOLDER/out -o FOLDER/catalogue.fits --primary
    imcat export FOLDER/out -o FOLDER/catalogue.vot --names sextractor
    imcat export FOLDER/out -o FOLDER/sources.reg
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import pyarrow.parquet as pq

from imcat.cli import main as imcat

TILE = Path(__file__).parent / "tile"
RED = """
SELECT ra, dec, 31.4 - 2.5 * log10(r_kron_flux) AS r_mag, 2.5 * log10(r_color_flux / g_color_flux) AS g_r
FROM sources
WHERE is_primary AND g_color_flux > 5 * g_color_flux_err AND r_color_flux > 5 * r_color_flux_err
ORDER BY g_r DESC
LIMIT 5
"""


def main(folder: Path) -> None:
    out = folder / "out"
    run("run", TILE, "-o", out)

    # Columns of a query may be computed; colours come from the fluxes in matched apertures.
    run("query", out, RED, "-o", folder / "red.csv")
    print((folder / "red.csv").read_text())

    run("export", out, "-o", folder / "catalogue.fits", "--primary")
    run("export", out, "-o", folder / "catalogue.vot", "--names", "sextractor")
    run("export", out, "-o", folder / "sources.reg")

    # The folder of a run is a plain Parquet data set, and its ledger plain JSON.
    table = pq.read_table(out / "sources", columns=["ra", "dec", "flags"])
    ledger = json.loads((out / "run.json").read_text())
    print(
        f"{table.num_rows} sources in {len(ledger['tiles'])} tile, made with imcat {ledger['versions']['imcat']}"
    )


def run(*command: object) -> None:
    """Call imcat as the shell would, and stop if it fails."""
    code = imcat([str(word) for word in command])
    if code:
        sys.exit(code)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder))
