"""Bytes of a training step against the equations and figures of Korthikanti et al., arXiv 2205.05198."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import perfmodel as pm
from perfmodel.models import decoder
from perfmodel.training import layer_activation_bytes, training_memory, training_shape

GIB = 2**30
# name: microbatch, width, heads, layers, pipeline stages, interleaving; parameters and optimizer in GiB, activations in GiB
# without recompute, and with sequence parallelism and selective recompute (figure 1, as Calculon's validation.py has the
# values)
FIGURE_1 = {
    "megatron-22b": (4, 6144, 64, 48, 1, 1, 45.5625, 59.25, 9.5625),
    "gpt3-175b": (1, 12288, 96, 96, 8, 3, 45.5625, 66.84375, 12.3515625),
    "turing-530b": (1, 20480, 128, 105, 35, 3, 31.640625, 114.0234375, 23.076171875),
    "megatron-1t": (1, 25600, 160, 128, 64, 1, 32.958984375, 131.25, 26.5625),
}
# Figure 7: per cent of the bytes without either technique: sequence parallelism, selective, both, full recompute (read off
# a chart)
FIGURE_7 = {
    "megatron-22b": (66.84, 49.42, 16.18, 7.64), "gpt3-175b": (62.04, 56.53, 18.49, 8.71),
    "turing-530b": (58.31, 62.04, 20.27, 9.42), "megatron-1t": (58.31, 62.04, 20.27, 9.42),
}  # fmt: skip


def per_layer(name, tensor=8.0, **how):
    return float(
        layer_activation_bytes(training_shape(decoder(name).spec), FIGURE_1[name][0] * 2048.0, 2048.0, tensor, **how)
    )


@pytest.mark.parametrize("name", FIGURE_1)
def test_equations(name, x64):
    b, h, a, *_ = FIGURE_1[name]
    s, t = 2048, 8
    sbh = s * b * h
    assert per_layer(name, 1.0) == pytest.approx(sbh * (34 + 5 * a * s / h), rel=1e-14)  # 1
    assert per_layer(name) == pytest.approx(sbh * (10 + 24 / t + 5 * a * s / (h * t)), rel=1e-14)  # 2
    assert per_layer(name, sequence_parallel=True) == pytest.approx(sbh / t * (34 + 5 * a * s / h), rel=1e-14)  # 4
    assert per_layer(name, recompute="selective", sequence_parallel=True) == pytest.approx(34 * sbh / t, rel=1e-14)  # 6
    assert per_layer(name, recompute="selective") == pytest.approx(sbh * (10 + 24 / t), rel=1e-14)
    assert per_layer(name, recompute="full") == pytest.approx(2 * sbh, rel=1e-14)


@pytest.mark.parametrize("name", FIGURE_1)
def test_figure_1(name, x64):
    b, h, _, layers, p, v, parameters, none, both = FIGURE_1[name]
    s, t = 2048, 8
    shape = training_shape(decoder(name).spec)
    # 18 bytes a parameter of 12 h^2 a layer: the figure leaves tables, biases and norms out
    matrices = 12 * h**2 * layers / (t * p) * 18
    assert matrices / GIB == pytest.approx(parameters, rel=1e-12)
    assert float(shape.block_parameters(8.0)) * layers / p * 18 == pytest.approx(matrices, rel=2e-3)
    for how, gib in (({}, none), ({"recompute": "selective", "sequence_parallel": True}, both)):
        flight = layers * (1 + (p - 1) / (p * v)) if v > 1 else layers
        assert per_layer(name, **how) * flight / GIB == pytest.approx(gib, rel=1e-12)
        memory = training_memory(
            shape, tokens=b * s * 1.0, sequence=s * 1.0, microbatches=1e6, tensor=8.0, pipeline=float(p), data=1.0, interleave=float(v),
            **({"recompute": "none", "sequence_parallel": False} | how), optimizer="adam", shard_optimizer=False,
        )  # fmt: skip
        part = s * b * h / (t if how else 1)
        more = part * p + (p == 1) * (
            4 * part + 4 * s * b * 51200 / t
        )  # section 4.3: masks of the table; LM head and logits
        assert float(memory.activations_bytes) == pytest.approx(gib * GIB + more, rel=1e-12)
        assert float(memory.weights_bytes + memory.gradients_bytes + memory.optimizer_bytes) == pytest.approx(
            18 * float(memory.parameters)
        )


@pytest.mark.parametrize("name", FIGURE_7)
def test_figure_7(name, x64):
    whole = per_layer(name)
    ways = (
        dict(sequence_parallel=True),
        dict(recompute="selective"),
        dict(recompute="selective", sequence_parallel=True),
        dict(recompute="full"),
    )
    for how, percent in zip(ways, FIGURE_7[name], strict=True):
        assert 100 * per_layer(name, **how) / whole == pytest.approx(percent, abs=0.15)


def memory_of(name, **changes):
    at = dict(tokens=2048.0, sequence=2048.0, microbatches=8.0, tensor=1.0, pipeline=1.0, data=1.0, interleave=1.0, recompute="none",
              sequence_parallel=False, optimizer="adam", shard_optimizer=False)  # fmt: skip
    return training_memory(training_shape(decoder(name).spec), **(at | changes))


@pytest.mark.parametrize(
    "name", ["gpt2-xl", "gpt3-175b", "megatron-1t", "opt-13b", "llama-2-7b", "llama-3-70b", "falcon-40b", "bloom-176b"]
)
def test_parameters_of_one_device_are_the_model(name, x64):
    spec = decoder(name).spec
    padding = -spec.vocabulary % 128 * spec.width * (1 if spec.tied else 2)
    assert float(memory_of(name).parameters) == pm.models.load(name, seq_len=8).parameters + padding


def test_tensor_ranks_share_out_most_of_it(x64):
    """On eight ranks an eighth of the matrices; fewer KV heads than ranks are kept several times."""
    shape = training_shape(decoder("llama-3-8b").spec)  # 8 KV heads of 128, width 4096, MLP 14336
    one, eight, sixteen = (float(shape.block_parameters(t)) for t in (1.0, 8.0, 16.0))
    norms = 2 * 4096
    assert one == 4096 * (4096 + 2 * 1024 + 4096 + 3 * 14336) + norms
    assert eight - norms == (one - norms) / 8
    assert sixteen - norms == 4096 * (256 + 2 * 128 + 256 + 3 * 896)


def test_sharded_optimizer_and_sgd(x64):
    at = dict(tensor=2.0, data=4.0)
    whole, shared, plain = (
        memory_of("llama-2-7b", **at, **more) for more in ({}, {"shard_optimizer": True}, {"optimizer": "sgd"})
    )
    assert float(shared.optimizer_bytes) == pytest.approx(float(whole.optimizer_bytes) / 4)
    assert float(plain.optimizer_bytes) == pytest.approx(float(whole.optimizer_bytes) / 3)
    assert float(shared.weights_bytes) == float(whole.weights_bytes) == float(whole.gradients_bytes) / 2


def test_llama_keeps_no_masks(x64):
    """Per token of a Llama block, 16 bits: inputs of two norms and of two products, Q K V and what leaves attention, gate,
    up and their product; attention's weights once."""
    spec = decoder("llama-2-7b").spec
    s, h, f, a = 64, 4096, 11008, 32
    shape = training_shape(spec)
    assert float(layer_activation_bytes(shape, s * 1.0, s * 1.0)) == 2 * s * (4 * h + 4 * h + 3 * f) + 2 * a * s * s
    with_masks = training_shape(spec, dropout=True)
    assert (
        float(layer_activation_bytes(with_masks, s * 1.0, s * 1.0))
        == 2 * s * (4 * h + 4 * h + 3 * f) + 2 * s * h + 5 * a * s * s
    )


