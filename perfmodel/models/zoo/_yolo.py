"""YOLOv5, release 6 and later (Ultralytics, configuration files models/yolov5n.yaml to yolov5x.yaml)."""

from math import ceil

from ...workload._graph import Workload
from .._net import Net, Tensor
from ._parts import multiple_of

_SIZES = {  # multiples of depth and width
    "yolov5n": (0.33, 0.25), "yolov5s": (0.33, 0.50), "yolov5m": (0.67, 0.75), "yolov5l": (1.0, 1.0), "yolov5x": (1.33, 1.25),
}  # fmt: skip
_ANCHORS = 3
_BOX_OPS = 12  # centre: scale, shift, stride; size: scale, square, anchor; in both directions


def yolov5(name: str, *, batch: int = 1, image: int = 640, classes: int = 80, fold_norms: bool = False, dtype: str = "int8",
           weight_dtype: str | None = None) -> Workload:  # fmt: skip
    """YOLOv5 as a complete graph: CSP backbone with a 6 x 6 stem and SPPF, PAN neck, three heads and their decoding to boxes.

    `fold_norms`: batch norms folded into convolutions with biases, as its `fuse()` does before inference (and before it prints
    parameters). Suppression of overlapping boxes is not in the graph. Raises ValueError where `image` is no multiple of 32.
    """
    depth, width = _SIZES[name]
    multiple_of(name, "image", image, 32)
    net = Net(name, batch, dtype, weight_dtype)

    def channels(of: int) -> int:
        return 8 * ceil(of * width / 8)

    def conv(label: str, x: Tensor, out: int, kernel: int = 1, stride: int = 1) -> Tensor:
        x = net.conv(label, x, out, kernel, stride, bias=fold_norms)
        if not fold_norms:
            x = net.norm(f"{label}.bn", "batch_norm", x)
        return net.vector(f"{label}.silu", "silu", x)

    def csp(label: str, x: Tensor, of: int, blocks: int, shortcut: bool = True) -> Tensor:
        out, hidden = channels(of), channels(of) // 2
        inner = conv(f"{label}.cv1", x, hidden)
        for i in range(max(1, round(blocks * depth))):
            made = conv(f"{label}.m{i}.cv2", conv(f"{label}.m{i}.cv1", inner, hidden), hidden, 3)
            inner = net.vector(f"{label}.m{i}.add", "add", inner, made) if shortcut else made
        return conv(f"{label}.cv3", net.concat(inner, conv(f"{label}.cv2", x, hidden)), out)

    def up(label: str, x: Tensor) -> Tensor:
        n, c, height, wide = x.shape
        return net.vector(label, "resize", x, shape=(n, c, 2 * height, 2 * wide))

    x = conv("stem", net.input(batch, 3, image, image), channels(64), 6, 2)
    levels = []
    for i, (of, blocks) in enumerate(((128, 3), (256, 6), (512, 9), (1024, 3))):
        x = csp(f"stage{i}", conv(f"stage{i}.down", x, channels(of), 3, 2), of, blocks)
        levels.append(x)
    pooled = [conv("sppf.cv1", x, channels(1024) // 2)]
    for i in range(3):
        pooled.append(net.pool(f"sppf.pool{i}", "max_pool", pooled[-1], 5, 1))
    top = conv("neck.lateral5", conv("sppf.cv2", net.concat(*pooled), channels(1024)), channels(512))
    x = csp("neck.up4", net.concat(up("neck.resize4", top), levels[2]), 512, 3, False)
    middle = conv("neck.lateral4", x, channels(256))
    small = csp("neck.up3", net.concat(up("neck.resize3", middle), levels[1]), 256, 3, False)
    medium = csp("neck.down4", net.concat(conv("neck.stride4", small, channels(256), 3, 2), middle), 512, 3, False)
    large = csp("neck.down5", net.concat(conv("neck.stride5", medium, channels(512), 3, 2), top), 1024, 3, False)
    found = []
    for i, level in enumerate((small, medium, large)):
        raw = net.conv(f"detect{i}", level, _ANCHORS * (classes + 5), 1, bias=True)
        boxes = _ANCHORS * raw.shape[2] * raw.shape[3]
        ops = raw.elements + batch * boxes * _BOX_OPS
        found.append(net.vector(f"detect{i}.boxes", "sigmoid", raw, shape=(batch, boxes, classes + 5), lane_ops=ops))
    boxes = net.concat(*found)
    net.vector("detect", "copy", boxes)
    return net.build()


BUILDERS = {name: yolov5 for name in _SIZES}
