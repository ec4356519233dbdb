"""Catalogue: a table that has passed the schema, its files, its matches."""

from imcat.catalogue.export import export, read_run, write_table
from imcat.catalogue.files import atomic_path, is_leftover
from imcat.catalogue.match import Matches, cross_match, match_xy
from imcat.catalogue.parquet import read_parquet, write_parquet
from imcat.catalogue.query import format_table, query
from imcat.catalogue.resolve import Footprint, Footprints, read_footprints
from imcat.catalogue.table import Catalogue, concatenate

__all__ = [
    "Catalogue",
    "Footprint",
    "Footprints",
    "Matches",
    "atomic_path",
    "concatenate",
    "cross_match",
    "export",
    "format_table",
    "is_leftover",
    "match_xy",
    "query",
    "read_footprints",
    "read_parquet",
    "read_run",
    "write_parquet",
    "write_table",
]
