"""ZigZag's words, energy and latency from the loop-nest model, and that there is one model only."""

import ast
import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from oracles.zigzag_latency import latency

from perfmodel import calibration
from perfmodel.calibration import compare, relative_errors

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def compared():
    return {c.quantity: c for c in compare("zigzag", DATA / "zigzag.csv")}


def test_words_and_energy_equal_on_every_row(compared):
    for quantity in ("words", "energy_memory_j", "energy_j"):
        assert np.max(relative_errors(compared[quantity])) < 1e-9


def test_latency_within_five_percent_where_it_can_be_used(compared):
    errors, group = relative_errors(compared["latency_cycles"]), np.asarray(compared["latency_cycles"].group)
    usable = np.asarray(["usable" in g for g in group])
    assert usable.sum() == 52 and errors[usable].max() < 0.05


def test_latency_within_eight_percent_of_the_repaired_one_on_every_row(compared):
    machines = json.loads((DATA / "zigzag_hardware.json").read_text())
    with (DATA / "zigzag.csv").open() as file:
        repaired = [latency(row, machines[row["hardware"]], repaired=True)["total"] for row in csv.DictReader(file)]
    assert np.max(np.abs(compared["latency_cycles"].predicted / np.asarray(repaired) - 1)) < 0.08


def test_missing_machines_and_unknown_machine_are_told(tmp_path):
    shutil.copy(DATA / "zigzag.csv", tmp_path)
    with pytest.raises(ValueError, match="zigzag_hardware.json: cannot be read"):
        compare("zigzag", tmp_path / "zigzag.csv")
    (tmp_path / "zigzag_hardware.json").write_text('{"other": {}}')
    with pytest.raises(ValueError, match="machine other: memory_order_inner_to_outer is missing"):
        compare("zigzag", tmp_path / "zigzag.csv")


def test_comparisons_have_no_model_of_their_own():
    """Timeloop and ZigZag are counted by the cost floor's functions: their modules hold no arithmetic on factors."""
    folder = Path(calibration.__file__).parent
    for name in ("_timeloop", "zigzag/_zigzag"):
        tree = ast.parse((folder / f"{name}.py").read_text())
        from_cost = {
            a.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "cost"
            for a in node.names
        }
        assert "loopnest_cost" in from_cost
        called = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "loopnest_cost"
        ]
        assert called
        # what is predicted comes out of that call alone
        assert not any(
            isinstance(node, ast.ImportFrom) and node.module in ("jax.numpy", "scipy") for node in ast.walk(tree)
        )
        assert "jnp" not in (folder / f"{name}.py").read_text()
