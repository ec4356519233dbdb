"""The committed results of the benchmarks, ready for a page: ``benchmarks/results/NAME.json``, newest entry last."""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Result", "number", "read_results"]

_NAMING = ("by", "name", "from", "to")  # what a bin is called by
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Result:
    """The newest result of one benchmark; a full run counts before a quick one.

    Attributes
    ----------
    name : str
        The script's name.
    title : str
        First line of the script's docstring.
    made_with : str
        Date, machine and versions.
    tables : dict of str to dict
        Tables by their key in the file: rows by name, each a dictionary of quantities.
    verdicts : list of dict
        ``what``, ``value``, ``target``, ``reached``.
    """

    name: str
    title: str
    made_with: str
    tables: dict[str, dict[str, dict[str, Any]]]
    verdicts: list[dict[str, Any]]


def read_results(root: Path = ROOT) -> list[Result]:
    """Read the newest result of every benchmark, in the order of their names."""
    results = []
    for path in sorted((root / "benchmarks" / "results").glob("*.json")):
        history = json.loads(path.read_text(encoding="utf-8"))
        entry = ([e for e in history if not e.get("quick")] or history)[-1]
        tables = {key: _rows(value) for key, value in entry.items() if _is_table(value)}
        for key, value in entry.items():
            tables |= _bins(key, value)
        title = _title(root / "benchmarks" / f"{path.stem}.py")
        results.append(Result(path.stem, title, _made_with(entry), tables, entry.get("verdicts", [])))
    return results


def number(value: Any) -> str:
    """Write a value with four significant digits; what is no number stays as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def _is_table(value: Any) -> bool:
    """A part of a benchmark: rows, or single numbers that were measured with some weights."""
    if not isinstance(value, dict):
        return False
    return "weights" in value or any(isinstance(row, dict) for key, row in value.items() if key != "verdicts")


def _bins(title: str, block: Any) -> dict[str, dict[str, dict[str, Any]]]:
    """Lists of bins, however deep, as tables of their own."""
    if not isinstance(block, dict):
        return {}
    found: dict[str, dict[str, dict[str, Any]]] = {}
    bins = block.get("bins")
    if isinstance(bins, list) and bins and all(isinstance(row, dict) for row in bins):
        found[f"{title} by bin"] = {
            _name(row): {k: v for k, v in _flat(row).items() if k not in _NAMING} for row in bins
        }
    for key, value in block.items():
        found |= _bins(f"{title} {key}", value)
    return found


def _name(row: dict[str, Any]) -> str:
    ends = f"{row['from']:g} to {row['to']:g}" if "from" in row else ""
    return " ".join(str(v) for v in (row.get("by", ""), row.get("name", ""), ends) if v)


def _rows(block: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Rows of a table; quantities that stand beside the rows are one of their own."""
    rows = {name: _flat(row) for name, row in block.items() if isinstance(row, dict)}
    whole = {k: v for k, v in _flat(block).items() if k in block}
    return rows | ({"all": whole} if whole else {})


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Put dictionaries in a row beside its other quantities; of lists only two numbers, an interval: others are for plots."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, dict):
            flat |= {f"{key} {name}": inner for name, inner in _flat(value).items()}
        elif isinstance(value, list):
            if len(value) == 2 and all(isinstance(end, int | float) for end in value):
                flat[key] = " to ".join(map(number, value))
        else:
            flat[key] = value
    return flat


def _title(script: Path) -> str:
    text = (
        ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) if script.is_file() else None
    ) or script.stem
    return text.splitlines()[0].rstrip(".")


def _made_with(entry: dict[str, Any]) -> str:
    machine = entry.get("hardware", {})
    versions = ", ".join(f"{name} {version}" for name, version in entry.get("versions", {}).items())
    kind = ", a quick run" if entry.get("quick") else ""
    return (
        f"{entry.get('time', '')[:10]}{kind}; {machine.get('cpu', '')}, {machine.get('cores', '')} cores, "
        f"{machine.get('memory_gib', '')} GiB; {versions}"
    )
