"""Draw the figures of the documentation that show real data.

    IMCAT_DATA=FOLDER python docs/make_figures.py

Runs imcat on the SDSS field 003918-3-0213 and puts its overview in ``docs/_static/overview.png``, which the README
and the first page show. Without ``IMCAT_DATA`` the folder ``../shared/data`` beside the checkout is taken.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from imcat.cli import main as imcat

ROOT = Path(__file__).resolve().parents[1]
FIELD = Path("sdss") / "fields" / "003918-3-0213"
OVERVIEW = ROOT / "docs" / "_static" / "overview.png"


def main() -> int:
    """Run imcat and keep its figure; returns an exit code."""
    data = Path(os.environ.get("IMCAT_DATA") or ROOT.parent / "shared" / "data")
    if not (data / FIELD).is_dir():
        print(
            f"error: {data / FIELD}: no such folder; set IMCAT_DATA to the folder of real data",
            file=sys.stderr,
        )
        return 2
    with tempfile.TemporaryDirectory() as folder:
        code = imcat(["run", str(data / FIELD), "-o", f"{folder}/out"])
        if code:
            return int(code)
        shutil.copyfile(Path(folder, "out", "report", f"{FIELD.name}.png"), OVERVIEW)
    print(f"overview: {OVERVIEW.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
