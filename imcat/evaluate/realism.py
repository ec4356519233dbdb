"""Are simulated twins of real tiles like the real ones? Statistics with tolerances, and a test without mercy.

Every real tile has a twin: a simulated tile of the same name. Catalogues of both are made by the same code,
their statistics compared (`imcat.evaluate.sky_statistics`), and two fixed classifiers try to tell cutouts
apart (`imcat.evaluate.two_sample`). Two controls say whether that test can be believed: a mirrored real tile
must not be told from the real one, a real tile with a PSF 25 % wider must be.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imcat.catalogue import Catalogue
from imcat.errors import InputError, UsageError
from imcat.evaluate.assess import plain
from imcat.evaluate.cutout_features import PROFILE_FAMILIES, Features, summarise
from imcat.evaluate.cutout_network import network_scores
from imcat.evaluate.cutouts import KINDS, Cutouts, Patch, Positions, choose, cut, read_patch, widened
from imcat.evaluate.folder import check_report_folder, report_folder
from imcat.evaluate.sky_statistics import TOLERANCES, SkyFacts, compare_skies, field_scatter, sky_facts
from imcat.evaluate.two_sample import Outcome, Sample, pair_up, require_trees, run_test, tree_scores
from imcat.surveys import TileSource, find_tiles, read_tile
from imcat.tile import Tile

__all__ = ["Evidence", "LARGEST_AUC", "collect", "evaluate_realism", "find_pairs", "judge_realism"]

Float64 = NDArray[np.float64]
Measured = tuple[Cutouts, Features]

#: Largest number of cutouts of each kind from each side of a pair.
CUTOUTS = 200

#: Largest area under the curve at which twins count as like the real tiles.
LARGEST_AUC = 0.70

#: The mirrored control must lie within this of 0.5, the widened one above that.
MIRROR_TOLERANCE, WIDENED_LEAST = 0.06, 0.90

#: Factor on the FWHM of the widened control, and a smaller one that shows how fine the test sees.
WIDENED, SLIGHTLY_WIDENED = 1.25, 1.05


@dataclass(frozen=True, eq=False)
class Evidence:
    """What all pairs give to the test, kept while tiles come and go.

    Attributes
    ----------
    bands : tuple of str
        Common to all tiles.
    twins, mirrored, widened, slightly_widened : list of Sample
        Real cutouts against those of the twin, of the mirrored tile and (stars only) of the tile with a
        wider PSF, one per pair.
    real_facts, twin_facts : list of SkyFacts
        For the statistics.
    """

    bands: tuple[str, ...]
    twins: list[Sample] = field(default_factory=list)
    mirrored: list[Sample] = field(default_factory=list)
    widened: list[Sample] = field(default_factory=list)
    slightly_widened: list[Sample] = field(default_factory=list)
    real_facts: list[SkyFacts] = field(default_factory=list)
    twin_facts: list[SkyFacts] = field(default_factory=list)


def evaluate_realism(
    real: Sequence[str | Path],
    twins: str | Path,
    out_dir: str | Path,
    *,
    catalogue_of: Callable[[Tile], Catalogue],
    number: int = CUTOUTS,
    figures: bool = True,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Compare twins with the real tiles that they are like, and write the report.

    Parameters
    ----------
    real : sequence of path
        Files, folders and globs of real tiles.
    twins : path
        A folder with a simulated tile of the same name for each real one, one sub-folder each.
    out_dir : path
        The report's folder. An earlier report there is replaced.
    catalogue_of : callable
        Makes the catalogue of a tile, real or simulated.
    number : int
        Largest number of cutouts of each kind from a tile.
    figures : bool
        False leaves the figures out.
    progress : callable, optional
        Is given a line of text at each step.

    Returns
    -------
    dict
        What report.json holds.

    Raises
    ------
    InputError
        If a tile cannot be read or has no twin, or a field has too few sources to cut.
    UsageError
        If `number` is too small.
    OutputError
        If `out_dir` holds something else than a report.
    DependencyError
        Without scikit-learn.
    """
    target = Path(out_dir)
    check_report_folder(target)
    if number < 20:
        raise UsageError(f"{number} cutouts of each kind tell nothing; expected at least 20")
    require_trees()
    say = progress or (lambda _: None)
    started = time.monotonic()
    pairs, notes = find_pairs(real, Path(twins))
    evidence = collect(pairs, catalogue_of, number, say)
    collected = time.monotonic()
    result, scores, importance = judge_realism(evidence, say)
    result["notes"] = notes
    result["seconds"] = {
        "tiles": round(collected - started, 1),
        "classifiers": round(time.monotonic() - collected, 1),
    }
    content: dict[str, Any] = plain(result)
    from imcat.evaluate.realism_report import realism_markdown

    with report_folder(target) as folder:
        names: list[str] = []
        if figures:
            from imcat.evaluate.realism_figures import draw_realism

            names = draw_realism(folder, result, evidence, scores, importance)
        text = json.dumps(content, indent=1, allow_nan=False) + "\n"
        (folder / "report.json").write_text(text, encoding="utf-8")
        (folder / "report.md").write_text(realism_markdown(result, names), encoding="utf-8")
    return content


