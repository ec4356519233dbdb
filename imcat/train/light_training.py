"""Training of the generator of galaxies: against a judge, or as the decoder of an autoencoder.

Both ways take the same stamps, conditions and generator. The adversarial one (Goodfellow et al. 2014, arXiv:1406.2661)
has the non-saturating loss with a penalty on the judge's slope every few steps; the other the evidence bound with a weight on
the divergence, after which the random numbers found behind the training stamps are described by a normal distribution to
draw from (Ghosh et al. 2020, arXiv:1903.12436). Every so often the averaged generator makes the validation galaxies again, and
the one whose looks lie nearest is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imcat.augment.conditions import Ranges
from imcat.augment.light import LightGenerator
from imcat.augment.looks import Looks, distance_ratios, look_at
from imcat.augment.observed import ObservedStamps, Seen, observe
from imcat.augment.trained import LIGHT_FORMAT, ranges_card
from imcat.simulate.sources import Morphology
from imcat.train.card_text import write_with_card
from imcat.train.generator_loop import Schedule, train_generator
from imcat.train.light_data import real_stamps, sharp_stamps
from imcat.train.light_recipe import SURVEY_BANDS, LightRecipe
from imcat.train.light_trainers import Adversarial, Autoencoding, scaled
from imcat.train.loop import training_device, use_all_cores

__all__ = ["LightRecipe", "generated", "made_looks", "stamp_looks", "train_light", "training_stamps"]

_JUDGED = 512  # stamps measured at once
_FAILURES = (
    "no spiral arms, bars, rings or tidal tails: patches of light stand for all structure",
    "parts of a galaxy differ in colour by powers of wavelength alone",
    "a look that is asked for has little influence on what is drawn",
)


def train_light(
    recipe: LightRecipe, folder: Path, *, resume: bool = False, device: str | None = None
) -> Path:
    """Train a generator of galaxies and write it.

    Parameters
    ----------
    recipe : LightRecipe
        How.
    folder : path
        For stamps, log, checkpoint, weights and card.
    resume : bool
        Go on from the checkpoint there.
    device : str, optional
        ``cpu`` or ``cuda``; default: a GPU where there is one.

    Returns
    -------
    path
        Of the card.
    """
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    use_all_cores()
    place = training_device(device)
    training, validation = training_stamps(recipe, folder)
    trainer = (Adversarial if recipe.method == "gan" else Autoencoding)(recipe, training, place)
    real = stamp_looks(validation)

    def judge(made: LightGenerator) -> tuple[float, dict[str, float]]:
        ratios = {k: r for k, (_, r) in distance_ratios(real, made_looks(made, validation, 3, place)).items()}
        return float(np.nanmean(list(ratios.values()))), ratios

    rates = {name: recipe.judge_rate if name == "judge" else recipe.rate for name in trainer.optimisers}
    schedule = Schedule(recipe.steps, recipe.schedule or recipe.steps, rates, recipe.seed)
    best = train_generator(trainer, schedule, judge, folder, resume=resume)
    data = save({k: v.detach().cpu().contiguous() for k, v in best.generator.state_dict().items()})
    card = {
        "description": f"generator of galaxies for {recipe.survey} tiles, trained as a {recipe.method}",
        "licence": "BSD-3-Clause",
        "data": (
            f"{len(training)} galaxies of {len(recipe.real)} real SDSS fields" if recipe.real
            else f"{len(training)} simulated galaxies (imcat.train.light_data.sharp_stamps), no real pixel"
        ),
        "bands": list(SURVEY_BANDS[recipe.survey]),
        "failures": list(_FAILURES),
        "step": best.step, "validation_distance": round(best.distance, 4),
        "generator": asdict(recipe.generator), "ranges": ranges_card(_ranges(training)),
        "recipe": {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(recipe).items()},
    }  # fmt: skip
    return write_with_card(folder, recipe.name, data, LIGHT_FORMAT, card)


def stamp_looks(stamps: ObservedStamps, bands: str | list[str] | None = None) -> Looks:
    """Looks of observed stamps."""
    return _looks(stamps, lambda seen: seen.signal, torch.device("cpu"), bands)


def made_looks(
    generator: LightGenerator,
    stamps: ObservedStamps,
    seed: int = 0,
    place: torch.device | str = "cpu",
    bands: str | list[str] | None = None,
) -> Looks:
    """Looks of generated galaxies under the conditions of some stamps, observed as these were."""
    chance = torch.Generator().manual_seed(seed)
    return _looks(stamps, lambda seen: generated(generator, seen, chance), torch.device(place), bands)


@torch.no_grad()
def generated(generator: LightGenerator, seen: Seen, chance: torch.Generator) -> Tensor:
    """Stamps of generated galaxies for the conditions of a batch, with the half-light radii asked for."""
    latent = generator.draw(len(seen), chance).to(seen.vector.device)
    return observe(scaled(generator(seen.asked, latent, seen.vector), seen), seen, chance)


def _looks(
    stamps: ObservedStamps,
    pixels: Callable[[Seen], Tensor],
    place: torch.device,
    bands: str | list[str] | None,
) -> Looks:
    rng = np.random.default_rng(5)
    names = list(bands or [f"band {k + 1}" for k in range(stamps.signal.shape[1])])
    parts = []
    for start in range(0, len(stamps), _JUDGED):
        seen = stamps.batch(np.arange(start, min(start + _JUDGED, len(stamps))), rng, place)
        parts.append(
            look_at(pixels(seen), seen.valid, seen.x, seen.y, seen.noise, stamps.asked.reference, names)
        )
    return Looks(np.concatenate([p.values for p in parts]), parts[0].names)


def training_stamps(recipe: LightRecipe, folder: Path) -> tuple[ObservedStamps, ObservedStamps]:
    """What is learned from, and what judges; simulated ones are kept in the folder."""
    if recipe.real:
        kept = folder.parent / "sources"
        return real_stamps(recipe.real, kept), real_stamps(recipe.validation, kept)
    path = folder / f"sharp-{recipe.galaxies}-{recipe.seed}.npz"
    if not path.exists():
        sharp_stamps(recipe.galaxies, recipe.seed).write(path)
    every = ObservedStamps.read(path)
    held = max(1, len(every) // 10)
    return every.take(np.arange(held, len(every))), every.take(np.arange(held))


def _ranges(stamps: ObservedStamps) -> Ranges:
    """What was trained on: all but the outermost of each, some of whose fits ran away."""

    def span(values: Any) -> tuple[float, float]:
        low, high = np.percentile(values, (2.0, 98.0))
        return round(float(low), 3), round(float(high), 3)

    asked = stamps.asked
    kinds = [Morphology(m).name.lower() for m in np.unique(asked.morphology) if m >= 0]
    waves = asked.wavelength
    # Between the bands colours follow from the spectrum's slope; a little beyond them, too.
    return Ranges(
        span(asked.magnitude), span(asked.radius), (span(asked.axis_ratio)[0], 1.0),
        (round(float(waves.min()) * 0.9), round(float(waves.max()) * 1.1)), tuple(kinds),
        span(known) if len(known := asked.redshift[np.isfinite(asked.redshift)]) else (),
    )  # fmt: skip
