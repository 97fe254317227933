"""Memory tiers in the commands: `systems` shows them, `evaluate` says what lives where, and what does not fit."""

import json

import pytest
import yaml

from search import cli

MODEL = """name: two
operators:
  - {name: gemm, kind: gemm, k: 64, c: 64, p: 64}
  - {name: relu, kind: relu, k: 64, p: 64, inputs: [gemm]}
"""
TREE = dict(
    name="tiered", technology="12nm", chiplets=[dict(name="c0", type="a", position=[0, 0])],
    types={"a": dict(dataflow="ws", rows=64, columns=64, clock="500 MHz", lanes=256, buffer="10 MB", buffer_bandwidth="256 GB/s")},
    memory=[
        dict(name="fast", capacity="3 kB", bandwidth="100 GB/s", write_bandwidth="50 GB/s", latency="100 ns", energy="1 pJ/bit"),
        dict(name="slow", capacity="500 B", bandwidth="10 GB/s", latency="200 ns", energy="10 pJ/bit"),
    ],
)  # fmt: skip


@pytest.fixture(autouse=True)
def no_user_cache(monkeypatch):
    monkeypatch.setenv("PERFMODEL_NO_CACHE", "1")


@pytest.fixture
def files(tmp_path):
    (tmp_path / "two.yaml").write_text(MODEL)
    (tmp_path / "tiered.yaml").write_text(yaml.safe_dump(TREE))
    return ["--workload", str(tmp_path / "two.yaml"), "--system", str(tmp_path / "tiered.yaml")]


def test_a_model_larger_than_all_tiers_is_a_result(files, capsys):
    """4096 bytes of weights on 3500: 596 too much; two such devices hold it."""
    assert cli.main(["evaluate", *files, "--json"]) == 0
    got = json.loads(capsys.readouterr().out)
    memory = got["memory"]
    assert got["feasible"] is False and memory["over_bytes"] == 596 and memory["devices_needed"] == 2
    assert memory["capacity_bytes"] == memory["device_bytes"] == 3500 and memory["stored_bytes"] == 4096
    # neither holds the matrix whole: all of it is the last tier's, beyond its end
    assert set(got["violations"]) >= {"memory_bytes", "memory_bytes fast", "memory_bytes slow"}
    assert memory["tiers"]["slow"]["over_bytes"] >= 4096 - 500 and memory["tiers"]["fast"]["spilled_bytes"] >= 4096
    assert got["violations"]["memory_bytes slow"] >= 4096 - 500


def test_it_says_so_to_a_person(files, capsys):
    assert cli.main(["evaluate", *files]) == 0
    text = capsys.readouterr().out
    assert (
        "DOES NOT FIT: 4.096 kB of weights, caches and states, 3.5 kB of memory: 596 B too much; at least 2 devices of 3.5 kB"
        in text
    )
    assert "tier fast" in text and "found no room" in text and "INFEASIBLE: memory_bytes" in text


def test_one_that_fits_names_its_tiers(files, tmp_path, capsys):
    TREE["memory"][0]["capacity"] = "30 kB"
    (tmp_path / "tiered.yaml").write_text(yaml.safe_dump(TREE))
    TREE["memory"][0]["capacity"] = "3 kB"
    assert cli.main(["evaluate", *files, "--json", "--report"]) == 0
    got = json.loads(capsys.readouterr().out)
    assert got["feasible"] is True and got["memory"]["devices_needed"] == 1 and got["memory"]["over_bytes"] == 0
    assert got["memory"]["tiers"]["fast"]["weights_bytes"] == 4096 and got["memory"]["tiers"]["slow"]["used_bytes"] == 0
    rows = got["operators"]
    assert sum(row["memory_bytes fast"] for row in rows) == 2 * 4096 and rows[0]["memory_bytes slow"] == 0


def test_systems_show_tiers(capsys):
    assert cli.main(["systems", "dgx-a100"]) == 0
    lines = capsys.readouterr().out.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("memory "))
    assert lines[head].split()[:5] == ["memory", "capacity", "read", "write", "copy"]
    assert lines[head + 1].split()[:6] == ["hbm", "640", "GB", "16.31", "TB/s", "16.31"] and lines[head + 1].endswith(
        "chiplet"
    )
    assert "32 GB/s" in lines[head + 2] and lines[head + 2].endswith("package")
    assert cli.main(["systems", "dgx-a100", "--json"]) == 0
    hbm, host = json.loads(capsys.readouterr().out)["memory"]
    assert hbm["attachment"] == "chiplet" and host["copy_bytes_per_s"] == 32e9 and host["capacity_bytes"] == 2e12


@pytest.mark.parametrize("field, value, said", [
    ("bandwidth", "-10 GB/s", "memory[1].bandwidth is '-10 GB/s'; allowed"),
    ("copy_bandwidth", "0 GB/s", "memory[1].copy_bandwidth is '0 GB/s', so nothing reaches slow"),
])  # fmt: skip
def test_bad_tiers_exit_with_2(field, value, said, files, tmp_path, capsys):
    tree = json.loads(json.dumps(TREE))
    tree["memory"][1][field] = value
    (tmp_path / "tiered.yaml").write_text(yaml.safe_dump(tree))
    assert cli.main(["evaluate", *files]) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1
