"""Settings of the room `imcat.align`."""

from __future__ import annotations

from dataclasses import dataclass

from imcat.errors import ConfigError

__all__ = ["AlignSettings"]


@dataclass(frozen=True)
class AlignSettings:
    """How bands are brought to the reference grid, for detection only.

    Attributes
    ----------
    node_spacing : int
        Distance of the nodes at which the two WCS are compared, pixels; between nodes the
        mapping is linear.
    """

    node_spacing: int = 64

    def __post_init__(self) -> None:
        if not 4 <= self.node_spacing <= 1024:
            raise ConfigError(f"align.node_spacing is {self.node_spacing}; expected 4 to 1024 pixels")
