"""A cache of whole experts on a sequence of requests: exact simulations of LRU, Belady's choice and a static hot set.

An expert that runs must be in the fast memory, so every miss loads (no bypass). Experts are read only: an eviction costs nothing.
"""

import heapq
import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from .._names import unknown_name

POLICIES = ("lru", "belady", "static")


def cache_hits(trace: Int[np.ndarray, "R"], frames: int, policy: str = "lru", *, hot=None) -> Bool[np.ndarray, "R"]:
    """Which of `R` requests, in order, find their expert in a cache of `frames` experts that starts empty.

    - `lru`: the expert unused for longest makes room.
    - `belady`: the one whose next use is farthest (Belady 1966): no policy that sees the future does better.
    - `static`: `frames - 1` experts of `hot` (default: the most frequent of the trace, ties to the smaller number) are there
      from the start and stay; the others take turns in the last frame. Where all of `hot` fit, all are there.

    Raises ValueError for an unknown policy or `frames` below 1.
    """
    if policy not in POLICIES:
        raise unknown_name("cache", policy, POLICIES)
    if frames < 1:
        raise ValueError(f"frames is {frames}; allowed: an integer of at least 1, an expert must be there to run")
    trace = np.asarray(trace, np.int64)
    if policy == "lru":
        return _lru(trace, frames)
    if policy == "belady":
        return _belady(trace, frames)
    return _static(trace, frames, hot)


def _lru(trace, frames: int):
    cache: OrderedDict[int, None] = OrderedDict()
    hits = np.zeros(len(trace), bool)
    for r, expert in enumerate(trace.tolist()):
        if expert in cache:
            hits[r] = True
            cache.move_to_end(expert)
        else:
            cache[expert] = None
            if len(cache) > frames:
                cache.popitem(last=False)
    return hits


def next_uses(trace: Int[np.ndarray, "R"]) -> Int[np.ndarray, "R"]:
    """Of each request the index of the next one of the same expert; `R` where there is none."""
    out, seen = np.full(len(trace), len(trace), np.int64), {}
    for r in range(len(trace) - 1, -1, -1):
        out[r] = seen.get(int(trace[r]), len(trace))
        seen[int(trace[r])] = r
    return out


def _belady(trace, frames: int):
    following = next_uses(trace).tolist()
    when: dict[int, int] = {}  # of each resident expert, its next use
    heap: list[tuple[int, int]] = []  # (-next use, expert), entries of the past left in place
    hits = np.zeros(len(trace), bool)
    for r, expert in enumerate(trace.tolist()):
        if expert in when:
            hits[r] = True
        elif len(when) == frames:
            while True:
                use, victim = heapq.heappop(heap)
                if when.get(victim) == -use:
                    break
            del when[victim]
        when[expert] = following[r]
        heapq.heappush(heap, (-following[r], expert))
    return hits


def _static(trace, frames: int, hot):
    if hot is None:
        experts, counts = np.unique(trace, return_counts=True)
        hot = experts[np.lexsort((experts, -counts))]
    kept = set(np.asarray(hot)[: frames if len(hot) <= frames else frames - 1].tolist())
    visitor, hits = None, np.zeros(len(trace), bool)
    for r, expert in enumerate(trace.tolist()):
        hits[r] = expert in kept or expert == visitor
        if expert not in kept:
            visitor = expert
    return hits


def zipf_trace(experts: int, exponent: float, requests: int, seed: int = 0) -> Int[np.ndarray, "R"]:
    """Independent requests, expert `i` with a probability in proportion to `(i + 1) ** -exponent`; 0: all alike."""
    weights = np.arange(1, experts + 1, dtype=np.float64) ** -exponent
    draws = np.random.default_rng(seed).random(requests)
    return np.minimum(np.searchsorted(np.cumsum(weights) / weights.sum(), draws, side="right"), experts - 1)


def steady_hit_rate(trace: Int[np.ndarray, "R"], frames: int, policy: str, *, hot=None) -> float:
    """Share of hits in the second half of a trace: the first fills the cache."""
    return float(np.mean(cache_hits(trace, frames, policy, hot=hot)[len(trace) // 2 :]))


def load_trace(path: str | Path, experts: int) -> Int[np.ndarray, "R"]:
    """Requests from a file: one expert a line, numbered from 0 (empty lines and `# ...` are skipped), or a JSON list.

    Raises ValueError in one line naming file, line, value and what is allowed.
    """
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if text.lstrip().startswith("["):
        try:
            items = [(f"[{i}]", value) for i, value in enumerate(json.loads(text))]
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: not valid JSON at line {error.lineno}: {error.msg}") from None
    else:
        lines = enumerate((line.partition("#")[0].strip() for line in text.splitlines()), start=1)
        items = [(f" line {n}", line) for n, line in lines if line]
    if not items:
        raise ValueError(f"{path}: no requests; needed: one expert a line, or a JSON list")
    return np.asarray([_expert(f"{path}{where}", value, experts) for where, value in items])


def _expert(where: str, value, experts: int) -> int:
    try:
        number = -1 if isinstance(value, bool | float) else int(value)
    except (TypeError, ValueError):
        number = -1
    if not 0 <= number < experts:
        raise ValueError(
            f"{where}: expert is {value!r}; allowed: an integer from 0 to {experts - 1} (of {experts} experts)"
        )
    return number


def batch_latency_s(hits: Bool[np.ndarray, "R"], batch: int, *, router_s: float, copy_s: float, expert_s: float,
                    overlap: bool = False, shared_s: float = 0.0) -> Float[np.ndarray, "N"]:  # fmt: skip
    """Latency of each whole batch of consecutive requests, run pair after pair (a shorter rest is left out).

    The router runs once a batch. Not overlapped: a missing expert is copied, then runs. Overlapped: the copy for the next pair
    runs beside the expert of this one, which then takes `shared_s` longer (its memory also takes what is copied in).
    """
    miss = ~np.asarray(hits, bool)[: len(hits) // batch * batch].reshape(-1, batch)
    if not overlap:
        return router_s + np.sum(miss * copy_s + expert_s, axis=1)
    beside = np.where(miss[:, 1:], max(expert_s + shared_s, copy_s), expert_s)
    return router_s + miss[:, 0] * copy_s + np.sum(beside, axis=1) + expert_s
