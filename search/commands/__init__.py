"""One module a command of `perfmodel`: parse, call, print. A command is loaded when it runs."""

from perfmodel._lazy import listed

LISTS = {
    "_experts_plot": ("plot_experts",),
    "_memory": ("memory_text",),
    "_memory_plot": ("plot_memory",),
    "_schedule_file": ("load_schedule",),
}


def __getattr__(name: str):
    return listed(__name__, LISTS, name)
