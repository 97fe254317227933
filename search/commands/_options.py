"""Options of models on the command line: flags, values, and which model takes which."""

import sys
import warnings
from contextlib import contextmanager

# Flags of every command that takes models by name -> what they mean.
OPTIONS = {
    "batch": "inferences of a pass",
    "seq_len": "tokens of a pass of language models",
    "context": "tokens in the KV cache before it",
    "phase": "prefill, decode or train",
    "dtype": "precision of weights, activations and KV cache: fp32, bf16, fp16, fp8, int8, int4, nvfp4, ...",
    "weight_dtype": "precision of weights; with -sparsePERCENT, zeros that nobody multiplies by",
    "kv_dtype": "precision of the KV cache",
    "head_dtype": "precision of token table and LM head",
}


def add_option_flags(parser) -> None:
    """Flags for the options of models. None of them is given unless the user does: every model has its own defaults."""
    for name, about in OPTIONS.items():
        kind = int if name in ("batch", "seq_len", "context") else str
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=None, metavar="N" if kind is int else "NAME",
                            help=about)  # fmt: skip
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE",
                        help="any other option of a model (image, imbalance, lm_head, ...); may be repeated")  # fmt: skip


def options_of(arguments) -> dict:
    """The options that the user gave. Raises ValueError for one that is no NAME=VALUE."""
    given = {name: getattr(arguments, name) for name in OPTIONS if getattr(arguments, name) is not None}
    for item in arguments.option:
        name, equals, value = item.partition("=")
        if not (name and equals and value):
            raise ValueError(f"--option is {item!r}; allowed: NAME=VALUE")
        if name.replace("-", "_") in given:
            raise ValueError(f"--option {item} says {name} a second time")
        given[name.replace("-", "_")] = _parsed(value)
    return given


def _parsed(text: str):
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


@contextmanager
def said_once():
    """Warnings of importers as single lines on stderr."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for each in caught:
        print(f"perfmodel: warning: {' '.join(str(each.message).split())}", file=sys.stderr)


def model_options(names: list[str], options: dict) -> list[dict]:
    """Of each model the options that it takes. Raises ValueError for an unknown model, and for an option that none takes."""
    import perfmodel as pm
    from perfmodel._names import unknown_name

    known = [pm.models.known_options(name) for name in names]
    for option in options:
        if not any(option in each for each in known):
            raise unknown_name(f"{', '.join(names)}: option", option, {o for each in known for o in each})
    return [{o: v for o, v in options.items() if o in each} for each in known]
