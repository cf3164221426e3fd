"""The command line: python -m picket_train VERB RECIPE."""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import time

from . import config
from .data import DataError
from .export import GateError
from .recipes import captures, iot, nslkdd
from .work import say

RECIPES = {"nslkdd": nslkdd, "iot": iot, "captures": captures}
OPTIONS = {"dask": {"nslkdd"}, "leave_out": {"nslkdd"}}  # the recipes that know them
VERBS = {"explore": "pictures and words on the data", "train": "fit every model for every seed",
         "evaluate": "measure them; after train", "export": "pass the gate and write OUT/*.onnx; after evaluate",
         "report": "write OUT/reports/*.md and plots; after export"}


def main(argv=None):
    """Exit status: 0 done, 2 with one line on standard error."""
    parser = argparse.ArgumentParser(prog="picket-train", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, text in VERBS.items():
        sub = verbs.add_parser(verb, help=text)
        sub.add_argument("recipe", choices=RECIPES)
        sub.add_argument("--config", metavar="FILE", help="instead of the recipe's own TOML file")
        sub.add_argument("--data", metavar="PATH", default=os.environ.get("PICKET_DATA"),
                         help="folder with nsl-kdd/, iot-telecom/ and captures/, or the recipe's own zip, folder "
                              "or file (default: $PICKET_DATA, else download NSL-KDD to build/data)")
        sub.add_argument("--out", metavar="DIR", default="models",
                         help="where models and reports/ go (default: %(default)s)")
        sub.add_argument("--work", metavar="DIR", default="build/train",
                         help="what one verb leaves for the next (default: %(default)s)")
        if verb == "train":
            sub.add_argument("--dask", metavar="ADDRESS",
                             help="train XGBoost on this Dask cluster (nslkdd alone; needs the extra [dask])")
        if verb == "evaluate":
            sub.add_argument("--leave-out", action="store_true",
                             help="compare designs by leaving attacks out of the training data instead (nslkdd alone)")
        sub.add_argument("--picket", metavar="PROGRAM",
                         help="the picket that export has check and time each model; captures extracts and "
                              "scans with it in every verb (there by default build/picket)")
    args = parser.parse_args(argv)
    began = time.monotonic()
    try:
        for option, recipes in OPTIONS.items():
            if getattr(args, option, None) and args.recipe not in recipes:
                raise DataError(f"only {', '.join(recipes)} knows --{option.replace('_', '-')}: leave it out")
        if args.picket and not shutil.which(args.picket):
            raise DataError(f"--picket {args.picket} is no program: make build makes build/picket")
        recipe = RECIPES[args.recipe]
        run = {"explore": recipe.explore, "train": recipe.train, "evaluate": recipe.evaluate,
               "export": recipe.export_models, "report": recipe.report}[args.verb]
        run(args, config.load(args.recipe, args.config))
    except (DataError, GateError, OSError, RuntimeError, subprocess.CalledProcessError) as err:
        cause = f" {err.stderr.decode(errors='replace')}" if getattr(err, "stderr", None) else ""
        print(f"picket-train: {args.verb} {args.recipe}:", *f"{err}{cause}".split(), file=sys.stderr)
        return 2
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    say(f"{args.verb} {args.recipe}: {time.monotonic() - began:.0f} s, {most:,.0f} MiB at most")
    return 0


if __name__ == "__main__":
    sys.exit(main())
