"""Go on training the detection network with a labelled tile of one's own; here for some steps only.

python examples/04_fine_tune.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from imcat.detect.network_search import load_network
from imcat.simulate.scene import Models
from imcat.simulate.settings import SimulateSettings
from imcat.simulate.tiles import observe, write_tile
from imcat.train.recipes import run_recipe

RECIPE = """
[detection]
name = "mine"
start = "imcat"           # the weights that come with imcat
tiles = ["field"]         # a folder with the tile's files and its truth.parquet; more names for more tiles
share = 0.5               # of the crops come from it, the rest from simulated tiles
surveys = ["sdss"]
samples = 4               # some hundreds for real work,
validation = 2
calibration = 4           # as many here,
side = 128
crop = 96
batch = 2
steps = 6                 # and some thousands of steps
rate = 5e-4
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Any tile will do whose sources are known; this one is simulated.
        models, settings = Models.load(), SimulateSettings()
        observation = observe("sdss", 0, 7, settings, shape=(300, 400))
        number = write_tile(folder / "field", observation, settings, models, 7)
        print(f"a tile with {number} known sources")

        recipe = folder / "mine.toml"
        recipe.write_text(RECIPE)
        card = run_recipe(recipe, folder / "training")
        trained = load_network("mine", str(folder / "training"))
        print(f"{card.name}: {trained.card['steps']} steps, {trained.card['data']}")
        print((folder / "training" / "log.jsonl").read_text().splitlines()[-1])


if __name__ == "__main__":
    main()
