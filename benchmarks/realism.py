"""Twins of real SDSS fields against the fields: the two classifiers, their controls, and what the sky is like.

Three fields were used to make the simulator's camera and sky alike (001035-6-0017, 002820-3-0122, 007264-3-0111), and
they tell nothing here. The three that are measured are others. The report's tables go to ``results/realism.md``, its
figures to ``docs/_static/realism-*.png``.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from common import IMCAT, RESULTS, arguments, data_dir, print_header, run_timed, save, scratch

#: Fields that nothing was tuned on. With --quick the first two.
MEASURED = ("001992-1-0087", "008162-6-0080", "003918-3-0213")
SEED = 1
_FIGURES = ("auc", "give-away", "cutouts", "counts", "sizes", "locus")
_STATIC = Path(__file__).resolve().parents[1] / "docs" / "_static"


def main() -> None:
    args = arguments(__doc__ or "")
    header = print_header("Realism of twins")
    fields = MEASURED[:2] if args.quick else MEASURED
    real = [str(data_dir() / "sdss" / "fields" / name) for name in fields]
    with scratch() as folder:
        twins, report = folder / "twins", folder / "report"
        like = [word for path in real for word in ("--like", path)]
        made = run_timed([[*IMCAT, "simulate", "sdss", "--seed", str(SEED), "-o", str(twins), *like]])
        run_timed([[*IMCAT, "evaluate", "--realism", *real, "--twins", str(twins), "-o", str(report)]])
        content = json.loads((report / "report.json").read_text(encoding="utf-8"))
        text = (report / "report.md").read_text(encoding="utf-8")
        print(text)
        if args.quick:
            return
        facts = {**header, "fields": fields, "seed": SEED, "twins_wall_s": made.wall, "report": content}
        save("realism", facts, quick=False)
        keep = text[: text.index("## Figures")].split("\n", 1)[1].strip()
        (RESULTS / "realism.md").write_text(_below(keep), encoding="utf-8")
        for name in _FIGURES:
            shutil.copyfile(report / f"{name}.png", _STATIC / f"realism-{name}.png")


def _below(text: str) -> str:
    """Headings two levels down, to stand under one of the documentation; no times, which are the machine's."""
    text = re.sub(r"^Tiles took .*\n?", "", text, flags=re.MULTILINE)
    return re.sub(r"^(#+)", r"##\1", text, flags=re.MULTILINE) + "\n"


if __name__ == "__main__":
    main()
