"""A family in a trace: all leaves that depend on batch and length are one product of a matrix and the features."""

from math import prod

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..workload import Workload
from ..workload._fold import Folding, folded
from ._interpolation import Sums
from ._pieces import MORE, NOBODY, Feature, Pieces, product
from ._samples import OF_MODELS, OF_OPERATORS, OF_ROWS, TOTALS

_MEANS = {f"{side}_bits": (f"{side}_total", f"{side}_elements") for side in ("in", "out")}


class Leaves(eqx.Module):
    """A pytree, so that it can be an argument of a compiled program (names are static).

    - `template`: the workload at one point; leaves that depend on nothing are its own.
    - `coefficients`: of the others, below one another, in `features`.  `layout`: name, first row and shape of each.
    - `means`: rows whose bits are a mean over elements, by name.  `more`: rows of experts with one token more, or None.
    """

    template: Workload
    coefficients: Float[Array, "R K"]
    means: dict[str, Bool[Array, "L"]]
    more: Bool[Array, "L"] | None
    features: tuple[Feature, ...] = eqx.field(static=True)
    layout: tuple[tuple[str, int, tuple[int, ...]], ...] = eqx.field(static=True)
    pieces: Pieces = eqx.field(static=True)

    def __call__(self, batch: Float[Array, ""], length: Float[Array, ""]) -> Workload:
        dtype = jnp.result_type(float)
        at = self.pieces.traced(batch, length)
        features = jnp.stack([jnp.asarray(product(f, at), dtype) for f in self.features])
        # full float32 wherever it runs: tensor cores round to 10 bits unless told not to
        values = jnp.matmul(jnp.asarray(self.coefficients, dtype), features, precision=jax.lax.Precision.HIGHEST)
        leaves = {name: values[i : i + prod(shape)].reshape(shape) for name, i, shape in self.layout}
        w, op = self.template, self.template.operators
        for name, (total, elements) in _MEANS.items():
            if self.means[name].any():
                n = jnp.asarray(leaves[elements] if elements in leaves else getattr(op, elements), dtype)
                mean = leaves[total] / jnp.where(n > 0, n, 1.0)
                leaves[name] = jnp.where(self.means[name], mean, jnp.asarray(getattr(op, name), dtype))
        if self.more is not None:
            count = jnp.ones(w.n_operators, dtype) if w.count is None else jnp.asarray(w.count, dtype)
            leaves["count"] = jnp.where(self.more & (at[NOBODY] > 0), 0.0, count)
        return _with(self.template, {name: value for name, value in leaves.items() if name not in TOTALS})


def _with(w: Workload, leaves: dict) -> Workload:
    """A workload with other leaves, by name."""
    of_rows = [name for name in leaves if name in OF_OPERATORS]
    of_all = [name for name in leaves if name not in OF_OPERATORS]

    def where(w: Workload) -> list:
        own = [getattr(w, "batch" if name == "inferences" else name) for name in of_all]
        return [getattr(w.operators, name) for name in of_rows] + own

    return eqx.tree_at(where, w, [leaves[name] for name in (*of_rows, *of_all)], is_leaf=lambda x: x is None)


def leaves_of(
    template: Workload, sums: Sums, of: dict[str, np.ndarray], means: dict[str, np.ndarray], more: np.ndarray | None,
    pieces: Pieces, by: Folding | None = None,
) -> Leaves:  # fmt: skip
    """What depends on batch and length of `template`, whose numbers are the sums `of` says, folded or whole."""
    if by is not None:
        edges = by.count[template.target] > 0
        of = (
            of
            | {name: of[name][by.rows] for name in (*OF_ROWS, "live_bytes")}
            | {"edge_bytes": of["edge_bytes"][edges]}
        )
        means = {name: rows[by.rows] for name, rows in means.items()}
        more = None if more is None else more[by.rows]
        template = folded(template, by)
    if more is not None:
        sums, of = _of_nobody(sums, of, template, more)
    sums, (zero,) = sums.added(np.zeros((1, len(sums.features)), object))
    of = of | {"input_bytes": by_input(template, of["edge_bytes"], zero)}
    varies, layout, rows = sums.varies, [], []
    for name in (*OF_ROWS, "live_bytes", "edge_bytes", "input_bytes", *OF_MODELS):
        if varies[of[name]].any():
            layout.append((name, sum(len(r) for r in rows), of[name].shape))
            rows.append(of[name].reshape(-1))
    table = sums.coefficients[np.concatenate(rows)] if rows else np.zeros((0, len(sums.features)))
    used = (table != 0).any(axis=0)
    features = tuple(f for f, use in zip(sums.features, used, strict=True) if use) or ((),)
    table = table[:, used] if used.any() else np.zeros((0, 1))
    return Leaves(template, table, means, more, features, tuple(layout), pieces)


def _of_nobody(sums: Sums, of: dict, w: Workload, more: np.ndarray) -> tuple[Sums, dict]:
    """Rows of experts that get more, where none does: of the sizes of one, to be counted 0 times (nothing is divided by 0)."""
    own = {name: more for name in (*OF_OPERATORS, *TOTALS)} | {"edge_bytes": more[w.target]}
    some = [k for k, feature in enumerate(sums.features) if MORE in feature]
    one = tuple(tuple(NOBODY if q == MORE else q for q in sums.features[k]) for k in some)
    table = np.concatenate([sums.table, np.zeros((len(sums.table), len(one)), object)], axis=1)
    sums = sums._replace(features=(*sums.features, *one), table=table)
    for name, rows in own.items():
        filled = sums.table[of[name][rows]].copy()
        filled[:, len(filled.T) - len(one) :] = filled[:, some]
        sums, where = sums.added(filled)
        of = of | {name: of[name].copy()}
        of[name][rows] = where
    return sums, of


def by_input(w: Workload, of_edges: np.ndarray, none: int) -> np.ndarray:
    """What is of edges by row and input, `[L, I]`: inputs of a row are its edges in their order."""
    found, seen = np.full(w.inputs.shape, none), np.zeros(w.n_operators, int)
    for target, value in zip(w.target.tolist(), of_edges.tolist(), strict=True):
        found[target, seen[target]] = value
        seen[target] += 1
    return found
