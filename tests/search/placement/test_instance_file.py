"""Instances from files: what is read, and one clear line for everything that cannot be."""

import json
from pathlib import Path

import numpy as np
import pytest

from search.placement import load_instance

DATA = Path(__file__).parents[2] / "data" / "moirai"


def small() -> dict:
    return {
        "name": "small", "devices": 2, "device_memory_bytes": [10, 20],
        "tasks": [{"id": "a", "time": [1, 2], "memory_bytes": 3}, {"id": "b", "time": [2, 1], "memory_bytes": 4},
                  {"id": 7, "time": [0, 1e-05], "memory_bytes": 5}],
        "edges": [{"src": 0, "dst": 1, "comm": [[0, 1.5], [2.5, 0]]}, {"src": 1, "dst": 2, "comm": None}],
    }  # fmt: skip


def written(tmp_path, what) -> Path:
    path = tmp_path / "instance.json"
    path.write_text(what if isinstance(what, str) else json.dumps(what))
    return path


@pytest.mark.parametrize("name, tasks, edges, sums", [
    ("example-1", 14, 19, [65, 70, 70]),
    ("GoogLeNet", 141, 167, [2.336, 5.476, 5.547, 2.884]),
    ("yolov5x", 419, 461, [37.673, 105.185, 702.857, 24.169]),
])  # fmt: skip
def test_released_instances(name, tasks, edges, sums):
    p = load_instance(DATA / f"{name}.json")
    assert (p.name, p.n_tasks, len(p.source), p.n_devices) == (name, tasks, edges, len(sums))
    np.testing.assert_allclose(p.times.sum(axis=0), sums, rtol=1e-3)
    assert not p.congestion


def test_everything_is_read(tmp_path):
    p = load_instance(written(tmp_path, small()), congestion=True)
    assert p.names == ("a", "b", "7") and p.congestion and p.times[2, 1] == 1e-05
    np.testing.assert_array_equal(p.transfer[0], [[0, 1.5], [2.5, 0]])
    np.testing.assert_array_equal(p.moves, [True, False])
    np.testing.assert_array_equal(p.capacity_bytes, [10, 20])
    np.testing.assert_array_equal(p.memory_bytes, [3, 4, 5])
    np.testing.assert_array_equal(load_instance(written(tmp_path, small()), comm_scale=0.1).transfer[0, 1, 0], 0.25)


def test_groups(tmp_path):
    what = small()
    what["tasks"][0]["group"] = what["tasks"][2]["group"] = "weights"
    np.testing.assert_array_equal(load_instance(written(tmp_path, what)).group, [0, -1, 0])


def test_yaml_is_read_too(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(
        "devices: 1\ndevice_memory_bytes: [4]\ntasks:\n- {id: 1, time: [2.0], memory_bytes: 1}\nedges: []\n"
    )
    assert load_instance(path).times.tolist() == [[2.0]]


def change(path: str, value):
    """small() with one entry changed; `path`: keys and positions between dots."""
    what = here = small()
    *steps, last = [int(s) if s.isdigit() else s for s in path.split(".")]
    for step in steps:
        here = here[step]
    here[last] = value
    return what


@pytest.mark.parametrize("what, said", [
    (change("tasks.0.time", [-1, 2]), "task a: time[0] is -1; allowed: a number from 0"),
    (change("tasks.1.time", [1, float("nan")]), "task b: time[1] is nan; allowed"),
    (change("tasks.1.time", [1, float("inf")]), "task b: time[1] is inf; allowed"),
    (change("tasks.1.time", [1, 1e40]), "task b: time[1] is 1e+40; allowed: a number from 0 to 1e+30"),
    (change("tasks.1.time", [1, None]), "task b: time[1] is missing (null); allowed"),
    (change("tasks.1.time", [1]), "task b: time has 1 entries; needed: 2"),
    (change("tasks.1", {"id": "b", "memory_bytes": 1}), "missing required field time - at $.tasks[1]"),
    (change("tasks.1.time", [1, "x"]), "got str - at $.tasks[1].time[1]; got 'x'"),
    (change("tasks.1.colour", 1), "unknown field colour - at $.tasks[1]"),
    (change("tasks.1.memory_bytes", -4), "task b: memory_bytes is -4; allowed"),
    (change("tasks.1.id", "a"), "tasks[1]: id is 'a'; already the id of tasks[0]"),
    (change("tasks", []), "tasks is empty"),
    (change("devices", 0), "devices is 0; allowed: at least 1"),
    (change("devices", 3), "device_memory_bytes has 2 entries; needed: 3"),
    (change("devices", 1.5), "Expected int, got float - at $.devices; got 1.5"),
    (change("device_memory_bytes", [1, -1]), "device_memory_bytes[1] is -1; allowed"),
    (change("edges.0.src", 9), "edges[0].src is 9; allowed: 0 to 2"),
    (change("edges.0.dst", -1), "edges[0].dst is -1; allowed: 0 to 2"),
    (change("edges.0.dst", 0), "edges[0] (a -> a): src and dst are both 0; a task cannot wait for itself"),
    (change("edges.1", {"src": 0, "dst": 1}), "edges[1] (a -> b): src 0, dst 1 repeats edges[0]"),
    (change("edges.1", {"src": 1, "dst": 0}), "small: the graph has a cycle through or before task a"),
    (change("edges.0.comm", [[0, 1]]), "edges[0] (a -> b): comm has 1 rows of 2; needed: 2 rows of 2"),
    (change("edges.0.comm", [[0, 1], [1]]), "edges[0] (a -> b): comm has 2 rows of 1, 2; needed: 2 rows of 2"),
    (change("edges.0.comm", [[0, -1], [1, 0]]), "edges[0] (a -> b): comm[0][1] is -1; allowed"),
    (change("edges.0.comm", [[0, float("nan")], [1, 0]]), "edges[0] (a -> b): comm[0][1] is nan; allowed"),
    (change("edges.0.comm", [[0, None], [1, 0]]), "edges[0] (a -> b): comm[0][1] is null: devices 0 and 1 are not connected"),
    (change("edges.0.comm", [[0, 1], [float("inf"), 0]]), "comm[1][0] is infinite: devices 1 and 0 are not connected"),
    (change("edges.0.comm", [[2, 1], [1, 0]]), "edges[0] (a -> b): comm[0][0] is 2; allowed: 0"),
    (json.dumps(small())[:150], "not valid YAML"),
    ('{"devices": 1, "devices": 2}', "stands twice"),
    ("[" * 100_000, "nested too deeply"),
    ("\x00\x01", "not valid YAML"),
    ("[]", "Expected object, got array"),
])  # fmt: skip
def test_bad_input_is_one_clear_line(tmp_path, what, said):
    path = written(tmp_path, what)
    with pytest.raises(ValueError) as error:
        load_instance(path)
    assert said in str(error.value) and str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_sizes_beyond_reason(tmp_path):
    what = small() | {"devices": 20_000, "device_memory_bytes": [1] * 20_000}
    with pytest.raises(
        ValueError, match=r"2 edges between 20000 devices are 800000000 transfer times; allowed: at most"
    ):
        load_instance(written(tmp_path, what))


def test_files_that_are_not_there(tmp_path):
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(ValueError, match="cannot be read"):
            load_instance(path)


def test_negative_scale(tmp_path):
    with pytest.raises(ValueError, match="comm_scale is -1"):
        load_instance(written(tmp_path, small()), comm_scale=-1)
