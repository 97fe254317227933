"""Monarch FFT: the fragment of SambaNova's SN40L paper (arXiv 2405.07518, table I) and the long convolution of FlashFFTConv."""

from math import prod

from ...workload._graph import Workload
from ...workload._operators import operator_row
from .._net import Net, Tensor

_COMPLEX = 2  # a complex number is two real ones
_MULTIPLY = 3  # lane operations a real element of a complex product: two multiplies, one add


def monarch(name: str, *, batch: int = 64, rows: int = 128, depth: int = 256, columns: int = 512, width: int = 16,
            dtype: str = "bf16", weight_dtype: str | None = None) -> Workload:  # fmt: skip
    """Four operators, Gemm0 -> Mul -> Transpose -> Gemm1: X (rows x depth) by W0 (depth x columns), times S (rows x columns),
    transposed, by W1 (rows x width).

    The paper's shapes are not printed. With F bytes of inputs, weights and output and m of an intermediate tensor it moves
    F + 6 m unfused, F + 2 m with all but Gemm1 fused and F fully fused; the paper's last two, 102.6 and 410.4 operations a byte,
    are 4.0 times apart, so m = 1.5 F and the first should be 41.0 (printed: 39.5). The defaults, in bf16, give 40.8 / 102.0 / 405.3.
    """
    net = Net(name, batch, dtype, weight_dtype)
    x = net.linear("gemm0", net.input(batch, rows, depth), columns)
    x = net.vector("mul", "mul", x, parameters=rows * columns)
    x = net.vector("transpose", "copy", x, shape=(batch, columns, rows), groups=batch)
    net.linear("gemm1", x, width)
    return net.build()


def flashfftconv(name: str, *, batch: int = 1, channels: int = 768, seq_len: int = 2**20, order: int = 3, causal: bool = False,
                 packed: bool = False, dtype: str = "bf16", weight_dtype: str | None = None) -> Workload:  # fmt: skip
    """Convolution of sequences with filters as long as they are: FFT, pointwise product, inverse FFT (Fu et al., arXiv 2311.05908).

    The FFT of length n is a Monarch decomposition of `order` factors N_i: for each a GEMM with its DFT matrix, between them a
    twiddle product and a transposition. Complex numbers are pairs of reals: a complex N_i x N_i matrix is a real one of twice the
    sides, of which only the complex one is stored, so a step costs 4 n N_i multiply-accumulates and the whole, there and back,
    8 n sum(N_i) a channel (16 n N_i operations a step in the paper's cost model).
    Filters are stored transformed.

    **Arguments:** `seq_len`: length, a power of two; `causal`: zeros appended, n = 2 seq_len; `packed`: even and odd elements
    of a real sequence as one complex sequence of half the length (as the paper does for real input), which costs lane operations.

    Raises ValueError where the length is no power of two or shorter than 2 ** order.
    """
    n = seq_len * (2 if causal else 1) // (2 if packed else 1)
    if seq_len & (seq_len - 1) or n < 2**order:
        raise ValueError(
            f"{name}: seq_len is {seq_len}; allowed: a power of two of at least {2**order * seq_len // max(n, 1)}"
        )
    net, rows = Net(name, batch, dtype, weight_dtype), batch * channels
    factors = _factors(n.bit_length() - 1, order)
    x = net.vector("complex", "copy", net.input(rows, seq_len), shape=(rows, _COMPLEX * n), groups=rows)
    x = _transform(net, "fft", x, factors)
    if packed:
        x = _untangle(net, "fft.untangle", x)
    x = net.vector("filter", "mul", x, parameters=channels * n * _COMPLEX, lane_ops=_MULTIPLY * x.elements)
    if packed:
        x = _untangle(net, "ifft.tangle", x)
    x = _transform(net, "ifft", x, factors[::-1])
    net.vector("real", "copy", x, shape=(rows, seq_len), groups=rows)
    return net.build()


def _factors(exponent: int, order: int) -> list[int]:
    """`order` powers of two as equal as can be, the largest first, whose product is 2 ** exponent."""
    return [2 ** (exponent // order + (i < exponent % order)) for i in range(order)]


def _transform(net: Net, label: str, x: Tensor, factors: list[int]) -> Tensor:
    rows, n = x.shape[0], x.shape[1] // _COMPLEX
    for i, side in enumerate(factors):
        row = operator_row(
            "gemm", p=rows * n // side, k=_COMPLEX * side, c=_COMPLEX * side, in_elements=x.elements,
            parameters=_COMPLEX * side * side, bits=net.activation.bits, weight_bits=net.weight.bits,
        )  # fmt: skip
        x = net.layer(f"{label}.dft{i}", row, (x,), x.shape)
        if i < len(factors) - 1:
            twiddles = _COMPLEX * prod(factors[i:])
            x = net.vector(f"{label}.twiddle{i}", "mul", x, parameters=twiddles, lane_ops=_MULTIPLY * x.elements)
            x = net.vector(f"{label}.transpose{i}", "copy", x, groups=rows)  # sequence by sequence
    return x


def _untangle(net: Net, label: str, x: Tensor) -> Tensor:
    """The spectrum of a real sequence from that of its even and odd halves, or back: each element and its mirror, one twiddle."""
    return net.vector(label, "elementwise", x, parameters=x.shape[1], lane_ops=(_MULTIPLY + 2) * x.elements)


BUILDERS = {"monarch": monarch, "flashfftconv": flashfftconv}
