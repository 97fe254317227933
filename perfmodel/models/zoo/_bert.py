"""BERT (Devlin et al., arXiv 1810.04805), sizes of the released uncased checkpoints: an encoder of whole sequences."""

from ..._names import unknown_name
from ...workload._graph import Workload
from .._net import Tensor
from ._passes import Pass, pass_of
from ._records import Transformer
from ._transformer import Language, embedded, finished, stack


def bert(width: int, heads: int, layers: int, *, hidden: int = 0, vocabulary: int = 30522, positions: int = 512, types: int = 2,
         **more) -> Transformer:  # fmt: skip
    """The record of a BERT: norms behind the residuals, biases, tables of positions and token types."""
    fields = dict(
        norm="layer_norm", activation="gelu", gated=False, order="post", positions=positions, limit=positions, types=types,
        qkv_bias=True, out_bias=True, mlp_bias=True, embed_norm=True, final_norm=False, tied=True,
    )  # fmt: skip
    return Transformer(vocabulary, width, layers, heads, hidden or 4 * width, **(fields | more))


SPECS = {"bert-base": bert(768, 12, 12), "bert-large": bert(1024, 16, 24)}
HEADS = ("pooler", "mlm", "none")


def encoder(name: str, *, batch: int = 1, phase: str = "prefill", seq_len: int | None = None, head: str = "pooler",
            dtype: str = "int8", weight_dtype: str | None = None) -> Workload:  # fmt: skip
    """BERT as a complete graph with separate GEMMs for Q, K and V.

    **Arguments:** `seq_len`: tokens of a sequence, 512 unless given.  `phase`: prefill (a whole pass) or train.
    `head`: `pooler` (a dense layer and tanh on the first token), `mlm` (dense layer, norm and tied head on all), or `none`.

    Raises ValueError where `seq_len` exceeds the 512 learned positions, and for names that are not known.
    """
    return encode(
        name, SPECS[name], batch=batch, phase=phase, seq_len=seq_len, head=head, dtype=dtype, weight_dtype=weight_dtype
    )


def encode(name: str, spec: Transformer, *, batch: int, phase: str, seq_len: int | None, head: str, dtype: str,
           weight_dtype: str | None) -> Workload:  # fmt: skip
    """The graph of an encoder; arguments as those of `encoder`."""
    if phase == "decode":
        raise ValueError(f"{name}: phase is 'decode'; allowed: prefill, train (an encoder sees whole sequences)")
    if head not in HEADS:
        raise unknown_name(f"{name}: head", head, HEADS)
    run = pass_of(
        name, phase=phase, batch=batch, seq_len=seq_len, dtype=dtype, cached=False, default=512, limit=spec.limit
    )
    net = Language(name, batch, dtype, weight_dtype)
    x = stack(net, spec, embedded(net, spec, run), run)
    if head == "pooler":
        _pooler(net, x, run)
    if head == "mlm":
        _masked(net, spec, x)
    return finished(net, run)


def _pooler(net: Language, x: Tensor, run: Pass) -> None:
    width = x.shape[-1]
    first = net.split(x, 1, run.tokens - 1, axis=1)[0] if run.tokens > 1 else x
    net.vector("pooler.tanh", "tanh", net.linear("pooler", first.reshaped(run.batch, width), width, bias=True))


def _masked(net: Language, spec: Transformer, x: Tensor) -> None:
    x = net.vector("mlm.gelu", "gelu", net.linear("mlm.transform", x, spec.width, bias=True))
    x = net.norm("mlm.ln", "layer_norm", x)
    with net.of_head():  # tied to the token table, but with biases of its own
        out = net.linear("mlm.decoder", x, spec.vocabulary, bias=True, stored=False)
    net.rows[out.parts[0][0]]["parameters"] = spec.vocabulary


BUILDERS = {name: encoder for name in SPECS}
