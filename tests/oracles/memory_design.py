"""Latency of a request on three tiers, operator by operator in plain Python, and the best of many divisions of a budget."""

from itertools import combinations
from math import exp, sqrt

import numpy as np

import perfmodel as pm


def pass_s(x, work, macs_per_s, unit, outside_bytes_per_s, most, shares):
    sram, _, _, *bandwidth = x
    rate = [min(bandwidth[t], most[t] * x[t]) for t in range(3)]
    ops = work.operators
    matrix = [r for r in range(work.n_operators) if ops.is_matrix[r]]
    element = max(float(ops.in_bits[r]) for r in matrix) / 8
    side = sqrt(sram / 2 / element)
    macs = weights = fed = 0.0
    for r in matrix:
        m = float(ops.macs[r])
        w = float(ops.weight_elements[r] * ops.weight_bits[r]) / 8
        other = float(ops.weight_bits[r]) if w else float(ops.in_bits[r])
        macs += m
        fed += m * (float(ops.in_bits[r]) + other) / 8
        weights += w * max(float(ops.batch[r] * ops.p[r] * ops.q[r]) / side, 1.0)
    between = 0.0
    for e in range(len(work.source)):
        a, b = int(work.source[e]), int(work.target[e])
        kept = min(sram / 2 / float(work.hold_bytes[a]), 1.0)
        again = max(float(ops.k[b]) / side, 1.0) if ops.is_matrix[b] else 1.0
        between += float(work.edge_bytes[e]) * (1 - kept) * (1 + again)
    stored = weights + float(np.sum(work.outside_in_bytes) + np.sum(work.outside_out_bytes))
    moved = (
        (between + stored * shares[1]) / rate[1]
        + stored * shares[2] / rate[2]
        + stored * shares[3] / outside_bytes_per_s
    )
    return max(macs / macs_per_s, fed / sqrt(unit) / rate[0], moved)


def request_s(x, ask, **machine):
    def load(phase, batch, **tokens):
        return pm.models.load(ask.model, phase=phase, batch=batch, dtype=ask.dtype, **tokens)

    experts = getattr(ask, "experts", None)
    batch = 1 if experts else ask.batch
    prefill, decode = (
        load("prefill", batch, seq_len=ask.prompt),
        load("decode", batch, context=ask.prompt + ask.new_tokens // 2),
    )
    if not experts:
        shares, left = [], 1.0
        for size in (x[0] / 2, x[1], x[2]):
            shares.append(min(size / decode.stored_bytes, left))
            left -= shares[-1]
        shares.append(left)
        return pass_s(x, prefill, shares=shares, **machine) + ask.new_tokens * pass_s(
            x, decode, shares=shares, **machine
        )
    router = load("prefill", ask.batch, seq_len=ask.prompt)
    there = min(x[1] / router.stored_bytes, 1.0)
    first = pass_s(x, router, shares=[0, there, 1 - there, 0], **machine)
    expert = decode.weight_bytes
    frames = (x[1] - there * router.stored_bytes) / expert
    weights = [(i + 1.0) ** -ask.popularity for i in range(experts)]
    p = [w / sum(weights) for w in weights]
    near = che(p, frames)
    homes = sum(q * min(max(x[2] / expert - i, 0.0), 1.0) for i, q in enumerate(p))
    far = min(1 - near, 1 - homes)
    copy = expert * ((1 - near - far) / min(x[5], machine["most"][2] * x[2]) + far / machine["outside_bytes_per_s"])
    own = min(max(frames, 0.0), 1.0)
    shares = [0, own, 1 - own, 0]
    run = pass_s(x, prefill, shares=shares, **machine) + ask.new_tokens * pass_s(x, decode, shares=shares, **machine)
    return first + ask.batch * (copy + run)


def che(p, frames):
    if frames >= len(p):
        return 1.0
    if frames <= 0:
        return 0.0
    low, high = 0.0, 1e12
    for _ in range(300):
        t = (low + high) / 2
        low, high = (t, high) if sum(1 - exp(-q * t) for q in p) < frames else (low, t)
    return sum(q * (1 - exp(-q * low)) for q in p)


def divisions(parts, of):
    """Every way to give `of` equal coins to `parts` purses, at least one each: shares [N, parts]."""
    bars = np.asarray(list(combinations(range(1, of), parts - 1)))
    ends = np.concatenate([np.zeros((len(bars), 1)), bars, np.full((len(bars), 1), of)], axis=1)
    return np.diff(ends, axis=1) / of
