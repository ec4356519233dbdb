"""Survey files to tiles and back: SDSS, CSST, and whatever a TOML file describes."""

from imcat.surveys.discover import SURVEYS, find_tiles, read_tile
from imcat.surveys.settings import SurveySettings
from imcat.surveys.source import TileSource

__all__ = ["SURVEYS", "SurveySettings", "TileSource", "find_tiles", "read_tile"]
