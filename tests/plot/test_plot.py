"""Pictures: they exist, have the size they say, are not blank, and say what they show."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.image import imread
from matplotlib.text import Text

import perfmodel as pm
from perfmodel.plot import CLASS_COLOURS, engineering, plot_front, plot_schedule
from perfmodel.schedule import Schedule, timeline
from perfmodel.workload import CLASSES, KINDS, GraphBuilder, operator_row

AXES = (("throughput", "inferences/s", True), ("energy", "J per inference", False))
POINTS = np.asarray([[400.0, 0.030], [500.0, 0.034], [620.0, 0.042]])
MIXES = ["4 ws", "3 ws + 1 os", "4 ws"]


def front(path, **changed):
    given = dict(
        points=POINTS, cloud=np.asarray([[300.0, 0.04], [390.0, 0.036], [5.0, 3.0]]), baseline=("greedy", 350.0, 0.05),
        labels=MIXES, axes=AXES, title="a front",
    )  # fmt: skip
    return plot_front(path, **{**given, **changed})


def texts(fig):
    return [t.get_text() for t in fig.findobj(Text) if t.get_text()]


def check_image(path, width, height, colours):
    image = imread(path)
    assert image.shape[:2] == (height, width)
    pixels = (image[..., :3] * 255).round().astype(np.int64) @ [65536, 256, 1]
    assert len(np.unique(pixels)) > colours


def test_front_is_drawn_and_labelled(tmp_path):
    fig = front(tmp_path / "front.png")
    check_image(tmp_path / "front.png", 1600, 1100, 100)
    seen = texts(fig)
    assert "a front" in seen
    assert "throughput (inferences/s)   better →" in seen
    assert "← better   energy (mJ per inference)" in seen
    assert {"4 ws (2)", "3 ws + 1 os (1)", "greedy"} <= set(seen)
    assert "best throughput: 4 ws\n620 inferences/s, 42 mJ" in seen
    assert "best energy: 4 ws\n400 inferences/s, 30 mJ" in seen
    assert "knee: 3 ws + 1 os\n500 inferences/s, 34 mJ" in seen
    assert "greedy\n350 inferences/s, 50 mJ" in seen
    assert any("(grey): 3, of which 1 lie outside" in t for t in seen)


def test_annotations_do_not_overlap(tmp_path):
    fig = front(tmp_path / "front.png")
    boxes = [note.get_bbox_patch().get_window_extent() for note in fig.axes[0].texts]
    assert len(boxes) == 4
    for i, a in enumerate(boxes):
        assert not any(a.overlaps(b) for b in boxes[:i])


def test_stairs_bound_the_dominated_region(tmp_path):
    line = front(tmp_path / "front.png").axes[0].lines[1].get_xydata()
    np.testing.assert_allclose(line[1:-1], [[620, 42], [500, 42], [500, 34], [400, 34], [400, 30]])
    assert line[0, 0] == 620 and line[-1, 1] == pytest.approx(30)
    assert line[0, 1] > 42 and line[-1, 0] < 400


@pytest.mark.parametrize("baseline", [None, ("greedy", 2.0, 0.5)])
def test_front_of_one_point_without_a_cloud(tmp_path, baseline):
    fig = front(tmp_path / "one.png", points=POINTS[:1], labels=["4 ws"], cloud=np.zeros((0, 2)), baseline=baseline)
    assert fig.axes[0].get_xscale() == ("linear" if baseline is None else "log")
    assert any(t.startswith("best throughput and energy: 4 ws") for t in texts(fig))


def test_many_mixes_share_the_last_row_of_the_legend(tmp_path):
    x = np.geomspace(1.0, 50.0, 30)
    fig = front(tmp_path / "many.png", points=np.stack([x, x], 1), labels=[f"mix {i}" for i in range(30)])
    assert "15 more mixes (15)" in texts(fig)
    assert fig.axes[0].get_xscale() == "log"


@pytest.mark.parametrize(
    "changed, message",
    [
        (dict(points=np.zeros((0, 2)), labels=[]), "points is empty"),
        (dict(points=np.asarray([[1.0, np.nan]]), labels=["a"]), r"points\[0\] is \(1, nan\)"),
        (dict(points=np.ones((3, 3))), r"points has shape \(3, 3\)"),
        (dict(cloud=np.asarray([[1.0, 1.0], [np.inf, 1.0]])), r"cloud\[1\] is \(inf, 1\)"),
        (dict(baseline=("greedy", 0.0, 1.0)), r"baseline\[0\] is \(0, 1\)"),
        (dict(labels=["a"]), "labels has 1 names"),
        (dict(axes=(("x", "s"), ("y", "J", False))), "axes is"),
    ],
)
def test_bad_fronts_are_named_in_one_line(tmp_path, changed, message):
    with pytest.raises(ValueError, match=message) as error:
        front(tmp_path / "bad.png", **changed)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "bad.png").exists()


@pytest.mark.parametrize(
    "unit, value, want",
    [
        ("s", 0.012, (1e3, "ms")),
        ("s", 1e-3, (1e3, "ms")),
        ("s", 9.9e-4, (1e6, "µs")),
        ("J per inference", 0.04, (1e3, "mJ per inference")),
        ("W", 12.0, (1.0, "W")),
        ("B/s", 9e11, (1e-9, "GB/s")),
        ("inferences/s", 4000.0, (1.0, "inferences/s")),
        ("inferences/s", 4e6, (1e-6, "1e6 inferences/s")),
        ("s", 0.0, (1.0, "s")),
    ],
)
def test_engineering_units(unit, value, want):
    factor, name = engineering(unit, value)
    assert (pytest.approx(factor), name) == want


@pytest.fixture(scope="module")
def small():
    """Two models of a few operators, their blocks alternating between two chiplets of the package."""

    def model(name, kind):
        graph, row = GraphBuilder(name), None
        for block in range(3):
            shape = dict(k=256, p=2048, c=256) if kind == "gemm" else dict(k=64, c=64, p=28, q=28, r=3, s=3)
            row = graph.add(f"h{block}.{kind}", operator_row(kind, **shape), [] if row is None else [row])
            relu = operator_row("relu", k=shape["k"], p=shape["p"], q=shape.get("q", 1))
            row = graph.add(f"h{block}.relu", relu, [row])
        return graph.build()

    workload = pm.merge([model("left", "gemm"), model("right", "conv")])
    system = pm.systems.load("mcm-2x2")
    schedule = Schedule(np.asarray([0, 0, 3, 3, 0, 0] * 2, np.int32))
    return workload, system, timeline(workload, system, schedule)


def test_schedule_is_drawn_and_labelled(tmp_path, small):
    fig = plot_schedule(tmp_path / "schedule.png", *small, title="a schedule")
    check_image(tmp_path / "schedule.png", 1800, 1000, 50)
    assert len(fig.axes) == 2
    seen = texts(fig)
    assert {"a schedule", "c00 (ws)", "c11 (os)", "network", "memory", "h0", "h1", "h2"} <= set(seen)
    assert {"GEMM", "convolution", "activation, elementwise", "transfer"} <= set(seen)
    assert "softmax" not in seen  # only what is there
    for panel, name in zip(fig.axes, ("left", "right"), strict=True):
        heading = panel.get_title(loc="left")
        unit = heading.split()[-1]
        assert heading.startswith(f"{name}: 6 operators in ") and unit in ("ms", "µs")
        assert all(t.get_text().endswith(unit) for t in panel.get_xticklabels())


def test_bars_reach_from_the_first_start_to_the_last_finish(tmp_path, small):
    workload, _, times = small
    fig = plot_schedule(tmp_path / "schedule.png", *small, title="")
    bars = fig.axes[0].collections[0].get_paths()  # of chiplet c00
    factor = engineering("s", float(times.finish_s[workload.model == 0].max()))[0]
    mine = (workload.model == 0) & (times.chiplet == 0)
    assert len(bars) == mine.sum()
    x = np.concatenate([bar.vertices[:, 0] for bar in bars])
    assert x.min() == pytest.approx(times.start_s[mine].min() * factor)
    assert x.max() == pytest.approx(times.finish_s[mine].max() * factor)


def test_every_kind_of_operator_has_one_colour():
    listed = [kind for kinds in CLASSES.values() for kind in kinds]
    assert sorted(listed) == sorted(KINDS)
    assert len(set(CLASS_COLOURS.values())) == len(CLASSES)


@pytest.mark.parametrize(
    "changed, message",
    [
        (lambda t: replace(t, start_s=t.start_s[:3]), r"timeline.start_s has shape \(3,\)"),
        (lambda t: replace(t, finish_s=t.finish_s * np.nan), r"timeline.finish_s\[0\] is nan"),
        (lambda t: replace(t, chiplet=t.chiplet + 4), "timeline.chiplet contains 7"),
    ],
)
def test_bad_timelines_are_named_in_one_line(tmp_path, small, changed, message):
    workload, system, times = small
    with pytest.raises(ValueError, match=message) as error:
        plot_schedule(tmp_path / "bad.png", workload, system, changed(times), title="")
    assert "\n" not in str(error.value)


def test_matplotlib_is_not_imported_before_a_picture_is_drawn():
    code = "import sys, perfmodel.plot; print([m for m in sys.modules if m in ('matplotlib', 'search')])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
