"""Every command and call that outside checks rely on, as they call them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import perfmodel as pm
import search
from search import cli

QUICK = ["--starts", "8", "--relaxed-steps", "20", "--population", "32", "--generations", "5"]
POINT = {"throughput_per_s", "latency_s", "energy_j", "area_mm2", "cost_usd", "system"}
EXPLORE = {"front", "baseline", "throughput_ratio", "energy_efficiency_ratio", "evaluations", "seconds"}


@pytest.fixture(autouse=True)
def no_user_cache(monkeypatch):
    monkeypatch.setenv("PERFMODEL_NO_CACHE", "1")


def answer(capsys, *argv) -> dict:
    """The JSON on stdout of a command that succeeds."""
    code = cli.main([*argv, "--json"])
    out = capsys.readouterr()
    assert code == 0, out.err
    return json.loads(out.out)


def refusal(capsys, *argv) -> str:
    """The one line on stderr of a command that gets bad input."""
    assert cli.main(list(argv)) == 2
    out = capsys.readouterr()
    lines = out.err.strip().splitlines()
    assert out.out == "" and len(lines) == 1 and "Traceback" not in out.err, out.err
    return lines[0]


TINY = """name: tiny
operators:
  - {name: conv, kind: conv, k: 64, c: 3, p: 28, q: 28, r: 3, s: 3}
  - {name: relu, kind: relu, k: 64, p: 28, q: 28, inputs: [conv]}
  - {name: next, kind: conv, k: 64, c: 64, p: 28, q: 28, r: 3, s: 3, inputs: [relu]}
  - {name: sum, kind: add, k: 64, p: 28, q: 28, inputs: [next, relu]}
