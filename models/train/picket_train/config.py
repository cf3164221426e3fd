"""A recipe's one readable file: recipes/NAME.toml, or another that --config names."""

import pathlib
import tomllib

from .data import DataError


def load(recipe, path=None):
    """The tables of a recipe's file."""
    path = pathlib.Path(path or pathlib.Path(__file__).parent / "recipes" / f"{recipe}.toml")
    try:
        config = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as err:
        raise DataError(f"read configuration {path}: {err}") from err
    if config.get("recipe") != recipe:
        raise DataError(f"{path} is for recipe {config.get('recipe')!r}, not {recipe!r}")
    return config
