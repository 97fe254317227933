"""What has to be computed: operators as rows of loop nests, a struct of arrays.

A row is the nest `for g, n, k, c, p, q, r, s: out[g,n,k,p,q] += w[g,k,c,r,s] * in[g,n,c,p*stride+r,q*stride+s]`.
A GEMM of M rows, N columns and depth K' is `p = M, k = N, c = K'`; attention is one row a GEMM with `groups = heads`.
Two kinds are one launch of several nests, whose multiply-accumulates are still the product of the bounds:
- `attention`: `batch` sequences, `groups` key-value heads, `p` new tokens of `q` query heads each, `k` keys that end with them,
  `c` elements of a key and of a value together. A value has `out_elements / (groups batch p q)` of them. The keys and values read
  are what `in_elements` has beyond the queries; `weight_bits` of each. `causal`: queries see keys up to themselves.
- `experts`: `p` rows (tokens times experts of each) through gated experts of `k` units and `c` inputs, `r = 3` products; so many experts
  as `parameters / (3 k c)`, with even loads.
Row counts are exact integers on the host; they become floating point only inside a traced computation.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Real

from .._names import unknown_name

# The order is part of the file format of a stored workload: append, never reorder.
KINDS = (
    "conv", "gemm", "attention_gemm", "batch_norm", "layer_norm", "softmax", "relu", "gelu", "add",
    "max_pool", "avg_pool", "embedding", "elementwise", "rms_norm", "group_norm", "silu", "sigmoid", "tanh", "mul", "rope",
    "copy", "gather", "reduce", "top_k", "scan", "fft", "resize", "quantize", "optimizer", "attention", "experts",
    "all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send",
)  # fmt: skip
# these run on the PE array, all others on the vector lanes
MATRIX_KINDS = ("conv", "gemm", "attention_gemm", "attention", "experts")
FUSED_KINDS = ("attention", "experts")  # one launch of what a plain graph has as several rows: see `lower`
COLLECTIVE_KINDS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send")  # and these between devices

# Classes for tables and pictures.
CLASSES = {
    "convolution": ("conv",),
    "GEMM": ("gemm",),
    "attention GEMM": ("attention_gemm",),
    "attention": ("attention",),
    "experts": ("experts",),
    "softmax": ("softmax",),
    "normalisation": ("batch_norm", "layer_norm", "rms_norm", "group_norm"),
    "activation, elementwise": (
        "relu", "gelu", "silu", "sigmoid", "tanh", "add", "mul", "rope", "elementwise", "quantize", "optimizer",
    ),
    "pooling, reduction": ("max_pool", "avg_pool", "reduce", "top_k"),
    "embedding, movement": ("embedding", "gather", "copy", "resize"),
    "scan, transform": ("scan", "fft"),
    "collective": COLLECTIVE_KINDS,
}  # fmt: skip
CLASS_OF = {kind: name for name, kinds in CLASSES.items() for kind in kinds}

# Lane operations per element of the output (of the window for pooling). A lane does one add, multiply, compare or table
# look-up (exp, erf, rsqrt through a look-up table, as NVDLA's SDP does) a cycle.
LANE_OPS = {
    "batch_norm": 2,  # scale, shift (statistics folded at load time)
    "layer_norm": 6,  # sum, sum of squares, subtract, multiply, scale, shift
    "softmax": 5,  # running max, subtract, exp, sum, multiply
    "relu": 1,
    "gelu": 2,  # table look-up, multiply
    "add": 1,
    "embedding": 2,  # token row + position row
    "elementwise": 1,
    "rms_norm": 3,  # sum of squares, multiply, scale
    "group_norm": 6,
    "silu": 2,  # table look-up, multiply
    "sigmoid": 1,
    "tanh": 1,
    "mul": 1,
    "rope": 3,  # two multiplies, one add
    "copy": 1,  # transposition, padding, slicing: moved, not computed
    "gather": 1,
    "reduce": 1,
    "top_k": 1,
    "resize": 1,
    "quantize": 2,  # multiply, round
    "optimizer": 12,  # Adam: two moments, their correction, square root, division, update
}
_OF_INPUTS = ("reduce", "top_k")  # work follows what is read, not what is left


class Operators(eqx.Module):
    """Rows of loop nests (`L` operators). All counts are per inference pass of the row's model.

    **Fields:**
    - `groups, batch, k, c, p, q, r, s`: loop bounds, floats where they are traced; vector operators keep their output shape in
      `batch, k, p, q`.
    - `stride`: stride of the sliding window, both directions.
    - `kind`: index into `KINDS`.  `is_matrix`: 1.0 where the row runs on the PE array.
    - `lane_ops`: vector-lane operations.
    - `in_elements, out_elements`: activations entering (all operands together) and leaving.
    - `parameters`: stored parameters.  `weight_elements`: parameters read by one pass (an embedding reads few).
    - `in_bits, weight_bits, out_bits, psum_bits`: precision of each operand (of attention: `in_bits` the mean of both, `weight_bits` of
      cached keys and values).
    - `ranks, rank_step`: of a collective the devices that take part, this one included, and how far apart in the order of devices one
      is from the next (tensor ranks 1, replicas as many as a replica has devices). Of a product cut by columns `ranks` that share it: what
      it reads has a gradient that they add up. 1 and 1 of all other rows.
    - `causal`: 1.0 where attention is causal. Work is counted as of full attention all the same; fast kernels skip what is masked.
    """

    groups: Real[Array, "L"]
    batch: Real[Array, "L"]
    k: Real[Array, "L"]
    c: Real[Array, "L"]
    p: Real[Array, "L"]
    q: Real[Array, "L"]
    r: Real[Array, "L"]
    s: Real[Array, "L"]
    stride: Real[Array, "L"]
    kind: Int[Array, "L"]
    is_matrix: Float[Array, "L"]
    lane_ops: Float[Array, "L"]
    in_elements: Float[Array, "L"]
    out_elements: Float[Array, "L"]
    parameters: Float[Array, "L"]
    weight_elements: Float[Array, "L"]
    in_bits: Float[Array, "L"]
    weight_bits: Float[Array, "L"]
    out_bits: Float[Array, "L"]
    psum_bits: Float[Array, "L"]
    ranks: Float[Array, "L"]
    rank_step: Float[Array, "L"]
    causal: Float[Array, "L"]

    def __len__(self) -> int:
        return int(self.k.shape[0])

    @property
    def macs(self) -> Float[Array, "L"]:
        """Multiply-accumulates of each row, in the dtype of the computation. Exact host totals: `Workload.macs`."""
        size = self.is_matrix
        for name in ("groups", "batch", "k", "c", "p", "q", "r", "s"):
            size = size * getattr(self, name)
        return size

    @property
    def is_attention(self) -> Bool[Array, "L"]:
        """Rows whose two operands are both activations, both in `in_elements`; no GEMM shares one with another."""
        return self.kind == KINDS.index("attention_gemm")

    @property
    def is_fused_attention(self) -> Bool[Array, "L"]:
        """Rows that are attention as one kernel."""
        return self.kind == KINDS.index("attention")

    @property
    def is_experts(self) -> Bool[Array, "L"]:
        """Rows that are a layer of experts as one kernel."""
        return self.kind == KINDS.index("experts")

    @property
    def is_collective(self) -> Bool[Array, "L"]:
        """Rows that move data between devices: `COLLECTIVE_KINDS`."""
        return self.kind >= FIRST_COLLECTIVE

    @property
    def message_bytes(self) -> Float[Array, "L"]:
        """Of a collective: the whole tensor of a sum or a gathering, what a device holds of an exchange, what is sent."""
        return jnp.maximum(self.in_elements * self.in_bits, self.out_elements * self.out_bits) / 8


FIRST_COLLECTIVE = KINDS.index(COLLECTIVE_KINDS[0])
DIMS = ("groups", "batch", "k", "c", "p", "q", "r", "s")
_FLOATS = (
    "is_matrix", "lane_ops", "in_elements", "out_elements", "parameters", "weight_elements",
    "in_bits", "weight_bits", "out_bits", "psum_bits", "ranks", "rank_step", "causal",
)  # fmt: skip


def operator_row(
    kind: str,
    *,
    groups: int = 1,
    batch: int = 1,
    k: int,
    c: int = 1,
    p: int = 1,
    q: int = 1,
    r: int = 1,
    s: int = 1,
    stride: int = 1,
    in_elements: int | None = None,
    out_elements: int | None = None,
    lane_ops: int | None = None,
    parameters: int | None = None,
    weight_elements: int | None = None,
    bits: float = 8,
    in_bits: float | None = None,
    weight_bits: float | None = None,
    out_bits: float | None = None,
    psum_bits: float = 32,
    ranks: int = 1,
    rank_step: int = 1,
    causal: bool = False,
) -> dict:
    """One operator as a plain dictionary of exact integers, with everything derivable derived.

    `bits` holds for every operand whose own is not given; `in_bits` is the mean over activations that enter. Matrix rows do
    `lane_ops` only where given (a transposed convolution adds its windows up).
    Raises ValueError for an unknown kind or a size below one.
    """
    if kind not in KINDS:
        raise unknown_name("operator kind", kind, KINDS)
    row = dict(groups=groups, batch=batch, k=k, c=c, p=p, q=q, r=r, s=s, stride=stride)
    for name, size in row.items():
        if isinstance(size, bool) or not isinstance(size, int | np.integer) or not 1 <= size < 2**31:
            raise ValueError(f"{kind} operator: {name} is {size!r}; allowed: an integer from 1 to 2147483647")
    outputs = groups * batch * k * p * q
    matrix = kind in MATRIX_KINDS
    if in_elements is None:
        if kind == "attention_gemm":  # both operands are activations
            in_elements = groups * batch * c * (p * q + k)
        elif matrix:  # what the window touches, without padding
            height, width = (p - 1) * stride + min(r, stride * p), (q - 1) * stride + min(s, stride * q)
            in_elements = groups * batch * c * height * width
        else:
            in_elements = outputs
    if parameters is None:
        parameters = groups * k * c * r * s if kind in ("conv", "gemm") else 0
    if lane_ops is None:
        window = r * s if kind in ("max_pool", "avg_pool") else 1
        lane_ops = 0 if matrix else (in_elements if kind in _OF_INPUTS else outputs * window) * LANE_OPS.get(kind, 1)
    row.update(
        kind=KINDS.index(kind),
        is_matrix=float(matrix),
        lane_ops=lane_ops,
        in_elements=in_elements,
        out_elements=outputs if out_elements is None else out_elements,
        parameters=parameters,
        weight_elements=parameters if weight_elements is None else weight_elements,
        in_bits=bits if in_bits is None else in_bits,
        weight_bits=bits if weight_bits is None else weight_bits,
        out_bits=bits if out_bits is None else out_bits,
        psum_bits=psum_bits,
        ranks=ranks,
        rank_step=rank_step,
        causal=float(causal),
    )
    return row


def collective_row(kind: str, elements: int, ranks: int, *, bits: float = 8, rank_step: int = 1) -> dict:
    """A collective between `ranks` devices as a row of `operator_row`.

    `elements`: of the whole tensor (`all_reduce`, `all_gather`, `reduce_scatter`), of what this device holds before and after
    (`all_to_all`), of what goes to the next device (`send`). A device enters with a rank's part of what is gathered and leaves with
    a part of what is scattered (the largest part). Sums cost the lanes the additions of a ring, (n-1)/n of the elements.
    Raises ValueError for another kind and for sizes below one.
    """
    if kind not in COLLECTIVE_KINDS:
        raise unknown_name("collective", kind, COLLECTIVE_KINDS)
    for name, size in (("elements", elements), ("ranks", ranks), ("rank_step", rank_step)):
        if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
            raise ValueError(f"{kind} operator: {name} is {size!r}; allowed: an integer of at least 1")
    part = -(-elements // ranks)
    sums = kind in ("all_reduce", "reduce_scatter")
    row = operator_row(
        kind, k=1, in_elements=part if kind == "all_gather" else elements, lane_ops=elements - elements // ranks if sums else 0,
        out_elements=part if kind == "reduce_scatter" else elements, bits=bits, ranks=ranks, rank_step=rank_step,
    )  # fmt: skip
    return row


def stack_operators(rows: list[dict]) -> Operators:
    """Rows of `operator_row` as one struct of arrays: sizes int32, amounts float64 (exact up to 2**53)."""
    columns = {name: [row[name] for row in rows] for name in Operators.__dataclass_fields__}
    return Operators(
        **{name: np.asarray(column, np.float64 if name in _FLOATS else np.int32) for name, column in columns.items()}
    )


def exact_macs(operators: Operators) -> list[int]:
    """Multiply-accumulates of each row as exact Python integers (host only)."""
    total = []
    for i in range(len(operators)):
        size = int(operators.is_matrix[i])
        for name in DIMS:
            size *= int(getattr(operators, name)[i])
        total.append(size)
    return total
