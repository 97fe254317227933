"""Published speed-ups of compositions of experts against what the model says, with at most three fitted constants.

The table is that of the SN40L paper (arXiv 2405.07518, Table V): the SN40L node was measured; the DGX nodes are its authors'
estimates from published latencies. What is fitted is fitted: a check that the rows hang together, not a prediction of them.
"""

import json
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ._footprint import request_s

REFERENCE, OTHERS = "sn40l-node", ("dgx-a100", "dgx-h100")


class Row(NamedTuple):
    """One published ratio: time of `system` / time of the reference node. `overall`: of a request; else of the expert alone."""

    overall: bool
    batch: int
    new_tokens: int
    system: str
    ratio: float


class Node(NamedTuple):
    """What a node takes: `prefill_s`, `decode_s` by (batch, new tokens); `switch_s`; share of requests that miss."""

    prefill_s: dict[tuple[int, int], float]
    decode_s: dict[tuple[int, int], float]
    switch_s: float
    miss: float


class Fitted(NamedTuple):
    """`constants`: name -> value in seconds.  `ratios [R]`: of every row.  `error [R]`: ratio / published - 1."""

    constants: dict[str, float]
    ratios: np.ndarray
    error: np.ndarray


_METRIC = re.compile(r"(overall|expert only), batch (\d+), (\d+) output tokens")


def published_rows(path: str | Path) -> list[Row]:
    """Rows of `coe_table_V` of a file: overall and expert-only speed-ups over both DGX nodes; switching is no row.

    Raises ValueError for a file that has none."""
    table = json.loads(Path(path).read_text()).get("coe_table_V", {})
    rows = []
    for entry in table.get("speedup", []):
        match = _METRIC.match(entry["metric"])
        if match:
            kind, batch, tokens = match.group(1) == "overall", int(match.group(2)), int(match.group(3))
            rows += [Row(kind, batch, tokens, name, entry[f"vs_{name.replace('-', '_')}"]) for name in OTHERS]
    if not rows:
        raise ValueError(f"{path}: no rows of coe_table_V.speedup; needed: metric, vs_dgx_a100, vs_dgx_h100")
    return rows


def _request(node: Node, row: Row, router_s: float, expert_s: float) -> float:
    if not row.overall:
        return expert_s
    return float(
        request_s(router_s=router_s, expert_s=expert_s, switch_s=node.switch_s, batch=row.batch, hit_rate=1 - node.miss)
    )


def modelled_ratios(rows: list[Row], nodes: dict[str, Node], router_tokens: int, before_s: float = 0.0,
                    steps_s: dict[str, float] | None = None) -> np.ndarray:  # fmt: skip
    """Ratio of every row, times from the model of language models in service.

    `before_s`: added to every run of a model on the reference node.  `steps_s`: added to every token of another system's."""

    def seconds(name: str, row: Row) -> float:
        node, step = nodes[name], (steps_s or {}).get(name, 0.0)
        before = before_s if name == REFERENCE else 0.0

        def run(batch: int, tokens: int) -> float:
            at = (batch, row.new_tokens)
            return before + node.prefill_s[at] + step + (tokens - 1) * (node.decode_s[at] + step)

        return _request(node, row, run(row.batch, router_tokens), run(1, row.new_tokens))

    return np.asarray([seconds(row.system, row) / seconds(REFERENCE, row) for row in rows])


def fit_host(rows: list[Row], nodes: dict[str, Node], router_tokens: int) -> Fitted:
    """Three constants fitted to all rows, everything else from the model: time of the reference before each run of a model, and host
    time of the two others for every token."""

    def ratios(values):
        return modelled_ratios(rows, nodes, router_tokens, values[0], dict(zip(OTHERS, values[1:], strict=True)))

    names = (f"{REFERENCE} before_s", *(f"{name} step_s" for name in OTHERS))
    return _fitted(rows, ratios, names, (10e-3, 2e-3, 2e-3))


def fit_reference(rows: list[Row], nodes: dict[str, Node]) -> Fitted:
    """Three constants of the reference node fitted to the overall rows: its router, its prefill, its decode of a token. The others'
    times are these, as many times longer as the published expert-only row of as many tokens says."""
    slower = {(row.system, row.new_tokens): row.ratio for row in rows if not row.overall}

    def ratios(values):
        router, prefill, decode = values
        out = []
        for row in rows:
            expert, longer = prefill + (row.new_tokens - 1) * decode, slower[row.system, row.new_tokens]
            there = _request(nodes[row.system], row, longer * router, longer * expert)
            out.append(there / _request(nodes[REFERENCE], row, router, expert))
        return np.asarray(out)

    names = tuple(f"{REFERENCE} {name}" for name in ("router_s", "prefill_s", "decode_s"))
    return _fitted(rows, ratios, names, (50e-3, 20e-3, 2e-3), only=[row.overall for row in rows])


def _fitted(rows: list[Row], ratios, names, start, only=None) -> Fitted:
    from scipy.optimize import least_squares

    published = np.asarray([row.ratio for row in rows])
    used = np.ones(len(rows), bool) if only is None else np.asarray(only)

    def residual(logs):
        return np.log(ratios(np.exp(logs)) / published)[used]

    found = np.exp(least_squares(residual, np.log(start), method="lm").x)
    got = ratios(found)
    return Fitted(dict(zip(names, map(float, found), strict=True)), got, got / published - 1)
