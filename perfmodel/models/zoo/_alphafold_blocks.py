"""The Evoformer block of AlphaFold2 and what its template stack shares with it (supplementary algorithms 6 to 17, 19)."""

from .._net import Net, Tensor
from ._parts import attention

_HIDDEN, _OUTER = 32, 32  # channels of a head; of each side of the outer product
_TEMPLATE, _TEMPLATE_FEATURES, _TEMPLATE_BLOCKS = 64, 88, 2


class Shared(Net):
    """A net of which parts run again with the parameters that they had: while `stored` is False, rows read weights that
    an earlier row stores."""

    stored = True

    def add(self, name: str, row: dict, *args, **more) -> int:
        return super().add(name, row if self.stored else {**row, "parameters": 0}, *args, **more)


def evoformer_block(net: Net, label: str, msa: Tensor, pair: Tensor, *, whole: bool = True) -> tuple[Tensor, Tensor]:
    """A block (algorithm 6), or one of the extra MSA stack (algorithm 18) with global attention down the columns, unless `whole`."""
    residues = msa.shape[1]
    samples = pair.shape[0] // residues
    msa = _msa_row_attention(net, f"{label}.msa_row", msa, pair, _HIDDEN if whole else 8)
    msa = (_msa_column_attention if whole else _msa_global_attention)(net, f"{label}.msa_column", msa, samples)
    msa = transition(net, f"{label}.msa_transition", msa, 4)
    pair = _outer_product_mean(net, f"{label}.outer", msa, pair, samples)
    for way in ("outgoing", "incoming"):
        pair = triangle_product(net, f"{label}.triangle_{way}", pair, samples)
    for way in ("starting", "ending"):
        pair = triangle_attention(net, f"{label}.triangle_{way}", pair, way == "ending")
    pair = transition(net, f"{label}.pair_transition", pair, 4)
    return msa, pair


def _gated(net: Net, label: str, x: Tensor, source: Tensor, out: int) -> Tensor:
    """What attention found, times a gate made from its input, projected."""
    gate = net.vector(f"{label}.sigmoid", "sigmoid", net.linear(f"{label}.gate", source, x.shape[-1], bias=True))
    return net.linear(f"{label}.out", net.vector(f"{label}.gated", "mul", x, gate), out, bias=True)


def _gated_attention(net: Net, label: str, x: Tensor, heads: int, head: int, bias: Tensor | None = None) -> Tensor:
    width = heads * head
    q, k, v = net.split(net.linear(f"{label}.qkv", x, 3 * width), width, width, width, axis=-1)

    def add(scores: Tensor) -> Tensor:
        return scores if bias is None else net.vector(f"{label}.bias", "add", scores, bias, groups=scores.shape[0])

    return _gated(net, label, attention(net, label, q, k, v, heads, bias=add), x, x.shape[-1])


def _msa_row_attention(net: Net, label: str, msa: Tensor, pair: Tensor, head: int) -> Tensor:
    """Algorithm 7: along each sequence, with a bias from the pair representation."""
    bias = net.linear(f"{label}.pair", net.norm(f"{label}.pair_norm", "layer_norm", pair), 8)
    out = _gated_attention(net, label, net.norm(f"{label}.norm", "layer_norm", msa), 8, head, bias)
    return net.vector(f"{label}.add", "add", msa, out)


def _msa_column_attention(net: Net, label: str, msa: Tensor, samples: int) -> Tensor:
    """Algorithm 8: down each column, over sequences."""
    columns, back = _exchanged(net, label, msa, samples)
    out = _gated_attention(net, label, net.norm(f"{label}.norm", "layer_norm", columns), 8, _HIDDEN)
    return net.vector(f"{label}.add", "add", msa, back(out))


