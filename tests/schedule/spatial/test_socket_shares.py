import jax.numpy as jnp
import numpy as np
import pytest

import perfmodel as pm
from perfmodel.schedule.spatial import execution, fabric, groups, program, spilled_share, unfused


def test_one_socket_has_all_of_a_workload(llama_block):
    p, w = program(llama_block), llama_block
    assert p.names == w.names
    assert p.macs.sum() == w.macs and p.link_bytes.sum() == 0
    assert p.edge_bytes.tolist() == w.edge_bytes.tolist()
    assert p.stored_bytes == w.stored_bytes


def test_work_and_weights_of_matrix_rows_are_divided(llama_block):
    one, four = program(llama_block), program(llama_block, 4)
    assert four.macs.sum() == pytest.approx(one.macs.sum() / 4)
    matrix = one.macs > 0
    assert four.weight_bytes[four.own >= 0][matrix].sum() == pytest.approx(one.weight_bytes[matrix].sum() / 4)


def test_collectives_of_a_block_are_those_of_megatron(llama_block):
    # sequence parallelism: gather before q, k, v and before gate, up; scatter after the output projection and after down
    p = program(llama_block, 4)
    of_block = [n for n in p.names if n.startswith("layer1.") and n.rsplit(".", 1)[1].startswith(("all_", "reduce_"))]
    assert of_block == ["layer1.norm_1.all_gather", "layer1.attn.proj.reduce_scatter", "layer1.norm_2.all_gather",
                        "layer1.mlp.down.reduce_scatter"]  # fmt: skip
    # each moves 3/4 of 512 x 512 bf16 into a socket, half of what an all-reduce does
    at = p.names.index("layer1.attn.proj.reduce_scatter")
    assert p.link_bytes[at].tolist() == [0.75 * 512 * 512 * 2] * 2
    assert np.all(p.source < p.target)


def test_few_rows_are_added_up_everywhere():
    p = program(pm.models.load("llama-2-7b", phase="decode", context=128), 8)
    names = [n for n in p.names if n.startswith("layer3.") and "all" in n or n.endswith("scatter")]
    assert names == ["layer3.attn.proj.all_reduce", "layer3.mlp.down.all_reduce"]
    at = p.names.index(names[0])
    whole = 4096 * 2
    assert p.link_bytes[at].tolist() == [7 * whole, 2 * 7 / 8 * whole] and p.hops[at].tolist() == [1, 2]
    # weights and cache of a socket are an eighth: 2 * 128 tokens of a cache of 4096 elements a layer
    at = p.names.index("layer3.attn.scores")
    assert p.read_bytes[at] == 128 * 4096 * 2 / 8


def test_fewer_heads_than_sockets_are_shared():
    p = program(pm.models.load("llama-3-8b", phase="decode", context=1024), 16)
    at = p.names.index("layer0.attn.scores")
    assert p.read_bytes[at] == 1024 * 8 * 128 * 2 / 8  # 8 heads of keys and values: an eighth, not a sixteenth


def test_a_step_of_training_is_divided_too():
    w = pm.models.load("gpt2", phase="train", seq_len=64, dtype="bf16")
    p = program(w, 4)
    assert p.macs.sum() == pytest.approx(w.macs / 4) and np.all(p.source < p.target)
    updates = sum(b for n, b in zip(p.names, p.write_bytes, strict=True) if n.endswith("mlp.c_fc.update"))
    whole = sum(b for n, b in zip(w.names, w.outside_out_bytes, strict=True) if n.endswith("mlp.c_fc.update"))
    assert updates == pytest.approx(whole / 4)


def test_sockets_share_the_time(llama_block, node):
    def times(sockets: int):
        p, f = program(llama_block, sockets), fabric(node, sockets=sockets, launch=0.0)
        free = f.__class__(
            **{**vars(f), "link_bytes_per_s": jnp.asarray(1e18), "hop_s": jnp.asarray(0.0), "stage_s": jnp.asarray(0.0)}
        )
        return [float(execution(groups(p, unfused(p)), each).time_s) for each in (f, free)]

    one, four = times(1), times(4)
    assert one[0] > 2 * four[1] and four[0] > four[1]  # links take the gain away from so small a model


def test_fabric_of_the_node(node):
    f = fabric(node)
    assert (float(f.units), float(f.unit_macs), float(f.unit_lanes), float(f.sockets)) == (1040, 192, 32, 8)
    assert float(2 * f.units * f.unit_macs * f.clock_hz) == pytest.approx(638e12, rel=1e-3)
    assert (float(f.memory_bytes_per_s), float(f.next_bytes_per_s)) == pytest.approx((1.8e12, 200e9))
    assert float(f.memory_bytes) == pytest.approx(64 * 2**30) and float(f.sram_bytes) == 520 * 2**20
    assert float(fabric(node, launch="hardware").launch_s) == pytest.approx(float(f.launch_s) / 100)
    assert float(fabric(node, launch=3e-6).launch_s) == pytest.approx(3e-6)


def test_what_does_not_fit_the_first_tier(node):
    p = program(pm.models.load("bloom-176b", phase="decode", context=128), 8)
    assert float(spilled_share(p, fabric(node))) == 0.0  # 352 GB on 8 x 64 GiB
    p = program(pm.models.load("llama-3-405b", phase="decode", context=128), 8)
    need = p.stored_bytes + p.live_bytes
    assert float(spilled_share(p, fabric(node))) == pytest.approx(1 - 64 * 2**30 / need, rel=1e-5)


@pytest.mark.parametrize("call, message", [
    (lambda node: fabric(node, launch="wish"), "launch is 'wish': allowed: hardware, software"),
    (lambda node: fabric(node, launch=-1.0), "launch is -1.0 s; allowed: at least 0"),
    (lambda node: fabric(node, sockets=0), "sockets is 0; allowed: an integer of at least 1"),
    (lambda node: fabric(pm.systems.load("sn40l"), sockets=8), "one chiplet without links"),
    (lambda node: fabric(pm.systems.load("dgx-h100")), "its chiplets are GPUs"),
    (lambda node: program(pm.models.load("gpt2"), 0), "sockets is 0; allowed: an integer of at least 1"),
])  # fmt: skip
def test_bad_input(node, call, message):
    with pytest.raises(ValueError, match=message):
        call(node)
