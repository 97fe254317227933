"""One step of training: forward, backward and update of any graph, as a graph."""

from collections import defaultdict
from typing import NamedTuple

import numpy as np

from .._names import unknown_name
from ._graph import GraphBuilder, Workload, forced_out
from ._operators import COLLECTIVE_KINDS, DIMS, KINDS, MATRIX_KINDS, Operators, collective_row, operator_row

_GRADIENT_BITS = 32  # of parameters; gradients of activations have the activations' precision
_STATE_BYTES = 4  # parameters of the optimizer and its moments are fp32
# What the backward pass of a vector kind looks at again; kinds in neither are linear or only move data.
_INPUT_AGAIN = (
    "batch_norm", "layer_norm", "group_norm", "rms_norm", "gelu", "silu", "mul", "elementwise", "max_pool", "scan",
)  # fmt: skip
_OUTPUT_AGAIN = ("softmax", "relu", "sigmoid", "tanh")
# A sum over the row, then its elements: twice the lane operations of the forward pass.
_TWICE = ("batch_norm", "layer_norm", "group_norm", "rms_norm", "softmax", "scan")


class Optimizer(NamedTuple):
    """fp32 moments beside the fp32 parameters, and lane operations, a parameter each."""

    moments: int
    lane_ops: int


OPTIMIZERS = {"sgd": Optimizer(0, 2), "momentum": Optimizer(1, 4), "adam": Optimizer(2, 12)}

Edges = list[tuple[int, float]]  # (row, bytes)


def training_step(workload: Workload, optimizer: str = "adam") -> Workload:
    """Forward, backward and update of a model, from its forward graph.

    - Results that nobody reads are judged by a row `loss` each, which does a softmax's work and leaves their gradients.
    - Convolutions and GEMMs with weights get two rows of as many MACs: `dgrad`, the gradient of what they read (not where
      nothing before them learns), and `wgrad`, that of their weights, a product of two activations. A product of two
      activations gets a gradient of either operand. Other rows get one row `grad` of the same order of lane operations (twice
      as many for norms, softmax and scans).
    - Gradients run along the edges backwards, as many bytes; where several readers left one, a row `grad_sum` adds them up, and
      through sums they pass as they are. Whatever the backward pass looks at again is an edge from the forward row, so it
      stays live until then.
    - Parameters are updated at the end, a row of kind `optimizer` each: it is fed the gradients, fp32; reads the fp32
      parameters and moments from memory and writes them back, and the parameters once more in the precision of the weights
      (unless that is fp32).

    Total MACs are three times the forward ones less the `dgrad` of rows before which nothing learns. A weight that two rows
    share is updated once. `optimizer`: adam, momentum or sgd.

    Of a forward pass that is shared out (`shard`) gradients go back through collectives: through an all-reduce as they are, an
    all-gather becomes a reduce-scatter and the other way round, an exchange another one; what products that are cut by columns leave
    are parts of a sum, which an all-reduce adds up.

    Raises ValueError for an unknown optimizer, for several models at once (train each, then merge), for a folded workload, and for a stage
    that sends its results on (what comes back is not there).
    """
    if optimizer not in OPTIMIZERS:
        raise unknown_name("optimizer", optimizer, OPTIMIZERS)
    if workload.count is not None:
        raise ValueError(
            f"{workload.model_names[0]}: is folded; train the whole graph, its backward pass reads every layer"
        )
    if workload.n_models != 1:
        raise ValueError(f"{', '.join(workload.model_names)}: several models; train each, then merge")
    if np.any(np.asarray(workload.operators.kind) == KINDS.index("send")):
        raise ValueError(f"{workload.model_names[0]}: a stage of a pipeline; make the step of the whole pass")
    step = _Step(workload)
    for i in reversed(range(len(step.forward))):
        step.backward(i)
    for i in range(len(step.forward)):
        step.update(i, OPTIMIZERS[optimizer])
    return step.net.build()


