"""Mixtral 8x7B (Jiang et al., arXiv 2401.04088): Mistral with eight experts a layer, two of them a token."""

from ...workload._graph import Workload
from ._llama import llama
from ._records import Experts
from ._transformer import language_model

SPECS = {"mixtral-8x7b": llama(32000, 4096, 32, 32, 8, 14336, experts=Experts(8, 2, 14336))}


def mixtral(name: str, *, batch: int = 1, phase: str = "prefill", seq_len: int | None = None, context: int | None = None,
            imbalance: float = 0.0, lm_head: bool = True, all_logits: bool = False, dtype: str = "bf16",
            weight_dtype: str | None = None, kv_dtype: str | None = None, head_dtype: str | None = None) -> Workload:  # fmt: skip
    """A mixture of experts as a complete graph; options as those of `llama-2-7b`.

    `imbalance`: exponent of a power law over the experts' shares of tokens; 0: all experts alike, and as many of them at work
    as tokens can reach. Raises ValueError for sizes and names that are not allowed.
    """
    return language_model(
        name, SPECS[name], batch=batch, phase=phase, seq_len=seq_len, context=context, imbalance=imbalance, lm_head=lm_head,
        all_logits=all_logits, dtype=dtype, weight_dtype=weight_dtype, kv_dtype=kv_dtype, head_dtype=head_dtype,
    )  # fmt: skip


BUILDERS = {name: mixtral for name in SPECS}
