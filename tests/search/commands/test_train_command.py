"""The command `train`: its JSON, its text, what it refuses, and what does not fit."""

import json
from dataclasses import replace

import pytest

import perfmodel as pm
from perfmodel.cost import machine
from perfmodel.training import TrainingPlan, least_devices, train
from search.cli import main

BASE = ["train", "--model", "gpt3-175b", "--system", "dgx-a100", "--batch", "64", "--sequence", "2048"]
RUN = [
    *BASE,
    "--tensor-parallel",
    "8",
    "--pipeline-parallel",
    "8",
    "--interleave",
    "3",
    "--recompute",
    "selective",
    "--sequence-parallel",
]


def run(capsys, arguments) -> tuple[int, str, str]:
    code = main(arguments)
    told = capsys.readouterr()
    errors = "\n".join(line for line in told.err.splitlines() if "cpu_aot_loader" not in line)
    return code, told.out, errors


def test_json(capsys, tmp_path):
    code, out, _ = run(capsys, [*RUN, "--json", "--out", str(tmp_path)])
    told = json.loads(out)
    assert code == 0 and told == json.loads((tmp_path / "train.json").read_text())
    assert (tmp_path / "train.png").stat().st_size > 10_000
    assert told["devices"] == 64 and told["packages"] == 8 and told["microbatches"] == 64 and told["fits"] is True
    assert told["step_s"] == pytest.approx(13.75, rel=0.05)  # measured: arXiv 2205.05198, table 5
    assert told["step_s"] == pytest.approx(sum(told["breakdown"].values()))
    assert told["tokens_per_s"] == pytest.approx(64 * 2048 / told["step_s"])
    assert told["mfu"] == pytest.approx(told["model_flops"] / (told["step_s"] * 64 * 312e12), rel=1e-3)
    assert told["needed_bytes"] == pytest.approx(
        sum(v for k, v in told["memory"].items() if k != "layer_activations_bytes")
    )
    assert told["constants"]["matrix_slowdown"]["source"] == "fitted"


def test_text(capsys):
    code, out, _ = run(capsys, RUN)
    assert code == 0 and "(fitted)" in out and "bubble" in out and "MFU" in out and "DOES NOT FIT" not in out


def test_too_large_is_an_answer(capsys):
    code, out, _ = run(capsys, [*BASE, "--json"])
    told = json.loads(out)
    assert code == 0 and told["fits"] is False and told["tensor_parallel"] == 8
    assert (
        told["missing_bytes"] == pytest.approx(told["needed_bytes"] - told["capacity_bytes"])
        and told["missing_bytes"] > 1e11
    )
    assert told["least_devices"] > 40  # 175 billion times 18 bytes in 80 GB, and activations
    code, out, _ = run(capsys, BASE)
    assert code == 0 and "DOES NOT FIT" in out


def test_least_devices_hold_it_and_fewer_do_not():
    plan = TrainingPlan(64, 2048, 8, recompute="full")
    node = machine(pm.systems.load("dgx-a100"))
    least = least_devices("gpt3-175b", node, plan)
    found = {}
    for t in (4, 8):
        for p in (4, 6, 8, 12):
            step = train("gpt3-175b", node, replace(plan, tensor_parallel=t, pipeline_parallel=p))
            found[t, p] = bool(step.fits)
    assert any(fits for (t, p), fits in found.items() if t * p == least)
    assert not any(fits for (t, p), fits in found.items() if t * p < least)
    alone = machine(pm.systems.load("a100-80gb"))
    assert least_devices("gpt3-175b", alone, plan) is None
    assert least_devices("gpt2", alone, TrainingPlan(4, 1024)) == 1


def test_defaults_are_those_of_the_paper(capsys):
    code, out, _ = run(capsys, [*BASE, "--pipeline-parallel", "8", "--recompute", "selective", "--json"])
    told = json.loads(out)
    assert code == 0 and (told["microbatch"], told["interleave"], told["sequence_parallel"]) == (1, 3, True)
    code, out, _ = run(
        capsys, [*BASE, "--pipeline-parallel", "8", "--recompute", "selective", "--no-sequence-parallel", "--json"]
    )
    assert code == 0 and json.loads(out)["sequence_parallel"] is False


def test_devices_leave_replicas(capsys):
    code, out, _ = run(capsys, [*BASE, "--pipeline-parallel", "4", "--devices", "64", "--json", "--shard-optimizer"])
    assert code == 0 and json.loads(out)["data_parallel"] == 2


@pytest.mark.parametrize("more, says", [
    (["--batch", "0"], "--batch is 0; allowed"),
    (["--sequence", "-3"], "--sequence is -3; allowed"),
    (["--sequence", "4096"], "--sequence is 4096; allowed for gpt3-175b: 1 to 2048"),
    (["--tensor-parallel", "7"], "--tensor-parallel is 7; allowed for gpt3-175b: divisors of its 96 heads"),
    (["--tensor-parallel", "0"], "--tensor-parallel is 0; allowed"),
    (["--pipeline-parallel", "7"], "--pipeline-parallel is 7; allowed"),
    (["--data-parallel", "3"], "--batch is 64; allowed: a multiple of data_parallel x microbatch = 3 x 1"),
    (["--interleave", "2"], "--interleave is 2 with 1 pipeline stages"),
    (["--recompute", "most"], "--recompute is 'most'"),
    (["--optimizer", "lion"], "--optimizer is 'lion'"),
    (["--devices", "12"], "--devices is 12; allowed: a multiple of tensor x pipeline parallel = 8"),
    (["--devices", "16", "--data-parallel", "3"], "--data-parallel is 3; allowed with 16 devices: 2"),
    (["--model", "gpt3"], "--model is 'gpt3': did you mean gpt2 or gpt3-175b"),
    (["--model", "mixtral-8x7b"], "mixtral-8x7b: the model has experts"),
    (["--system", "dgx-a10"], "did you mean dgx-a100"),
    (["--dropout", "maybe"], "--dropout is 'maybe'"),
    (["--parameters", "/nowhere.json"], "/nowhere.json"),
])  # fmt: skip
def test_bad_input_is_one_line(capsys, more, says):
    code, out, errors = run(capsys, [*BASE, *more])
    assert code == 2 and not out and says in errors and len(errors.strip().splitlines()) == 1
