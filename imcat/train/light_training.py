"""Training of the generator of galaxies: against a judge, or as the decoder of an autoencoder.

Both ways take the same stamps, conditions, generator and steps. The adversarial one (Goodfellow et al. 2014, arXiv:1406.2661)
has the non-saturating loss with a penalty on the judge's slope every few steps; the other the evidence bound with a weight on
the divergence, after which the random numbers found behind the training stamps are described by a normal distribution to
draw from (Ghosh et al. 2020, arXiv:1903.12436). Every so often the averaged generator makes the validation galaxies again, and
the one whose looks lie nearest is kept.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from imcat.augment.conditions import Ranges
from imcat.augment.encode import LightEncoder, gaussian_divergence, pixel_misfit
from imcat.augment.judge import JudgeSettings, StampJudge, moved_alike, slope_penalty
from imcat.augment.light import LightGenerator, LightSettings, half_light_scale
from imcat.augment.looks import Looks, distance_ratios, look_at
from imcat.augment.observed import ObservedStamps, Seen, observe
from imcat.augment.trained import LIGHT_FORMAT, ranges_card
from imcat.catalogue.files import atomic_path
from imcat.errors import ConfigError
from imcat.render.stamps import SkyGaussians, render_stamps
from imcat.simulate.sources import Morphology
from imcat.train.card_text import write_with_card
from imcat.train.light_data import real_stamps, sharp_stamps
from imcat.train.loop import Average, Log, cosine_rate, use_all_cores

__all__ = ["LightRecipe", "made_looks", "stamp_looks", "train_light"]

_SLOPE_EVERY = 8  # steps between penalties on the judge's slope
_CLIP = 1.0
_JUDGED = 512  # stamps measured at once
_SURVEYS = {"sdss": "ugriz", "csst": "nuv u g r i z y"}


@dataclass(frozen=True)
class LightRecipe:
    """How a generator of galaxies is trained.

    Attributes
    ----------
    name : str
        Of the weights.
    survey : str
        ``sdss``: learns from real stamps; ``csst``: from simulated ones as an ideal camera sees them.
    method : str
        ``gan``: against a judge; ``vae``: as a decoder.
    real, validation : tuple of str
        Real tiles to learn from and to judge with, below the folder of real data (``IMCAT_DATA``).
    galaxies : int
        Simulated ones, where no tiles are named; a tenth of them judges.
    latent, width, depth, patches : int
        Of the generator (`imcat.augment.light.LightSettings`).
    judge_width, judge_depth : int
        Of the judge or of the encoder.
    steps, batch : int
        Steps of the optimiser, stamps in each.
    rate, judge_rate : float
        Largest learning rates.
    slope : float
        Weight of the penalty on the judge's slope.
    divergence : float
        Weight of the divergence of the autoencoder.
    schedule : int
        Steps over which the rates fall; 0: as many as are taken.
    seed : int
        Decides everything.
    """

    name: str = "light_sdss"
    survey: str = "sdss"
    method: str = "gan"
    real: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    galaxies: int = 4000
    latent: int = 32
    width: int = 192
    depth: int = 3
    patches: int = 24
    judge_width: int = 32
    judge_depth: int = 3
    steps: int = 6000
    batch: int = 32
    rate: float = 5e-4
    judge_rate: float = 5e-4
    slope: float = 1.0
    divergence: float = 4.0
    schedule: int = 0
    seed: int = 1

    def __post_init__(self) -> None:
        if self.survey not in _SURVEYS:
            raise ConfigError(f"survey is {self.survey!r}; expected one of {', '.join(_SURVEYS)}")
        if self.method not in ("gan", "vae"):
            raise ConfigError(f"method is {self.method!r}; expected gan or vae")
        if bool(self.real) != bool(self.validation):
            raise ConfigError("real and validation: expected tiles for both, or for neither")
        if min(self.steps, self.batch, self.galaxies) < 1 or self.patches < 1:
            raise ConfigError("steps, batch, galaxies and patches: expected positive numbers")

    def smoke(self) -> LightRecipe:
        """The same, for a minute: on simulated galaxies, small."""
        return replace(
            self, steps=4, batch=8, real=(), validation=(), galaxies=80, width=32, depth=2, patches=4, judge_width=8
        )  # fmt: skip

    @property
    def generator(self) -> LightSettings:
        """Size of the generator."""
        return LightSettings(self.latent, self.width, self.depth, self.patches)


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
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    training, validation = _stamps(recipe, folder)
    trainer = (_Adversarial if recipe.method == "gan" else _Autoencoding)(recipe, training, place)
    best = _run(recipe, trainer, training, validation, folder, resume=resume, place=place)
    data = save({k: v.detach().cpu().contiguous() for k, v in best.generator.state_dict().items()})
    card = {
        "description": f"generator of galaxies for {recipe.survey} tiles, trained as a {recipe.method}",
        "licence": "BSD-3-Clause",
        "data": (
            f"{len(training)} galaxies of {len(recipe.real)} real SDSS fields" if recipe.real
            else f"{len(training)} simulated galaxies (imcat.train.light_data.sharp_stamps), no real pixel"
        ),
        "bands": _SURVEYS[recipe.survey].split() if " " in _SURVEYS[recipe.survey] else list(_SURVEYS[recipe.survey]),
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
    return observe(_scaled(generator(seen.asked, latent, seen.vector), seen), seen, chance)


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


def _scaled(light: SkyGaussians, seen: Seen) -> SkyGaussians:
    """Light with the half-light radius asked for; the factor itself is not learned from."""
    scale = half_light_scale(light, seen.asked, seen.asked.reference)[:, None]
    return SkyGaussians(
        light.flux, light.xi * scale, light.eta * scale, light.xx * scale**2, light.xy * scale**2, light.yy * scale**2
    )  # fmt: skip


def _stamps(recipe: LightRecipe, folder: Path) -> tuple[ObservedStamps, ObservedStamps]:
    """What is learned from, and what judges."""
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
    )  # fmt: skip


class _Trainer:
    """What both ways of training share: the generator, its optimiser and its average."""

    def __init__(self, recipe: LightRecipe, training: ObservedStamps, place: torch.device) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.place = recipe, place
        self.bands = training.signal.shape[1]
        self.generator = LightGenerator(recipe.generator).to(place)
        self.average = Average(self.generator, 0.998)
        self.chance = torch.Generator().manual_seed(recipe.seed)
        self.modules: dict[str, nn.Module] = {"generator": self.generator}
        self.optimisers: dict[str, torch.optim.Optimizer] = {}

    def step(self, number: int, seen: Seen, other: Seen) -> dict[str, float]:
        """One step of the optimisers on two batches."""
        raise NotImplementedError

    def finish(self, generator: LightGenerator, training: ObservedStamps) -> None:
        """Fit what random numbers are drawn from."""

    def averaged(self) -> LightGenerator:
        """The averaged generator."""
        own = copy.deepcopy(self.generator)
        own.load_state_dict(self.average.state)
        return own.eval()

    def latent(self, seen: Seen) -> Tensor:
        """Standard normal random numbers for a batch."""
        return torch.randn(len(seen), self.recipe.latent, generator=self.chance).to(self.place)

    def state(self) -> dict[str, Any]:
        """All that training needs to go on."""
        return {
            "modules": {k: m.state_dict() for k, m in self.modules.items()},
            "optimisers": {k: o.state_dict() for k, o in self.optimisers.items()},
            "average": self.average.state,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on."""
        for name, module in self.modules.items():
            module.load_state_dict(state["modules"][name])
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        self.average.state = state["average"]


