"""The command line: python -m picket_train VERB RECIPE."""

import argparse
import os
import sys

from .data import DataError
from .export import GateError
from .recipes import nslkdd

RECIPES = {"nslkdd": nslkdd}


def main(argv=None):
    """Exit status: 0 done, 2 with one line on standard error."""
    parser = argparse.ArgumentParser(prog="picket-train", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, text in (("explore", "compare designs on training data; minutes"),
                       ("train", "train, measure, export and report")):
        sub = verbs.add_parser(verb, help=text)
        sub.add_argument("recipe", choices=RECIPES)
        sub.add_argument("--data", metavar="PATH", default=os.environ.get("PICKET_DATA"),
                         help="zip or folder of the data set (default: $PICKET_DATA, else "
                              "download to build/data)")
        sub.add_argument("--out", metavar="DIR", default="models",
                         help="where the model and reports/ go (default: %(default)s)")
        if verb == "train":
            sub.add_argument("--seed", type=int, default=0,
                             help="the seed that ships, the first of five (default: %(default)s)")
    args = parser.parse_args(argv)
    recipe = RECIPES[args.recipe]
    try:
        if args.verb == "explore":
            recipe.explore(args.data, args.out)
        else:
            recipe.train(args.data, args.out, args.seed)
    except (DataError, GateError) as err:
        print(f"picket-train: {args.verb} {args.recipe}: {err}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
