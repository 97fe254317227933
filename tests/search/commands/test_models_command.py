"""`perfmodel models NAME`, options of models on the command line, and what is said about bad ones."""

import json

import pytest

from search.cli import main


def answer(capsys, *argv) -> dict:
    assert main([*argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_analysis_of_a_model(capsys):
    got = answer(capsys, "models", "gpt2", "--seq-len", "32", "--dtype", "bf16", "--system", "mcm-2x2")
    assert got["weight_bytes"] == 2 * got["parameters"] == 2 * 124_439_808
    assert sum(row["macs"] for row in got["operators"]) == got["macs"] == sum(c["macs"] for c in got["classes"])
    assert got["bytes_by_bits"]["weights"] == {"16": got["weight_bytes"]}
    assert got["system"]["name"] == "mcm-2x2" and {"bound", "time_s", "runs_on"} <= set(got["operators"][0])
    assert got["intensity_ops_per_byte"] < got["best_intensity_ops_per_byte"]


def test_the_analysis_for_a_person(capsys):
    assert main(["models", "resnet50", "--option", "image=64", "--system", "mcm-2x2"]) == 0
    said = capsys.readouterr().out
    assert "layer*.*.conv*" in said and "arithmetic intensity" in said and "bound by compute" in said


def test_options_go_to_the_models_that_know_them(capsys):
    both = answer(
        capsys,
        "evaluate",
        "--workload",
        "gpt2,resnet50",
        "--system",
        "monolithic-os",
        "--seq-len",
        "8",
        "--option",
        "image=32",
    )
    assert set(both["models"]) == {"gpt2", "resnet50"}


def test_any_model_can_be_trained(capsys):
    forward, step = (
        answer(capsys, "models", "resnet18", "--option", "image=32", "--phase", phase) for phase in ("prefill", "train")
    )
    assert (
        step["macs"] == 3 * forward["macs"] - forward["operators"][0]["macs"]
        and step["parameters"] == forward["parameters"]
    )


def test_a_directory_with_a_built_in_name_is_a_directory(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gpt2").mkdir()
    assert main(["import", "gpt2"]) == 2
    assert "config.json" in capsys.readouterr().err


@pytest.mark.parametrize("argv, said", [
    (["models", "--system", "mcm-2x2"], "--system and options of models go with the name of one"),
    (["models", "resnet50", "--phase", "decode"], "resnet50: phase is 'decode': allowed: prefill, train"),
    (["models", "gpt2", "--batch", "2", "--option", "batch=3"], "--option batch=3 says batch a second time"),
    (["import", "x.onnx", "--bind", "n=1,n=2"], "--bind names 'n' twice"),
    (["models", "resnet50", "--seq-len", "8"], "resnet50: option is 'seq_len': allowed: batch"),
    (["models", "gpt2", "--option", "lm_head"], "--option is 'lm_head'; allowed: NAME=VALUE"),
    (["models", "gpt2", "--option", "lm_head=3"], "gpt2: lm_head is 3; allowed: True or False"),
    (["models", "gpt2", "--batch", "0"], "gpt2: batch is 0; allowed: an integer of at least 1"),
    (["models", "gpt2", "--dtype", "int9"], "dtype is 'int9': did you mean int8"),
    (["models", "gpt2", "--system", "mcm-2x3"], "did you mean mcm-"),
    (["import", "resnet50"], "resnet50: nothing to import; allowed: a .onnx or .pt2 file"),
    (["import", "x.onnx", "--bind", "n"], "--bind has 'n'; allowed: NAME=SIZE"),
])  # fmt: skip
def test_bad_input_is_one_line(capsys, argv, said):
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == "" and said in err and err.count("\n") == 1
