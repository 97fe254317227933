"""U-Net (Ronneberger et al., arXiv 1505.04597, figure 1)."""

from ..._names import unknown_name
from ...workload._graph import Workload
from .._net import Net, Tensor

_WIDTHS = (64, 128, 256, 512, 1024)
_PADDINGS = ("valid", "same")


def unet(name: str, *, batch: int = 1, image: int = 572, channels: int = 1, classes: int = 2, padding: str = "valid",
         batch_norm: bool = False, dtype: str = "int8", weight_dtype: str | None = None) -> Workload:  # fmt: skip
    """U-Net as a complete graph: 3 x 3 convolutions with biases, 2 x 2 up-convolutions, skips cropped and concatenated.

    As published: one channel of 572 x 572 pixels in, no padding, two classes of 388 x 388 out. `padding="same"` and
    `batch_norm=True` (convolutions keep their biases) is what most who use it build. Cropping a skip costs nothing.
    Raises ValueError for an unknown padding or an image too small.
    """
    if padding not in _PADDINGS:
        raise unknown_name(f"{name}: padding", padding, _PADDINGS)
    net = Net(name, batch, dtype, weight_dtype)

    def double(label: str, x: Tensor, width: int) -> Tensor:
        for i in (0, 1):
            x = net.conv(f"{label}.conv{i}", x, width, 3, padding=padding, bias=True)
            if batch_norm:
                x = net.norm(f"{label}.bn{i}", "batch_norm", x)
            x = net.vector(f"{label}.relu{i}", "relu", x)
        return x

    def layers() -> None:
        x, skips = net.input(batch, channels, image, image), []
        for level, width in enumerate(_WIDTHS):
            if level:
                skips.append(x)
                x = net.pool(f"down{level}.pool", "max_pool", x, 2, 2, padding="valid")
            x = double(f"down{level}", x, width)
        for level, width in reversed(list(enumerate(_WIDTHS[:-1]))):
            x = net.transposed_conv(f"up{level}.upconv", x, width, 2, 2, bias=True)
            x = double(f"up{level}", net.concat(_cropped(net, skips.pop(), x.shape[-1]), x), width)
        net.conv("classes", x, classes, 1, bias=True)

    try:
        layers()
    except ValueError as error:
        raise ValueError(f"{name}: image is {image}: {error}") from None
    return net.build()


def _cropped(net: Net, x: Tensor, side: int) -> Tensor:
    """The `side` x `side` pixels in the middle."""
    for axis in (2, 3):
        spare = x.shape[axis] - side
        _, x, _ = net.split(x, spare // 2, side, spare - spare // 2, axis=axis)
    return x


BUILDERS = {"unet": unet}