class _Step:
    """The graph in the making. Row `i` of the forward graph is row `i` here."""

    def __init__(self, workload: Workload):
        w = workload
        self.net = net = GraphBuilder(w.model_names[0], int(w.batch[0]))
        net.kv_bytes_per_token, net.kv_tokens = float(w.kv_bytes_per_token[0]), float(w.kv_tokens[0])
        net.state_bytes = float(w.state_bytes[0])
        self.names, self.forward = w.names, _rows(w.operators)
        self.feeds: list[Edges] = [[] for _ in self.forward]
        self.outside = w.outside_in_bytes.tolist()
        readers = np.zeros(len(self.forward), bool)
        readers[w.source] = True
        for source, target, nbytes in zip(w.source.tolist(), w.target.tolist(), w.edge_bytes.tolist(), strict=True):
            self.feeds[target].append((source, nbytes))
        self.learns = [False] * len(self.forward)  # whether a gradient must come here
        for i, (row, feed) in enumerate(zip(self.forward, self.feeds, strict=True)):
            self.learns[i] = row["parameters"] > 0 or _weighted(row) or any(self.learns[source] for source, _ in feed)
            net.add(w.names[i], row, feed, self.outside[i])
        for i, nbytes in enumerate(forced_out(w).tolist()):
            net.rows[i]["outside_out_bytes"] = nbytes
        self.gradients: dict[int, Edges] = defaultdict(list)  # of the results of forward rows
        self.of_weights: dict[int, Edges] = defaultdict(list)
        self.owners = _owners(self.forward)
        self.losses: set[int] = set()
        self.parts: dict[int, int] = {}  # rows that leave parts of a sum: how many ranks have the others
        for i in np.flatnonzero(~readers).tolist():
            if self.learns[i]:
                self._loss(i)

    def _loss(self, i: int) -> None:
        row, whole = self.forward[i], self._whole(i)
        loss = self._vector(
            "softmax",
            row,
            row["out_elements"],
            row["out_elements"],
            5 * row["out_elements"],
            row["out_bits"],
            row["out_bits"],
        )
        here = self.net.add(f"{self.names[i]}.loss", loss, [(i, whole)])
        self.losses.add(here)
        self.gradients[i].append((here, whole))

    def _whole(self, i: int) -> float:
        return self.forward[i]["out_elements"] * self.forward[i]["out_bits"] / 8

    def backward(self, i: int) -> None:
        """The gradient rows of forward row `i`; those of all its readers are there already."""
        row = self.forward[i]
        if not self.learns[i] or not self.gradients[i]:
            return
        if KINDS[row["kind"]] in COLLECTIVE_KINDS:
            self._of_collective(i)
            return
        if self._passes(i):
            for source, _ in self.feeds[i]:
                self._flows(self.gradients[i], source)
            return
        grad, elements = self._gradient(i)
        if KINDS[row["kind"]] not in MATRIX_KINDS:
            self._of_vector(i, grad, elements)
        elif _weighted(row):
            self._of_weights(i, grad, elements)
        else:
            self._of_product(i, grad, elements)

    def _passes(self, i: int) -> bool:
        """Whether what a row reads has the gradient of its result: sums of equals."""
        row, whole = self.forward[i], self._whole(i)
        return KINDS[row["kind"]] == "add" and not row["parameters"] and all(b == whole for _, b in self.feeds[i])

    def _gradient(self, i: int) -> tuple[Edges, int]:
        """Where the gradient of a result lies, and how many elements of it: added up where readers left several."""
        row, edges = self.forward[i], self.gradients[i]
        elements = round(sum(nbytes for _, nbytes in edges) * 8 / row["out_bits"])
        if elements <= row["out_elements"]:
            return self._whole_sum(i, edges, elements), elements
        total = self._vector(
            "add", row, elements, row["out_elements"], elements - row["out_elements"], row["out_bits"], row["out_bits"]
        )
        added = [(self.net.add(f"{self.names[i]}.grad_sum", total, edges), self._whole(i))]
        self._inherit(added, edges)
        return self._whole_sum(i, added, row["out_elements"]), row["out_elements"]

    def _inherit(self, made: Edges, edges: Edges) -> None:
        for ranks in [self.parts[of] for of, _ in edges if of in self.parts]:
            self.parts[made[0][0]] = ranks

    def _whole_sum(self, i: int, edges: Edges, elements: int) -> Edges:
        """The gradient of row i where ranks that share its readers have parts of it: added up, unless a scatter behind it does."""
        row = self.forward[i]
        ranks = [self.parts[of] for of, _ in edges if of in self.parts]
        if not ranks or KINDS[row["kind"]] == "all_gather":
            return edges
        total = collective_row("all_reduce", elements, ranks[0], bits=row["out_bits"])
        return [(self.net.add(f"{self.names[i]}.grad_all_reduce", total, edges), sum(nbytes for _, nbytes in edges))]

    def _of_collective(self, i: int) -> None:
        row, name, feed = self.forward[i], self.names[i], self.feeds[i]
        kind, ranks, step = KINDS[row["kind"]], row["ranks"], row["rank_step"]
        last = any(of in self.losses for of, _ in self.gradients[i])
        if kind == "all_reduce" or (
            kind == "all_gather" and last
        ):  # every rank has the gradient of all, and takes its own
            edges = self._gradient(i)[0] if any(of in self.parts for of, _ in self.gradients[i]) else self.gradients[i]
            for source, nbytes in feed:
                part = nbytes / max(sum(b for _, b in edges), 1.0) if kind == "all_gather" else 1.0
                self._flows([(of, b * part) for of, b in edges], source)
            return
        back = {"all_gather": "reduce_scatter", "reduce_scatter": "all_gather", "all_to_all": "all_to_all"}[kind]
        edges, _ = self._gradient(i)
        whole = row["in_elements"] if kind == "reduce_scatter" else row["out_elements"]
        made = collective_row(back, whole, ranks, bits=row["in_bits"], rank_step=step)
        self._left(self.net.add(f"{name}.grad", made, edges), feed)

    def _flows(self, edges: Edges, source: int) -> None:
        if self.learns[source]:
            self.gradients[source] += edges

    def _left(self, made: int, feed: Edges) -> None:
        """Row `made` holds the gradient of what a row reads through `feed`."""
        for source, nbytes in feed:
            self._flows([(made, nbytes)], source)

    def _of_weights(self, i: int, grad: Edges, elements: int) -> None:
        row, bits = self.forward[i], self.forward[i]["out_bits"]
        products = row["k"] * row["c"] * row["r"] * row["s"] * row["groups"]
        if any(self.learns[source] for source, _ in self.feeds[i]):
            shape = {name: row[name] for name in DIMS} | {"k": row["c"], "c": row["k"]}
            of_input = operator_row(
                "conv" if KINDS[row["kind"]] == "conv" else "gemm", **shape, in_elements=elements, out_elements=row["in_elements"],
                parameters=0, weight_elements=row["weight_elements"], lane_ops=row["lane_ops"],
                bits=bits, weight_bits=row["weight_bits"], out_bits=row["in_bits"],
            )  # fmt: skip
            made = self.net.add(f"{self.names[i]}.dgrad", of_input, grad)
            if row["ranks"] > 1:
                self.parts[made] = row["ranks"]
            self._left(made, self.feeds[i])
        read = row["in_elements"] + elements
        of_weights = operator_row(
            "attention_gemm", groups=row["groups"], p=row["c"] * row["r"] * row["s"], k=row["k"], c=row["batch"] * row["p"] * row["q"],
            in_elements=read, out_elements=max(row["weight_elements"], 1), bits=_GRADIENT_BITS,
            in_bits=(row["in_elements"] * row["in_bits"] + elements * bits) / read,
            lane_ops=row["out_elements"] if row["weight_elements"] > products else 0,  # biases: a sum over rows
        )  # fmt: skip
        made = self.net.add(f"{self.names[i]}.wgrad", of_weights, [*self.feeds[i], *grad], self.outside[i])
        self.of_weights[self.owners[i]].append((made, row["weight_elements"] * _GRADIENT_BITS / 8))

    def _of_product(self, i: int, grad: Edges, elements: int) -> None:
        row, name = self.forward[i], self.names[i]
        groups, n, k, c = row["groups"], row["batch"], row["k"], row["c"] * row["r"] * row["s"]
        rows = row["p"] * row["q"]
        first = min(groups * n * rows * row["c"], row["in_elements"])
        second = row["in_elements"] - first
        a, b = self._operands(i, first)
        bits = dict(bits=row["out_bits"], in_bits=row["in_bits"], out_bits=row["in_bits"])
        if any(self.learns[source] for source, _ in a):
            of_a = operator_row(
                "attention_gemm", groups=groups, batch=n, p=rows, k=c, c=k, in_elements=elements + second,
                out_elements=max(first, 1), **bits,
            )  # fmt: skip
            self._left(self.net.add(f"{name}.grad_a", of_a, [*grad, *b], self.outside[i] * (not b)), a)
        if any(self.learns[source] for source, _ in b):
            of_b = operator_row(
                "attention_gemm", groups=groups, batch=n, p=c, k=k, c=rows, in_elements=elements + first,
                out_elements=max(second, 1), **bits,
            )  # fmt: skip
            self._left(self.net.add(f"{name}.grad_b", of_b, [*a, *grad], self.outside[i] * (not a)), b)

    def _operands(self, i: int, first: int) -> tuple[Edges, Edges]:
        """The edges of a product's first operand of `first` elements, and of its second; edges come in this order."""
        a, b, left = [], [], float(first)
        for source, nbytes in self.feeds[i]:
            width = self.forward[source]["out_bits"] / 8
            mine = min(nbytes, left * width)
            left -= mine / width
            a += [(source, mine)] * (mine > 0)
            b += [(source, nbytes - mine)] * (nbytes > mine)
        return a, b

    def _of_vector(self, i: int, grad: Edges, elements: int) -> None:
        row, kind = self.forward[i], KINDS[self.forward[i]["kind"]]
        onward = any(self.learns[source] for source, _ in self.feeds[i])
        parameters = row["parameters"]
        if not onward and not parameters:
            return
        again, more, outside = [], 0, 0.0
        if kind in _INPUT_AGAIN:
            again, more, outside = self.feeds[i], row["in_elements"], self.outside[i]
        elif kind in _OUTPUT_AGAIN:
            again, more = [(i, self._whole(i))], row["out_elements"]
        reads, of_input = elements + more, row["in_elements"] if onward else 0
        in_bits = (
            elements * row["out_bits"] + more * (row["in_bits"] if kind in _INPUT_AGAIN else row["out_bits"])
        ) / reads
        out_bits = (of_input * row["in_bits"] + parameters * _GRADIENT_BITS) / (of_input + parameters)
        ops = row["lane_ops"] * (2 if kind in _TWICE else 1)
        back = self._vector(kind, row, reads, of_input + parameters, ops, in_bits, out_bits)
        back |= dict(weight_elements=row["weight_elements"], weight_bits=row["weight_bits"])
        made = self.net.add(f"{self.names[i]}.grad", back, [*grad, *again], outside)
        self._left(made, self.feeds[i])
        if parameters:
            self.of_weights[i].append((made, parameters * _GRADIENT_BITS / 8))

    @staticmethod
    def _vector(kind: str, row: dict, reads: int, leaves: int, ops: int, in_bits: float, out_bits: float) -> dict:
        shape = {name: row[name] for name in ("groups", "batch", "k", "p", "q")}
        return operator_row(
            kind, **shape, in_elements=reads, out_elements=leaves, lane_ops=ops, bits=out_bits, in_bits=in_bits
        )

    def update(self, i: int, optimizer: Optimizer) -> None:
        """The row that changes the parameters stored with forward row `i`."""
        n = self.forward[i]["parameters"]
        if not n or i not in self.of_weights:
            return
        bits, state = self.forward[i]["weight_bits"], 1 + optimizer.moments
        k = min(n, 2**20)
        gradients = round(sum(nbytes for _, nbytes in self.of_weights[i]) * 8 / _GRADIENT_BITS)
        row = operator_row(
            "optimizer", k=k, p=-(-n // k), in_elements=gradients + state * n, out_elements=n, lane_ops=optimizer.lane_ops * n, bits=32,
            out_bits=bits,
        )  # fmt: skip
        kept = state if bits < 8 * _STATE_BYTES else state - 1  # an fp32 weight is its own master copy
        self.net.state_bytes += n * kept * _STATE_BYTES
        self.net.add(
            f"{self.names[i]}.update", row, self.of_weights[i], n * state * _STATE_BYTES, n * kept * _STATE_BYTES
        )


def _rows(operators: Operators) -> list[dict]:
    """Rows as the dictionaries that `operator_row` makes, with exact integers."""
    columns = {name: np.asarray(getattr(operators, name)).tolist() for name in Operators.__dataclass_fields__}
    whole = ("lane_ops", "in_elements", "out_elements", "parameters", "weight_elements", "ranks", "rank_step")
    columns |= {name: [int(value) for value in columns[name]] for name in whole}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _weighted(row: dict) -> bool:
    """Whether a row multiplies by weights (a tied head's are stored elsewhere)."""
    return row["is_matrix"] > 0 and KINDS[row["kind"]] != "attention_gemm" and row["weight_elements"] > 0


def _owners(rows: list[dict]) -> list[int]:
    """Of each row the one that stores its weights: itself, or for shared weights an earlier row that stores as many (among
    them an embedding of as many or more)."""
    owners, stored, table = [], {}, None
    for i, row in enumerate(rows):
        n = row["parameters"]
        if n:
            stored.setdefault(n, i)
            if KINDS[row["kind"]] == "embedding" and (table is None or n > rows[table]["parameters"]):
                table = i
            owners.append(i)
            continue
        of_table = table is not None and rows[table]["parameters"] >= row["weight_elements"]
        owners.append(stored.get(row["weight_elements"], table if of_table else i))
    return owners
