"""Fusion once more (docs/model.md), for the NumPy twin: hard choices, plain loops over rows and edges, arrays over candidates.

Independent of `perfmodel.schedule` and of the tables of `perfmodel.workload._fusion_rules`.
"""

import numpy as np

from perfmodel.workload import KINDS

BLOCK = 2 * 64  # two blocks of 64 rows
ANY_PIECE = "batch_norm relu gelu silu sigmoid tanh add mul rope elementwise quantize optimizer".split()
BY_ROWS = "layer_norm rms_norm softmax reduce top_k scan fft gemm".split()
BY_WINDOW = "conv max_pool avg_pool resize".split()


class Plan:
    """What a fusion `[B, E]` of candidates placed at `where`, `[B, L]`, means for each row."""

    def __init__(self, workload, where, fusion, b):
        op, n = workload.operators, where.shape[1]
        kinds = [KINDS[k] for k in op.kind]
        self.workload, n_candidates = workload, len(where)
        out = op.out_elements * op.out_bits / 8 * b
        hold = workload.hold_bytes * b
        weights = op.weight_elements * op.weight_bits / 8
        edges = list(zip(workload.source.tolist(), workload.target.tolist(), strict=True))
        on = [np.asarray(fusion[:, e], bool) & (where[:, s] == where[:, t]) for e, (s, t) in enumerate(edges)]
        into = [[e for e, (_, t) in enumerate(edges) if t == row] for row in range(n)]
        self.out_of = [[e for e, (s, _) in enumerate(edges) if s == row] for row in range(n)]
        self.into, self.on, self.edges = into, on, edges
        self.streamed, self.tile, self.ordered, self.reader_weights = [], [], [], []
        self.last = [max([edges[e][1] for e in es], default=row) for row, es in enumerate(self.out_of)]
        for row in range(n):
            share, every = 0.0, np.full(n_candidates, bool(self.out_of[row]))
            ordered, kept = np.zeros(n_candidates, bool), np.zeros(n_candidates)
            for e in self.out_of[row]:
                reader = edges[e][1]
                need, some = self._share(op, kinds, workload.edge_bytes[e], row, reader, into[reader][0] == e, b)
                share = max(share, some)
                every &= on[e]
                ordered |= on[e] & (need != "any")
                together = sum(on[other].astype(float) for other in into[reader])
                kept += on[e] * weights[reader] / np.maximum(together, 1)
            self.streamed.append(every)
            self.tile.append(min(out[row] * min(share, 1.0), hold[row]))
            self.ordered.append(ordered)
            self.reader_weights.append(kept)
        self.hold = hold

    @staticmethod
    def _share(op, kinds, nbytes, row, reader, is_first, b):
        """(how the reader reads, share of the tensor that it needs at a time)."""
        kind = kinds[reader]
        g, n, p, q, r, stride = (int(getattr(op, f)[reader]) for f in ("groups", "batch", "p", "q", "r", "stride"))
        pixels = g * n * p * q
        of = int(op.groups[row] * op.batch[row] * op.p[row] * op.q[row])
        if kind in ("reduce", "top_k", *BY_WINDOW[1:]) and p * q < int(op.p[row] * op.q[row]):
            pixels = of
        if kind in ANY_PIECE:
            return "any", BLOCK / (pixels * b)
        if kind in BY_ROWS or (kind in BY_WINDOW[1:] and p * q == 1):
            return "rows", BLOCK / (pixels * b)
        if kind in BY_WINDOW:
            return "window", ((2 if kind == "resize" else r) + stride) / (n * p * stride * b)
        if kind == "copy":
            return "items", 2 / (g * n * b)
        first_operand = g * n * p * q * int(op.c[reader])
        if kind == "attention_gemm" and is_first and abs(nbytes * 8 / op.out_bits[row] - first_operand) < 0.5:
            return "rows", BLOCK / (pixels * b)
        return "all", 1.0

    def live(self):
        """`B x L` bytes held while each row runs: whole tensors to their last reader, tiles until no stream is open."""
        n = len(self.hold)
        out = np.zeros((len(self.streamed[0]), n))
        flows = [s & (t < h) for s, t, h in zip(self.streamed, self.tile, self.hold, strict=True)]
        for i in range(len(out)):
            tiles = []
            for row in range(n):
                if not any(flows[r][i] and self.last[r] >= row for r in range(row)):
                    tiles = []
                if flows[row][i]:
                    tiles.append(self.tile[row])
                out[i, row] = sum(self.hold[r] for r in range(row + 1) if self.last[r] >= row and not flows[r][i])
                out[i, row] += sum(tiles)
        return out


