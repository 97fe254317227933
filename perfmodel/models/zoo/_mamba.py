"""Mamba (Gu and Dao, arXiv 2312.00752), sizes of the released checkpoints: selective scans instead of attention."""

from typing import NamedTuple

from ...workload._graph import Workload
from ...workload._operators import operator_row
from .._net import Net, Tensor
from ._passes import Pass, leave_in_memory, pass_of
from ._records import Transformer
from ._transformer import Language, embedded, finished, logits


class Mamba(NamedTuple):
    """A stack of Mamba blocks: `inner` channels, each with `state` numbers that it carries from token to token."""

    vocabulary: int
    width: int
    layers: int
    state: int = 16
    kernel: int = 4
    inner: int = 0
    dt_rank: int = 0
    bias: bool = False
    conv_bias: bool = True
    tied: bool = True

    @property
    def channels(self) -> int:
        return self.inner or 2 * self.width

    @property
    def rank(self) -> int:
        """Width from which the step sizes of all channels are projected."""
        return self.dt_rank or -(-self.width // 16)


SPECS = {"mamba-130m": Mamba(50280, 768, 24), "mamba-2.8b": Mamba(50280, 2560, 64)}


def mamba(name: str, *, batch: int = 1, phase: str = "prefill", seq_len: int | None = None, context: int | None = None,
          lm_head: bool = True, all_logits: bool = False, dtype: str = "bf16", weight_dtype: str | None = None,
          kv_dtype: str | None = None, head_dtype: str | None = None) -> Workload:  # fmt: skip
    """Mamba as a complete graph; options as those of `llama-2-7b`, `kv_dtype` that of the recurrent state.

    There is no KV cache: what a sequence leaves (`state` numbers a channel, and the last inputs of the convolution) does not
    grow with `context`. After a context it is read, and after every pass but training's it is written.
    Raises ValueError for sizes and names that are not allowed.
    """
    return recurrent(
        name, SPECS[name], batch=batch, phase=phase, seq_len=seq_len, context=context, lm_head=lm_head, all_logits=all_logits,
        dtype=dtype, weight_dtype=weight_dtype, kv_dtype=kv_dtype, head_dtype=head_dtype,
    )  # fmt: skip


def recurrent(name: str, spec: Mamba, *, dtype: str, weight_dtype: str | None = None, kv_dtype: str | None = None,
              head_dtype: str | None = None, lm_head: bool = True, **options) -> Workload:  # fmt: skip
    """The graph of a stack of Mamba blocks; arguments as those of `mamba`."""
    run = pass_of(name, dtype=dtype, kv_dtype=kv_dtype, **options)
    net = Language(name, run.batch, dtype, weight_dtype, head_dtype)
    outside = Transformer(spec.vocabulary, spec.width, spec.layers, 1, 1, tied=spec.tied)
    x = embedded(net, outside, run)
    for layer in range(spec.layers):
        x = _block(net, f"layer{layer}", spec, x, run)
    x = net.norm("norm_f", "rms_norm", x)
    if lm_head:
        logits(net, outside, x, run)
    return finished(net, run)


def _block(net: Net, label: str, spec: Mamba, x: Tensor, run: Pass) -> Tensor:
    inner, wide = spec.channels, spec.state
    normed = net.norm(f"{label}.norm", "rms_norm", x)
    u, z = net.split(net.linear(f"{label}.in_proj", normed, 2 * inner, bias=spec.bias), inner, inner, axis=-1)
    u = net.vector(f"{label}.conv.silu", "silu", _convolved(net, f"{label}.conv", spec, u, run))
    dt, into, out = net.split(net.linear(f"{label}.x_proj", u, spec.rank + 2 * wide), spec.rank, wide, wide, axis=-1)
    dt = net.vector(f"{label}.dt.softplus", "elementwise", net.linear(f"{label}.dt_proj", dt, inner, bias=True))
    y = _scanned(net, f"{label}.scan", spec, (u, dt, into, out), run)
    y = net.vector(f"{label}.mul", "mul", y, net.vector(f"{label}.silu", "silu", z))
    return net.vector(f"{label}.add", "add", net.linear(f"{label}.out_proj", y, spec.width, bias=spec.bias), x)


def _convolved(net: Net, label: str, spec: Mamba, u: Tensor, run: Pass) -> Tensor:
    """Each channel's last `kernel` inputs, weighted; those of before this pass come from memory."""
    inner, bits = spec.channels, net.activation.bits
    past = run.batch * inner * (spec.kernel - 1)
    before = past if run.context else 0
    row = operator_row(
        "conv", groups=inner, batch=run.batch, k=1, p=run.tokens, r=spec.kernel, parameters=inner * (spec.kernel + spec.conv_bias),
        in_elements=u.elements + before, bits=bits, weight_bits=net.weight.bits,
        in_bits=(u.elements * bits + before * run.kv_bits) / (u.elements + before),
    )  # fmt: skip
    if run.cached:
        net.state_bytes += past * run.kv_bits / 8
        leave_in_memory(net, u, past * run.kv_bits / 8)
    return net.layer(label, row, (u,), u.shape, outside_bytes=before * run.kv_bits / 8)


def _scanned(net: Net, label: str, spec: Mamba, inputs: tuple[Tensor, ...], run: Pass) -> Tensor:
    """The selective scan: h = exp(dt A) h + (dt u) B and y = C h + D u, for every token and channel.

    Lane operations: a state and token 7 (dt A, exp; times h; times B, add; times C, add), a channel and token 3 (dt u; D u, add).
    """
    inner, wide, bits = spec.channels, spec.state, net.activation.bits
    tokens, states = run.batch * run.tokens, run.batch * inner * wide
    before = states if run.context else 0
    reads = sum(tensor.elements for tensor in inputs)
    row = operator_row(
        "scan", k=inner, p=tokens, parameters=inner * (wide + 1), lane_ops=tokens * inner * (7 * wide + 3),
        in_elements=reads + before, bits=bits, weight_bits=net.weight.bits,
        in_bits=(reads * bits + before * run.kv_bits) / (reads + before),
    )  # fmt: skip
    state = run.kv_bits / 8
    net.state_bytes += states * state * run.cached
    return net.layer(
        label, row, inputs, inputs[0].shape, outside_bytes=before * state, outside_out_bytes=states * state * run.cached
    )


BUILDERS = {name: mamba for name in SPECS}
