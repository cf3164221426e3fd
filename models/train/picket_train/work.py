"""What a verb leaves for the next one: pickles in a working folder of this user's own."""

import pathlib
import pickle
import sys

from . import export
from .data import DataError


class Work:
    """A recipe's working folder. Reads only what this program wrote there."""

    def __init__(self, folder, recipe):
        self.folder = pathlib.Path(folder) / recipe
        self.recipe = recipe

    def keep(self, name, value):
        export.write(self.folder / f"{name}.pickle", pickle.dumps(value))

    def get(self, name):
        try:
            return pickle.loads((self.folder / f"{name}.pickle").read_bytes())
        except FileNotFoundError as err:
            raise DataError(f"{err.filename} does not exist: the verbs go in order: "
                            f"train, evaluate, export, report {self.recipe}") from err


def say(text):
    """Progress, for people."""
    print(text.rstrip(), file=sys.stderr, flush=True)
