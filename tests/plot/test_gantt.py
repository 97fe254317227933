"""The Gantt chart of a placement: size, bars where the numbers say, what it says, bad input."""

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.image import imread
from matplotlib.text import Annotation, Text

from perfmodel.plot import plot_gantt


def draw(path, **changed):
    given = dict(
        device_names=["fast", "slow"], names=["stem", "left", "right", "sum"], device=[0, 0, 1, 0], start=[0.0, 2.0, 3.0, 6.0],
        finish=[2.0, 5.0, 5.0, 8.0], transfers=[(0, 1, 2.0, 3.0), (1, 0, 5.0, 6.0)], lower_bound=6.0, title="a placement",
    )  # fmt: skip
    return plot_gantt(path, **{**given, **changed})


def texts(fig):
    return [t.get_text() for t in fig.findobj(Text) if t.get_text()]


def boxes(fig):
    """(left, right, bottom, top) of every bar."""
    found = [p.get_extents() for c in fig.axes[0].findobj(PolyCollection) for p in c.get_paths()]
    return sorted((round(b.x0, 6), round(b.x1, 6), round(b.y0, 6)) for b in found)


def test_it_is_drawn_and_labelled(tmp_path):
    fig = draw(tmp_path / "gantt.png")
    image = imread(tmp_path / "gantt.png")
    assert image.shape[:2] == (1000, 1800)
    assert len(np.unique((image[..., :3] * 255).round() @ [65536, 256, 1])) > 20
    seen = texts(fig)
    assert {"a placement", "fast", "slow", "sends", "stem", "left", "right", "sum", "88%", "25%"} <= set(seen)
    assert "makespan 8, bound 6, gap 25 %; 4 tasks, 2 transfers" in seen
    assert "time (unit of the instance)" in seen


def test_bars_stand_where_the_numbers_say(tmp_path):
    bars = boxes(draw(tmp_path / "gantt.png"))
    tasks = [(0, 2, 1.42), (2, 5, 1.42), (3, 5, 0.42), (6, 8, 1.42)]  # the first device is the upper row
    sent = [(2, 3, 1.12), (5, 6, 0.12)]
    assert bars == sorted(tasks + sent)


def test_seconds_get_a_prefix(tmp_path):
    fig = draw(
        tmp_path / "s.png",
        start=[0.0, 2e-3, 3e-3, 6e-3],
        finish=[2e-3, 5e-3, 5e-3, 8e-3],
        transfers=[],
        unit="s",
        lower_bound=None,
    )
    seen = texts(fig)
    assert "makespan 8 ms; 4 tasks, 0 transfers" in seen and "time" in seen and "2 ms" in seen
    assert "sent to" not in seen


def test_classes_colour_the_bars(tmp_path):
    seen = texts(draw(tmp_path / "c.png", classes=["GEMM", "softmax", "softmax", "GEMM"]))
    assert {"operators", "GEMM", "softmax", "sent to"} <= set(seen)
    n = 12
    many = draw(tmp_path / "m.png", names=[f"t{i}" for i in range(n)], device=np.zeros(n, int), start=np.arange(n), finish=np.arange(n) + 1,
                classes=[f"kind {i}" for i in range(n)])  # fmt: skip
    assert "5 other kinds" in texts(many)


def test_arrows_only_while_there_are_few(tmp_path):
    few, many = ([(0, 1, float(t), t + 0.5) for t in np.linspace(0, 7, n)] for n in (20, 80))
    arrows = lambda fig: len(fig.findobj(Annotation))  # noqa: E731
    assert arrows(draw(tmp_path / "few.png", transfers=few)) == 20
    assert arrows(draw(tmp_path / "many.png", transfers=many)) == 0


def test_more_devices_make_it_higher(tmp_path):
    draw(tmp_path / "high.png", device_names=[f"d{k}" for k in range(16)])
    assert imread(tmp_path / "high.png").shape[:2] == (260 + 16 * 130, 1800)


def test_nothing_takes_time(tmp_path):
    fig = draw(tmp_path / "zero.png", start=np.zeros(4), finish=np.zeros(4), transfers=[], lower_bound=0.0)
    assert any(t.startswith("makespan 0, bound 0, gap 0 %") for t in texts(fig))


@pytest.mark.parametrize(
    "changed, message",
    [
        (dict(names=[], device=[], start=[], finish=[]), "names is empty"),
        (dict(device=[0, 0, 1]), r"device has shape \(3,\); needed: \(4,\)"),
        (dict(device=[0, 0, 2, 0]), r"device\[2\] is 2; allowed: 0 to 1"),
        (dict(finish=[2.0, np.nan, 5.0, 8.0]), "task left runs from 2 to nan"),
        (dict(finish=[2.0, 1.0, 5.0, 8.0]), "task left runs from 2 to 1"),
        (dict(transfers=[(0, 2, 1.0, 2.0)]), r"transfers\[0\] goes from device 0 to 2"),
        (dict(transfers=[(0, 1, 2.0, 1.0)]), r"transfers\[0\] travels from 2 to 1"),
        (dict(transfers=[(0, 1, 2.0)]), "transfers has 3 columns"),
        (dict(classes=["GEMM"]), "classes has 1 names"),
        (dict(lower_bound=np.nan), "lower_bound is nan"),
    ],
)
def test_bad_input_is_named_in_one_line(tmp_path, changed, message):
    with pytest.raises(ValueError, match=message) as error:
        draw(tmp_path / "bad.png", **changed)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "bad.png").exists()


def test_names_on_light_bars_are_dark(tmp_path):
    fig = draw(tmp_path / "light.png", classes=["a", "a", "a", "b"], device_names=["x", "y"])
    assert {t.get_text(): t.get_color() for t in fig.axes[0].texts}["stem"] == "white"
    n = 7
    fig = draw(tmp_path / "seven.png", names=[f"t{i}" for i in range(n)], device=np.zeros(n, int), start=np.arange(n),
               finish=np.arange(n) + 1, classes=[f"kind {i}" for i in range(n)])  # fmt: skip
    assert {t.get_text(): t.get_color() for t in fig.axes[0].texts}["t6"] == "#222222"  # yellow
