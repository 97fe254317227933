"""The structure module of AlphaFold2 (supplementary algorithms 20 to 25)."""

from .._net import Net, Tensor
from ._alphafold_blocks import Shared

_ITERATIONS, _HEADS = 8, 12
_SCALAR, _QUERY_POINTS, _VALUE_POINTS = 16, 4, 8  # channels of queries, keys and values; points a head
_TORSIONS, _ANGLES, _HIDDEN = 7, 14, 128
_FRAME = 7  # quaternion and translation
_ROTATE = 18  # lane operations to rotate and shift a point: three rows of three multiplies and three adds
_ATOMS = 37


def structure_module(net: Shared, label: str, single: Tensor, pair: Tensor) -> tuple[Tensor, Tensor]:
    """Eight iterations with one set of parameters; the single representation and the positions of all atoms."""
    n, residues, width = single.shape
    initial = net.norm(f"{label}.single_norm", "layer_norm", single)
    pair = net.norm(f"{label}.pair_norm", "layer_norm", pair)
    x = net.linear(f"{label}.initial", initial, width, bias=True)
    frames = net.input(n, residues, _FRAME)
    kept = net.stored
    for i in range(_ITERATIONS):
        net.stored, at = kept and i == 0, f"{label}.{i}"
        x = net.vector(f"{at}.ipa.add", "add", x, _point_attention(net, f"{at}.ipa", x, pair, frames))
        x = net.norm(f"{at}.norm", "layer_norm", x)
        out = x
        for layer in range(3):
            out = net.linear(f"{at}.transition{layer}", out, width, bias=True)
            if layer < 2:
                out = net.vector(f"{at}.relu{layer}", "relu", out)
        x = net.norm(f"{at}.transition_norm", "layer_norm", net.vector(f"{at}.add", "add", x, out))
        update = net.linear(f"{at}.update", x, 6, bias=True)
        ops = 3 * _ROTATE * n * residues  # quaternion times quaternion, normalised; translation rotated
        frames = net.vector(f"{at}.frames", "elementwise", frames, update, lane_ops=ops)
    net.stored = kept
    atoms = _side_chains(net, f"{label}.side_chains", x, initial, frames)
    return x, atoms


def _point_attention(net: Net, label: str, x: Tensor, pair: Tensor, frames: Tensor) -> Tensor:
    """Invariant point attention (algorithm 22): scalars, points in space and pairs enter the weights, and are gathered."""
    n, residues, width = x.shape
    groups = n * _HEADS
    scalars, points = _HEADS * _SCALAR, _HEADS * 3
    q = net.linear(f"{label}.q", x, scalars, bias=True)
    k, v = net.split(net.linear(f"{label}.kv", x, 2 * scalars, bias=True), scalars, scalars, axis=-1)

    def placed(part: str, number: int) -> Tensor:
        local = net.linear(f"{label}.{part}_points", x, points * number, bias=True)
        ops = local.elements // 3 * _ROTATE
        return net.vector(f"{label}.{part}_placed", "elementwise", local, frames, lane_ops=ops)

    q_points = placed("q", _QUERY_POINTS)
    both = placed("kv", _QUERY_POINTS + _VALUE_POINTS)
    k_points, v_points = net.split(both, points * _QUERY_POINTS, points * _VALUE_POINTS, axis=-1)
    bias = net.linear(f"{label}.pair", pair, _HEADS, bias=True)
    weights: list[Tensor] = []

    def add(scores: Tensor) -> Tensor:
        # squared distances (subtract, square, add: three coordinates of four points), weight of the head, two sums
        ops = scores.elements * (_QUERY_POINTS * 3 * 3 + 3)
        return net.vector(
            f"{label}.points", "elementwise", scores, q_points, k_points, bias, shape=scores.shape, parameters=_HEADS,
            lane_ops=ops, groups=groups,
        )  # fmt: skip

    def gathered(part: str, values: Tensor, depth: int) -> Tensor:
        return net.product(f"{label}.{part}", weights[0], values, groups=groups, p=residues, k=depth, c=residues)

    scores = add(net.product(f"{label}.scores", q, k, groups=groups, p=residues, k=residues, c=_SCALAR))
    weights.append(net.vector(f"{label}.softmax", "softmax", scores, groups=groups))
    found = [gathered("values", v, _SCALAR), gathered("point_values", v_points, 3 * _VALUE_POINTS)]
    # of each residue its own row of pairs: heads x residues by residues x channels
    found.append(net.product(
        f"{label}.pair_values", weights[0], pair, groups=n * residues, p=_HEADS, k=pair.shape[-1], c=residues
    ))  # fmt: skip
    ops = n * residues * _HEADS * _VALUE_POINTS * (_ROTATE + 6)  # back into the frame of the residue, and lengths
    local = net.vector(
        f"{label}.point_local", "elementwise", found[1], frames, shape=(n, residues, _HEADS * _VALUE_POINTS * 4), lane_ops=ops
    )  # fmt: skip
    flat = net.concat(
        found[0].reshaped(n, residues, scalars), local, found[2].reshaped(n, residues, _HEADS * pair.shape[-1]), axis=-1
    )  # fmt: skip
    return net.linear(f"{label}.out", flat, width, bias=True)


def _side_chains(net: Net, label: str, x: Tensor, initial: Tensor, frames: Tensor) -> Tensor:
    """Torsion angles from a small residual network, then atoms from frames and angles (algorithms 20, 24)."""
    n, residues, _ = x.shape
    made = []
    for i, source in enumerate((x, initial)):
        made.append(net.linear(f"{label}.in{i}", net.vector(f"{label}.in{i}.relu", "relu", source), _HIDDEN, bias=True))
    x = net.vector(f"{label}.in.add", "add", *made)
    for i in range(2):
        out = x
        for layer in range(2):
            out = net.vector(f"{label}.{i}.relu{layer}", "relu", out)
            out = net.linear(f"{label}.{i}.{layer}", out, _HIDDEN, bias=True)
        x = net.vector(f"{label}.{i}.add", "add", x, out)
    angles = net.linear(f"{label}.angles", net.vector(f"{label}.relu", "relu", x), _ANGLES, bias=True)
    rotations = (_TORSIONS + 1) * 3 * _ROTATE  # frames of the rigid groups, one after another
    return net.vector(
        f"{label}.atoms", "elementwise", angles, frames, shape=(n, residues, _ATOMS * 3),
        lane_ops=n * residues * (rotations + _ATOMS * _ROTATE),
    )  # fmt: skip
