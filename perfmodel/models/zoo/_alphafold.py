"""AlphaFold2 (Jumper et al., Nature 596, 2021; algorithm numbers are those of its supplementary information).

Shapes: MSA (batch * rows, residues, channels), pair (batch * residues, residues, channels), single (batch, residues, channels).
Axes are exchanged by rows `copy` where the released code exchanges them (attention down columns).
"""

from ...workload._graph import Workload
from .._net import Tensor
from ._alphafold_blocks import Shared, evoformer_block, template_embedding
from ._alphafold_structure import structure_module

_MSA, _PAIR, _SINGLE, _EXTRA = 256, 128, 384, 64
_TARGET, _FEATURES, _EXTRA_FEATURES, _TORSIONS = 22, 49, 25, 57  # input features a residue
_OFFSETS, _DISTANCES = 65, 15  # relative positions, bins of distances of the last pass
_HEADS = {"masked_msa": 23, "distogram": 64, "resolved": 37, "lddt": 50}


def alphafold2(name: str, *, batch: int = 1, seq_len: int = 256, msa: int = 512, extra_msa: int = 1024, templates: int = 0,
               blocks: int = 48, extra_blocks: int = 4, recycles: int = 0, dtype: str = "int8",
               weight_dtype: str | None = None) -> Workload:  # fmt: skip
    """AlphaFold2 as a complete graph: embedders, extra MSA stack, Evoformer, structure module, output heads.

    **Arguments:** `seq_len`: residues; `msa`: clustered sequences; `extra_msa`: sequences of the extra stack (released: 1024 or
    5120); `templates`: 0 leaves the template stack out (models 3 to 5), 4 is that of models 1 and 2, whose torsion angles join the
    MSA as rows; `recycles`: passes after the first, which share its parameters (released: 3).

    The eight iterations of the structure module share parameters; side chains are computed in the last, the only one whose
    atoms are an output. Attention is over everything at once, without the released code's sub-batches. Outputs: atoms, pLDDT,
    distogram, resolved atoms, masked MSA.
    """
    net = Shared(name, batch, dtype, weight_dtype)
    first = net.input(batch, seq_len, _MSA)
    pair = net.input(batch * seq_len, seq_len, _PAIR)
    atoms = net.input(batch, seq_len, 37 * 3)
    sizes = (seq_len, msa, extra_msa, templates, blocks, extra_blocks)
    for turn in range(recycles + 1):
        net.stored = turn == 0
        first, pair, atoms = _pass(net, f"pass{turn}." if recycles else "", first, pair, atoms, sizes, turn == recycles)
    return net.build()


def _pass(
    net: Shared, at: str, first: Tensor, pair: Tensor, atoms: Tensor, sizes: tuple[int, ...], last: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """One pass of algorithm 2: the first row of the MSA, the pair representation and the atoms that the next one starts from."""
    residues, rows, extra_rows, templates, blocks, extra_blocks = sizes
    n = net.batch
    msa, pair = _embedded(net, at, first, pair, atoms, residues, rows)
    if templates:
        pair = template_embedding(net, f"{at}template", pair, templates)
        torsions = net.linear(f"{at}torsions.0", net.input(n * templates, residues, _TORSIONS), _MSA, bias=True)
        torsions = net.vector(f"{at}torsions.relu", "relu", torsions)
        msa = net.concat(msa, net.linear(f"{at}torsions.1", torsions, _MSA, bias=True), axis=0)
    extra = net.linear(f"{at}extra.embed", net.input(n * extra_rows, residues, _EXTRA_FEATURES), _EXTRA, bias=True)
    for i in range(extra_blocks):
        extra, pair = evoformer_block(net, f"{at}extra{i}", extra, pair, whole=False)
    for i in range(blocks):
        msa, pair = evoformer_block(net, f"{at}evoformer{i}", msa, pair)
    first, others = net.split(msa, n, msa.shape[0] - n, axis=0)
    single = net.linear(f"{at}single", first, _SINGLE, bias=True)
    single, atoms = structure_module(net, f"{at}structure", single, pair)
    if last:
        net.stored = True
        clusters = net.concat(first, net.split(others, n * (rows - 1), n * templates, axis=0)[0], axis=0)
        _heads(net, at, clusters, pair, single)
    return first, pair, atoms


def _embedded(
    net: Shared, at: str, first: Tensor, pair: Tensor, atoms: Tensor, residues: int, rows: int
) -> tuple[Tensor, Tensor]:
    """Input and recycling embedders (algorithms 3, 4, 32)."""
    n = net.batch
    target = net.input(n, residues, _TARGET)
    left, right = (net.linear(f"{at}embed.{side}", target, _PAIR, bias=True) for side in ("left", "right"))
    shape = (n * residues, residues)
    offsets = net.vector(f"{at}embed.offsets", "elementwise", net.input(n, residues), shape=(*shape, _OFFSETS))
    bins = shape[0] * residues * _DISTANCES
    near = net.vector(
        f"{at}recycle.distances",
        "elementwise",
        atoms,
        shape=(*shape, _DISTANCES),
        lane_ops=2 * bins + 9 * bins // _DISTANCES,
    )
    parts = (
        net.linear(f"{at}embed.relative", offsets, _PAIR, bias=True),
        net.linear(f"{at}recycle.atoms", near, _PAIR, bias=True),
        net.norm(f"{at}recycle.pair", "layer_norm", pair),
        left, right,
    )  # fmt: skip
    pair = net.vector(f"{at}embed.pair", "add", *parts, shape=(*shape, _PAIR), lane_ops=4 * pair.elements)
    msa = net.linear(f"{at}embed.msa", net.input(n * rows, residues, _FEATURES), _MSA, bias=True)
    target = net.linear(f"{at}embed.target", target, _MSA, bias=True)
    again = net.norm(f"{at}recycle.msa", "layer_norm", first)
    msa = net.vector(f"{at}embed.add", "add", msa, target, again, lane_ops=msa.elements + again.elements)
    return msa, pair


def _heads(net: Shared, at: str, msa: Tensor, pair: Tensor, single: Tensor) -> None:
    net.linear(f"{at}head.masked_msa", msa, _HEADS["masked_msa"], bias=True)
    half = net.linear(f"{at}head.distogram", pair, _HEADS["distogram"], bias=True)
    net.vector(f"{at}head.distogram.symmetric", "add", half)  # each half and its transpose
    net.linear(f"{at}head.resolved", single, _HEADS["resolved"], bias=True)
    x = net.norm(f"{at}head.lddt.norm", "layer_norm", single)
    for i in (0, 1):
        x = net.vector(f"{at}head.lddt.relu{i}", "relu", net.linear(f"{at}head.lddt.{i}", x, 128, bias=True))
    net.linear(f"{at}head.lddt.2", x, _HEADS["lddt"], bias=True)


BUILDERS = {"alphafold2": alphafold2}
