"""GPT-3 175B (Brown et al., arXiv 2005.14165, table 2.1) and a GPT of 13B with sparse weights.

GPT-3's attention alternates dense and banded layers whose band is not published; here all are dense. Weights were never
released: 174.6e9 parameters follow from the table. The sparse GPT is the one of SambaNova (arXiv 2304.05511; SN40L, arXiv
2405.07518): GPT 13B with seven of eight weights of the blocks' dense layers pruned, tables and biases as they were; its dense
equivalent, 12,853,386,240 parameters, is `weight_dtype="bf16"`.
"""

from ._gpt2 import gpt
from ._transformer import language_models

_SIZES = {"gpt3-175b": (12288, 96, 96), "sparse-gpt-13b": (5120, 40, 40)}  # model width, heads, blocks
SPECS = {name: gpt(*size, positions=2048) for name, size in _SIZES.items()}

BUILDERS = language_models({"gpt3-175b": SPECS["gpt3-175b"]}) | language_models(
    {"sparse-gpt-13b": SPECS["sparse-gpt-13b"]}, weight_dtype="bf16-sparse87.5"
)
