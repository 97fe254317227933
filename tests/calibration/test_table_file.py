"""Reading reference tables: what is read, and what is said about bad ones."""

import numpy as np
import pytest

from perfmodel.calibration import JSON, Column, Optional, read_table

COLUMNS = {"layer": str, "k": Column(int, least=1), "ms": float, "std_ms": Optional(float), "note": Optional(str), "loops": JSON,
           "flow": Column(str, allowed=("os", "ws"))}  # fmt: skip
GOOD = """layer,unused,k,ms,std_ms,note,loops,flow
a,7,64,1.5,,,"[[""K"", 4]]",os
"b, c",x,3,2e3,0.25,seen,{},ws
"""


def read(tmp_path, text):
    path = tmp_path / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_table(path, COLUMNS)


def test_values_and_types(tmp_path):
    got = read(tmp_path, GOOD)
    assert list(got) == list(COLUMNS)
    assert got["layer"].tolist() == ["a", "b, c"] and got["note"].tolist() == ["", "seen"]
    assert got["k"].dtype == np.int64 and got["k"].tolist() == [64, 3]
    assert got["ms"].dtype == np.float64 and got["ms"].tolist() == [1.5, 2000.0]
    assert np.isnan(got["std_ms"][0]) and got["std_ms"][1] == 0.25
    assert got["loops"].tolist() == [[["K", 4]], {}]
    assert got["flow"].tolist() == ["os", "ws"]


def test_byte_order_mark_windows_lines_and_whole_floats(tmp_path):
    got = read(tmp_path, b"\xef\xbb\xbf" + GOOD.replace("64", "64.0").replace("\n", "\r\n").encode())
    assert got["k"].tolist() == [64, 3] and got["layer"].tolist() == ["a", "b, c"]


def test_large_whole_numbers_keep_every_digit(tmp_path):
    assert read(tmp_path, GOOD.replace("64", str(2**53 + 1)))["k"][0] == 2**53 + 1


@pytest.mark.parametrize("old, new, words", [
    (GOOD, "", ["column layer is missing"]),
    (",ms,", ",us,", ["column ms is missing", "std_ms"]),
    ("std_ms", "std_us", ["column std_ms is missing", "there is std_us", "another unit"]),
    ("unused", "ms", ["column ms stands 2 times"]),
    (GOOD, GOOD.split("\n")[0], ["no rows"]),
    ("1.5", "", ["row 1, column ms is empty"]),
    ("1.5", "1.5 ms", ["row 1, column ms is '1.5 ms'", "without a unit"]),
    ("2e3", "nan", ["row 2, column ms is 'nan'", "finite"]),
    ("2e3", "inf", ["row 2, column ms is 'inf'"]),
    ("64", "64.5", ["row 1, column k is '64.5'", "whole number"]),
    ("64", "0", ["row 1, column k is '0'", "at least 1"]),
    (",ws", ",wz", ["row 2, column flow is 'wz'", "did you mean ws?", "allowed: os, ws"]),
    ("{}", "{", ["row 2, column loops is '{'", "JSON"]),
    ("\na,", "\n\na,", ["row 1 is empty"]),
    (",ws\n", ",ws\n,,,,,,,\n", ["row 3 is empty", "column layer"]),
    (",ws\n", "\n", ["row 2 has 7 cells", "header has 8"]),
    (",ws\n", ",ws,9\n", ["row 2 has 9 cells", "header has 8"]),
    ('"b, c"', '"b, c', ["not valid CSV"]),
])  # fmt: skip
def test_errors_name_file_column_and_row(tmp_path, old, new, words):
    with pytest.raises(ValueError) as error:
        read(tmp_path, GOOD.replace(old, new, 1))
    said = str(error.value)
    assert "\n" not in said and "table.csv" in said
    assert [w for w in words if w not in said] == []


def test_files_that_are_no_text(tmp_path):
    with pytest.raises(ValueError, match="not UTF-8"):
        read(tmp_path, b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"nowhere\.csv: cannot be read: No such file"):
        read_table(tmp_path / "nowhere.csv", COLUMNS)
