"""One file, or one folder, a method of placement, loaded when it is first asked for, and what the methods are made of."""

from perfmodel._lazy import listed

LISTS = {
    "_fit": ("Fit",),
    "_getf": ("chosen_groups", "getf", "relaxed_assignment", "speed_groups", "speeds"),
    "_heft": ("heft", "upward_ranks"),
    "_list_scheduling": ("earliest_first",),
    "_policy": ("placeto",),
    "_robust": ("Price", "price_of_robustness", "replace_after_loss", "robust", "without"),
    "_sct": ("favourites", "m_sct"),
    "_topo_etf": ("best_device", "coplaced", "m_etf", "m_topo"),
}


def __getattr__(name: str):
    return listed(__name__, LISTS, name)


def __dir__() -> list[str]:
    return sorted(name for names in LISTS.values() for name in names)
