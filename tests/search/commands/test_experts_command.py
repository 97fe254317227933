"""The command `experts`: keys, text, pictures, bad input."""

import json

import pytest

from search import cli

FIXED = {"switch_s", "request_s", "experts_in_hbm", "experts_capacity", "nodes_for_experts"}
TIMES = ["--router-time", "68 ms", "--prefill-time", "27 ms", "--decode-time", "2 ms"]


def told(capsys, *args):
    assert cli.main(["experts", "--json", "--expert-model", "llama-2-7b", *args]) == 0
    return json.loads(capsys.readouterr().out)


def test_keys_and_the_papers_figures(capsys):
    common = ["--experts", "850", "--batch", "1", "--new-tokens", "20", *TIMES]
    node = told(capsys, "--system", "sn40l-node", *common)
    dgx = [told(capsys, "--system", name, *common) for name in ("dgx-a100", "dgx-h100")]
    assert set(node) >= FIXED and (node["residency"], dgx[0]["residency"]) == ("any", "hbm")
    assert (node["nodes_for_experts"], *(d["nodes_for_experts"] for d in dgx)) == (1, 19, 19)
    assert [round(d["switch_s"] / node["switch_s"], 1) for d in dgx] == [31.2, 15.6]
    assert node["fits"] and not dgx[0]["fits"] and 44 <= dgx[0]["experts_in_hbm"] <= 47
    # the router, a copy, the prompt and 19 tokens more
    assert node["request_s"] == pytest.approx(0.068 + node["switch_s"] + 0.027 + 19 * 0.002)


def test_stated_bytes_and_bandwidth(capsys):
    stated = told(capsys, "--system", "sn40l-node", "--experts", "3", "--batch", "1", "--new-tokens", "1", *TIMES,
                  "--expert-bytes", "14 GB", "--copy-bandwidth", "0.8 TB/s")  # fmt: skip
    assert stated["switch_s"] == pytest.approx(14e9 / 0.8e12, rel=1e-4) and stated["expert_bytes"] == 14e9
    assert stated["hit_rate"] == 1.0 and stated["request_s"] == pytest.approx(0.068 + 0.027)


def test_expert_that_fits_nowhere_is_told(capsys):
    lost = told(
        capsys,
        "--system",
        "a100-80gb",
        "--experts",
        "2",
        "--batch",
        "1",
        "--new-tokens",
        "1",
        "--expert-bytes",
        "100 GB",
    )
    assert not lost["fits"] and lost["request_s"] is None and lost["nodes_for_experts"] == 4
    assert lost["missing_bytes"] == pytest.approx(200e9 + lost["kv_bytes"] - 80e9)


def test_text_trace_and_pictures(capsys, tmp_path):
    (tmp_path / "trace").write_text("\n".join(str(i % 50) for i in range(200)))
    args = ["experts", "--system", "dgx-a100", "--experts", "60", "--expert-model", "llama-2-7b", "--batch", "4", "--new-tokens", "20",
            *TIMES, "--trace", str(tmp_path / "trace"), "--cache", "belady", "--overlap", "--out", str(tmp_path / "out")]  # fmt: skip
    assert cli.main(args) == 0
    text = capsys.readouterr().out
    assert "hbm, this system's usual one" in text and "50 batches" in text and "(stated)" in text
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"experts.json", "experts.png"}
    curve = json.loads((tmp_path / "out" / "experts.json").read_text())["curve"]
    assert len(curve["experts"]) == len(curve["request_s"]) and 60 in curve["experts"]


@pytest.mark.parametrize("bad, said", [
    (["--experts", "0"], "--experts is 0"), (["--batch", "0"], "--batch is 0"), (["--residency", "ram"], "residency is 'ram'"),
    (["--copy-bandwidth", "-1 GB/s"], "--copy-bandwidth is '-1 GB/s'"), (["--expert-bytes", "x"], "--expert-bytes is 'x'"),
    (["--cache", "fifo"], "cache is 'fifo'"), (["--popularity", "-1"], "--popularity is -1.0"), (["--system", "x"], "system is 'x'"),
    (["--expert-model", "resnet50"], "resnet50"), (["--trace", "/none"], "/none: cannot be read"), (["--dtype", "bf3"], "dtype is 'bf3'"),
    (["--trace", "t", "--popularity", "1"], "give one"), (["--new-tokens", "0"], "--new-tokens is 0"),
])  # fmt: skip
def test_bad_input(capsys, bad, said):
    usual = [
        "--system",
        "sn40l-node",
        "--experts",
        "9",
        "--expert-model",
        "llama-2-7b",
        "--batch",
        "1",
        "--new-tokens",
        "1",
    ]
    assert cli.main(["experts", *usual, *bad]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
