"""Quantities at the configuration boundary."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.hardware import quantity


@pytest.mark.parametrize("text, dimension, si", [
    ("500 MHz", "hz", 5e8), ("1.2GHz", "hz", 1.2e9), (5e8, "hz", 5e8), (7, "hz", 7.0), ("5e8", "hz", 5e8),
    ("10e6 B", "bytes", 1e7), ("10 MB", "bytes", 1e7), ("512 KiB", "bytes", 2.0**19), ("1 MiB", "bytes", 2.0**20),
    ("80 Mbit", "bytes", 1e7),
    ("100 GB/s", "bytes_per_s", 1e11), ("2.048 TB/s", "bytes_per_s", 2.048e12), ("8 Gbit/s", "bytes_per_s", 1e9),
    ("35 ns", "s", 35e-9), ("0.5 us", "s", 5e-7),
    ("0.56 pJ", "j", 0.56e-12),
    ("2.04 pJ/bit", "j_per_byte", 16.32e-12), ("10.4216 pJ/B", "j_per_byte", 10.4216e-12),
    ("200 mW", "w", 0.2), ("4 USD", "usd", 4.0),
])  # fmt: skip
def test_units(text, dimension, si):
    assert quantity(text, dimension, "x") == pytest.approx(si, rel=1e-15)


@pytest.mark.parametrize("bad", [
    0, -1, -0.0, math.nan, math.inf, -math.inf, "nan", ".nan", "nan GB/s", ".inf", "-5 GB/s", "0 GB/s", "fast", "",
    "10 GB", "10 gb/s", "10 XB/s", "1,000 GB/s", "1.5.2 GB/s", "10 GB/s/s", "1e999 GB/s",
])  # fmt: skip
def test_refused(bad):
    with pytest.raises(ValueError) as error:
        quantity(bad, "bytes_per_s", "chip.yaml: package.link")
    said = str(error.value)
    assert said.startswith(f"chip.yaml: package.link is {bad!r}; allowed: a finite number above 0 in bytes per second")
    assert "\n" not in said


@pytest.mark.parametrize("bad", ["info", "nano B", "infinite", "nan_ B", "-.inf", "+nan B"])
def test_words_that_begin_like_nan(bad):
    with pytest.raises(ValueError, match="chip.yaml: field is .* allowed: a finite number"):
        quantity(bad, "bytes", "chip.yaml: field")


def test_zero_only_where_it_makes_sense():
    assert quantity("0 ns", "s", "x", zero=True) == 0 and quantity(0, "w", "x", zero=True) == 0
    with pytest.raises(ValueError, match="at least 0"):
        quantity("-1 ns", "s", "x", zero=True)


@given(st.floats(1e-3, 1e6), st.sampled_from(["", "k", "M", "G", "T"]))
def test_prefixes_scale(number, prefix):
    scale = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}[prefix]
    assert quantity(f"{number!r} {prefix}B/s", "bytes_per_s", "x") == pytest.approx(number * scale)
    assert quantity(f"{number!r} {prefix}bit/s", "bytes_per_s", "x") == pytest.approx(number * scale / 8)
