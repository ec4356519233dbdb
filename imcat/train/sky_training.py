"""Training of the generator of empty sky: a judge of patches, and the statistics that are to agree.

The judge sees what no statistic says; the statistics (moments, correlations of pixels and bands, means of blocks) hold the
noise to what real sky has while judge and generator chase each other. Real patches have holes where sources are; generated
ones get the same holes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from imcat.augment.sky import SkyGenerator, SkyJudge, SkySettings
from imcat.augment.texture import Texture, texture_of
from imcat.augment.trained import SKY_FORMAT
from imcat.errors import ConfigError
from imcat.train.card_text import write_with_card
from imcat.train.generator_loop import GeneratorTrainer, Schedule, train_generator
from imcat.train.loop import training_device, use_all_cores
from imcat.train.sky_data import PATCH, SkyPatches, real_sky

__all__ = ["SkyRecipe", "train_sky"]

_SLOPE_EVERY = 8
_FAILURES = (
    "structure wider than some thirty pixels is not made",
    "satellite trails, ghosts and other rare artefacts are not made",
    "noise and depth follow the tile, but the texture is that of the fields it learned from",
)
_STATISTICS = 96  # patches whose statistics are compared in a step
_SAMPLED = 6  # crops, side of the sky on which levels are set and statistics judged


@dataclass(frozen=True)
class SkyRecipe:
    """How a generator of sky is trained.

    Attributes
    ----------
    name : str
        Of the weights.
    real, validation : tuple of str
        Real tiles to learn from and to judge with, below the folder of real data (``IMCAT_DATA``).
    width, depth, channels : int
        Of the generator (`imcat.augment.sky.SkySettings`).
    judge_width : int
        Of the judge.
    steps, batch, crop : int
        Steps of the optimiser, patches in each, and their side, pixels.
    rate, judge_rate : float
        Largest learning rates.
    slope : float
        Weight of the penalty on the judge's slope.
    texture : float
        Weight of the statistics.
    schedule : int
        Steps over which the rates fall; 0: as many as are taken.
    seed : int
        Decides everything.
    """

    name: str = "sky_sdss"
    real: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    width: int = 24
    depth: int = 4
    channels: int = 2
    judge_width: int = 32
    steps: int = 4000
    batch: int = 16
    crop: int = 64
    rate: float = 5e-4
    judge_rate: float = 5e-4
    slope: float = 0.5
    texture: float = 0.02
    schedule: int = 0
    seed: int = 1

    def __post_init__(self) -> None:
        if not 32 <= self.crop <= PATCH or self.crop % 16:
            raise ConfigError(f"crop is {self.crop}; expected a multiple of 16 from 32 to {PATCH}")
        if min(self.steps, self.batch) < 1:
            raise ConfigError("steps and batch: expected positive numbers")

    def smoke(self) -> SkyRecipe:
        """The same, for a minute: on made-up patches, small."""
        return replace(self, steps=4, batch=4, crop=32, real=(), validation=(), width=8, judge_width=8)


def train_sky(recipe: SkyRecipe, folder: Path, *, resume: bool = False, device: str | None = None) -> Path:
    """Train a generator of sky and write it.

    Parameters
    ----------
    recipe : SkyRecipe
        How.
    folder : path
        For log, checkpoint, weights and card; patches of real tiles are kept beside it.
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
    if recipe.real:
        patches = real_sky(recipe.real, folder.parent / "sources")
        validation = real_sky(recipe.validation, folder.parent / "sources") if recipe.validation else patches
    else:
        patches = validation = _white(recipe.seed)
    settings = SkySettings(len(patches.bands), recipe.width, recipe.depth, recipe.channels)
    trainer = _SkyTrainer(recipe, settings, patches, validation, place)
    rates = {"generator": recipe.rate, "judge": recipe.judge_rate}
    schedule = Schedule(recipe.steps, recipe.schedule or recipe.steps, rates, recipe.seed)
    best = train_generator(trainer, schedule, trainer.distance, folder, resume=resume)
    data = save({k: v.detach().cpu().contiguous() for k, v in best.generator.state_dict().items()})
    card = {
        "description": "generator of empty sky in units of its noise, at any size",
        "licence": "BSD-3-Clause",
        "data": f"{len(patches)} patches of {PATCH} x {PATCH} pixels of {len(recipe.real)} real SDSS fields, sources left out",
        "failures": list(_FAILURES),
        "bands": list(patches.bands), "step": best.step, "validation_distance": round(best.distance, 4),
        "generator": asdict(settings),
        "recipe": {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(recipe).items()},
    }  # fmt: skip
    return write_with_card(folder, recipe.name, data, SKY_FORMAT, card)


def _white(seed: int) -> SkyPatches:
    """White noise, to try the machinery on."""
    rng = np.random.default_rng(seed)
    sky = np.clip(np.rint(rng.standard_normal((12, 5, PATCH, PATCH)) * 20), -127, 127).astype(np.int8)
    return SkyPatches(sky, np.ones(sky.shape, bool), tuple("ugriz"))


