"""Background, noise level and noise covariance of an exposure."""

from imcat.noise.background import NoiseModel, SkyCutout, measure_covariance, measure_noise
from imcat.noise.covariance import NoiseCovariance
from imcat.noise.mesh import Mesh
from imcat.noise.settings import NoiseSettings

__all__ = [
    "Mesh",
    "NoiseCovariance",
    "NoiseModel",
    "NoiseSettings",
    "SkyCutout",
    "measure_covariance",
    "measure_noise",
]
