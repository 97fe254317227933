"""ResNet (He et al., arXiv 1512.03385); bottlenecks in version 1.5: the stride sits on the 3x3 convolution, as in torchvision."""

from ...workload._graph import Workload
from .._net import Net, Tensor

_STAGES = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3),
           "resnet152": (3, 8, 36, 3)}  # fmt: skip
_BASIC = ("resnet18", "resnet34")


def resnet(name: str, *, batch: int = 1, image: int = 224, classes: int = 1000, dtype: str = "int8",
           weight_dtype: str | None = None) -> Workload:  # fmt: skip
    """A ResNet as a complete graph: convolutions, explicit batch norms, residual edges, pools and the classifier."""
    net = Net(name, batch, dtype, weight_dtype)

    def conv(label: str, x: Tensor, channels: int, kernel: int, stride: int = 1) -> Tensor:
        return net.norm(f"{label}.bn", "batch_norm", net.conv(label, x, channels, kernel, stride))

    def relu(label: str, x: Tensor) -> Tensor:
        return net.vector(label, "relu", x)

    x = relu("relu1", conv("conv1", net.input(batch, 3, image, image), 64, 7, 2))
    x = net.pool("maxpool", "max_pool", x, 3, 2)
    for stage, blocks in enumerate(_STAGES[name]):
        width = 64 * 2**stage
        for block in range(blocks):
            label, entry, stride = f"layer{stage + 1}.{block}", x, 2 if stage and not block else 1
            if name in _BASIC:
                out = width
                x = relu(f"{label}.relu1", conv(f"{label}.conv1", x, width, 3, stride))
                x = conv(f"{label}.conv2", x, out, 3)
            else:
                out = 4 * width
                x = relu(f"{label}.relu1", conv(f"{label}.conv1", x, width, 1))
                x = relu(f"{label}.relu2", conv(f"{label}.conv2", x, width, 3, stride))
                x = conv(f"{label}.conv3", x, out, 1)
            if entry.shape[1] != out:
                entry = conv(f"{label}.downsample", entry, out, 1, stride)
            x = relu(f"{label}.relu{2 if name in _BASIC else 3}", net.vector(f"{label}.add", "add", x, entry))
    net.linear("fc", net.global_pool("avgpool", x), classes, bias=True)
    return net.build()


BUILDERS = {name: resnet for name in _STAGES}
