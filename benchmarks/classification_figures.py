"""Figures of the newest full results: confusion, reliability, redshifts, looks; and what the backbone paints and looks at.

``python benchmarks/classification_figures.py`` draws the results; with ``--pretraining DIR`` (the folder of
``imcat train weights/recipes/backbone.toml``, whose checkpoint holds the decoder) reconstructions too, and with ``--samples DIR``
(as of benchmarks/classification.py) attribution maps.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import numpy as np
import torch
from classification_shapes import explained
from common import RESULTS
from matplotlib import pyplot as plt
from numpy.typing import NDArray

from imcat.backbones.mae import MaskedAutoencoder
from imcat.backbones.vit import VitSettings, patches
from imcat.classify.attribution import attribute
from imcat.classify.network import MORPHOLOGIES
from imcat.classify.trained import load_classifier
from imcat.stamps import StampSettings, band_conditions, compress
from imcat.train.source_samples import SampleSettings, build_samples, read_sample, stamps_of, unpack

STATIC = Path(__file__).resolve().parents[1] / "docs" / "_static"
KINDS = ("star", "galaxy", "quasar")
_TEST_SEED = 908

Array = NDArray[Any]


def newest() -> dict[str, Any]:
    """The newest full results of the classifier."""
    history = json.loads((RESULTS / "classification.json").read_text())
    full = [r for r in history if not r["quick"]] or history
    return dict(full[-1])


def _confusion(
    axis: Any, table: list[list[int]], title: str, names: Sequence[str] = KINDS, size: float = 8
) -> None:
    count = np.array(table, float)
    share = count / np.maximum(count.sum(1, keepdims=True), 1)
    axis.imshow(share, vmin=0, vmax=1, cmap="Blues")
    for a in range(len(count)):
        for b in range(len(count)):
            colour = "white" if share[a, b] > 0.6 else "black"
            axis.text(
                b,
                a,
                f"{share[a, b]:.3f}\n{int(count[a, b])}",
                ha="center",
                va="center",
                color=colour,
                fontsize=size,
            )
    axis.set_xticks(range(len(names)), names, rotation=45 if len(names) > len(KINDS) else 0)
    axis.set_yticks(range(len(names)), names)
    axis.set_xlabel("said")
    axis.set_ylabel("true")
    axis.set_title(title, fontsize=9)


def _redshift(axis: Any, part: dict[str, Any], title: str, reach: float) -> None:
    axis.plot([0, reach], [0, reach], color="0.7", lw=1)
    axis.plot(part["z"], part["z_phot"], ".", ms=2, alpha=0.5)
    axis.set_xlim(0, reach)
    axis.set_ylim(0, reach)
    axis.set_xlabel("z (spectrum)" if "trees_bias" in part and "pit" in part else "z (truth)")
    axis.set_ylabel("z_phot")
    axis.set_title(title, fontsize=9)


def draw_results(result: dict[str, Any]) -> None:
    """Confusion, reliability and redshifts."""
    figure, axes = plt.subplots(2, 4, figsize=(14, 7), layout="constrained")
    survey, tables = result["classes"], result["tables"]
    _confusion(axes[0, 0], survey["r < 20"]["confusion"], "simulated survey, r < 20")
    _confusion(axes[0, 1], survey["14 to 25"]["confusion"], "simulated survey, 14 to 25")
    _confusion(axes[0, 2], tables["sdss17"]["confusion"], "real: sdss17, ugriz alone")
    axis = axes[0, 3]
    axis.plot([0, 1], [0, 1], color="0.7", lw=1)
    for name, part in result["calibration"].items():
        if "reliability" in part:
            stated, right, _ = np.array(part["reliability"]).T
            axis.plot(stated, right, "o-", ms=3, label=name)
    axis.set_xlabel("stated probability of the likeliest class")
    axis.set_ylabel("share that is right")
    axis.legend(fontsize=8)
    axis.set_title("reliability on tiles that nothing was fitted to", fontsize=9)
    _redshift(axes[1, 0], tables["main"], "main galaxies, ugriz alone", 0.4)
    _redshift(axes[1, 1], tables["boss"], "BOSS galaxies, ugriz alone", 0.9)
    _redshift(axes[1, 2], tables["quasars"], "quasars, ugriz alone", 5.5)
    _redshift(axes[1, 3], result["csst"], "CSST-like galaxies, S/N > 10", 3.0)
    figure.savefig(STATIC / "classification.png", dpi=110)
    plt.close(figure)


def draw_shapes(result: dict[str, Any]) -> None:
    """Confusion of looks, and where true redshifts fall in the densities of real tables."""
    figure, axes = plt.subplots(1, 3, figsize=(16, 5.4), layout="constrained", width_ratios=(1, 1, 0.8))
    names = [m.replace("_", " ") for m in MORPHOLOGIES]
    for axis, (survey, limit) in zip(axes, (("sdss", "19.5"), ("csst", "23")), strict=False):
        table = result["morphology"][survey]["confusion"]
        _confusion(axis, table, f"looks of {survey.upper()}-like galaxies, r < {limit}", names, 6)
    axis = axes[2]
    for name in ("boss", "main", "ugriz", "quasars"):
        count = np.array(result["tables"][name]["pit"], float)
        edges = np.linspace(0, 1, len(count) + 1)
        axis.stairs(count / count.mean(), edges, label=f"{name} ({int(count.sum())})")
    axis.axhline(1, color="0.7", lw=1)
    axis.set_ylim(0, 2)
    axis.set_xlabel("stated probability of a redshift below the true one (PIT)")
    axis.set_ylabel("sources, relative to the mean")
    axis.legend(fontsize=8)
    axis.set_title("redshift densities of real tables", fontsize=9)
    figure.savefig(STATIC / "shapes.png", dpi=110)
    plt.close(figure)


def _test_stamps(folder: Path) -> tuple[Any, Any]:
    """A test tile's sample and its stamps' rows, the brightest galaxies first."""
    path = next(iter(build_samples(folder, SampleSettings(tiles=1, seed=_TEST_SEED), StampSettings())))
    sample = read_sample(path)
    return sample, np.argsort(np.asarray(sample.truth["r_mag"], float))


def _grey(axis: Any, image: Array, low: float = -1.0, high: float = 4.0, **more: Any) -> None:
    axis.imshow(image, origin="lower", cmap=more.get("cmap", "gray"), vmin=low, vmax=high)
    axis.set_xticks([])
    axis.set_yticks([])


def draw_reconstructions(pretraining: Path, samples: Path) -> None:
    """Stamps, what was left of them, and what the network painted."""
    state = torch.load(pretraining / "checkpoint.pt", map_location="cpu", weights_only=True)["average"]
    state = {
        k.replace("encoder.about.", "encoder.about.net.") if ".about.net." not in k else k: v
        for k, v in state.items()
    }
    network = MaskedAutoencoder(VitSettings())
    network.load_state_dict(state)
    network.eval()
    sample, order = _test_stamps(samples)
    galaxy = sample.truth["type"][order] == "galaxy"
    rows = order[galaxy][[3, 10, 25, 50, 90, 150, 250, 400]]
    values, valid = (torch.from_numpy(a) for a in unpack(sample.packed[rows]))
    conditions = torch.from_numpy(band_conditions(stamps_of(sample, rows)))
    with torch.inference_mode():
        said = network(
            values, valid, conditions, torch.ones(values.shape[:2]), torch.Generator().manual_seed(4)
        )
    side = network.encoder.settings.patch
    grid = values.shape[-1] // side

    def image(cut: torch.Tensor) -> Array:
        n = len(cut)
        return (
            cut.reshape(n, grid, grid, side, side).permute(0, 1, 3, 2, 4).reshape(n, grid * side, -1).numpy()
        )

    band = 2
    true = patches(values, side)[:, :, band]
    hidden = said.hidden[:, :, None]
    shown = true * (1 - hidden) - 1.0 * hidden
    full = said.patches[:, :, band] * hidden + true * (1 - hidden)
    figure, axes = plt.subplots(3, len(rows), figsize=(1.6 * len(rows), 5), layout="constrained")
    for line, (cut, name) in enumerate(((true, "stamp (r)"), (shown, "a quarter shown"), (full, "painted"))):
        for k, picture in enumerate(image(cut)):
            _grey(axes[line, k], picture)
        axes[line, 0].set_ylabel(name)
    figure.savefig(STATIC / "reconstructions.png", dpi=110)
    plt.close(figure)


def draw_attributions(samples: Path) -> None:
    """Attributions of lenses and galaxies, and the deletion curve against chance."""
    trained = load_classifier()
    sample, _ = _test_stamps(samples)
    kept = newest()["attributions"]
    figure, axes = plt.subplots(2, 7, figsize=(13, 4.2), layout="constrained")
    for line, (name, (stamps, classes)) in enumerate(explained(sample).items()):
        found = attribute(trained, stamps, None, classes)
        total = found.maps.sum(1)
        best = np.argsort(-found.answer)[:3]
        values = compress(stamps.signal)
        for k, row in enumerate(best):
            _grey(axes[line, 2 * k], values[row, 2])
            reach = float(np.abs(total[row]).max()) or 1.0
            _grey(axes[line, 2 * k + 1], total[row], -reach, reach, cmap="RdBu_r")
        axes[line, 0].set_ylabel(name)
        for label, curve in zip(("attribution", "at random"), kept[name]["curves"], strict=True):
            axes[line, 6].plot(kept["shares"], curve, "o-", ms=3, label=label)
        axes[line, 6].set_xlabel("share of the pixels emptied", fontsize=8)
        axes[line, 6].set_ylabel("mean log odds", fontsize=8)
        axes[line, 6].legend(fontsize=7)
    figure.savefig(STATIC / "attribution.png", dpi=110)
    plt.close(figure)


def main() -> None:
    """Draw what there is something for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pretraining", type=Path)
    parser.add_argument("--samples", type=Path)
    options = parser.parse_args()
    if (RESULTS / "classification.json").is_file():
        draw_results(newest())
        if "morphology" in newest():
            draw_shapes(newest())
    if options.samples is not None and "attributions" in newest():
        draw_attributions(options.samples)
    if options.samples is not None and options.pretraining is not None:
        draw_reconstructions(options.pretraining, options.samples)


if __name__ == "__main__":
    main()
