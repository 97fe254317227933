"""CLIP's vision tower (Radford et al., arXiv 2103.00020), alone or as the eyes of a language model."""

from typing import NamedTuple

from .._net import Net, Tensor
from ._passes import Pass
from ._records import Transformer
from ._transformer import stack


class Tower(NamedTuple):
    """A vision transformer on pictures of `image` pixels a side, cut into patches of `patch`. Of its layers `used` are run."""

    spec: Transformer
    image: int
    patch: int
    used: int

    @property
    def patches(self) -> int:
        return (self.image // self.patch) ** 2

    @property
    def parameters(self) -> int:
        """All that is stored: tables, the norms before and behind, all layers."""
        d, hidden = self.spec.width, self.spec.hidden
        block = 4 * d * (d + 1) + 2 * d * hidden + d + hidden + 4 * d
        return 3 * self.patch**2 * d + (self.patches + 2) * d + 4 * d + self.spec.layers * block


def clip(width: int, heads: int, layers: int, hidden: int, image: int, patch: int, used: int = 0) -> Tower:
    """The record of a CLIP vision tower; `used`: layers that are run, all unless given."""
    spec = Transformer(
        1, width, layers, heads, hidden, norm="layer_norm", activation="gelu", gated=False, qkv_bias=True, out_bias=True,
        mlp_bias=True, final_norm=False, block="vision.layer",
    )  # fmt: skip
    return Tower(spec, image, patch, used or layers)


def seen(net: Net, tower: Tower, run: Pass, pictures: int) -> tuple[Tensor, Tensor]:
    """The tower on `pictures`: class tokens, (pictures, 1, width), and patches, (pictures, patches, width).

    Layers that are not run and the norm behind the last are stored with the first row, but not read.
    """
    spec, tokens = tower.spec, tower.patches + 1  # the class token
    x = net.input(pictures, 3, tower.image, tower.image)
    x = net.conv("vision.patches", x, spec.width, tower.patch, tower.patch, padding="valid")
    patches = x.parts[0][0]
    before = sum(row["parameters"] for row in net.rows) - net.rows[patches]["parameters"]
    x = net.vector("vision.embed", "add", x, shape=(pictures, tokens, spec.width), parameters=(tokens + 1) * spec.width)
    x = net.norm("vision.ln_pre", "layer_norm", x)
    of_tower = run._replace(batch=pictures, tokens=tokens, context=0, cached=False)
    x = stack(net, spec._replace(layers=tower.used), x, of_tower)
    first, rest = net.split(x, 1, tower.patches, axis=1)
    if tower.used == spec.layers:
        first = net.norm("vision.ln_post", "layer_norm", first)
    stored = sum(row["parameters"] for row in net.rows) - before
    net.rows[patches]["parameters"] += tower.parameters - stored
    return first, rest
