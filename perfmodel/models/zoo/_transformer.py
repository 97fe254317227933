"""Transformers from configuration records: token tables, blocks of attention and MLP, final norm, LM head.

Labels follow GPT-2's checkpoint. Attention is full (nothing saved by causality); norms, activations and softmax are lane work.
"""

from collections.abc import Callable
from contextlib import contextmanager

from ...workload._dtypes import Precision
from ...workload._graph import Workload
from ...workload._operators import operator_row
from ...workload._training import training_step
from .._net import Net, Tensor
from ._attention import attention
from ._experts import gated_mlp, mixture
from ._latent import latent_attention
from ._passes import Pass, dense_precision, pass_of
from ._records import Transformer


class Language(Net):
    """A net of a language model. `head_dtype`: of token table and LM head; not given, that of the weights, and never sparse."""

    def __init__(
        self, name: str, batch: int, dtype: str, weight_dtype: str | None = None, head_dtype: str | None = None
    ):
        super().__init__(name, batch, dtype, weight_dtype)
        self.head = dense_precision(head_dtype, "head_dtype") if head_dtype else Precision(self.weight.bits)

    @contextmanager
    def of_head(self):
        """Weights have the head's precision inside."""
        self.weight, kept = self.head, self.weight
        try:
            yield
        finally:
            self.weight = kept


def language_model(name: str, spec: Transformer, *, dtype: str, weight_dtype: str | None = None, kv_dtype: str | None = None,
                   head_dtype: str | None = None, lm_head: bool = True, **options) -> Workload:  # fmt: skip
    """The graph of a decoder in a pass. `options`: those of `_passes.pass_of`.

    Raises ValueError for options that are not allowed (see `pass_of`) and unknown dtypes.
    """
    run = pass_of(name, dtype=dtype, kv_dtype=kv_dtype, limit=spec.limit, **options)._replace(causal=True)
    net = Language(name, run.batch, dtype, weight_dtype, head_dtype)
    x = stack(net, spec, embedded(net, spec, run), run)
    if lm_head:
        logits(net, spec, x, run)
    return finished(net, run)


def finished(net: Net, run: Pass) -> Workload:
    """The workload of a net: in training with backward pass and update."""
    return training_step(net.build()) if run.phase == "train" else net.build()


def embedded(net: Language, spec: Transformer, run: Pass) -> Tensor:
    """Token rows, with those of the learned positions and token types, straight from memory: (batch, tokens, width)."""
    rows, width = run.batch * run.tokens, spec.table_width or spec.width
    narrow = width != spec.width  # then positions are added behind the projection
    tables = [spec.vocabulary] + [n for n in (spec.positions, spec.types) if n and not narrow]
    x = _looked_up(net, "embed", tables, rows, width, spec.scaled).reshaped(run.batch, run.tokens, width)
    if narrow:
        x = net.linear("embed.in", x, spec.width)
        if spec.positions:
            positions = _looked_up(net, "embed.positions", [spec.positions], rows, spec.width).reshaped(*x.shape)
            x = net.vector("embed.add", "add", x, positions)
    return norm(net, "embed", spec, x) if spec.embed_norm else x


def _looked_up(net: Language, label: str, tables: list[int], rows: int, width: int, scaled: bool = False) -> Tensor:
    """The sum of one row of each table for every token, times a constant if `scaled`."""
    row = operator_row(
        "embedding", k=width, p=rows, parameters=sum(tables) * width, weight_elements=0, in_elements=len(tables) * rows * width,
        lane_ops=(len(tables) + scaled) * rows * width, bits=net.activation.bits, in_bits=net.head.bits, weight_bits=net.head.bits,
    )  # fmt: skip
    return net.layer(label, row, (), (rows, width), outside_bytes=len(tables) * rows * width * net.head.bits / 8)


def stack(net: Net, spec: Transformer, x: Tensor, run: Pass) -> Tensor:
    """All blocks and the final norm; notes what the pass leaves in the KV cache."""
    for layer in range(spec.layers):
        x = block(net, f"{spec.block}{layer}", spec, x, run, layer)
    if run.cached:
        kept = sum(run.kept(spec.window(layer)) for layer in range(spec.layers))
        net.kv_bytes_per_token = spec.layers * spec.kv_elements * run.kv_bits / 8
        net.kv_tokens = run.batch * kept / spec.layers
    return norm(net, "f", spec, x) if spec.final_norm else x


