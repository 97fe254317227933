"""`perfmodel place`: what it answers, what it writes, and what it says about bad input."""

import json
from pathlib import Path

import pytest

from search.cli import main

DATA = Path(__file__).parents[2] / "data" / "moirai"
EXAMPLE = str(DATA / "example-1.json")


def answer(capsys, *argv) -> dict:
    assert main(["place", *argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("method", ["m-topo", "m-etf", "m-sct", "getf", "heft"])
def test_every_list_method_on_the_example(capsys, method):
    got = answer(capsys, "--instance", EXAMPLE, "--method", method)
    assert got["method"] == method and 30 <= got["makespan"] and got["lower_bound"] <= 30
    assert sorted(got["order"]) == list(range(14)) and len(got["placement"]) == 14
    assert got["used_bytes"] == [14, 14, 16] and max(got["finish"]) == got["makespan"]
    starts = [got["start"][i] for i in got["order"]]
    assert starts == sorted(starts)


def test_the_example_is_solved(capsys):
    got = answer(capsys, "--instance", EXAMPLE, "--method", "milp", "--time-limit", "30")
    assert got["makespan"] == got["lower_bound"] == 30 and got["gap"] == 0


def test_a_picture_and_a_file(capsys, tmp_path):
    assert (
        main(["place", "--instance", str(DATA / "GoogLeNet.json"), "--method", "heft", "--out", str(tmp_path / "out")])
        == 0
    )
    out, err = capsys.readouterr()
    assert "makespan        1.38503 by heft" in out and "placement.png" in err
    assert (tmp_path / "out" / "placement.png").stat().st_size > 10_000
    assert json.loads((tmp_path / "out" / "placement.json").read_text())["makespan"] == pytest.approx(1.385, abs=1e-3)


def test_models_on_a_cluster_and_on_a_package(capsys):
    fused = ("--method", "heft", "--fusion", "tensorrt-like")
    got = answer(capsys, "--workload", "resnet18", "--cluster", "a100-l40s", *fused)
    assert (
        set(got["devices"]) == {"a100-0", "a100-1", "l40s-0", "l40s-1"}
        and 0 < got["lower_bound"] <= got["makespan"] < 0.01
    )
    plain = answer(capsys, "--workload", "resnet18", "--system", "mcm-2x2", "--method", "heft", "--option", "image=64")
    assert plain["tasks"] == 68 and len(plain["devices"]) == 4


@pytest.mark.parametrize("argv, said", [
    (["--method", "heft"], "give --instance FILE, or --workload NAMES"),
    (["--instance", EXAMPLE, "--method", "heff"], "--method is 'heff': did you mean heft"),
    (["--instance", EXAMPLE, "--cluster", "mixed-4"], "--cluster goes with --workload"),
    (["--instance", EXAMPLE, "--comm-scale", "-1"], "--comm-scale is -1.0; allowed: a number of at least 0"),
    (["--instance", EXAMPLE, "--time-limit", "nan"], "--time-limit is nan"),
    (["--instance", EXAMPLE, "--method", "best-device"], "44 bytes, 28 more than device 2 holds"),
    (["--instance", "none.json"], "none.json: cannot be read"),
    (["--workload", "resnet18"], "--workload needs one of --cluster"),
    (["--workload", "resnet18", "--cluster", "mixed-5"], "did you mean mixed-4"),
])  # fmt: skip
def test_bad_input_is_one_line(capsys, argv, said):
    assert main(["place", *argv]) == 2
    out, err = capsys.readouterr()
    assert out == "" and said in err and err.count("\n") == 1