def test_few_microbatches_keep_less(x64):
    kept = [
        float(memory_of("gpt3-175b", microbatches=n, tensor=8.0, pipeline=8.0).activations_bytes)
        for n in (1.0, 2.0, 8.0, 16.0)
    ]
    assert kept[0] < kept[1] < kept[2] == kept[3]


def test_an_unknown_way_to_recompute():
    with pytest.raises(ValueError, match="recompute is 'some'"):
        layer_activation_bytes(training_shape(decoder("gpt2").spec), 8.0, 8.0, recompute="some")


def test_needs_less_with_more_ranks(x64):
    shape = training_shape(decoder("gpt3-175b").spec)

    def needed(tensor, pipeline):
        return training_memory(
            shape, tokens=2048.0, sequence=2048.0, microbatches=64.0, tensor=tensor, pipeline=pipeline, data=1.0, interleave=1.0,
            recompute="selective", sequence_parallel=True, optimizer="adam", shard_optimizer=False,
        ).total_bytes  # fmt: skip

    degrees = jnp.asarray([1.0, 2.0, 4.0, 8.0, 16.0])
    by_tensor = np.asarray(jax.vmap(lambda t: needed(t, 8.0))(degrees))
    by_pipeline = np.asarray(jax.vmap(lambda p: needed(8.0, p))(degrees))
    assert (np.diff(by_tensor) < 0).all() and (np.diff(by_pipeline) < 0).all()
    slope = jax.grad(lambda t: needed(t, 8.0))(8.0)
    numeric = (needed(8.0 + 1e-4, 8.0) - needed(8.0 - 1e-4, 8.0)) / 2e-4
    assert float(slope) == pytest.approx(float(numeric), rel=1e-5)


@pytest.mark.parametrize("name, billions", [("megatron-22b", 22), ("turing-530b", 530), ("megatron-1t", 1008)])
def test_sizes_of_megatron(name, billions):
    """12 l h^2 (1 + 13 / 12h + (v + s) / 12lh) and a last norm: arXiv 2104.04473, equation 2; 22B, 530B, 1T (1008 billion)
    are their names."""
    _, h, _, layers, *_ = FIGURE_1[name]
    w = pm.models.load(name, seq_len=4)
    assert w.parameters == layers * (12 * h**2 + 13 * h) + (51200 + 2048) * h + 2 * h
    assert w.parameters == pytest.approx(billions * 1e9, rel=0.005)
