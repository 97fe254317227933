"""GoogLeNet (Szegedy et al., arXiv 1409.4842) and Inception-v4 (Szegedy et al., arXiv 1602.07261)."""

from collections.abc import Callable

from ...workload._graph import Workload
from .._net import Net, Tensor

_GOOGLENET = {  # 1x1, 3x3 reduced, 3x3, "5x5" reduced, "5x5", pool projected (table 1 of the paper)
    "3a": (64, 96, 128, 16, 32, 32), "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64), "4b": (160, 112, 224, 24, 64, 64), "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64), "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128), "5b": (384, 192, 384, 48, 128, 128),
}  # fmt: skip
_Kernel = int | tuple[int, int]
_Conv = Callable[..., Tensor]


def _convolution(net: Net) -> _Conv:
    """Convolution, batch norm and ReLU: all that either network is made of."""

    def conv(label: str, x: Tensor, channels: int, kernel: _Kernel, stride: int = 1, padding: str = "same") -> Tensor:
        out = net.conv(label, x, channels, kernel, stride, padding=padding)
        return net.vector(f"{label}.relu", "relu", net.norm(f"{label}.bn", "batch_norm", out))

    return conv


def googlenet(name: str, *, batch: int = 1, image: int = 224, classes: int = 1000, kernel: int = 3, dtype: str = "int8",
              weight_dtype: str | None = None) -> Workload:  # fmt: skip
    """GoogLeNet without auxiliary classifiers, with batch norms and no biases, as in torchvision.

    `kernel`: side of the third branch's convolution, 3 in torchvision's released network, 5 in the paper.
    """
    net = Net(name, batch, dtype, weight_dtype)
    conv = _convolution(net)

    def pool(label: str, x: Tensor, side: int) -> Tensor:
        return net.pool(label, "max_pool", x, side, 2, padding=0, ceil=True)

    x = pool("maxpool1", conv("conv1", net.input(batch, 3, image, image), 64, 7, 2), 3)
    x = pool("maxpool2", conv("conv3", conv("conv2", x, 64, 1), 192, 3), 3)
    for block, (one, reduced3, three, reduced5, five, projected) in _GOOGLENET.items():
        label = f"inception{block}"
        branches = (
            conv(f"{label}.branch1", x, one, 1),
            conv(f"{label}.branch2.1", conv(f"{label}.branch2.0", x, reduced3, 1), three, 3),
            conv(f"{label}.branch3.1", conv(f"{label}.branch3.0", x, reduced5, 1), five, kernel),
            conv(f"{label}.branch4.1", net.pool(f"{label}.branch4.pool", "max_pool", x, 3, 1), projected, 1),
        )
        x = net.concat(*branches)
        if block in ("3b", "4e"):
            x = pool("maxpool3" if block == "3b" else "maxpool4", x, 3 if block == "3b" else 2)
    net.linear("fc", net.global_pool("avgpool", x), classes, bias=True)
    return net.build()


def inception_v4(name: str, *, batch: int = 1, image: int = 299, classes: int = 1000, dtype: str = "int8",
                 weight_dtype: str | None = None) -> Workload:  # fmt: skip
    """Inception-v4 as a complete graph, with batch norms and no biases (figures 3 to 9 of the paper).

    Raises ValueError where `image` is less than the 75 pixels that the windows without padding need.
    """
    if image < 75:
        raise ValueError(f"{name}: image is {image}; allowed: at least 75 (windows without padding)")
    net = Net(name, batch, dtype, weight_dtype)
    conv = _convolution(net)

    def chain(label: str, x: Tensor, *layers: tuple[int, _Kernel]) -> Tensor:
        for i, (channels, kernel) in enumerate(layers):
            x = conv(f"{label}.{i}", x, channels, kernel)
        return x

    def halved(label: str, x: Tensor, channels: int) -> Tensor:
        return conv(label, x, channels, 3, 2, "valid")

    def pool(label: str, x: Tensor) -> Tensor:
        return net.pool(label, "max_pool", x, 3, 2, padding="valid")

    def projected(label: str, x: Tensor, channels: int) -> Tensor:
        return conv(label, net.pool(f"{label}.pool", "avg_pool", x, 3, 1), channels, 1)

    x = conv("stem.0", net.input(batch, 3, image, image), 32, 3, 2, "valid")
    x = conv("stem.2", conv("stem.1", x, 32, 3, 1, "valid"), 64, 3)
    x = net.concat(pool("stem.3.pool", x), halved("stem.3.conv", x, 96))
    left = conv("stem.4.branch0.1", chain("stem.4.branch0", x, (64, 1)), 96, 3, 1, "valid")
    right = conv("stem.4.branch1.3", chain("stem.4.branch1", x, (64, 1), (64, (1, 7)), (64, (7, 1))), 96, 3, 1, "valid")
    x = net.concat(left, right)
    x = net.concat(halved("stem.5.conv", x, 192), pool("stem.5.pool", x))
    for i in range(4):
        label = f"a{i}"
        x = net.concat(
            chain(f"{label}.branch0", x, (96, 1)),
            chain(f"{label}.branch1", x, (64, 1), (96, 3)),
            chain(f"{label}.branch2", x, (64, 1), (96, 3), (96, 3)),
            projected(f"{label}.branch3", x, 96),
        )
    middle = halved("reduction_a.branch1.2", chain("reduction_a.branch1", x, (192, 1), (224, 3)), 256)
    x = net.concat(halved("reduction_a.branch0", x, 384), middle, pool("reduction_a.pool", x))
    wide, tall = (1, 7), (7, 1)
    for i in range(7):
        label = f"b{i}"
        x = net.concat(
            chain(f"{label}.branch0", x, (384, 1)),
            chain(f"{label}.branch1", x, (192, 1), (224, wide), (256, tall)),
            chain(f"{label}.branch2", x, (192, 1), (192, tall), (224, wide), (224, tall), (256, wide)),
            projected(f"{label}.branch3", x, 128),
        )
    left = halved("reduction_b.branch0.1", chain("reduction_b.branch0", x, (192, 1)), 192)
    right = halved("reduction_b.branch1.3", chain("reduction_b.branch1", x, (256, 1), (256, wide), (320, tall)), 320)
    x = net.concat(left, right, pool("reduction_b.pool", x))
    wide, tall = (1, 3), (3, 1)
    for i in range(3):
        label = f"c{i}"
        middle = chain(f"{label}.branch1", x, (384, 1))
        deep = chain(f"{label}.branch2", x, (384, 1), (448, tall), (512, wide))
        x = net.concat(
            chain(f"{label}.branch0", x, (256, 1)),
            conv(f"{label}.branch1.wide", middle, 256, wide),
            conv(f"{label}.branch1.tall", middle, 256, tall),
            conv(f"{label}.branch2.wide", deep, 256, wide),
            conv(f"{label}.branch2.tall", deep, 256, tall),
            projected(f"{label}.branch3", x, 256),
        )
    net.linear("classifier", net.global_pool("pool", x), classes, bias=True)
    return net.build()


BUILDERS = {"googlenet": googlenet, "inception-v4": inception_v4}