def find_pairs(
    real: Sequence[str | Path], twins: Path
) -> tuple[list[tuple[TileSource, TileSource]], list[str]]:
    """Find the twin of each real tile by its name.

    Parameters
    ----------
    real : sequence of path
        Real tiles.
    twins : pathlib.Path
        A folder of tiles, or of sub-folders that are searched one by one, since several twins of one
        tile have the same name.

    Returns
    -------
    pairs : list of (TileSource, TileSource)
        Real tile and its first twin, by name.
    notes : list of str
        What was left out.

    Raises
    ------
    InputError
        If there is no such folder, or a real tile has no twin.
    """
    if not twins.is_dir():
        raise InputError("no such folder", path=twins, expected="a folder with a twin of each real tile")
    sources = find_tiles(list(real))
    found: dict[str, TileSource] = {}
    further = 0
    folders = sorted(entry for entry in twins.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    loose = any(entry.suffix in (".fits", ".fit", ".bz2", ".fz", ".gz") for entry in twins.iterdir())
    for folder in [twins] if loose or not folders else folders:
        for source in find_tiles([folder]):
            further += source.name in found
            found.setdefault(source.name, source)
    absent = [source.name for source in sources if source.name not in found]
    if absent:
        raise InputError(
            f"holds no twin of {', '.join(absent)} (it holds {', '.join(sorted(found)[:5])})",
            path=twins,
            expected="tiles with the names of the real ones, as imcat simulate --like writes them",
        )
    names = {source.name for source in sources}
    notes = []
    if further:
        notes.append(f"{further} further twin(s) of the same tiles were left out; the first of each is used.")
    if set(found) - names:
        notes.append(f"Without a real tile and left out: {', '.join(sorted(set(found) - names))}.")
    return [(source, found[source.name]) for source in sources], notes


def collect(
    pairs: Sequence[tuple[TileSource, TileSource]],
    catalogue_of: Callable[[Tile], Catalogue],
    number: int,
    say: Callable[[str], None],
) -> Evidence:
    """Cut and measure both sides of each pair; one pair is in memory at a time.

    Parameters
    ----------
    pairs : sequence of (TileSource, TileSource)
        Real tiles and their twins.
    catalogue_of : callable
        Makes the catalogue of a tile.
    number : int
        Largest number of cutouts of each kind.
    say : callable
        Is given a line of text at each step.

    Raises
    ------
    InputError
        If both tiles of a pair have no common band, or one side has too few stars.
    """
    evidence = Evidence(_common_bands([source for pair in pairs for source in pair]))
    for real_source, twin_source in pairs:
        say(f"{real_source.name}: catalogue and cutouts of tile and twin")
        patch, positions, real = _measure(real_source, "real", evidence, catalogue_of, number)
        evidence.real_facts.append(sky_facts(patch, *real))
        _, _, twin = _measure(twin_source, "twin", evidence, catalogue_of, number)
        evidence.twins.append(pair_up(patch.name, real, twin))
        mirrored = cut(patch, positions, mirror=True)
        evidence.mirrored.append(pair_up(patch.name, real, (mirrored, summarise(mirrored, patch.bands))))
        stars = positions.select(positions.kind == KINDS.index("star"))
        of_stars = _summarised(patch, stars)
        for factor, samples in (
            (WIDENED, evidence.widened),
            (SLIGHTLY_WIDENED, evidence.slightly_widened),
        ):
            samples.append(pair_up(patch.name, of_stars, _summarised(widened(patch, factor), stars)))
    return evidence


def _common_bands(sources: Sequence[TileSource]) -> tuple[str, ...]:
    """Bands that every tile has, in order of wavelength."""
    names = [[band for band, _ in source.parts] for source in sources]
    common = [band for band in dict.fromkeys(names[0]) if all(band in others for others in names)]
    if not common:
        raise InputError("the tiles have no band in common", expected="the same bands in tiles and twins")
    return tuple(common)


def _measure(
    source: TileSource,
    side: str,
    evidence: Evidence,
    catalogue_of: Callable[[Tile], Catalogue],
    number: int,
) -> tuple[Patch, Positions, Measured]:
    """Read one tile and cut it; the facts of twins are noted here, while their pixels are at hand."""
    patch = read_patch(read_tile(source), catalogue_of, evidence.bands, side)
    rng = np.random.default_rng(zlib.crc32(f"positions {side} {source.name}".encode()))
    positions = choose(patch, number, rng)
    counts = np.bincount(positions.kind, minlength=len(KINDS))
    if counts.min() < 8:
        found = ", ".join(f"{n} {kind}" for n, kind in zip(counts, KINDS, strict=True))
        raise InputError(
            f"too few places to cut ({found})",
            path=source.files[0],
            expected="at least 8 of each kind between the magnitudes that are compared",
        )
    measured = _summarised(patch, positions)
    if side == "twin":
        evidence.twin_facts.append(sky_facts(patch, *measured))
    return patch, positions, measured


def _summarised(patch: Patch, positions: Positions) -> Measured:
    cutouts = cut(patch, positions)
    return cutouts, summarise(cutouts, patch.bands)


def judge_realism(
    evidence: Evidence, say: Callable[[str], None]
) -> tuple[dict[str, Any], list[Float64], dict[str, list[float]]]:
    """Run the statistics, the test and its controls.

    Parameters
    ----------
    evidence : Evidence
        From `collect`.
    say : callable
        Is given a line of text at each step.

    Returns
    -------
    result : dict
        Dataclasses and numbers by section; `imcat.evaluate.assess.plain` makes JSON of it.
    scores : list of float64 array
        Of the trees, for the cutouts of each fold.
    importance : dict of str to list of float
        Loss in area when a family or a feature is shuffled.
    """
    comparisons = compare_skies(evidence.real_facts, evidence.twin_facts)
    importance: dict[str, list[float]] = {}
    profile = partial(tree_scores, families=PROFILE_FAMILIES)
    stars = [sample.of_kind("star") for sample in evidence.twins]

    say("trees and network on the twins")
    trees, scores = run_test(evidence.twins, partial(tree_scores, importance=importance))
    outcomes: dict[str, Outcome] = {"trees": trees}
    outcomes["trees, star profiles"] = run_test(stars, profile)[0]
    outcomes["network"] = run_test(evidence.twins, network_scores)[0]
    say("controls: the mirrored tile, the wider PSF")
    controls = {
        "mirrored": {
            "trees": run_test(evidence.mirrored, tree_scores)[0],
            "network": run_test(evidence.mirrored, network_scores)[0],
        },
        "widened": {
            "trees, star profiles": run_test(evidence.widened, profile)[0],
            "network": run_test(evidence.widened, network_scores)[0],
        },
        "slightly widened": {"trees, star profiles": run_test(evidence.slightly_widened, profile)[0]},
    }
    result: dict[str, Any] = {
        "tiles": [sample.name for sample in evidence.twins],
        "bands": list(evidence.bands),
        "split": "each pair tested once, trained on the others"
        if len(evidence.twins) > 1
        else "one pair: each half of the tile tested once, trained on the other",
        "cutouts": [_numbers(sample) for sample in evidence.twins],
        "tolerances": TOLERANCES,
        "largest_auc": LARGEST_AUC,
        "test": outcomes,
        "controls": controls,
        "verdicts": _verdicts(outcomes, controls),
        "give_away": _ranked(importance),
        "field_scatter": {
            "real": field_scatter(evidence.real_facts),
            "twin": field_scatter(evidence.twin_facts),
        },
        "statistics": comparisons,
    }
    return result, scores, importance


def _numbers(sample: Sample) -> dict[str, int]:
    """Cutouts of each kind from each side."""
    return {kind: int((sample.kind == code).sum()) // 2 for code, kind in enumerate(KINDS)}


def _verdicts(outcomes: dict[str, Outcome], controls: dict[str, dict[str, Outcome]]) -> dict[str, Any]:
    """Whether the test sees, and what it says."""
    blind = []
    for name, outcome in controls["mirrored"].items():
        if not abs(outcome.auc["all"] - 0.5) <= MIRROR_TOLERANCE:
            blind.append(f"{name}: a mirrored tile is told apart with AUC {outcome.auc['all']:.2f}")
    for name, outcome in controls["widened"].items():
        if not outcome.auc["star"] >= WIDENED_LEAST:
            blind.append(
                f"{name}: stars of a PSF {WIDENED - 1:.0%} wider are told with AUC {outcome.auc['star']:.2f}"
            )
    largest = {
        name: max(value for value in outcome.auc.values() if np.isfinite(value))
        for name, outcome in outcomes.items()
    }
    return {
        "controls_passed": not blind,
        "controls_failed": blind,
        "overall_passed": all(o.auc["all"] <= LARGEST_AUC for o in outcomes.values()),
        "every_kind_passed": max(largest.values()) <= LARGEST_AUC,
        "largest_auc": largest,
    }


def _ranked(importance: dict[str, list[float]]) -> dict[str, list[tuple[str, float]]]:
    """Families and features by the area that is lost without them, most first."""
    mean = {name: float(np.mean(np.sort(values))) for name, values in importance.items()}
    ordered = sorted(mean.items(), key=lambda item: -item[1])
    families = [(n.removeprefix("family: "), v) for n, v in ordered if n.startswith("family: ")]
    return {
        "families": families[:8],
        "features": [item for item in ordered if not item[0].startswith("family: ")][:12],
    }
