"""The figures of a comparison worked out by hand, the picture, and the command."""

import json
import sys
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.image import imread
from matplotlib.text import Text
from scipy.stats import spearmanr

from perfmodel.calibration import KINDS, Comparison, compare, figures, read_table, validate
from perfmodel.plot import plot_validation
from search import cli

FIGURES = {"rows", "exact", "mape_percent", "median_ape_percent", "p90_ape_percent", "spearman"}
COUNTS = Comparison("count", "words", np.asarray([1.0, 2.2, 3.0, 0.0]), np.asarray([1.0, 2.0, 4.0, 0.0]), list("abba"))


def changed(**parts):
    return COUNTS._replace(**parts)


def test_figures_by_hand():
    got = figures([COUNTS])
    assert list(got) == ["count"] and list(got["count"]) == ["all", "a", "b"]
    assert all(set(f) == FIGURES for f in got["count"].values())
    whole, a, b = got["count"].values()
    assert (whole["rows"], whole["exact"]) == (4, 2) and (a["rows"], a["exact"]) == (2, 2) and b["exact"] == 0
    assert whole["mape_percent"] == pytest.approx((10 + 25) / 4)  # errors 0, 10 %, 25 %, 0
    assert whole["median_ape_percent"] == pytest.approx(5) and b["median_ape_percent"] == pytest.approx(17.5)
    assert whole["p90_ape_percent"] == pytest.approx(10 + 0.7 * 15)  # place 2.7 of 0, 0, 10, 25
    assert [f["spearman"] for f in (whole, a, b)] == pytest.approx([1, 1, 1])
    json.dumps(got, allow_nan=False)


def test_rank_correlation_is_scipys():
    rng = np.random.default_rng(0)
    x, y = rng.random(50), rng.random(50)
    got = figures([Comparison("x", "s", x, x + y, ["g"] * 50)])["x"]["g"]
    assert got["spearman"] == pytest.approx(spearmanr(x + y, x)[0])


def test_no_rank_without_an_order():
    constant = figures([changed(reference=np.ones(4))])["count"]
    assert constant["all"]["spearman"] is None
    one = figures([Comparison("x", "s", np.ones(1), np.ones(1), ["g"])])["x"]["g"]
    assert one == dict(rows=1, exact=1, mape_percent=0, median_ape_percent=0, p90_ape_percent=0, spearman=None)


def test_a_zero_reference_has_no_finite_error():
    got = figures([changed(predicted=np.asarray([1.0, 2.0, 4.0, 5.0]))])["count"]
    assert got["all"]["mape_percent"] is None and got["all"]["p90_ape_percent"] is None
    assert got["all"]["median_ape_percent"] == 0 and got["all"]["exact"] == 3


def test_the_tolerance_decides_what_is_exact():
    near = changed(predicted=COUNTS.reference * (1 + 1e-6))
    assert figures([near])["count"]["all"]["exact"] == 1
    assert figures([near._replace(tolerance=1e-5)])["count"]["all"]["exact"] == 4


@pytest.mark.parametrize("parts, words", [
    (dict(predicted=np.asarray([1, np.nan, 1, 1])), "count: row 2: predicted is nan"),
    (dict(reference=np.asarray([1, 1, 1, np.inf])), "count: row 4: reference is inf"),
    (dict(group=["a"]), "1 group labels"),
    (dict(predicted=np.zeros(0), reference=np.zeros(0), group=[]), "at least one row"),
])  # fmt: skip
def test_what_cannot_be_compared(parts, words):
    with pytest.raises(ValueError, match=words):
        figures([changed(**parts)])
    with pytest.raises(ValueError, match="count stands twice"):
        figures([COUNTS, COUNTS])


@pytest.fixture
def doubling(monkeypatch):
    """A kind that predicts twice its column x, in the precision that it is called in."""

    def doubled(path, parameters=None):
        x = read_table(path, {"x": float, "name": str})
        if parameters is not None:
            raise ValueError("doubling takes no parameters")
        return [Comparison("y_s", "s", np.asarray(2 * jnp.asarray(x["x"])), 2 * x["x"], x["name"].tolist())]

    monkeypatch.setitem(sys.modules, "a_module_of_the_test", SimpleNamespace(compare=doubled))  # type: ignore[arg-type]
    monkeypatch.setitem(KINDS, "doubling", "a_module_of_the_test")
    monkeypatch.setenv("PERFMODEL_NO_CACHE", "1")


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("name,x\nfirst,1.000000001\nsecond,3\nfirst,50\n")
    return path


def test_kinds_run_in_float64(doubling, table):
    assert compare("doubling", table)[0].predicted.dtype == np.float64
    got = validate("doubling", table)
    assert {g: f["exact"] for g, f in got["y_s"].items()} == {"all": 3, "first": 2, "second": 1}


