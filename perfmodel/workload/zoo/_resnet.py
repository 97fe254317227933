"""ResNet v1.5 with bottleneck blocks (He et al., arXiv 1512.03385; v1.5: the stride sits on the 3x3 convolution)."""

from .._graph import GraphBuilder, Workload
from .._operators import operator_row

_STAGES = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3), "resnet152": (3, 8, 36, 3)}


def resnet(name: str, *, batch: int = 1, image: int = 224, classes: int = 1000, bits: int = 8) -> Workload:
    """A ResNet as a complete graph: convolutions, explicit batch norms, residual edges, pools and the classifier."""
    graph = GraphBuilder(name, batch)

    def conv(label, k, c, read, size, kernel, stride, source, outside=0.0):
        row = operator_row(
            "conv", batch=batch, k=k, c=c, p=size, q=size, r=kernel, s=kernel, stride=stride, bits=bits,
            in_elements=batch * c * read * read,
        )  # fmt: skip
        here = graph.add(label, row, source, outside)
        return vector(f"{label}.bn", "batch_norm", k, size, [here], parameters=2 * k)

    def vector(label, kind, k, size, source, **more):
        return graph.add(label, operator_row(kind, batch=batch, k=k, p=size, q=size, bits=bits, **more), source)

    size = _halved(image)
    here = conv("conv1", 64, 3, image, size, 7, 2, [], outside=batch * 3 * image * image * bits / 8)
    here = vector("relu1", "relu", 64, size, [here])
    pooled = _halved(size)
    here = vector("maxpool", "max_pool", 64, pooled, [here], r=3, s=3, stride=2, in_elements=batch * 64 * size * size)
    size, channels = pooled, 64
    for stage, blocks in enumerate(_STAGES[name]):
        width = 64 * 2**stage
        for block in range(blocks):
            label, entry = f"layer{stage + 1}.{block}", here
            stride = 2 if stage and not block else 1
            out = _halved(size) if stride == 2 else size
            here = conv(f"{label}.conv1", width, channels, size, size, 1, 1, [entry])
            here = vector(f"{label}.relu1", "relu", width, size, [here])
            here = conv(f"{label}.conv2", width, width, size, out, 3, stride, [here])
            here = vector(f"{label}.relu2", "relu", width, out, [here])
            here = conv(f"{label}.conv3", 4 * width, width, out, out, 1, 1, [here])
            if not block:
                entry = conv(f"{label}.downsample", 4 * width, channels, size, out, 1, stride, [entry])
            both = 2 * batch * 4 * width * out * out
            here = vector(f"{label}.add", "add", 4 * width, out, [here, entry], in_elements=both)
            here = vector(f"{label}.relu3", "relu", 4 * width, out, [here])
            size, channels = out, 4 * width
    made = batch * channels * size * size
    here = vector("avgpool", "avg_pool", channels, 1, [here], r=size, s=size, in_elements=made)
    parameters = channels * classes + classes
    row = operator_row("gemm", k=classes, c=channels, p=batch, bits=bits, parameters=parameters)
    graph.add("fc", row, [here])
    return graph.build()


def _halved(size: int) -> int:
    """Output size of a stride-2 window with 'same' padding."""
    return (size + 1) // 2


BUILDERS = {name: resnet for name in _STAGES}
