"""The summary of a run, as ``report/report.json`` and ``report/report.md``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from imcat.catalogue import atomic_path
from imcat.scale.folder import OutputFolder

__all__ = ["summarise", "write_report"]


def summarise(tiles: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What the tiles of a ledger add up to.

    Parameters
    ----------
    tiles : mapping
        Entries of the ledger by name.

    Returns
    -------
    dict
        ``tiles`` and how many of them are ``ok`` and ``failed``; ``sources``;
        ``counts``, summed over tiles; ``failures`` and ``warnings`` by tile.
    """
    done = {name: tiles[name] for name in sorted(tiles) if tiles[name]["status"] == "ok"}
    failures = {name: tiles[name]["reason"] for name in sorted(tiles) if tiles[name]["status"] == "failed"}
    counts: dict[str, float] = {}
    for entry in done.values():
        for key, value in entry["counts"].items():
            if isinstance(value, int):  # other numbers (a seeing, a depth) do not add up
                counts[key] = counts.get(key, 0) + value
    return {
        "tiles": len(tiles),
        "ok": len(done),
        "failed": len(failures),
        "sources": sum(entry["rows"] for entry in done.values()),
        "counts": counts,
        "failures": failures,
        "warnings": {name: entry["warnings"] for name, entry in done.items() if entry["warnings"]},
    }


def write_report(folder: OutputFolder, tiles: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the summary of a run in both forms.

    Parameters
    ----------
    folder : OutputFolder
        Where the run lies.
    tiles : mapping
        Entries of the ledger by name.
    """
    summary = summarise(tiles)
    with atomic_path(folder.report / "report.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    with atomic_path(folder.report / "report.md") as temporary:
        temporary.write_text(_markdown(folder, summary, tiles), encoding="utf-8")


def _markdown(folder: OutputFolder, summary: dict[str, Any], tiles: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [
        "# Run",
        "",
        f"{summary['ok']} of {summary['tiles']} tiles written, {summary['sources']} sources.",
        "",
        "| tile | status | bands | sources | primary | warnings |",
        "|---|---|---|---|---|---|",
    ]
    for name in sorted(tiles):
        lines.append(_row(folder, name, tiles[name]))
    lines += _engines(folder, tiles) + _injections(tiles)
    for title, texts in (("Failures", summary["failures"]), ("Warnings", summary["warnings"])):
        if texts:
            lines += ["", f"## {title}", ""]
        for name, text in texts.items():
            lines += [f"- {name}: {one}" for one in ([text] if isinstance(text, str) else text)]
    return "\n".join(lines) + "\n"


def _engines(folder: OutputFolder, tiles: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Where the two engines disagree."""
    rows = []
    for name in sorted(tiles):
        counts = tiles[name].get("counts", {})
        if "both_engines" not in counts:
            continue
        figure = folder.engines_figure(name)
        label = f"[{name}]({figure.name})" if figure.exists() else name
        cells = (counts["both_engines"], counts.get("only_network", 0), counts.get("only_threshold", 0))
        seconds = tiles[name].get("timings", {}).get("other_engine", "")
        rows.append(f"| {label} | " + " | ".join(str(cell) for cell in (*cells, seconds)) + " |")
    if not rows:
        return []
    head = ["| tile | both | network alone | threshold alone | seconds |", "|---|---|---|---|---|"]
    return ["", "## Sources by engine", "", *head, *rows]


def _injections(tiles: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Which injected sources came back."""
    lines: list[str] = []
    for name in sorted(tiles):
        result = tiles[name].get("injection")
        if not result:
            continue
        lines += [
            "",
            f"### {name}",
            "",
            f"{result['injected']} sources added, {result['on_sources']} of them on a source of the tile and left out; "
            f"5 sigma limit of point sources {result['band']} = {result['limit']:.2f}.",
            "",
            f"| kind | {result['band']} | added | completeness | 68 % | flux | bias (mag) | scatter (mag) |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for b in result["bins"]:
            bias, scatter = ("" if b[k] is None else f"{b[k]:+.3f}" for k in ("bias", "scatter"))
            lines.append(
                f"| {b['kind']} | {b['low']:g}–{b['high']:g} | {b['number']} | {b['completeness']:.3f} | "
                f"{b['lower']:.3f}–{b['upper']:.3f} | {b['flux']} | {bias} | {scatter.lstrip('+')} |"
            )
    return ["", "## Injected sources", *lines] if lines else []


def _row(folder: OutputFolder, name: str, entry: Mapping[str, Any]) -> str:
    label = f"[{name}]({name}.png)" if folder.figure(name).exists() else name
    if entry["status"] != "ok":
        return f"| {label} | {entry['status']} | | | | |"
    cells = (
        " ".join(entry["bands"]),
        entry["rows"],
        entry["counts"].get("primary", ""),
        len(entry["warnings"]),
    )
    return f"| {label} | ok | " + " | ".join(str(cell) for cell in cells) + " |"