def test_every_kind_has_its_module():
    from importlib import import_module

    for kind, module in KINDS.items():
        name = kind.replace("-", "_")
        assert module in (
            f"perfmodel.calibration._{name}",
            f"perfmodel.calibration.{name}",
        )  # a module or a folder of them
        assert callable(import_module(module).compare)


def test_the_command_writes_picture_and_json(doubling, table, tmp_path, capsys):
    assert cli.main(["validate", "doubling", str(table), "--out", str(tmp_path / "out"), "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == json.loads((tmp_path / "out" / "doubling.json").read_text())
    assert set(json.loads(printed.out)["y_s"]["second"]) == FIGURES
    assert imread(tmp_path / "out" / "doubling.png").shape[0] > 300
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["doubling.json", "doubling.png"]


def test_the_command_prints_a_table(doubling, table, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["validate", "doubling", str(table)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "quantity",
        "group",
        "rows",
        "exact",
        "MAPE",
        "%",
        "median",
        "%",
        "p90",
        "%",
        "Spearman",
    ]
    assert [line.split() for line in lines[1:]] == [
        ["y_s", "all", "3", "3", "0", "0", "0", "1"],
        ["first", "2", "2", "0", "0", "0", "1"],
        ["second", "1", "1", "0", "0", "0", "-"],
    ]
    assert (tmp_path / "validate-doubling" / "doubling.json").exists()


@pytest.mark.parametrize("old, new, words", [
    ("name,x", "name,y", ["column x is missing"]),
    ("x\n", "x_us\n", ["column x is missing"]),
    ("3", "3 us", ["row 2, column x is '3 us'"]),
    ("second,3\n", "\n", ["row 2 is empty"]),
    ("first,1.000000001\nsecond,3\nfirst,50\n", "", ["no rows"]),
])  # fmt: skip
def test_bad_files_are_refused_in_one_line_and_write_nothing(doubling, table, tmp_path, capsys, old, new, words):
    table.write_text(table.read_text().replace(old, new, 1))
    out = tmp_path / "out"
    assert cli.main(["validate", "doubling", str(table), "--out", str(out)]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and len(printed.err.strip().splitlines()) == 1
    assert [w for w in ["table.csv", *words] if w not in printed.err] == [] and not out.exists()


@pytest.mark.parametrize("argv, words", [
    (["validate", "trebling", "{table}"], ["kind is 'trebling'", "did you mean doubling?"]),
    (["validate", "doubling", "nowhere.csv"], ["nowhere.csv: cannot be read"]),
    (["validate", "doubling", "{table}", "--parameters", "p.json"], ["takes no parameters"]),
    (["validate", "doubling", "{table}", "--out", "{table}"], ["--out", "cannot be written"]),
    (["validate", "doubling"], ["required: FILE"]),
])  # fmt: skip
def test_bad_arguments_are_refused_in_one_line(doubling, table, capsys, argv, words):
    assert cli.main([a.format(table=table) for a in argv]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and len(printed.err.strip().splitlines()) == 1
    assert [w for w in words if w not in printed.err] == []


def texts(fig):
    return [t.get_text() for t in fig.findobj(Text) if t.get_text()]


def test_picture_says_what_it_shows(tmp_path):
    rng = np.random.default_rng(1)
    x = np.exp(rng.normal(size=60))
    times = Comparison("time_s", "s", x * 1.05, x, [f"machine {i % 3}" for i in range(60)])
    fig = plot_validation(tmp_path / "v.png", [times, COUNTS], "a title")
    seen = texts(fig)
    assert {
        "a title",
        "predicted (s)",
        "reference (words)",
        "within 10 %",
        "within 2x",
        "predicted = reference",
    } <= set(seen)
    assert {"machine 0", "machine 1", "machine 2", "a", "b"} <= set(seen)
    assert "time_s\n60 rows, 0 exact, MAPE 5 %" in seen and "not drawn: 1 with a value of zero or less" in seen
    assert len(fig.axes) == 2
    image = imread(tmp_path / "v.png")
    assert len(np.unique((image[..., :3] * 255).astype(int).reshape(-1, 3), axis=0)) > 50


def test_picture_of_many_groups_names_the_largest(tmp_path):
    labels = [f"group {i:02}" for i in range(40) for _ in range(1 + (i < 5))]
    x = np.linspace(1, 9, len(labels))
    seen = texts(plot_validation(tmp_path / "v.png", [Comparison("x", "s", x, x, labels)], "t"))
    assert "group 00" in seen and "23 more groups" in seen and "group 39" not in seen


def test_pictures_of_little(tmp_path):
    nothing = Comparison("x", "s", np.zeros(2), np.zeros(2), ["g", "g"])
    single = Comparison("y", "s", np.ones(1), np.ones(1), ["g"])
    assert len(plot_validation(tmp_path / "v.png", [nothing, single, COUNTS], "t").axes) == 3
    with pytest.raises(ValueError, match="comparisons is empty"):
        plot_validation(tmp_path / "none.png", [], "t")
    assert not (tmp_path / "none.png").exists()
