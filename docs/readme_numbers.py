"""Fill the block of numbers in README.md from the results of the benchmarks: ``python docs/readme_numbers.py``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))
from bench_results import Result, number, read_results

__all__ = ["fill"]

ROOT = Path(__file__).resolve().parents[1]
_BLOCK = re.compile(r"(<!-- numbers: begin[^>]*-->\n).*?(<!-- numbers: end -->)", re.DOTALL)


def fill(text: str, results: list[Result] | None = None) -> str:
    """Return the text with its block of numbers written anew.

    Parameters
    ----------
    text : str
        Of README.md.
    results : list of Result, optional
        Default: the committed ones.

    Raises
    ------
    ValueError
        If the text has no such block.
    """
    results = read_results() if results is None else results
    lines = ["| benchmark | quantity | imcat | target | |", "| --- | --- | --- | --- | --- |"]
    for result in results:
        for k, verdict in enumerate(result.verdicts):
            cells = [
                "" if k else result.title,
                str(verdict["what"]),
                number(verdict["value"]),
                str(verdict["target"]),
                "reached" if verdict["reached"] else "not reached",
            ]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    block = "\n" + "\n".join(lines) + "\n\n" if results else ""
    filled, count = _BLOCK.subn(lambda m: m[1] + block + m[2], text)
    if count != 1:
        raise ValueError(f"README.md has {count} blocks of numbers; expected one between its two markers")
    return filled


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(fill(readme.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"numbers of {len(read_results())} benchmarks in README.md")