def block(net: Net, label: str, spec: Transformer, x: Tensor, run: Pass, layer: int = 0) -> Tensor:
    """One block on `x`, (batch, tokens, width)."""

    def attended(x: Tensor) -> Tensor:
        if spec.latent:
            return latent_attention(net, f"{label}.attn", x, spec, run)
        return attention(net, f"{label}.attn", x, spec, run, spec.window(layer))

    def transformed(x: Tensor) -> Tensor:
        if spec.experts and layer not in spec.experts.dense:
            return mixture(net, f"{label}.mlp", x, spec, run)
        return mlp(net, f"{label}.mlp", spec, x)

    def normed(which: str, x: Tensor) -> Tensor:
        return norm(net, f"{label}.{which}", spec, x)

    def added(which: int, a: Tensor, b: Tensor) -> Tensor:
        return net.vector(f"{label}.add_{which}", "add", a, b)

    if spec.parallel:
        first = normed("1", x)
        second = first if spec.parallel == 1 else normed("2", x)
        return added(2, added(1, attended(first), transformed(second)), x)
    if spec.order == "post":
        x = normed("1", added(1, attended(x), x))
        return normed("2", added(2, transformed(x), x))
    if spec.order == "sandwich":
        x = added(1, normed("2", attended(normed("1", x))), x)
        return added(2, normed("4", transformed(normed("3", x))), x)
    x = added(1, attended(normed("1", x)), x)
    return added(2, transformed(normed("2", x)), x)


def mlp(net: Net, label: str, spec: Transformer, x: Tensor) -> Tensor:
    """The dense MLP of a block: gated, or two layers with an activation between them."""
    if spec.gated:
        return gated_mlp(net, label, x, spec.hidden, spec.activation, bias=spec.mlp_bias, fused=spec.fused_gate)
    hidden = net.linear(f"{label}.fc", x, spec.hidden, bias=spec.mlp_bias)
    hidden = net.vector(f"{label}.{spec.activation}", spec.activation, hidden)
    return net.linear(f"{label}.proj", hidden, x.shape[-1], bias=spec.mlp_bias)


def norm(net: Net, label: str, spec: Transformer, x: Tensor) -> Tensor:
    """A norm with its scale (and shift): `h0.ln_1`, `layer0.norm_1`, `ln_f`."""
    where, _, which = label.rpartition(".")
    name = f"{'ln' if spec.norm == 'layer_norm' else 'norm'}_{which}"
    return net.norm(f"{where}.{name}" if where else name, spec.norm, x)


def last_tokens(net: Net, x: Tensor) -> Tensor:
    """Of each sequence the last token; a view."""
    batch, tokens, _ = x.shape
    return net.split(x, tokens - 1, 1, axis=1)[1] if tokens > 1 else x.reshaped(batch, 1, x.shape[-1])


def logits(net: Language, spec: Transformer, x: Tensor, run: Pass) -> Tensor:
    """The LM head, on the last token of each sequence unless the pass wants all. A tied one is read but not stored again."""
    x = x if run.all_logits else last_tokens(net, x)
    if spec.table_width and spec.table_width != spec.width:
        x = net.linear("embed.out", x, spec.table_width)
    with net.of_head():
        out = net.linear("lm_head", x, spec.vocabulary, bias=spec.head_bias, stored=not spec.tied)
    return net.vector("lm_head.softcap", "tanh", out, lane_ops=3 * out.elements) if spec.head_softcap else out


def language_models(
    specs: dict[str, Transformer], weight_dtype: str | None = None
) -> dict[str, Callable[..., Workload]]:
    """Builders of decoders by name; `weight_dtype`: what their weights are unless an option says otherwise."""

    def decoder(name: str, *, batch: int = 1, phase: str = "prefill", seq_len: int | None = None, context: int | None = None,
                lm_head: bool = True, all_logits: bool = False, dtype: str = "bf16", weight_dtype: str | None = weight_dtype,
                kv_dtype: str | None = None, head_dtype: str | None = None) -> Workload:  # fmt: skip
        """A large language model as a complete graph.

        **Arguments:** `phase`: prefill, decode or train.  `seq_len`: tokens that pass (1024 unless given, 1 in decode).
        `context`: tokens in the KV cache before (0, in decode 1024).  `all_logits`: the LM head sees all tokens, else the last
        of each sequence; in training always.  `head_dtype`: of token table and LM head (as the weights, but never sparse).

        Raises ValueError for sizes and names that are not allowed.
        """
        return language_model(
            name, specs[name], batch=batch, phase=phase, seq_len=seq_len, context=context, lm_head=lm_head, all_logits=all_logits,
            dtype=dtype, weight_dtype=weight_dtype, kv_dtype=kv_dtype, head_dtype=head_dtype,
        )  # fmt: skip

    return dict.fromkeys(specs, decoder)
