"""Every method by its published name, and the one way to run and judge it."""

import time
from importlib import import_module

from perfmodel._names import unknown_name

from ._bounds import lower_bound
from ._problem import Problem
from ._result import Placed, placed

# name -> (module or room, function); it is loaded when its method runs
METHODS = {
    "best-device": ("_topo_etf", "best_device"),
    "m-topo": ("_topo_etf", "m_topo"),
    "m-etf": ("_topo_etf", "m_etf"),
    "m-sct": ("_sct", "m_sct"),
    "getf": ("_getf", "getf"),
    "heft": ("_heft", "heft"),
    "milp": ("milp", "milp"),
    "placeto": ("_policy", "placeto"),
    "search": ("search", "search"),
}
BOUND_SECONDS = 10.0


def place(
    problem: Problem, method: str, *, seed: int = 0, time_limit_s: float | None = None, bound: float | None = None
) -> Placed:
    """A placement by a method (a name in `METHODS`), judged by the evaluator; its bound is the best of the method's own and the general
    ones (`bound`: the general ones if they are known already).

    Raises ValueError for an unknown method, `Infeasible` where nothing fits the memory of the devices.
    """
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    module, name = METHODS[method]
    begin = time.perf_counter()
    placement, order, info = getattr(import_module(f".methods.{module}", __package__), name)(
        problem, seed=seed, time_limit_s=time_limit_s
    )
    seconds = time.perf_counter() - begin
    if bound is None:
        bound = lower_bound(problem, time_limit_s=BOUND_SECONDS)[0]
    info = {**info, "lower_bound": max(float(info.get("lower_bound", 0.0)), bound)}
    return placed(method, problem, placement, order, seconds, info)
