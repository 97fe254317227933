"""`search`: placement by a search of our own: starts, large neighbourhoods, annealed islands. Modules are loaded as they are needed."""

from perfmodel._lazy import listed

LISTS = {
    "_evolve": ("linearisation",),
    "_greedy": ("Line", "graph"),
    "_insert": ("Plan", "coming", "waste"),
    "_relax": ("descend", "relaxed_makespan", "starting_logits"),
    "_search": ("search",),
    "_small": ("quanta", "span_of"),
    "_starts": ("Start", "heuristic_starts", "packing", "ranked_orders", "single_devices", "slack", "value"),
}


def __getattr__(name: str):
    return listed(__name__, LISTS, name)


def __dir__() -> list[str]:
    return sorted(name for names in LISTS.values() for name in names)
