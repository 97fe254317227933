"""`perfmodel evaluate --report --sensitivities --out`, and silicon in `perfmodel systems`."""

import csv
import json

import pytest

from search import cli

TINY = """name: tiny
operators:
  - {name: conv, kind: conv, k: 64, c: 3, p: 28, q: 28, r: 3, s: 3}
  - {name: relu, kind: relu, k: 64, p: 28, q: 28, inputs: [conv]}
"""


@pytest.fixture(autouse=True)
def no_user_cache(monkeypatch):
    monkeypatch.setenv("PERFMODEL_NO_CACHE", "1")


@pytest.fixture
def evaluate(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return ["evaluate", "--workload", str(path), "--system", "monolithic-os"]


@pytest.mark.slow
def test_json_csv_and_pictures(evaluate, tmp_path, capsys):
    out = tmp_path / "out"
    argv = [*evaluate, "--report", "--sensitivities", "latency,cost", "--out", str(out)]
    assert cli.main([*argv, "--json"]) == 0
    got = json.loads(capsys.readouterr().out)
    assert [row["kind"] for row in got["operators"]] == ["conv", "relu"]
    assert {"parameter", "value", "unit", "smooth", "latency", "cost"} == set(got["sensitivities"][0])
    assert {f.name for f in out.iterdir()} == {
        "operators.csv",
        "sensitivities.csv",
        "sensitivity-latency.png",
        "sensitivity-cost.png",
    }
    rows = list(csv.DictReader((out / "operators.csv").read_text().splitlines()))
    assert float(rows[0]["mac_j"]) == got["operators"][0]["energy_parts_j"]["mac"]
    assert len(list(csv.DictReader((out / "sensitivities.csv").read_text().splitlines()))) == len(got["sensitivities"])


@pytest.mark.slow
def test_text(evaluate, capsys):
    assert cli.main([*evaluate, "--report", "1"]) == 0
    said = capsys.readouterr().out
    assert "and 1 more operators" in said and "bound by" in said and said.startswith("schedule")


@pytest.mark.parametrize("more, words", [
    (["--report", "0"], ["--report is 0", "at least 1"]), (["--sensitivities", "speed"], ["--sensitivities", "speed", "latency"]),
    (["--report", "--sort", "size"], ["--sort", "size", "energy"]), (["--out", "there"], ["--out", "--report"]),
])  # fmt: skip
def test_bad_values(evaluate, more, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main([*evaluate, *more]) == 2
    line = capsys.readouterr().err
    assert [w for w in words if w not in line] == [] and not (tmp_path / "there").exists()


def test_systems_show_silicon(capsys):
    assert cli.main(["systems", "mcm-2x2"]) == 0
    said = capsys.readouterr().out
    assert "silicon: 12nm, organic packaging" in said and "4 of 17.49 mm2" in said and "memory 4" in said
    assert cli.main(["systems", "mcm-2x2", "--json"]) == 0
    got = json.loads(capsys.readouterr().out)
    parts = got["silicon"]
    assert got["cost_usd"] == pytest.approx(parts["dies_usd"] + parts["package_usd"] + parts["memory_usd"], rel=1e-6)
    assert sum(parts["die_mm2"].values()) == pytest.approx(got["area_mm2"], rel=1e-6)
