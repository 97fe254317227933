"""`perfmodel evaluate --execution ...`: the answer, the text, and bad input in one line."""

import json

import pytest

from search.cli import main

BASE = ["evaluate", "--workload", "flashfftconv", "--option", "seq_len=65536", "--system", "sn40l"]


def answer(capsys, *flags) -> dict:
    assert main([*BASE, *flags, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_streaming_beside_kernels(capsys):
    kernels = answer(capsys, "--execution", "kernels")
    fused = answer(capsys, "--execution", "streaming", "--largest", "6")
    hardware = answer(capsys, "--execution", "streaming", "--largest", "6", "--launch", "hardware")
    assert kernels["kernels"] == kernels["operators"] == sum(len(g) for g in fused["groups"])
    assert fused["kernels"] == len(fused["groups"]) < kernels["kernels"] and max(map(len, fused["groups"])) <= 6
    assert fused["memory_bytes"] < kernels["memory_bytes"]
    assert hardware["latency_s"] < fused["latency_s"] < kernels["latency_s"]
    assert kernels["parts_s"]["launch"] == pytest.approx(kernels["kernels"] * kernels["launch_s"], rel=1e-6)
    assert fused["feasible"] and fused["throughput_per_s"] == pytest.approx(1 / fused["latency_s"])


def test_a_launch_in_microseconds_and_the_text(capsys):
    assert answer(capsys, "--execution", "kernels", "--launch", "3")["launch_s"] == pytest.approx(3e-6)
    assert main([*BASE, "--execution", "kernels", "--launch", "hardware"]) == 0
    text = capsys.readouterr().out
    assert "launch by hardware (0.1 us)" in text and "kernels" in text


@pytest.mark.parametrize("flags, message", [
    (["--execution", "wish"], "--execution is 'wish': allowed: kernels, streaming"),
    (["--launch", "hardware"], "--launch says how kernels run; give --execution kernels or streaming"),
    (["--execution", "kernels", "--launch", "wish"], "--launch is 'wish'"),
    (["--execution", "kernels", "--launch", "-1"], "--launch is -1 us; allowed: at least 0"),
    (["--execution", "streaming", "--fusion", "dataflow"], "leave out --fusion"),
    (["--execution", "streaming", "--largest", "0"], "largest is 0; allowed: an integer of at least 1"),
    (["--execution", "streaming", "--sockets", "2"], "one chiplet without links to others"),
])  # fmt: skip
def test_bad_input(capsys, flags, message):
    assert main([*BASE, *flags]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
