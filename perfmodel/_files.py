"""Reading a user's YAML or JSON into a declared structure, with errors of one line."""

from pathlib import Path
from typing import TypeVar

import msgspec
import yaml

T = TypeVar("T")


def decode_file(path: str | Path, kind: type[T]) -> T:
    """The file at `path` as a `kind` (a msgspec Struct). Raises ValueError naming file, field, value and what is allowed."""
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from None
    try:
        plain = yaml.safe_load(raw)  # JSON is a subset of YAML
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where is not None else ""
        raise ValueError(f"{path}: not valid YAML{line}: {getattr(error, 'problem', None) or error}") from None
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as error:
        got = _value_at(plain, str(error))
        raise ValueError(f"{path}: {str(error).replace('`', '')}{got}") from None


def _value_at(plain: object, message: str) -> str:
    """The offending value, looked up from the path that msgspec prints (`$.chiplets[0].rows`)."""
    if "at `$" not in message:
        return ""
    value = plain
    for part in message.rsplit("`$", 1)[1].rstrip("`").replace("[", ".[").split("."):
        try:
            if part.startswith("["):
                value = list(value)[int(part[1:-1])] if part != "[...]" else value  # type: ignore[call-overload]
            elif part:
                value = value[part]  # type: ignore[index]
        except (KeyError, IndexError, TypeError, ValueError):
            return ""
    return f"; got {value!r}" if isinstance(value, str | int | float | bool) or value is None else ""
