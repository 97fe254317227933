"""DLRM (Naumov et al., arXiv 1906.00091), in two published configurations."""

from typing import NamedTuple

from ...workload._graph import Workload
from ...workload._operators import operator_row
from .._net import Net, Tensor


class _Config(NamedTuple):
    bottom: tuple[int, ...]
    top: tuple[int, ...]
    tables: tuple[int, ...]  # entries of each


_CONFIGS = {
    # MLPerf training and inference v0.7 to v2.1: Criteo Terabyte, indices below 40 million
    "dlrm": _Config((512, 256, 128), (1024, 1024, 512, 256, 1), (
        39884406, 39043, 17289, 7420, 20263, 3, 7120, 1543, 63, 38532951, 2953546, 403346, 10, 2208, 11938, 155, 4, 976, 14,
        39979771, 25641295, 39664984, 585935, 12972, 108, 36,
    )),
    # the paper, section 5: Criteo Kaggle (bench/dlrm_s_criteo_kaggle.sh of the released code)
    "dlrm-kaggle": _Config((512, 256, 64, 16), (512, 256, 1), (
        1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194, 27, 14992, 5461306, 10, 5652, 2173, 4,
        7046547, 18, 15, 286181, 105, 142572,
    )),
}  # fmt: skip
_DENSE = 13


def dlrm(
    name: str, *, batch: int = 1, looked_up: int = 1, dtype: str = "int8", weight_dtype: str | None = None
) -> Workload:
    """DLRM as a complete graph: bottom MLP, 26 tables, pairwise dot products, top MLP, sigmoid.

    `looked_up`: entries of each table that are summed for a sample (1 in both data sets). The interaction is one product a
    sample, all pairs of the 27 vectors, of which the half below the diagonal goes on, beside the dense vector.
    """
    config = _CONFIGS[name]
    net = Net(name, batch, dtype, weight_dtype)

    def dense(label: str, x: Tensor, widths: tuple[int, ...]) -> Tensor:
        for i, width in enumerate(widths):
            x = net.vector(f"{label}{i}.relu", "relu", net.linear(f"{label}{i}", x, width, bias=True))
        return x

    x = dense("bottom", net.input(batch, _DENSE), config.bottom)
    width, vectors = config.bottom[-1], 1 + len(config.tables)
    entries = [
        net.table(f"table{i}", batch, of, width, looked_up=looked_up).reshaped(batch, 1, width)
        for i, of in enumerate(config.tables)
    ]
    stacked = net.vector("stack", "copy", net.concat(x.reshaped(batch, 1, width), *entries))
    row = operator_row(
        "attention_gemm", groups=batch, p=vectors, k=vectors, c=width, in_elements=stacked.elements, bits=net.activation.bits
    )  # fmt: skip
    dots = net.layer("interact", row, (stacked,), (batch, vectors, vectors))
    pairs = net.vector("pairs", "gather", dots, shape=(batch, vectors * (vectors - 1) // 2))
    x = dense("top", net.concat(x, pairs), config.top[:-1])
    last = len(config.top) - 1
    net.vector("click", "sigmoid", net.linear(f"top{last}", x, config.top[-1], bias=True))
    return net.build()


BUILDERS = {name: dlrm for name in _CONFIGS}
