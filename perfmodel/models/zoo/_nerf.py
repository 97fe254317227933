"""NeRF (Mildenhall et al., arXiv 2003.08934, figure 7): a radiance field in a small MLP, and the rendering of rays through it."""

from ...workload._graph import Workload
from .._net import Net, Tensor

_WIDTH, _LAYERS, _SKIP = 256, 8, 5  # the encoded position enters again at the sixth layer (index 5)
_POSITION, _DIRECTION = 63, 27  # 3 coordinates, and sine and cosine of 10 and of 4 octaves of each
_RENDER_OPS = 12  # a sample: density by distance, exp, opacity, transmittance (scan), weight, three weighted sums


def nerf(name: str, *, batch: int = 1, rays: int = 4096, samples: int = 64, fine: int = 0, dtype: str = "int8",
         weight_dtype: str | None = None) -> Workload:  # fmt: skip
    """Rays rendered through a NeRF: encodings, MLP of every sample, compositing.

    `fine`: samples placed where the first (coarse) network found density; a second network of the same shape then sees
    `samples + fine` (the paper: 64 and 128). 0: the coarse network alone. A pass of `batch` is `batch * rays` rays.
    """
    net = Net(name, batch, dtype, weight_dtype)
    rows = batch * rays
    points, direction = net.input(rows, samples, 3), net.input(rows, 3)
    out = _network(net, "coarse" if fine else "nerf", points, direction)
    if fine:
        _, weights = net.split(out, 3, samples, axis=-1)
        made = rows * (samples + fine) * 3
        points = net.vector("resample", "gather", weights, shape=(rows, samples + fine, 3), lane_ops=4 * made)
        _network(net, "fine", points, direction)
    return net.build()


def _network(net: Net, label: str, points: Tensor, direction: Tensor) -> Tensor:
    """Colour (3) and weights of the samples of each ray."""
    rows, samples, _ = points.shape

    def dense(layer: str, x: Tensor, width: int) -> Tensor:
        return net.vector(f"{label}.{layer}.relu", "relu", net.linear(f"{label}.{layer}", x, width, bias=True))

    position = net.vector(f"{label}.encode", "elementwise", points, shape=(rows, samples, _POSITION))
    viewed = net.vector(f"{label}.encode_view", "elementwise", direction, shape=(rows, samples, _DIRECTION))
    x = position
    for layer in range(_LAYERS):
        x = dense(f"layer{layer}", net.concat(position, x, axis=-1) if layer == _SKIP else x, _WIDTH)
    density = net.linear(f"{label}.density", x, 1, bias=True)
    x = net.linear(f"{label}.feature", x, _WIDTH, bias=True)
    x = dense("view", net.concat(x, viewed, axis=-1), _WIDTH // 2)
    colour = net.linear(f"{label}.colour", x, 3, bias=True)
    ops = rows * samples * _RENDER_OPS
    return net.vector(f"{label}.render", "scan", colour, density, shape=(rows, 3 + samples), lane_ops=ops)


BUILDERS = {"nerf": nerf}
