"""Reading a user's YAML or JSON into a declared structure, with errors of one line."""

import re
from pathlib import Path
from typing import TypeVar

import msgspec
import yaml
from yaml.composer import ComposerError

T = TypeVar("T")


class _Loader(yaml.SafeLoader):
    """Refuses a mapping with the same key twice; PyYAML silently keeps the last."""

    def compose_mapping_node(self, anchor):
        # while composing: later, keys that `<<` merges in and overrides look the same
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key in [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]:
            if (key.tag, key.value) in seen:
                said = f"key {key.value!r} stands twice; keys must be distinct"
                raise ComposerError(None, None, said, key.start_mark)
            seen.add((key.tag, key.value))
        return node


def decode_file(path: str | Path, kind: type[T]) -> T:
    """The file at `path` as a `kind` (a msgspec Struct).

    Raises ValueError in one line naming file, field, value and what is allowed.
    """
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from None
    try:
        plain = yaml.load(raw, Loader=_Loader)  # JSON is a subset of YAML
    except RecursionError:
        raise ValueError(f"{path}: not valid YAML: nested too deeply") from None
    except Exception as error:  # not YAMLErrors only: `!!bool maybe` is a KeyError
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where is not None else ""
        problem = _one_line(getattr(error, "problem", None) or error)
        raise ValueError(f"{path}: not valid YAML{line}: {problem}") from None
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"{path}: {_one_line(_explained(plain, kind, str(error)))}") from None


def _one_line(text: object) -> str:
    return " ".join(str(text).replace("`", "").split())


def _explained(plain: object, kind: type, message: str) -> str:
    """What msgspec says, with the keys that it prints as `[...]` and, where it is a single one, the offending value."""
    said, at, path = message.removesuffix("`").rpartition("at `$")
    if not at:
        return message
    try:
        where, value = _offender(plain, kind, message, path)
    except (LookupError, TypeError, ValueError, StopIteration):  # a key of the user's that reads like a path
        return message
    got = f"; got {value!r}" if isinstance(value, str | int | float | bool) or value is None else ""
    return f"{said}at {where}{got}"


def _offender(plain, kind: type, message: str, path: str) -> tuple[str, object]:
    """Where msgspec's path leads to, all keys spelled out, and what stands there."""
    value, steps, where = plain, [], "$"
    for part in re.findall(r"\[.*?\]|[^.\[]+", path):
        step = part
        if part == "[...]":  # the entry that is refused with the same words when it stands alone
            alone = {key: _with_only(plain, steps, key) for key in value}
            step = next(key for key in alone if _refusal(alone[key], kind) == message)
            plain = alone[step]
        elif part[0] == "[":
            step = int(part[1:-1])
        steps.append(step)
        where += f"[{step!r}]" if part[0] == "[" else f".{step}"
        value = value[step]
    return where, value


def _refusal(plain: object, kind: type) -> str | None:
    try:
        msgspec.convert(plain, kind)
    except msgspec.ValidationError as error:
        return str(error)
    return None


def _with_only(tree, steps: list, key):
    """A copy of `tree` whose mapping at `steps` has no entry but `key`."""
    if not steps:
        return {key: tree[key]}
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    copy[steps[0]] = _with_only(tree[steps[0]], steps[1:], key)
    return copy
