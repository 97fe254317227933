"""Vision transformers (Dosovitskiy et al., arXiv 2010.11929), patches of 16 x 16 pixels; ViT-B and ViT-L as in torchvision."""

from ...workload._graph import Workload
from .._net import Net
from ._parts import mlp, multiple_of, self_attention

_SIZES = {"vit-b": (768, 12, 12), "vit-l": (1024, 16, 24)}  # width, heads, blocks
_PATCH = 16


def vit(name: str, *, batch: int = 1, image: int = 224, classes: int = 1000, dtype: str = "int8",
        weight_dtype: str | None = None) -> Workload:  # fmt: skip
    """A vision transformer as a complete graph, pre-norm, class token and learned positions (as many as patches, plus one).

    The row `embed` joins the class token and adds the positions. The head reads the class token only, the final norm all.
    Raises ValueError where `image` is no multiple of 16.
    """
    width, heads, blocks = _SIZES[name]
    side = multiple_of(name, "image", image, _PATCH) // _PATCH
    net, tokens = Net(name, batch, dtype, weight_dtype), side * side + 1
    x = net.conv("patches", net.input(batch, 3, image, image), width, _PATCH, _PATCH, padding="valid", bias=True)
    x = net.vector("embed", "add", x, shape=(batch, tokens, width), parameters=(tokens + 1) * width)
    for block in range(blocks):
        label = f"block{block}"
        attended = self_attention(net, f"{label}.attn", net.norm(f"{label}.norm1", "layer_norm", x), heads)
        x = net.vector(f"{label}.add1", "add", attended, x)
        out = mlp(net, f"{label}.mlp", net.norm(f"{label}.norm2", "layer_norm", x), 4 * width)
        x = net.vector(f"{label}.add2", "add", out, x)
    token, _ = net.split(net.norm("norm", "layer_norm", x), 1, tokens - 1, axis=1)
    net.linear("head", token.reshaped(batch, width), classes, bias=True)
    return net.build()


BUILDERS = {name: vit for name in _SIZES}
