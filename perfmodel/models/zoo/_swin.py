"""Swin transformers (Liu et al., arXiv 2103.14030): attention in windows of 7 x 7 tokens, shifted in every other block."""

from ...workload._graph import Workload
from ...workload._operators import LANE_OPS
from .._net import Net, Tensor
from ._parts import mlp, self_attention

_SIZES = {  # width of the first stage, heads of the first stage, blocks of each stage (table 7 of the paper)
    "swin-t": (96, 3, (2, 2, 6, 2)),
    "swin-s": (96, 3, (2, 2, 18, 2)),
    "swin-b": (128, 4, (2, 2, 18, 2)),
    "swin-l": (192, 6, (2, 2, 18, 2)),
}
_PATCH, _WINDOW = 4, 7


def swin(name: str, *, batch: int = 1, image: int = 224, classes: int = 1000, dtype: str = "int8",
         weight_dtype: str | None = None) -> Workload:  # fmt: skip
    """A Swin transformer as a complete graph. Windows are independent: `groups = windows * heads * batch`.

    Cutting into windows (padding to whole windows and rolling where shifted) and putting back together are rows `copy`, as is
    the gathering of 2 x 2 tokens before a merge. The table of relative positions, (2 * 7 - 1)^2 entries a head, belongs to
    the row `bias`, which in shifted blocks adds the mask as well. Raises ValueError where `image` is less than one patch.
    """
    width, heads, depths = _SIZES[name]
    if image < _PATCH:
        raise ValueError(f"{name}: image is {image}; allowed: at least {_PATCH} (one patch)")
    net = Net(name, batch, dtype, weight_dtype)
    x = net.conv("patches", net.input(batch, 3, image, image), width, _PATCH, _PATCH, padding="valid", bias=True)
    side = x.shape[-1]
    x = net.norm("patches.norm", "layer_norm", x.reshaped(batch, side * side, width))
    for stage, blocks in enumerate(depths):
        if stage:
            side, width, heads = -(-side // 2), 2 * width, 2 * heads
            label = f"merge{stage}"
            x = net.vector(f"{label}.gather", "copy", x, shape=(batch, side * side, 2 * width))
            x = net.linear(f"{label}.linear", net.norm(f"{label}.norm", "layer_norm", x), width)
        for block in range(blocks):
            shifted = block % 2 == 1 and side > _WINDOW
            x = _block(net, f"stage{stage}.block{block}", x, side, heads, shifted)
    x = net.norm("norm", "layer_norm", x).reshaped(batch, width, side, side)
    net.linear("head", net.global_pool("pool", x), classes, bias=True)
    return net.build()


def _block(net: Net, label: str, x: Tensor, side: int, heads: int, shifted: bool) -> Tensor:
    batch, tokens, width = x.shape
    across = -(-side // _WINDOW)

    def bias(scores: Tensor) -> Tensor:
        table = (2 * _WINDOW - 1) ** 2 * heads
        ops = (1 + shifted) * scores.elements * LANE_OPS["add"]
        return net.vector(f"{label}.attn.bias", "add", scores, parameters=table, lane_ops=ops, groups=scores.shape[0])

    out = net.norm(f"{label}.norm1", "layer_norm", x)
    out = net.vector(f"{label}.windows", "copy", out, shape=(batch * across * across, _WINDOW**2, width))
    out = self_attention(net, f"{label}.attn", out, heads, bias=bias)
    out = net.vector(f"{label}.unwindow", "copy", out, shape=(batch, tokens, width))
    x = net.vector(f"{label}.add1", "add", out, x)
    out = mlp(net, f"{label}.mlp", net.norm(f"{label}.norm2", "layer_norm", x), 4 * width)
    return net.vector(f"{label}.add2", "add", out, x)


BUILDERS = {name: swin for name in _SIZES}
