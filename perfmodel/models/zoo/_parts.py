"""Parts that several families share."""

from collections.abc import Callable
from math import prod

from .._net import Net, Tensor


def attention(net: Net, label: str, q: Tensor, k: Tensor, v: Tensor, heads: int, *,
              bias: Callable[[Tensor], Tensor] | None = None) -> Tensor:  # fmt: skip
    """Softmax attention of `heads` heads: scores, softmax, values. Shapes (..., tokens, width); leading axes are independent.

    `bias` is applied to the scores, (groups, queries, keys), before the softmax. The scale is part of the weights of `q`."""
    *lead, queries, width = q.shape
    groups, keys = prod(lead) * heads, k.shape[-2]
    scores = net.product(f"{label}.scores", q, k, groups=groups, p=queries, k=keys, c=width // heads)
    if bias is not None:
        scores = bias(scores)
    weights = net.vector(f"{label}.softmax", "softmax", scores, groups=groups)
    return net.product(
        f"{label}.values", weights, v, groups=groups, p=queries, k=v.shape[-1] // heads, c=keys, shape=(*lead, queries, v.shape[-1])
    )  # fmt: skip


def self_attention(
    net: Net, label: str, x: Tensor, heads: int, *, bias: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Multi-head self-attention with one GEMM for queries, keys and values and an output projection, all with biases."""
    width = x.shape[-1]
    q, k, v = net.split(net.linear(f"{label}.qkv", x, 3 * width, bias=True), width, width, width, axis=-1)
    return net.linear(f"{label}.proj", attention(net, label, q, k, v, heads, bias=bias), width, bias=True)


def mlp(net: Net, label: str, x: Tensor, hidden: int, activation: str = "gelu") -> Tensor:
    """Two dense layers with biases and an activation between them."""
    out = net.vector(f"{label}.{activation}", activation, net.linear(f"{label}.fc1", x, hidden, bias=True))
    return net.linear(f"{label}.fc2", out, x.shape[-1], bias=True)


def multiple_of(name: str, field: str, value: int, divisor: int) -> int:
    """`value`, or ValueError where it is no multiple of `divisor`."""
    if value % divisor:
        raise ValueError(f"{name}: {field} is {value}; allowed: a multiple of {divisor}")
    return value