"""


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("workload") / "tiny.yaml"
    path.write_text(TINY)
    return str(path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_file):
    """A finished quick run."""
    folder = tmp_path_factory.mktemp("run") / "out"
    assert cli.main(["explore", "--workload", tiny_file, "--out", str(folder), *QUICK]) == 0
    return folder


def test_python_contract():
    wl = pm.models.load("resnet50", batch=1)
    assert {"resnet50", "gpt2", "gpt2-xl"} <= set(pm.models.names())
    both = pm.merge([pm.models.load("gpt2", seq_len=1024), wl])
    sysm = pm.systems.load("mcm-2x2")
    assert {"mcm-2x2", "mcm-3x3", "monolithic-os"} <= set(pm.systems.names())
    table = pm.cost_table(both, sysm)
    assert table.compute_s.shape == (both.n_operators, 4)
    m = pm.evaluate(both, sysm, pm.Schedule.on_chiplet(both, 0), table=table)
    assert float(m.throughput_per_s) > 0 and m.models.latency_s.shape == (2,)


def test_explore_by_python(tiny_file):
    wl = pm.models.load(tiny_file)
    front = search.explore(
        wl, search.Space.mix(pm.systems.load("mcm-2x2"), ["os", "ws"]), objectives=("throughput", "energy"), key=0,
        settings=search.Settings(8, 20, 32, 5),
    )  # fmt: skip
    assert len(front) >= 1 and front.metrics.feasible.all()
    again = pm.evaluate(wl, front.system(0), front.schedule(0))
    np.testing.assert_allclose(again.throughput_per_s, front.metrics.throughput_per_s[0], rtol=1e-5)


def test_explore_json(capsys, tmp_path, tiny_file):
    got = answer(capsys, "explore", "--workload", tiny_file, "--system", "mcm-2x2", "--objectives", "throughput,energy",
                 "--mix", "equal-work", "--out", str(tmp_path / "o"), "--seed", "3", *QUICK)  # fmt: skip
    assert got.keys() >= EXPLORE and got["front"] and all(p.keys() >= POINT for p in got["front"])
    assert got["throughput_ratio"] == pytest.approx(
        max(p["throughput_per_s"] for p in got["front"]) / got["baseline"]["throughput_per_s"]
    )
    assert got["energy_efficiency_ratio"] == pytest.approx(
        got["baseline"]["energy_j"] / min(p["energy_j"] for p in got["front"])
    )
    assert {f.name for f in (tmp_path / "o").iterdir()} >= {"front.nc", "summary.json", "front.png", "schedule.png"}


def test_the_front_opens_as_labelled_data(finished):
    xarray = pytest.importorskip("xarray")
    with xarray.open_dataset(finished / "front.nc", engine="scipy") as data:
        assert data.sizes["operator"] == 4 and data["energy_j"].attrs["units"] == "J"
        assert data["assignment"].dims == ("point", "operator")


def test_resume_ends_where_an_unbroken_run_does(tiny_file, tmp_path):
    half = ["explore", "--workload", tiny_file, "--out", str(tmp_path / "a"), *QUICK]
    assert cli.main([*half[:-1], "4"]) == 0
    request = json.loads((tmp_path / "a" / "run.json").read_text())
    (tmp_path / "a" / "run.json").write_text(json.dumps(request | {"generations": 9}))
    assert cli.main(["explore", "--resume", str(tmp_path / "a")]) == 0
    assert cli.main([*half[:4], str(tmp_path / "b"), *QUICK[:-1], "9"]) == 0
    first, second = (json.loads((tmp_path / n / "summary.json").read_text()) for n in "ab")
    assert first["front"] == second["front"] and first["evaluations"] == second["evaluations"]


def test_plot_redraws(capsys, finished):
    before = json.loads((finished / "summary.json").read_text())
    (finished / "front.png").unlink()
    got = answer(capsys, "plot", str(finished))
    assert [Path(p).name for p in got["pictures"]] == ["front.png", "schedule.png"] and (
        finished / "front.png"
    ).exists()
    assert before == json.loads((finished / "summary.json").read_text())


def test_evaluate_json(capsys, tmp_path, tiny_file):
    got = answer(capsys, "evaluate", "--workload", "resnet50", "--system", "mcm-2x2", "--batch", "2")
    fields = set(pm.Metrics.__dataclass_fields__)
    assert got.keys() >= fields and got["schedule"] == "greedy-earliest-finish" and got["feasible"] is True
    names = list(pm.systems.load("mcm-2x2").chiplet_names)
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(dict(assignment=names, order=[0, 1, 2, 3], window=[0, 0, 1, 1], sub_batch=2)))
    got = answer(capsys, "evaluate", "--workload", tiny_file, "--system", "mcm-2x2", "--schedule", str(plan))
    assert got["assignment"] == names and got["schedule"] == str(plan)


def test_models_and_systems_json(capsys):
    assert "gpt2" in answer(capsys, "models")["models"] and "mcm-3x3" in answer(capsys, "systems")["systems"]
    got = answer(capsys, "models", "resnet50")
    assert (got["macs"], got["parameters"]) == (4_089_184_256, 25_557_032) and len(got["operators"]) == 174
    assert answer(capsys, "systems", "mcm-2x2")["types"]["os"]["rows"] == 64


def test_every_text_answer_prints(capsys, finished):
    for argv in (["models"], ["models", "gpt2"], ["systems"], ["systems", "mcm-2x2"],
                 ["evaluate", "--workload", "resnet50", "--system", "monolithic-os"]):  # fmt: skip
        assert cli.main(argv) == 0
        assert capsys.readouterr().out.strip()


@pytest.mark.parametrize(
    "argv, words",
    [
        (["evaluate", "--workload", "resnet5", "--system", "mcm-2x2"], ["model", "resnet5", "resnet50"]),
        (["evaluate", "--workload", "gpt2", "--system", "mcm-2x3"], ["system", "mcm-2x3", "mcm-2x2"]),
        (["evaluate", "--workload", "gpt2", "--system", "mcm-2x2", "--batch", "-1"], ["batch", "-1", "at least 1"]),
        (["evaluate", "--workload", "gpt2", "--system", "mcm-2x2", "--seq-len", "9999"], ["seq_len", "9999", "1024"]),
        (["evaluate", "--workload", "gpt2", "--system", "nowhere.yaml"], ["nowhere.yaml", "cannot be read"]),
        (["evaluate", "--workload", "gpt2"], ["--system"]),
        (["explore", "--objectives", "speed"], ["objectives", "speed", "throughput"]),
        (["explore", "--mix", "fair"], ["mix", "fair", "equal-work"]),
        (["explore", "--types", "os,rs"], ["type", "rs", "ws"]),
        (["explore", "--population", "0"], ["population", "0"]),
        (["explore", "--resume", "/nonexistent"], ["/nonexistent"]),
        (["plot", "/nonexistent"], ["/nonexistent"]),
        (["expolre"], ["expolre"]),
        (["explore", "--frobnicate"], ["--frobnicate"]),
    ],
)
def test_bad_input_is_one_line(capsys, tmp_path, monkeypatch, argv, words):
    monkeypatch.chdir(tmp_path)
    line = refusal(capsys, *argv)
    assert all(word in line for word in words), line
    assert not list(tmp_path.iterdir())  # nothing half-written


@pytest.mark.parametrize(
    "change, words",
    [
        (("bandwidth: 64 GB/s", "bandwidth: .nan"), ["memory[0].bandwidth", "nan", "above 0"]),
        (("capacity: 16 GB", "capacity: 1 MB"), ["memory.capacity", "bytes"]),
        (("rows: 64", "rows: -4"), ["rows", "-4"]),
        (("latency: 200 ns", "latency: 200 ns\n    colour: red"), ["colour"]),
        (("    clock: 500 MHz\n", ""), ["clock"]),
    ],
)
def test_a_bad_system_file_names_file_and_field(capsys, tmp_path, change, words):
    source = Path(pm.__file__).parent / "hardware" / "catalog" / "mcm-2x2.yaml"
    path = tmp_path / "mine.yaml"
    text = source.read_text()
    assert change[0] in text
    path.write_text(text.replace(*change))
    line = refusal(capsys, "evaluate", "--workload", "resnet50", "--system", str(path))
    assert all(word in line for word in words), line


def test_a_bad_schedule_file_names_entry_and_value(capsys, tmp_path, tiny_file):
    path = tmp_path / "plan.json"
    for plan, words in (
        (dict(assignment=["c00"] * 3), ["assignment", "3", "4"]),
        (dict(assignment=["c00", "c99", "c00", "c00"]), ["assignment[1]", "c99"]),
        (dict(assignment=["c00"] * 4, order=[0, 0, 1, 2]), ["order"]),
        (dict(assignment=["c00"] * 4, sub_batch=0), ["sub_batch", "0"]),
        (dict(assignments=[]), ["assignment"]),
    ):
        path.write_text(json.dumps(plan))
        line = refusal(capsys, "evaluate", "--workload", tiny_file, "--system", "mcm-2x2", "--schedule", str(path))
        assert "plan.json" in line and all(word in line for word in words), line


def test_a_graph_with_a_cycle(capsys, tmp_path):
    path = tmp_path / "loop.yaml"
    path.write_text(TINY.replace("r: 3, s: 3}\n  - {name: relu", "r: 3, s: 3, inputs: [sum]}\n  - {name: relu"))
    assert "cycle" in refusal(capsys, "evaluate", "--workload", str(path), "--system", "mcm-2x2")


def test_the_installed_command_runs():
    done = subprocess.run(
        [sys.executable, "-m", "search.cli", "models", "--json"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and "gpt2" in json.loads(done.stdout)["models"]
