"""Mixtures of experts: loads that add up, weights that are read, Mixtral and DeepSeek-V3 against their publishers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import perfmodel as pm
from perfmodel.models.zoo import expert_loads


@given(st.integers(1, 5000), st.integers(1, 300), st.floats(0, 8, allow_nan=False), st.data())
def test_loads_add_up(tokens, count, imbalance, data):
    chosen = data.draw(st.integers(1, min(count, 16)))
    loads = expert_loads(tokens, chosen, count, imbalance)
    assert sum(loads) == tokens * chosen and len(loads) <= count
    assert all(1 <= load <= tokens for load in loads)  # a token goes to an expert once
    assert len(set(loads)) <= 8


def test_even_and_uneven_loads():
    assert expert_loads(4, 2, 8) == [1] * 8
    assert expert_loads(1, 2, 8) == [1, 1]  # the others have nothing to do
    assert expert_loads(10, 2, 8) == [3, 3, 3, 3, 2, 2, 2, 2]
    steep = expert_loads(1000, 2, 8, 3.0)
    assert steep[0] == 1000 * 2 - sum(steep[1:]) and steep[0] > 800 and steep == sorted(steep, reverse=True)
    assert max(expert_loads(1000, 2, 8, 0.5)) > max(expert_loads(1000, 2, 8, 0.1)) > 250


class TestMixtral:
    def test_parameters(self):
        assert pm.models.load("mixtral-8x7b").parameters == 46_702_792_704  # transformers counts the same

    def test_a_token_reads_two_of_eight_experts(self):
        one, many = (pm.models.load("mixtral-8x7b", phase="decode", batch=batch, context=128) for batch in (1, 4))
        expert = 3 * 4096 * 14336
        assert many.operators.weight_elements.sum() - one.operators.weight_elements.sum() == 32 * 6 * expert
        assert one.parameters == many.parameters
        # arXiv 2401.04088: "13B active parameters"
        table = 32000 * 4096
        assert one.operators.weight_elements.sum() + table == 46_702_792_704 - 32 * 6 * expert
        assert round((one.operators.weight_elements.sum() + table) / 1e9) == 13

    @pytest.mark.parametrize("imbalance", [0.0, 0.7, 2.5])
    def test_macs_do_not_depend_on_who_works(self, imbalance):
        d, n = 4096, 333
        w = pm.models.load("mixtral-8x7b", seq_len=n, imbalance=imbalance)
        layer = d * (4096 + 2 * 1024) + 4096 * d + d * 8 + 2 * 3 * d * 14336 + 2 * n * 4096
        assert w.macs == 32 * n * layer + d * 32000
        assert len(set(w.names)) == w.n_operators <= 32 * 50

    def test_uneven_experts_are_several_rows(self):
        w = pm.models.load("mixtral-8x7b", seq_len=1000, imbalance=2.0)
        rows = [i for i, n in enumerate(w.names) if n.startswith("layer7.mlp.experts.down")]
        loads = np.repeat(w.operators.p[rows], w.operators.groups[rows])
        assert loads.sum() == 2000 and 1 < len(rows) <= 8 and loads.max() <= 1000
        assert w.operators.parameters[rows].sum() == 8 * 4096 * 14336


class TestDeepSeekV3:
    """arXiv 2412.19437 and the released configuration."""

    def test_parameters(self):
        """671,026,404,352 learned ones (DeepseekV3ForCausalLM of transformers 5.23.0) and a correction of each expert's score."""
        assert pm.models.load("deepseek-v3").parameters == 671_026_404_352 + 58 * 256 == 671_026_419_200
        assert pm.models.load("deepseek-v3", phase="decode").parameters == 671_026_419_200

    def test_active_parameters(self):
        """The report's "37B activated for each token"."""
        w = pm.models.load("deepseek-v3", phase="decode", context=1)
        # the head and one row of the token table are read; both tables are in the report's count
        assert round((w.operators.weight_elements.sum() + 129280 * 7168) / 1e9, 1) == 37.6
        assert round(w.operators.weight_elements.sum() / 1e9, 1) == 36.6

    @pytest.mark.parametrize("kv_dtype, each", [(None, 2), ("fp8", 1)])
    def test_the_cache_holds_latents(self, kv_dtype, each):
        w = pm.models.load("deepseek-v3", phase="decode", batch=3, context=5000, kv_dtype=kv_dtype)
        assert w.kv_bytes_per_token.tolist() == [61 * 576 * each]
        assert w.outside_in_bytes[1:].sum() == 3 * 5000 * 61 * 576 * each
        assert w.outside_out_bytes[:-1].sum() == 3 * 61 * 576 * each
        assert w.kv_cache_bytes == 3 * 5001 * 61 * 576 * each

    @pytest.mark.parametrize("absorb", ["always", "never"])
    @pytest.mark.parametrize("new, past", [(1, 700), (30, 0), (5, 12)])
    def test_macs(self, absorb, new, past):
        d, heads, keys = 7168, 128, new + past
        w = pm.models.load("deepseek-v3", phase="decode", seq_len=new, context=past, absorb=absorb)
        down, up = d * 1536 + 1536 * heads * 192, d * 576
        mix = {  # per new token, per key, per (token, key)
            "always": (heads * (128 * 512 + 512 * 128), 0, heads * (576 + 512)),
            "never": (0, 512 * heads * 256, heads * (192 + 128)),
        }[absorb]
        attention = new * (down + up + heads * 128 * d + mix[0]) + keys * mix[1] + new * keys * mix[2]
        moe = new * (d * 256 + 9 * 3 * d * 2048)
        assert w.macs == 61 * attention + 3 * new * 3 * d * 18432 + 58 * moe + d * 129280

    def test_heads_absorb_in_decode_only(self):
        def absorbs(**options):
            return any("absorb" in name for name in pm.models.load("deepseek-v3", seq_len=2, **options).names)

        assert absorbs(phase="decode") and not absorbs() and not absorbs(phase="decode", absorb="never")
        assert absorbs(absorb="always") and not absorbs(phase="train")
        with pytest.raises(ValueError, match="deepseek-v3: absorb is 'alway': did you mean always"):
            absorbs(absorb="alway")

    def test_unabsorbed_decode_reads_the_same_cache(self):
        w = pm.models.load("deepseek-v3", phase="decode", batch=2, context=100, absorb="never", kv_dtype="fp8")
        assert w.outside_in_bytes[1:].sum() == 2 * 100 * 61 * 576

    def test_released_weights_are_eight_bit(self):
        w = pm.models.load("deepseek-v3", weight_dtype="fp8", head_dtype="bf16")
        assert w.weight_bytes == 671_026_419_200 + 2 * 129280 * 7168
