"""The two ways to train a generator of galaxies: against a judge, or as the decoder of an autoencoder."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch
from torch import Tensor, nn

from imcat.augment.encode import LightEncoder, gaussian_divergence, pixel_misfit
from imcat.augment.judge import JudgeSettings, StampJudge, moved_alike, slope_penalty
from imcat.augment.light import LightGenerator, half_light_scale
from imcat.augment.observed import ObservedStamps, Seen, observe
from imcat.render.stamps import SkyGaussians, render_stamps
from imcat.train.generator_loop import GeneratorTrainer
from imcat.train.light_recipe import LightRecipe

__all__ = ["Adversarial", "Autoencoding", "Trainer", "scaled"]

_SLOPE_EVERY = 8  # steps between penalties on the judge's slope
_CLIP, _CLIP_BOTH = 1.0, 10.0  # largest norms of gradients
_ENCODED = 512  # stamps at once


def scaled(light: SkyGaussians, seen: Seen) -> SkyGaussians:
    """Light with the half-light radius asked for; the factor itself is not learned from."""
    scale = half_light_scale(light, seen.asked, seen.asked.reference)[:, None]
    return SkyGaussians(
        light.flux, light.xi * scale, light.eta * scale, light.xx * scale**2, light.xy * scale**2, light.yy * scale**2
    )  # fmt: skip


class Trainer(GeneratorTrainer[LightGenerator]):
    """What both ways of training share: the generator, and the stamps it learns from."""

    def __init__(self, recipe: LightRecipe, training: ObservedStamps, place: torch.device) -> None:
        torch.manual_seed(recipe.seed)
        super().__init__(LightGenerator(recipe.generator).to(place), place, recipe.seed)
        self.recipe, self.training = recipe, training
        self.bands = training.signal.shape[1]

    def step(self, number: int, rng: np.random.Generator) -> dict[str, float]:
        """One step of the optimisers on two batches of stamps."""
        size = min(self.recipe.batch, len(self.training))
        seen, other = (
            self.training.batch(rng.choice(len(self.training), size, replace=False), rng, self.place)
            for _ in range(2)
        )
        return self.learn(number, seen, other)

    @abstractmethod
    def learn(self, number: int, seen: Seen, other: Seen) -> dict[str, float]:
        """One step of the optimisers on two batches."""

    def latent(self, seen: Seen) -> Tensor:
        """Standard normal random numbers for a batch."""
        return torch.randn(len(seen), self.recipe.latent, generator=self.chance).to(self.place)


class Adversarial(Trainer):
    """Generator against judge."""

    def __init__(self, recipe: LightRecipe, training: ObservedStamps, place: torch.device) -> None:
        super().__init__(recipe, training, place)
        self.judge = StampJudge(JudgeSettings(self.bands, recipe.judge_width, recipe.judge_depth)).to(place)
        self.modules["judge"] = self.judge
        for name, rate in (("generator", recipe.rate), ("judge", recipe.judge_rate)):
            self.optimisers[name] = torch.optim.AdamW(
                self.modules[name].parameters(), lr=rate, betas=(0.0, 0.99), weight_decay=1e-4
            )

    def learn(self, number: int, seen: Seen, other: Seen) -> dict[str, float]:
        """Judge on one batch, generator on the other."""
        with torch.no_grad():
            fake = observe(scaled(self.generator(seen.asked, self.latent(seen), seen.vector), seen), seen, self.chance)  # fmt: skip
        real = moved_alike(seen.signal, seen.valid, self.chance)
        said_real = self.judge(*real, seen.vector)
        said_fake = self.judge(*moved_alike(fake, seen.valid, self.chance), seen.vector)
        loss = nn.functional.softplus(-said_real).mean() + nn.functional.softplus(said_fake).mean()
        told = {"judge": float(loss.detach()), "apart": float((said_real - said_fake).mean().detach())}
        if number % _SLOPE_EVERY == 0:
            loss = loss + _SLOPE_EVERY * self.recipe.slope * slope_penalty(self.judge, *real, seen.vector)
        self._descend("judge", loss)
        light = scaled(self.generator(other.asked, self.latent(other), other.vector), other)
        made = moved_alike(observe(light, other, self.chance), other.valid, self.chance)
        loss = nn.functional.softplus(-self.judge(*made, other.vector)).mean()
        self._descend("generator", loss)
        return told | {"generator": float(loss.detach())}

    def finished(self) -> LightGenerator:
        """The averaged generator: the judge has seen what standard normal numbers make of it."""
        return self.averaged()

    def _descend(self, name: str, loss: Tensor) -> None:
        optimiser = self.optimisers[name]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.modules[name].parameters(), _CLIP)
        optimiser.step()


class Autoencoding(Trainer):
    """Generator as a decoder."""

    def __init__(self, recipe: LightRecipe, training: ObservedStamps, place: torch.device) -> None:
        super().__init__(recipe, training, place)
        self.encoder = LightEncoder(self.bands, recipe.latent, recipe.judge_width, recipe.judge_depth).to(
            place
        )
        self.modules["encoder"] = self.encoder
        every = [p for m in self.modules.values() for p in m.parameters()]
        self.optimisers["both"] = torch.optim.AdamW(every, lr=recipe.rate, weight_decay=1e-4)

    def learn(self, number: int, seen: Seen, other: Seen) -> dict[str, float]:
        """Both batches."""
        loss, told = torch.zeros((), device=self.place), {"misfit": 0.0, "divergence": 0.0}
        for batch in (seen, other):
            mean, spread = self.encoder(batch.signal, batch.valid, batch.vector)
            latent = mean + (0.5 * spread).exp() * self.latent(batch)
            light = scaled(self.generator(batch.asked, latent, batch.vector), batch)
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
        nn.utils.clip_grad_norm_([p for m in self.modules.values() for p in m.parameters()], _CLIP_BOTH)
        optimiser.step()
        return told

    @torch.no_grad()
    def finished(self) -> LightGenerator:
        """The averaged generator with a normal distribution of the random numbers behind the training stamps."""
        generator = self.averaged()
        rng, found = np.random.default_rng(self.recipe.seed), []
        number = len(self.training)
        for rows in np.array_split(np.arange(number), max(1, number // _ENCODED)):
            seen = self.training.batch(rows, rng, self.place)
            mean, spread = self.encoder(seen.signal, seen.valid, seen.vector)
            found.append(mean + (0.5 * spread).exp() * self.latent(seen))
        every = torch.cat(found).double()
        generator.middle.copy_(every.mean(0))  # type: ignore[operator]
        covariance = torch.cov(every.T) + 1e-3 * torch.eye(every.shape[1], device=every.device)
        generator.root.copy_(torch.linalg.cholesky(covariance))  # type: ignore[operator]
        return generator
