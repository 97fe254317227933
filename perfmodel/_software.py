"""What the software of a machine launches: which operators of a graph it runs as one kernel. Static; a machine's file states it."""

from dataclasses import dataclass, replace

from ._names import unknown_name


@dataclass(frozen=True)
class Software:
    """What is one launch, and whose kernels they are. `perfmodel.workload.lower` turns a graph into what this launches.

    - `attention`: scores, masks, softmax and values, with the rotary positions before them.  `qkv`: products of one input whose results
      meet in that kernel are one product.
    - `gate`: so are the gate and the up product of a gated MLP.  `gated_activation`: its activation and the multiplication are one.
    - `residual_norm`: additions to the residual run in the norm behind them, which leaves the sum and the normed one.
    - `experts`: a router's choice, the experts and what their results add up to.
    - `conversion`: the kernel before a product of 8 bits hands its results over in 8 bits; else a pass of its own converts them.
    - `generated`: element-wise kernels and weight-only products are made by a compiler, which launches what the simplest kernel does.
    - `fusion`: backend whose rules join what is left (`perfmodel.workload.BACKENDS`).
    """

    name: str = "none"
    attention: bool = False
    qkv: bool = False
    gate: bool = False
    gated_activation: bool = False
    residual_norm: bool = False
    experts: bool = False
    conversion: bool = False
    generated: bool = False
    fusion: str = "none"

    @property
    def lowers(self) -> bool:
        """Whether a graph changes at all."""
        return any((self.attention, self.qkv, self.gate, self.gated_activation, self.residual_norm, self.experts))


NONE = Software()  # every operator a kernel
# of kernels made by hand for language models: TensorRT-LLM, vLLM
LIBRARY = Software("library", True, True, True, True, True, True, conversion=True)
# torch.compile as gpt-fast uses it: separate gate and up products
COMPILED = replace(LIBRARY, name="compiled", gate=False, generated=True)
# a dataflow machine's compiler: operators stream into each other, nothing has kernels of its own
STREAMING = Software("streaming", fusion="dataflow")
SOFTWARE = {each.name: each for each in (NONE, LIBRARY, COMPILED, STREAMING)}


def software(name: str, field: str = "software") -> Software:
    """By name. Raises ValueError for an unknown one."""
    if name not in SOFTWARE:
        raise unknown_name(field, name, SOFTWARE)
    return SOFTWARE[name]
