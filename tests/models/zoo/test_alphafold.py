"""AlphaFold2 against DeepMind's released code, module by module, and growth in sequence length."""

import re
from collections import Counter

import pytest

import perfmodel as pm
from perfmodel.workload import KINDS, exact_macs

# Parameters of DeepMind's modules, by tracing their initialisation (alphafold-colabfold 2.3.6, config model_1): 48 Evoformer blocks
EVOFORMER = {
    "msa_row": 15_839_232, "msa_column": 15_777_792, "msa_transition": 25_251_840, "outer": 7_111_680,
    "triangle_outgoing": 4_780_032, "triangle_incoming": 4_780_032, "triangle_starting_node": 3_981_312,
    "triangle_ending_node": 3_981_312, "pair_transition": 6_334_464,
}  # fmt: skip
EXTRA = {
    "msa_row": 88_064, "msa_column": 54_272, "msa_transition": 132_864, "outer": 541_952, "triangle_outgoing": 398_336,
    "triangle_incoming": 398_336, "triangle_starting_node": 331_776, "triangle_ending_node": 331_776, "pair_transition": 527_872,
}  # fmt: skip
OTHERS = {
    "ipa": 1_256_472,  # invariant point attention, 12 point weights included
    "side_chains": 166_414,
    "template": 24_704 + 224_064,  # attention; pair stack, embedding and norm
    "torsions": 14_848 + 65_792,
    "head": 8_256 + 14_245 + 5_911 + 49_280 + 16_512 + 768 + 6_450,
    "embed": 2_944 + 2_944 + 8_448 + 12_800 + 5_888,
    "recycle": 512 + 256 + 2_048,
    "single": 98_688,
}


@pytest.fixture(scope="module")
def whole():
    return pm.models.load("alphafold2", templates=4, seq_len=16, msa=8, extra_msa=8)


def test_published_parameters(whole):
    """93 M as published: 93,229,082 in models 1 and 2, 92,899,674 in models 3 to 5, which have no templates."""
    assert whole.parameters == 93_229_082
    assert pm.models.load("alphafold2", seq_len=16, msa=8, extra_msa=8).parameters == 92_899_674


def test_parameters_of_each_module(whole):
    found = Counter()
    for name, parameters in zip(whole.names, whole.operators.parameters, strict=True):
        stack, part = re.match(r"(extra|evoformer)\d+\.(\w+)", name), re.match(r"(?:structure\.)?(?:\d+\.)?(\w+)", name)
        found[stack.groups() if stack else part.group(1)] += int(parameters)
    assert {part: found["evoformer", part] for part in EVOFORMER} == EVOFORMER
    assert {part: found["extra", part] for part in EXTRA} == EXTRA
    assert {part: found[part] for part in OTHERS} == OTHERS


# Multiply-accumulates of all dot_general of the released code's jaxpr (alphafold-colabfold 2.3.6, sub-batches and remat off,
# scans times their length), 64 residues, 32 clusters, 48 extra sequences
@pytest.mark.parametrize("templates, released", [(0, 275_302_457_344), (4, 296_263_819_264)])
def test_macs_of_the_released_code(templates, released):
    w = pm.models.load("alphafold2", seq_len=64, msa=32, extra_msa=48, templates=templates)
    r, rows = 64, 32 + templates
    masks = r * r * (48 * rows + 4 * 48)  # counts the valid pairs of the outer product mean; masks are not in the graph
    side_chains = 7 * r * (2 * 384 * 128 + 4 * 128 * 128 + 128 * 14)  # of iterations whose atoms are no output
    point_values = 8 * 12 * r * r * 8 * 3  # the code multiplies and sums elementwise; a product here
    assert w.macs == released - masks - side_chains + point_values


def test_growth_with_length():
    """Triangles and row attention over pairs grow with the cube of the length, pair rows with its square, the rest linearly."""
    sizes = [pm.models.load("alphafold2", seq_len=n, msa=16, extra_msa=16) for n in (32, 64)]
    one, two = (exact_macs(w.operators) for w in sizes)
    names = sizes[0].names
    for part, factor in (
        ("evoformer0.triangle_outgoing.product", 8), ("evoformer0.triangle_starting_node.scores", 8),
        ("evoformer0.triangle_ending_node.values", 8), ("evoformer0.msa_row.scores", 4), ("evoformer0.outer.product", 4),
        ("evoformer0.pair_transition.0", 4), ("evoformer0.msa_column.scores", 2), ("structure.0.ipa.q", 2),
    ):  # fmt: skip
        assert two[names.index(part)] == factor * one[names.index(part)], part
    assert sizes[0].parameters == sizes[1].parameters


def test_recycling_repeats_the_pass_with_the_same_parameters():
    size = {"seq_len": 16, "msa": 8, "extra_msa": 8, "blocks": 2, "extra_blocks": 1, "templates": 2}
    once, thrice = pm.models.load("alphafold2", **size), pm.models.load("alphafold2", recycles=2, **size)
    assert thrice.parameters == once.parameters
    heads = sum(m for m, n in zip(exact_macs(once.operators), once.names, strict=True) if n.startswith("head."))
    assert thrice.macs - heads == 3 * (once.macs - heads)
    # later passes read their weights again, though nothing more is stored
    gemm = thrice.names.index("pass2.evoformer0.msa_transition.0")
    assert thrice.operators.parameters[gemm] == 0 and thrice.operators.weight_elements[gemm] == 256 * 1024 + 1024
    # what recycles: the first row of the MSA, the pairs, the atoms
    for row, source in (
        ("recycle.msa", "evoformer1.msa_transition.add"),
        ("recycle.distances", "structure.side_chains.atoms"),
    ):
        at = thrice.names.index(f"pass1.{row}")
        assert thrice.names[thrice.inputs[at][0]] == f"pass0.{source}"


def test_structure_module_shares_its_parameters():
    w = pm.models.load("alphafold2", seq_len=16, msa=8, extra_msa=8, blocks=1, extra_blocks=1)
    rows = [w.names.index(f"structure.{i}.ipa.out") for i in range(8)]
    assert [int(w.operators.parameters[i]) for i in rows] == [2112 * 384 + 384] + [0] * 7
    assert len({w.operators.weight_elements[i] for i in rows}) == 1
    kinds = Counter(KINDS[k] for k in w.operators.kind)
    assert kinds["softmax"] == 2 * 4 + 8  # row, column and two triangle attentions of each block; the iterations
