"""Rows that are one launch of several operators (`attention`, `experts`) as the loop nests they are made of, for machines without kernels.

Attention is two products, scores and values, and lane work; a layer of experts the gate and up products side by side, then the down
products, of the experts that have any row.
"""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .._software import Software
from ..workload import FUSED_KINDS, KINDS, Operators

_PRODUCT, _GEMM = KINDS.index("attention_gemm"), KINDS.index("gemm")


class Fused(NamedTuple):
    """Whether a workload has rows of the kinds that are several operators (static: what no row needs is left out)."""

    attention: bool = True
    experts: bool = True


ANY, NO = Fused(), Fused(False, False)


def fused_kinds(operators: Operators, software: Software) -> Fused:
    """Of a workload on a machine with this software. Where kinds are traced, all that the software makes."""
    if isinstance(operators.kind, Tracer):
        return Fused(software.attention, software.experts)
    kinds = np.asarray(operators.kind)
    return Fused(*(bool(np.any(kinds == KINDS.index(kind))) for kind in FUSED_KINDS))


def experts_held(op: Operators):
    """Experts of a row of kind `experts`: its parameters are theirs (a few more are the router's)."""
    k, c = jnp.asarray(op.k, float), jnp.asarray(op.c, float)
    return jnp.maximum(jnp.round(op.parameters / (3.0 * k * c)), 1.0)


def products_of(op: Operators) -> tuple[Operators, Operators]:
    """The first and the second product of rows of those kinds, elementwise; other rows are as they were in the first."""
    g, n, k, c, p, q = (jnp.asarray(x, float) for x in (op.groups, op.batch, op.k, op.c, op.p, op.q))
    attention, experts = op.is_fused_attention, op.is_experts
    queries = g * n * p * q
    value = op.out_elements / queries
    active = jnp.minimum(experts_held(op), p)  # experts with a row
    cached = op.in_elements - queries * (c - value)

    def product(is_first: bool) -> Operators:
        def pick(of_attention, of_experts, plain):
            return jnp.where(attention, of_attention, jnp.where(experts, of_experts, plain))

        keys = (c - value) / c
        read = pick(
            queries * (c - value) + cached * keys if is_first else queries * k + cached * (1.0 - keys),
            p * c if is_first else p * k, op.in_elements,
        )  # fmt: skip
        made = dict(
            groups=pick(g * n, active, g), batch=pick(1.0, 1.0, n), p=pick(p * q, p / active, p), q=pick(1.0, 1.0, q),
            r=pick(1.0, 1.0, jnp.asarray(op.r, float)),
            k=pick(k if is_first else value, 2.0 * k if is_first else c, k), c=pick(c - value if is_first else k, c if is_first else k, c),
            kind=jnp.where(attention, _PRODUCT, jnp.where(experts, _GEMM, op.kind)), in_elements=read,
            out_elements=pick(queries * k if is_first else op.out_elements, p * 2.0 * k if is_first else p * c, op.out_elements),
            weight_elements=pick(0.0, op.weight_elements * (2.0 if is_first else 1.0) / 3.0, op.weight_elements),
        )  # fmt: skip
        return eqx.tree_at(lambda o: [getattr(o, name) for name in made], op, list(made.values()))

    return product(True), product(False)