class _Adversarial(_Trainer):
    """Generator against judge."""

    def __init__(self, recipe: LightRecipe, training: ObservedStamps, place: torch.device) -> None:
        super().__init__(recipe, training, place)
        self.judge = StampJudge(JudgeSettings(self.bands, recipe.judge_width, recipe.judge_depth)).to(place)
        self.modules["judge"] = self.judge
        for name, rate in (("generator", recipe.rate), ("judge", recipe.judge_rate)):
            self.optimisers[name] = torch.optim.AdamW(
                self.modules[name].parameters(), lr=rate, betas=(0.0, 0.99), weight_decay=1e-4
            )

    def step(self, number: int, seen: Seen, other: Seen) -> dict[str, float]:
        """Judge on one batch, generator on the other."""
        with torch.no_grad():
            fake = observe(_scaled(self.generator(seen.asked, self.latent(seen), seen.vector), seen), seen, self.chance)  # fmt: skip
        real = moved_alike(seen.signal, seen.valid, self.chance)
        said_real = self.judge(*real, seen.vector)
        said_fake = self.judge(*moved_alike(fake, seen.valid, self.chance), seen.vector)
        loss = nn.functional.softplus(-said_real).mean() + nn.functional.softplus(said_fake).mean()
        told = {"judge": float(loss.detach()), "apart": float((said_real - said_fake).mean().detach())}
        if number % _SLOPE_EVERY == 0:
            loss = loss + _SLOPE_EVERY * self.recipe.slope * slope_penalty(self.judge, *real, seen.vector)
        self._descend("judge", loss)
        light = _scaled(self.generator(other.asked, self.latent(other), other.vector), other)
        made = moved_alike(observe(light, other, self.chance), other.valid, self.chance)
        loss = nn.functional.softplus(-self.judge(*made, other.vector)).mean()
        self._descend("generator", loss)
        return told | {"generator": float(loss.detach())}

    def _descend(self, name: str, loss: Tensor) -> None:
        optimiser = self.optimisers[name]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.modules[name].parameters(), _CLIP)
        optimiser.step()