class Streaming:
    """The state of the streams of one model while its rows are walked."""

    def __init__(self, plan: Plan, n_candidates, n_chiplets):
        self.plan, self.every = plan, np.arange(n_candidates)
        self.open, self.tiles, self.weights = (np.zeros((n_candidates, n_chiplets)) for _ in range(3))
        self.streaming, self.kept, self.credit = {}, {}, {}

    def row(self, row, d, weight_bytes, resident, held, arrived, space, cost):
        """(seconds, held) of a row placed at `d`; `held` of the rows before."""
        plan, every = self.plan, self.every
        op = plan.workload.operators
        joined = covered = np.zeros(len(every), bool)
        credit, read = np.zeros(len(every)), np.zeros(len(every))
        for e in plan.into[row]:
            p = plan.edges[e][0]
            here = plan.on[e] & held[p]
            joined = joined | here
            covered = covered | (plan.on[e] & self.streaming[p])
            credit = credit + plan.on[e] * self.credit[p]
            read = read + here * plan.workload.edge_bytes[e] * 8 / op.out_bits[p]
        loose = ~resident[every, d]
        before = self.weights[every, d] + weight_bytes * ~covered * loose
        tile = plan.tile[row] + plan.ordered[row] * before + plan.reader_weights[row] * loose
        flows = plan.streamed[row] & (tile < plan.hold[row])
        streaming = flows & (arrived + tile <= space)
        whole = ~flows & (arrived + plan.hold[row] <= space)
        held = whole | streaming
        # a GPU's kernels
        moved = float(op.in_elements[row] + op.out_elements[row])
        matrix_reads = sum(
            plan.on[e] * op.is_matrix[plan.edges[e][1]] * plan.workload.edge_bytes[e] * 8 / op.out_bits[row]
            for e in plan.out_of[row]
        )
        gone = plan.streamed[row] & held
        paid = np.minimum(credit, ~gone * op.out_elements[row])
        left = np.maximum(moved - read - gone * op.out_elements[row] - held * matrix_reads - paid, 0.0)
        seconds = cost("exec_s", row) - joined * cost("launch_s", row) - (1 - left / moved) * cost("moving_s", row)
        rest = op.out_elements[row] if op.is_matrix[row] else credit - paid
        self.credit[row] = gone * rest / max(len(plan.out_of[row]), 1)
        self.streaming[row], self.kept[row] = streaming, whole * plan.hold[row]
        self.weights[every, d] = before * ~(streaming & plan.ordered[row])
        self.open[every, d] += streaming
        self.tiles[every, d] += streaming * tile
        self._taken = self.kept[row] + streaming * tile
        return np.maximum(seconds, 0.0), held

    def after(self, row, d, where, live):
        """Live bytes, `B x D`, after a row."""
        plan, every = self.plan, self.every
        live[every, d] += self._taken
        for p in {plan.edges[e][0] for e in plan.into[row]}:
            if plan.last[p] == row:
                live[every, where[:, p]] -= self.kept[p]
                self.open[every, where[:, p]] -= self.streaming[p]
        shut = self.open == 0
        live -= shut * self.tiles
        self.tiles[shut] = 0.0
        self.weights[shut] = 0.0