class _SkyTrainer(GeneratorTrainer[SkyGenerator]):
    """Generator, judge and the patches they learn from; levels are set by the validation sky."""

    def __init__(
        self,
        recipe: SkyRecipe,
        settings: SkySettings,
        patches: SkyPatches,
        validation: SkyPatches,
        place: torch.device,
    ) -> None:
        torch.manual_seed(recipe.seed)
        super().__init__(SkyGenerator(settings).to(place), place, recipe.seed)
        self.recipe, self.patches = recipe, patches
        self.wanted = _statistics(validation, place)
        self.judge = SkyJudge(settings, recipe.judge_width).to(place)
        self.modules["judge"] = self.judge
        self.both = [
            torch.optim.AdamW(m.parameters(), lr=recipe.rate, betas=(0.0, 0.99))
            for m in self.modules.values()
        ]
        self.optimisers |= zip(self.modules, self.both, strict=True)

    def step(self, number: int, rng: np.random.Generator) -> dict[str, float]:
        """One step of judge and generator; losses of both, and the distance of the statistics."""
        recipe, judge, side = self.recipe, self.judge, self.recipe.crop
        real, valid = _crops(self.patches, recipe.batch, side, rng, self.place)
        with torch.no_grad():
            fake = _made(self.generator, len(real), side, self.chance, self.place)
        loss = (
            nn.functional.softplus(-judge(real, valid)).mean()
            + nn.functional.softplus(judge(fake, valid)).mean()
        )
        judged = float(loss.detach())
        if number % _SLOPE_EVERY == 0:
            at = real.detach().requires_grad_(True)
            (slope,) = torch.autograd.grad(judge(at, valid).sum(), at, create_graph=True)
            loss = loss + _SLOPE_EVERY * recipe.slope * 0.5 * slope.square().sum((1, 2, 3)).mean()
        _descend(self.both[1], loss)
        fake = _made(self.generator, len(real), side, self.chance, self.place)
        fooled = nn.functional.softplus(-judge(fake, valid)).mean()
        other, holes = _crops(self.patches, min(_STATISTICS, len(self.patches)), side, rng, self.place)
        with torch.no_grad():
            target = texture_of(other, holes)
        same = texture_of(fake, valid).distance(target)
        _descend(self.both[0], fooled + recipe.texture * same)
        return {"judge": judged, "generator": float(fooled.detach()), "texture": float(same.detach())}

    @torch.no_grad()
    def finished(self) -> SkyGenerator:
        """The averaged generator with levels and scatter as the real sky has them."""
        own = self.averaged()
        own.gain.fill_(1.0)  # type: ignore[operator]
        own.offset.fill_(0.0)  # type: ignore[operator]
        made = _made_texture(own, self.recipe.crop, self.place)
        gain = self.wanted.rms / made.rms.clamp_min(1e-3)
        own.gain.copy_(gain)  # type: ignore[operator]
        own.offset.copy_(made.mean - self.wanted.mean / gain)  # type: ignore[operator]
        return own

    def distance(self, made: SkyGenerator) -> tuple[float, dict[str, float]]:
        """Of the statistics of generated sky from those of the validation sky."""
        return float(_made_texture(made, self.recipe.crop, self.place).distance(self.wanted)), {}


def _descend(optimiser: torch.optim.AdamW, loss: Tensor) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    for group in optimiser.param_groups:
        nn.utils.clip_grad_norm_(group["params"], 1.0)
    optimiser.step()


def _made(generator: SkyGenerator, n: int, side: int, chance: torch.Generator, place: torch.device) -> Tensor:
    """Generated patches ``[n, bands, side, side]``."""
    canvas = [c.to(place) for c in generator.canvas(side, side, n, chance)]
    out: Tensor = generator(canvas)
    return out


def _crops(
    patches: SkyPatches, number: int, side: int, rng: np.random.Generator, place: torch.device
) -> tuple[Tensor, Tensor]:
    """Random crops and where they count, mirrored at random; rows and columns stay what they are."""
    rows = rng.integers(len(patches), size=number)
    y, x = (int(v) for v in rng.integers(PATCH - side + 1, size=2))
    cut = (slice(None), slice(None), slice(y, y + side), slice(x, x + side))
    sky, valid = patches.pixels(rows)[cut], patches.valid[rows][cut].astype(np.float32)
    for axis in (2, 3):
        if rng.random() < 0.5:
            sky, valid = np.flip(sky, axis), np.flip(valid, axis)
    return tuple(torch.from_numpy(np.ascontiguousarray(v)).to(place) for v in (sky, valid))  # type: ignore[return-value]


@torch.no_grad()
def _statistics(patches: SkyPatches, place: torch.device) -> Texture:
    return texture_of(
        torch.from_numpy(patches.pixels()).to(place),
        torch.from_numpy(patches.valid.astype(np.float32)).to(place),
    )


@torch.no_grad()
def _made_texture(generator: SkyGenerator, crop: int, place: torch.device) -> Texture:
    chance = torch.Generator().manual_seed(77)
    sky = _made(generator, 4, _SAMPLED * crop, chance, place)
    return texture_of(sky, torch.ones_like(sky))
