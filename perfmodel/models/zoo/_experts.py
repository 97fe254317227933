"""Mixture of experts: a router, the tokens at the experts it chose, and what they add up to."""

from .._net import Net, Tensor
from ._passes import Pass
from ._records import Transformer

_BUCKETS = 4  # of experts with even loads; two levels each, so at most eight rows a dense layer


def expert_loads(tokens: int, chosen: int, count: int, imbalance: float = 0.0) -> list[int]:
    """Tokens at each expert that has any, most first; they add up to `tokens * chosen`, and none has more than `tokens`.

    `imbalance`: exponent `a` of a power law, expert i wants a share in proportion to i^-a; 0: even. Experts are taken together
    in four buckets of geometric size with even loads inside. Few tokens spread over as many experts as they can.
    """
    total, left = tokens * chosen, count
    wanted = [float(i) ** -imbalance for i in range(1, count + 1)]
    edges = [0, *sorted({round(count ** (i / _BUCKETS)) for i in range(1, _BUCKETS)} - {0, count}), count]
    if not imbalance:
        edges = [0, count]
    loads: list[int] = []
    for begin, end in zip(edges[:-1], edges[1:], strict=True):
        size, left = end - begin, count - end
        share = sum(wanted[begin:end]) / max(sum(wanted[begin:]), 1e-300)  # of a steep law nothing is left for the last
        of_bucket = min(max(round(total * min(share, 1.0)), total - left * tokens), size * tokens, total)
        loads += _even(of_bucket, size)
        total -= of_bucket
    return loads


def _even(total: int, size: int) -> list[int]:
    active = min(size, total)
    least, more = divmod(total, max(active, 1))
    return [least + 1] * more + [least] * (active - more)


def mixture(net: Net, label: str, x: Tensor, spec: Transformer, run: Pass) -> Tensor:
    """A layer of gated experts on `x`, (batch, tokens, width): router, dispatch, experts, combination, shared expert.

    Weights of experts without tokens are stored but not read.
    """
    experts, activation = spec.experts, spec.activation
    assert experts is not None
    width, rows = x.shape[-1], x.elements // x.shape[-1]
    scores = net.vector(
        f"{label}.router.{experts.router}", experts.router, net.linear(f"{label}.router", x, experts.count)
    )
    chosen = net.vector(
        f"{label}.top_k", "top_k", scores, shape=(rows, experts.chosen), parameters=experts.count * experts.corrected
    )
    loads = expert_loads(rows, experts.chosen, experts.count, run.imbalance)
    sent = net.vector(f"{label}.dispatch", "gather", x, chosen, shape=(rows * experts.chosen, width))
    gate = net.experts(f"{label}.experts.gate", sent, experts.hidden, loads, experts.count)
    gate = net.vector(f"{label}.experts.{activation}", activation, gate)
    up = net.experts(f"{label}.experts.up", sent, experts.hidden, loads, experts.count)
    hidden = net.vector(f"{label}.experts.mul", "mul", gate, up)
    out = net.experts(f"{label}.experts.down", hidden, width, loads, experts.count)
    # each expert's result times its weight, added up
    out = net.vector(f"{label}.combine", "reduce", out, chosen, shape=x.shape, lane_ops=2 * out.elements)
    if not experts.shared:
        return out
    shared = gated_mlp(net, f"{label}.shared", x, experts.shared, activation)
    if experts.shared_gate:
        gate = net.vector(f"{label}.shared.gate.sigmoid", "sigmoid", net.linear(f"{label}.shared.scale", x, 1))
        shared = net.vector(f"{label}.shared.scaled", "mul", shared, gate)
    return net.vector(f"{label}.add", "add", out, shared)


def gated_mlp(
    net: Net, label: str, x: Tensor, hidden: int, activation: str, *, bias: bool = False, fused: bool = False
) -> Tensor:
    """down(activation(gate(x)) * up(x)); `fused`: gate and up are one GEMM."""
    if fused:
        gate, up = net.split(net.linear(f"{label}.gate_up", x, 2 * hidden, bias=bias), hidden, hidden, axis=-1)
        gate = net.vector(f"{label}.{activation}", activation, gate)
    else:
        gate = net.vector(f"{label}.{activation}", activation, net.linear(f"{label}.gate", x, hidden, bias=bias))
        up = net.linear(f"{label}.up", x, hidden, bias=bias)
    return net.linear(f"{label}.down", net.vector(f"{label}.mul", "mul", gate, up), x.shape[-1], bias=bias)
