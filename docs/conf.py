"""Configuration of the documentation: ``make docs``."""

import sys
from pathlib import Path

import imcat

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "imcat"
author = "imcat developers"
copyright = "imcat developers"
version = release = imcat.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.mathjax",
    "numpydoc",
    "imcat_generated",
]
exclude_patterns = ["_build", "_ext"]
default_role = "code"
nitpicky = False  # types of other projects have no inventory here: nothing is fetched

autodoc_typehints = "none"  # numpydoc sections say them
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"]
html_title = "imcat"
html_show_sourcelink = False
html_theme_options = {
    "navigation_with_keys": False,
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc"],
}
