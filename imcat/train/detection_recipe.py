"""How the detection network is trained: what a recipe's table ``[detection]`` may hold."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from imcat.errors import ConfigError

__all__ = ["DetectionRecipe"]


@dataclass(frozen=True)
class DetectionRecipe:
    """How the detection network is trained.

    Attributes
    ----------
    name : str
        Of the weights.
    start : str
        Weights to start from: a folder that holds them, or ``imcat`` for those that come with it; empty: none.
    lobes : float
        Height of the lobes that most samples' PSFs are given (`imcat.train.detection_samples.lobed`); 0: none.
    tiles : tuple of str
        Labelled tiles to train on beside the simulated ones, as ``imcat run`` takes them, each with its
        ``truth.parquet`` beside it (`imcat.train.detection_samples.labelled_sample`).
    share : float
        Share of the crops that come from these tiles, if there are any.
    generated : float
        Share of the training samples that are augmented tiles: generated galaxies and sky, many rare sources
        (`imcat.augment.assembly`).
    generators : str
        Folder of the weights of the generators; empty: those that come with imcat.
    surveys : tuple of str
        Simulated surveys; samples come from them in turn.
    samples, validation : int
        Simulated tiles for training and for judging: skies more varied than a survey's.
    calibration : int
        Simulated tiles as a survey has them, on which the scores become probabilities.
    side : int
        Of each, pixels.
    seed : int
        Decides all samples and the order of training.
    width : int
        Channels of the network at half resolution.
    steps, batch : int
        Steps of the optimiser, and crops in each.
    crop : int
        Side of a crop, pixels.
    rate : float
        Largest learning rate.
    offset_weight : float
        Of the places in the loss.
    decay : float
        Of the weights.
    patience : int
        Training stops after so many judgements without a better one; it is judged twenty times. What was best is kept.
    views : int
        Choices of bands and of PSF in which each sample is seen, where training goes on while samples come in.
    seconds : float
        Where it does, training ends so long after the start, simulation included, or after `steps`, whichever is first;
        0: after `steps`. See `imcat.train.detection_device`.
    """

    name: str = "detection"
    start: str = ""
    lobes: float = 0.02
    tiles: tuple[str, ...] = ()
    share: float = 0.5
    generated: float = 0.0
    generators: str = ""
    surveys: tuple[str, ...] = ("sdss", "sdss", "sdss", "csst")
    samples: int = 2000
    validation: int = 100
    calibration: int = 400
    side: int = 256
    seed: int = 1
    width: int = 32
    steps: int = 6000
    batch: int = 8
    crop: int = 128
    rate: float = 2e-3
    offset_weight: float = 0.1
    decay: float = 1e-4
    patience: int = 5
    views: int = 2
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.side % 8 or self.crop % 8 or not 32 <= self.crop <= self.side:
            raise ConfigError(
                f"crop {self.crop} and side {self.side}: expected multiples of 8, crop from 32 to side"
            )
        if not 0 <= self.lobes < 0.5:
            raise ConfigError(f"lobes is {self.lobes}; expected a height relative to the PSF, 0 to 0.5")
        if not 0 < self.share <= 1:
            raise ConfigError(f"share is {self.share}; expected a share of the crops, above 0 and up to 1")
        if not 0 <= self.generated <= 1:
            raise ConfigError(f"generated is {self.generated}; expected a share of the samples, 0 to 1")
        counted = ("samples", "validation", "calibration", "steps", "batch", "width", "patience", "views")
        if min(getattr(self, name) for name in counted) < 1:
            raise ConfigError(f"{', '.join(counted)}: expected positive numbers")
        if not (self.seconds >= 0 and self.decay >= 0):
            raise ConfigError(
                f"seconds is {self.seconds}, decay {self.decay}; expected numbers that are not negative"
            )

    def smoke(self) -> DetectionRecipe:
        """The same, for a minute."""
        changed = asdict(self) | {
            "samples": 4,
            "validation": 2,
            "calibration": 2,
            "steps": 6,
            "batch": 2,
            "crop": 64,
            "side": 128,
        }
        return DetectionRecipe(**(changed | {"surveys": ("sdss",)}))
