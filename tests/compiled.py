"""The evaluator and its cost table as one compiled program each: operation by operation they take tests minutes."""

import equinox as eqx

import perfmodel as pm

evaluate = eqx.filter_jit(pm.evaluate)
cost_table = eqx.filter_jit(pm.cost_table)
