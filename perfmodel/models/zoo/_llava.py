"""LLaVA-1.5 7B (Liu et al., arXiv 2310.03744): a CLIP tower, a projector, and Vicuna 7B, which has Llama 2's shape.

Sizes are those of the checkpoint in the transformers library (32064 rows in the token table, 64 more than Vicuna's).
"""

from ...workload._graph import Workload
from ._clip import Tower, clip, seen
from ._llama import llama
from ._passes import pass_of
from ._records import Transformer
from ._transformer import Language, embedded, finished, logits, stack

SPECS = {"llava-1.5-7b": (clip(1024, 16, 24, 4096, 336, 14, used=23), llama(32064, 4096, 32, 32, 32, 11008))}


def llava(name: str, *, batch: int = 1, phase: str = "prefill", seq_len: int | None = None, context: int | None = None,
          images: int = 1, lm_head: bool = True, all_logits: bool = False, dtype: str = "bf16", weight_dtype: str | None = None,
          kv_dtype: str | None = None, head_dtype: str | None = None) -> Workload:  # fmt: skip
    """LLaVA as a complete graph; options as those of `llama-2-7b`.

    `images` of each sequence, 576 tokens each, stand before the `seq_len` tokens of text. The tower's last layer is not run:
    features are those before it. In decode the pictures are part of `context`, and the tower is stored but not read.
    Raises ValueError for sizes and names that are not allowed.
    """
    return sighted(
        name, *SPECS[name], batch=batch, phase=phase, seq_len=seq_len, context=context, images=images, lm_head=lm_head,
        all_logits=all_logits, dtype=dtype, weight_dtype=weight_dtype, kv_dtype=kv_dtype, head_dtype=head_dtype,
    )  # fmt: skip


def sighted(name: str, tower: Tower, spec: Transformer, *, images: int, dtype: str, weight_dtype: str | None = None,
            kv_dtype: str | None = None, head_dtype: str | None = None, lm_head: bool = True, **options) -> Workload:  # fmt: skip
    """The graph of a language model that sees pictures; arguments as those of `llava`."""
    run = pass_of(name, dtype=dtype, kv_dtype=kv_dtype, limit=spec.limit, **options)._replace(causal=True)
    net, width = Language(name, run.batch, dtype, weight_dtype, head_dtype), spec.width
    if run.phase == "decode":
        x = embedded(net, spec, run)
        projector = (tower.spec.width + 1) * width + (width + 1) * width
        net.rows[x.parts[0][0]]["parameters"] += tower.parameters + projector
    else:
        _, x = seen(net, tower, run, run.batch * images)
        x = net.vector("projector.gelu", "gelu", net.linear("projector.fc1", x, width, bias=True))
        x = net.linear("projector.fc2", x, width, bias=True).reshaped(run.batch, images * tower.patches, width)
        x = net.concat(x, embedded(net, spec, run), axis=1)
        run = run._replace(tokens=x.shape[1])
    x = stack(net, spec, x, run)
    if lm_head:
        logits(net, spec, x, run)
    return finished(net, run)


BUILDERS = {name: llava for name in SPECS}