class _Autoencoding(_Trainer):
    """Generator as a decoder."""

    def __init__(self, recipe: LightRecipe, training: ObservedStamps, place: torch.device) -> None:
        super().__init__(recipe, training, place)
        self.encoder = LightEncoder(self.bands, recipe.latent, recipe.judge_width, recipe.judge_depth).to(
            place
        )
        self.modules["encoder"] = self.encoder
        every = [p for m in self.modules.values() for p in m.parameters()]
        self.optimisers["both"] = torch.optim.AdamW(every, lr=recipe.rate, weight_decay=1e-4)

    def step(self, number: int, seen: Seen, other: Seen) -> dict[str, float]:
        """Both batches."""
        loss, told = torch.zeros((), device=self.place), {"misfit": 0.0, "divergence": 0.0}
        for batch in (seen, other):
            mean, spread = self.encoder(batch.signal, batch.valid, batch.vector)
            latent = mean + (0.5 * spread).exp() * self.latent(batch)
            light = _scaled(self.generator(batch.asked, latent, batch.vector), batch)
            shape = (int(batch.signal.shape[2]), int(batch.signal.shape[3]))
            drawn = render_stamps(light, batch.x, batch.y, batch.jacobian, batch.psf, shape)
            misfit = pixel_misfit(
                drawn / batch.noise[..., None, None], batch.signal, batch.valid, batch.gain * batch.noise
            )
            divergence = gaussian_divergence(mean, spread)
            # Bright stamps would outweigh all others: chi squared counts by its logarithm beyond that of noise.
            pixels = batch.valid.sum((1, 2, 3))
            worth = (pixels / (2 * misfit.detach()).clamp_min(1.0)).clamp_max(1.0)
            loss = loss + (worth * misfit + self.recipe.divergence * divergence).mean()
            told["misfit"] += float((2 * misfit / pixels).median().detach()) / 2
            told["divergence"] += float(divergence.mean().detach()) / 2
        optimiser = self.optimisers["both"]
        optimiser.zero_grad(set_to_none=True)
        (loss / 2).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_([p for m in self.modules.values() for p in m.parameters()], 10.0)
        optimiser.step()
        return told

    @torch.no_grad()
    def finish(self, generator: LightGenerator, training: ObservedStamps) -> None:
        """A normal distribution of the random numbers behind the training stamps."""
        rng, found = np.random.default_rng(self.recipe.seed), []
        for rows in np.array_split(np.arange(len(training)), max(1, len(training) // _JUDGED)):
            seen = training.batch(rows, rng, self.place)
            mean, spread = self.encoder(seen.signal, seen.valid, seen.vector)
            found.append(mean + (0.5 * spread).exp() * self.latent(seen))
        every = torch.cat(found).double()
        generator.middle.copy_(every.mean(0))  # type: ignore[operator]
        covariance = torch.cov(every.T) + 1e-3 * torch.eye(every.shape[1], device=every.device)
        generator.root.copy_(torch.linalg.cholesky(covariance))  # type: ignore[operator]


@dataclass
class _Best:
    """The generator whose looks were nearest to those of the validation stamps."""

    generator: LightGenerator
    distance: float
    step: int


def _run(
    recipe: LightRecipe,
    trainer: _Trainer,
    training: ObservedStamps,
    validation: ObservedStamps,
    folder: Path,
    *,
    resume: bool,
    place: torch.device,
) -> _Best:
    """Steps, checks, checkpoints."""
    checkpoint, log, begin = folder / "checkpoint.pt", Log(folder / "log.jsonl"), 0
    best = _Best(trainer.averaged(), float("inf"), 0)
    if resume and checkpoint.is_file():
        state = torch.load(checkpoint, map_location=place, weights_only=True)
        trainer.load(state["trainer"])
        begin, best.distance, best.step = state["step"], state["distance"], state["best_step"]
        best.generator.load_state_dict(state["best"])
    real = stamp_looks(validation)
    every, told, count = max(1, recipe.steps // 20), dict[str, float](), 0
    for step in range(begin, recipe.steps):
        # A step is the same whenever training went on.
        rng = np.random.default_rng([recipe.seed, step])
        trainer.chance.manual_seed(int(rng.integers(1 << 62)))
        seen, other = (
            training.batch(rng.choice(len(training), min(recipe.batch, len(training)), replace=False), rng, place)
            for _ in range(2)
        )  # fmt: skip
        for name, optimiser in trainer.optimisers.items():
            rate = recipe.judge_rate if name == "judge" else recipe.rate
            for group in optimiser.param_groups:
                group["lr"] = cosine_rate(rate, step, recipe.schedule or recipe.steps)
        for name, value in trainer.step(step, seen, other).items():
            told[name] = told.get(name, 0.0) + value
        trainer.average.update(trainer.generator, step)
        count += 1
        if (step + 1) % every == 0 or step + 1 == recipe.steps:
            made = trainer.averaged()
            trainer.finish(made, training)
            ratios = distance_ratios(real, made_looks(made, validation, 3, place))
            distance = float(np.nanmean([r for _, r in ratios.values()]))
            if distance < best.distance:
                best = _Best(made, distance, step + 1)
            log.write(
                step + 1,
                {k: v / count for k, v in told.items()} | {"distance": distance} | {k: r for k, (_, r) in ratios.items()},
            )  # fmt: skip
            told, count = {}, 0
            with atomic_path(checkpoint) as temporary:
                torch.save(
                    {"trainer": trainer.state(), "step": step + 1, "best": best.generator.state_dict(),
                     "distance": best.distance, "best_step": best.step},
                    temporary,
                )  # fmt: skip
    return best
