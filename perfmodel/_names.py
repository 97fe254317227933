"""One way to say that a name is unknown: what was given, what is near, what there is."""

import difflib
from collections.abc import Iterable


def unknown_name(field: str, got: object, allowed: Iterable[str]) -> ValueError:
    """A ValueError naming the field, the value, near matches if any, and everything allowed."""
    allowed = sorted(allowed)
    near = difflib.get_close_matches(str(got), allowed, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return ValueError(f"{field} is {got!r}: {hint}allowed: {', '.join(allowed)}")
