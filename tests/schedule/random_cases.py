"""Random branching graphs, packages with slow memory, links and ports, and schedules on them."""

import equinox as eqx
import numpy as np

import perfmodel as pm
from perfmodel.hardware import mesh
from perfmodel.workload import GraphBuilder, operator_row


def graph(rng, least=6, most=24, name="random"):
    """A graph of products, convolutions, sums and element-wise rows in which a row reads up to three of the eight before it."""
    made, rows = GraphBuilder(name), []
    for i in range(int(rng.integers(least, most))):
        size, k = int(rng.integers(7, 56)), int(2 ** rng.integers(4, 9))
        kind = rng.choice(["conv", "gemm", "relu", "add"])
        inputs = []
        if rows and rng.random() > 0.1:
            inputs = sorted({int(r) for r in rng.choice(rows[-8:], size=min(len(rows), int(rng.integers(1, 4))))})
        if kind == "conv":
            row = operator_row("conv", k=k, c=int(2 ** rng.integers(4, 8)), p=size, q=size, r=3, s=3)
        elif kind == "gemm":
            row = operator_row("gemm", k=4 * k, c=int(2 ** rng.integers(5, 11)), p=size)
        else:
            row = operator_row(str(kind), k=k, p=size, q=size)
        rows.append(made.add(f"o{i}", row, inputs, outside_bytes=0.0 if inputs else float(10 ** rng.uniform(3, 6))))
    return made.build()


def package(rng, base):
    """`base` with memory at one corner or everywhere, and memory, links, ports and buffers of any width."""
    names = base.chiplet_names
    attached = list(range(len(names))) if rng.random() < 0.5 else [int(rng.integers(len(names)))]
    link = 10 ** rng.uniform(9, 10.7)
    made = mesh(
        base.package.positions, attached, names, link_bytes_per_s=link, port_bytes_per_s=link * 10 ** rng.uniform(-0.3, 0.5),
        hop_s=float(base.package.hop_s), hop_j_per_byte=1e-12,
    )  # fmt: skip
    rate = np.asarray([10 ** rng.uniform(9.3, 11)])
    return eqx.tree_at(
        lambda s: (s.package, s.memory.bytes_per_s, s.memory.write_bytes_per_s, s.chiplets.buffer_bytes),
        base,
        (made, rate, rate, base.chiplets.buffer_bytes * 10 ** rng.uniform(-1, 0.5)),
    )


def assignment(rng, n_operators, n_chiplets):
    """Operator by operator or in segments."""
    where = rng.integers(0, n_chiplets, n_operators).astype(np.int32)
    return where if rng.random() < 0.5 else np.sort(where)


def small_mesh():
    return pm.systems.load("mcm-2x2")
