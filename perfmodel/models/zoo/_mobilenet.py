"""MobileNet-v2 (Sandler et al., arXiv 1801.04381, table 2), width 1.0, as in torchvision."""

from ...workload._graph import Workload
from .._net import Net, Tensor

_STAGES = (  # expansion, channels, blocks, stride of the first
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip


def mobilenet_v2(name: str, *, batch: int = 1, image: int = 224, classes: int = 1000, dtype: str = "int8",
                 weight_dtype: str | None = None) -> Workload:  # fmt: skip
    """MobileNet-v2 as a complete graph: inverted residuals, a depthwise convolution is one of as many groups as channels.

    ReLU6 is a `relu`: both limits in one clamp.
    """
    net = Net(name, batch, dtype, weight_dtype)

    def conv(label: str, x: Tensor, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> Tensor:
        return net.norm(f"{label}.bn", "batch_norm", net.conv(label, x, channels, kernel, stride, groups=groups))

    def relu(label: str, x: Tensor) -> Tensor:
        return net.vector(f"{label}.relu6", "relu", x)

    x = relu("stem", conv("stem", net.input(batch, 3, image, image), 32, 3, 2))
    block = 0
    for expansion, channels, blocks, first in _STAGES:
        for i in range(blocks):
            label, entry, hidden, stride = f"block{block}", x, expansion * x.shape[1], 1 if i else first
            if expansion > 1:
                x = relu(f"{label}.expand", conv(f"{label}.expand", x, hidden, 1))
            x = relu(f"{label}.depthwise", conv(f"{label}.depthwise", x, hidden, 3, stride, hidden))
            x = conv(f"{label}.project", x, channels, 1)
            if stride == 1 and entry.shape[1] == channels:
                x = net.vector(f"{label}.add", "add", x, entry)
            block += 1
    x = relu("head", conv("head", x, 1280, 1))
    net.linear("classifier", net.global_pool("pool", x), classes, bias=True)
    return net.build()


BUILDERS = {"mobilenet-v2": mobilenet_v2}
