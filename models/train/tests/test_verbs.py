"""Every verb of every recipe on 1,000 rows."""

import pathlib
import re
import subprocess

import pytest

from picket_train import config, data, detectors
from picket_train.__main__ import main
from picket_train.recipes import iot, nslkdd

RECIPES = pathlib.Path(nslkdd.__file__).parent


def small(tmp_path, recipe):
    """The recipe's file with fewer seeds, rounds and rows."""
    text = (RECIPES / f"{recipe}.toml").read_text()
    for key, value in {"seeds": "[0, 1]", "leave_out_seeds": "[0]", "rounds": 5, "epochs": 2, "trees": 4,
                       "sample": 100, "permutations": 3, "folds": 2}.items():
        text = re.sub(rf"(?m)^{key} = \S.*$", f"{key} = {value}", text)
    text = re.sub(r"(?ms)^\[designs\..*", "", text)
    (tmp_path / "small.toml").write_text(text)
    return tmp_path / "small.toml"


@pytest.mark.parametrize("recipe, files", [
    ("nslkdd", [*(f"{name}.onnx" for name, spec in nslkdd.specs(config.load("nslkdd")).items() if spec["ships"]),
                "reports/nslkdd.md", "reports/nslkdd-explore.md", "reports/nslkdd-lof.md",
                "reports/nslkdd/designs.csv"]),
    ("iot", ["reports/iot.md", "reports/iot-explore.md"]),
])
def test_verbs(recipe, files, folder, tmp_path):
    where = ["--config", str(small(tmp_path, recipe)), "--data", str(folder), "--out", str(tmp_path / "out"),
             "--work", str(tmp_path / "work")]
    verbs = [["explore"], ["train"], ["evaluate"], ["export"], ["report"]]
    if recipe == "nslkdd":
        verbs.insert(3, ["evaluate", "--leave-out"])
    for verb, *more in verbs:
        assert main([verb, recipe, *where, *more]) == 0, verb
    for file in files:
        assert (tmp_path / "out" / file).stat().st_size > 0
    for picture in (tmp_path / "out" / "reports").rglob("*.png"):
        assert picture.stat().st_size < 60_000, picture


def test_order_and_bad_paths(tmp_path, capsys):
    assert main(["report", "iot", "--work", str(tmp_path)]) == 2
    assert "the verbs go in order" in capsys.readouterr().err
    assert main(["explore", "iot", "--data", str(tmp_path)]) == 2
    assert "holds no embedded_system" in capsys.readouterr().err
    assert main(["explore", "iot", "--config", str(RECIPES / "nslkdd.toml")]) == 2
    assert "is for recipe 'nslkdd', not 'iot'" in capsys.readouterr().err


@pytest.mark.parametrize("command, message", [
    ("train captures --dask tcp://localhost:1", "only nslkdd knows --dask"),
    ("train iot --dask tcp://localhost:1", "only nslkdd knows --dask"),
    ("evaluate captures --leave-out", "only nslkdd knows --leave-out"),
    ("evaluate iot --leave-out", "only nslkdd knows --leave-out"),
    ("export captures --picket /nonexistent", "--picket /nonexistent is no program"),
])
def test_options_that_a_recipe_cannot_keep(command, message, capsys):
    assert main(command.split()) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command, check, message", [
    (["/nonexistent"], True, "No such file or directory: '/nonexistent'"),
    (["sh", "-c", "echo no >&2; echo library >&2; exit 3"], True, "exit status 3. no library"),
    (["sh", "-c", "echo no >&2; echo library >&2; exit 3"], False, "explore iot: no library"),
])
def test_a_program_that_fails_is_told_in_one_line(command, check, message, capsys, monkeypatch):
    def explore(args, config):
        raise RuntimeError(subprocess.run(command, capture_output=True, check=check, text=not check).stderr)

    monkeypatch.setattr(iot, "explore", explore)
    assert main(["explore", "iot"]) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1


def test_dask(frame):
    distributed = pytest.importorskip("distributed", reason="the extra [dask] is not installed")
    from picket_train import cluster

    spec = {**nslkdd.specs(config.load("nslkdd"))["nslkdd-xgboost"], "rounds": 20, "subsample": 1, "colsample": 1}
    rows, truth = data.features(frame, spec["names"]), data.labels(frame)
    alone = detectors.Boosted.fit(spec["names"], rows, truth, 0, spec)
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=False,
                                  dashboard_address=None) as local:
        spread = cluster.fit(local.scheduler_address, spec["names"], rows, truth, 0, spec)
    assert ((alone.score(rows) >= .5) == (spread.score(rows) >= .5)).mean() > .97
