"""Windows, and bands on a common grid."""

from imcat.align.grid import GridMap, LocalAffine, local_affine, map_grids, moved_wcs, transform_positions
from imcat.align.settings import AlignSettings

__all__ = [
    "AlignSettings",
    "GridMap",
    "LocalAffine",
    "local_affine",
    "map_grids",
    "moved_wcs",
    "transform_positions",
]
