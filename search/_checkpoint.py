"""Checkpoints of a search: arrays in one file, counters and what they belong to in another, both replaced in one move."""

import json
import os
from pathlib import Path

import numpy as np

_ARRAYS, _COUNTERS = "checkpoint.npz", "checkpoint.json"


def save(directory, belongs_to: dict, population, archive: dict, counters: dict) -> None:
    """Write a checkpoint; a reader sees the old one or the new one, never half of one."""
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {f"population_{i}": np.asarray(x) for i, x in enumerate(population)} | {
        f"archive_{k}": v for k, v in archive.items()
    }
    with open(folder / (_ARRAYS + ".part"), "wb") as file:
        np.savez(file, **arrays, generation=counters["generation"])
    (folder / (_COUNTERS + ".part")).write_text(json.dumps(dict(belongs_to=belongs_to, counters=counters)))
    for name in (_ARRAYS, _COUNTERS):
        os.replace(folder / (name + ".part"), folder / name)


def load(directory, belongs_to: dict):
    """(population, archive, counters) of a checkpoint. Raises ValueError if there is none, or it is of another search."""
    folder = Path(directory)
    try:
        text = json.loads((folder / _COUNTERS).read_text())
        with np.load(folder / _ARRAYS) as file:
            arrays = dict(file)
    except FileNotFoundError as error:
        raise ValueError(f"{error.filename}: no checkpoint to resume from") from None
    except (ValueError, OSError) as error:
        raise ValueError(f"{folder}: checkpoint cannot be read: {error}") from None
    for name, value in belongs_to.items():
        if text["belongs_to"].get(name) != value:
            raise ValueError(
                f"{folder}: checkpoint belongs to another search: {name} is {text['belongs_to'].get(name)!r}, now {value!r}"
            )
    if int(arrays["generation"]) != text["counters"]["generation"]:
        raise ValueError(f"{folder}: checkpoint is torn: its two files are of different generations")
    population = [arrays[f"population_{i}"] for i in range(3)]
    archive = {name.removeprefix("archive_"): value for name, value in arrays.items() if name.startswith("archive_")}
    return population, archive, text["counters"]