def _msa_global_attention(net: Net, label: str, msa: Tensor, samples: int) -> Tensor:
    """Algorithm 19: one query a head and column, the mean over sequences; keys and values have one head."""
    columns, back = _exchanged(net, label, msa, samples)
    x = net.norm(f"{label}.norm", "layer_norm", columns)
    groups, sequences, width = x.shape
    heads = 8
    mean = net.vector(f"{label}.mean", "reduce", x, shape=(groups, width))
    q = net.linear(f"{label}.q", mean, width).reshaped(groups, heads, width // heads)
    k, v = (net.linear(f"{label}.{part}", x, width // heads) for part in "kv")
    found = attention(net, label, q, k, v, 1).reshaped(groups, 1, width)
    gate = net.vector(f"{label}.sigmoid", "sigmoid", net.linear(f"{label}.gate", x, width, bias=True))
    out = net.linear(f"{label}.out", net.vector(f"{label}.gated", "mul", gate, found), width, bias=True)
    return net.vector(f"{label}.add", "add", msa, back(out))


def _exchanged(net: Net, label: str, x: Tensor, samples: int):
    """(samples * rows, columns, width) as (samples * columns, rows, width), and the way back."""
    rows, columns, width = x.shape[0] // samples, *x.shape[1:]
    there = net.vector(f"{label}.exchange", "copy", x, shape=(samples * columns, rows, width))

    def back(out: Tensor) -> Tensor:
        return net.vector(f"{label}.exchange_back", "copy", out, shape=(samples * rows, columns, out.shape[-1]))

    return there, back


def transition(net: Net, label: str, x: Tensor, factor: int) -> Tensor:
    """Algorithms 9 and 15: two dense layers, ReLU between them."""
    out = net.linear(f"{label}.0", net.norm(f"{label}.norm", "layer_norm", x), factor * x.shape[-1], bias=True)
    out = net.linear(f"{label}.1", net.vector(f"{label}.relu", "relu", out), x.shape[-1], bias=True)
    return net.vector(f"{label}.add", "add", x, out)


def _outer_product_mean(net: Net, label: str, msa: Tensor, pair: Tensor, samples: int) -> Tensor:
    """Algorithm 10: for each pair of residues the outer product of their columns, mean over sequences, projected."""
    sequences, residues = msa.shape[0] // samples, msa.shape[1]
    both = net.linear(f"{label}.sides", net.norm(f"{label}.norm", "layer_norm", msa), 2 * _OUTER, bias=True)
    a, b = net.split(both, _OUTER, _OUTER, axis=-1)
    side = residues * _OUTER
    outer = net.product(
        f"{label}.product", a, b, groups=samples, p=side, k=side, c=sequences, shape=(samples * residues, residues, _OUTER**2)
    )  # fmt: skip
    return net.vector(f"{label}.add", "add", pair, net.linear(f"{label}.out", outer, pair.shape[-1], bias=True))


def triangle_product(net: Net, label: str, pair: Tensor, samples: int) -> Tensor:
    """Algorithms 11 and 12: edge ij from all pairs of edges ik, jk: a product of residues x residues matrices a channel."""
    width, residues = pair.shape[-1], pair.shape[1]
    x = net.norm(f"{label}.norm", "layer_norm", pair)
    gate = net.vector(f"{label}.sigmoid_in", "sigmoid", net.linear(f"{label}.gate_in", x, 2 * width, bias=True))
    sides = net.vector(f"{label}.gated_in", "mul", net.linear(f"{label}.sides", x, 2 * width, bias=True), gate)
    a, b = net.split(sides, width, width, axis=-1)
    out = net.product(
        f"{label}.product", a, b, groups=samples * width, p=residues, k=residues, c=residues, shape=pair.shape
    )  # fmt: skip
    out = net.linear(f"{label}.out", net.norm(f"{label}.norm_out", "layer_norm", out), width, bias=True)
    gate = net.vector(f"{label}.sigmoid", "sigmoid", net.linear(f"{label}.gate", x, width, bias=True))
    return net.vector(f"{label}.add", "add", pair, net.vector(f"{label}.gated", "mul", out, gate))


def triangle_attention(net: Net, label: str, pair: Tensor, ending: bool, head: int = _HIDDEN) -> Tensor:
    """Algorithms 13 and 14: edges that share a node look at each other, with a bias from the third edge; four heads."""
    samples = pair.shape[0] // pair.shape[1]
    x, back = _exchanged(net, f"{label}_node", pair, samples) if ending else (pair, lambda out: out)
    x = net.norm(f"{label}_node.norm", "layer_norm", x)
    bias = net.linear(f"{label}_node.edge", x, 4)
    out = back(_gated_attention(net, f"{label}_node", x, 4, head, bias))
    return net.vector(f"{label}_node.add", "add", pair, out)


def template_embedding(net: Net, label: str, pair: Tensor, templates: int) -> Tensor:
    """Algorithms 16 and 17: a small pair stack for each template, then each pair attends to its own in all templates."""
    rows, residues, width = pair.shape
    x = net.linear(f"{label}.embed", net.input(templates * rows, residues, _TEMPLATE_FEATURES), _TEMPLATE, bias=True)
    for i in range(_TEMPLATE_BLOCKS):
        at = f"{label}.{i}"
        for way in ("starting", "ending"):
            x = triangle_attention(net, f"{at}.triangle_{way}", x, way == "ending", _TEMPLATE // 4)
        for way in ("outgoing", "incoming"):
            x = triangle_product(net, f"{at}.triangle_{way}", x, templates * rows // residues)
        x = transition(net, f"{at}.transition", x, 2)
    x = net.norm(f"{label}.norm", "layer_norm", x).reshaped(rows * residues, templates, _TEMPLATE)
    q = net.linear(f"{label}.q", pair.reshaped(rows * residues, 1, width), _TEMPLATE)
    k, v = (net.linear(f"{label}.{part}", x, _TEMPLATE) for part in "kv")
    out = net.linear(f"{label}.out", attention(net, label, q, k, v, 4), width, bias=True).reshaped(*pair.shape)
    return net.vector(f"{label}.add", "add", pair, out)
