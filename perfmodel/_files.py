"""Reading a user's YAML or JSON into a declared structure, with errors of one line."""

import re
from pathlib import Path
from typing import TypeVar

import msgspec
import yaml
from yaml.composer import ComposerError

T = TypeVar("T")


_MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """Refuses a mapping with the same key twice, of which PyYAML silently keeps the last, and merges `<<` itself.

    PyYAML's versions differ in which of several merged values wins (yaml/pyyaml#953); after this loader none is left to merge.
    """

    def compose_mapping_node(self, anchor):
        # while composing: later, keys that `<<` merges in and overrides look the same
        node = super().compose_mapping_node(anchor)
        own, sources = {}, None
        for key, value in node.value:
            if key.tag == _MERGE:
                if sources is not None:
                    said = f"key {key.value!r} stands twice; several mappings are merged by one, <<: [*first, *second]"
                    raise ComposerError(None, None, said, key.start_mark)
                sources = _merged(node, key, value)
            elif _name(key) in own:
                said = f"key {key.value!r} stands twice; keys must be distinct"
                raise ComposerError(None, None, said, key.start_mark)
            else:
                own[_name(key)] = key, value
        if sources is not None:
            pairs = {}
            for source in reversed(sources):  # of several, the earlier wins (yaml.org/type/merge.html)
                pairs |= {_name(key): (key, value) for key, value in source.value}
            node.value = list((pairs | own).values())
        return node


def _name(key: yaml.Node) -> object:
    """What makes a key distinct; one that is a list or a mapping is refused later."""
    return (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key)


def _merged(into: yaml.Node, key: yaml.Node, value: yaml.Node) -> list[yaml.MappingNode]:
    """The mappings that `<<: value` merges `into` a mapping; what these merge themselves they contain already."""
    listed = isinstance(value, yaml.SequenceNode)
    sources = []
    for node in [value, *value.value] if listed else [value]:
        if node is into or node.end_mark is None:  # still being read
            raise ComposerError(None, None, f"key {key.value!r} merges what it stands in", key.start_mark)
        if isinstance(node, yaml.MappingNode):
            sources.append(node)
        elif node is not value or not listed:
            got = repr(node.value) if isinstance(node, yaml.ScalarNode) else "a list in a list"
            said = f"key {key.value!r} merges a mapping or a list of mappings; got {got}"
            raise ComposerError(None, None, said, key.start_mark)
    return sources


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
