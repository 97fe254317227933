"""What a loop nest moves, by walking it: sets of words, one tile after the other. Slow, obvious, independent of the model.

A nest is a list, inner to outer, of (dimension, bound, (level of W, level of I, level of O)); what is unrolled in space
likewise. Only the unit at index 0 of everything unrolled above a tile is followed.
"""

import itertools

WORDS_OF = {
    "W": lambda x, s: (x["G"], x["K"], x["C"], x["R"], x["S"]),
    "I": lambda x, s: (x["G"], x["N"], x["C"], x["P"] * s + x["R"], x["Q"] * s + x["S"]),
    "O": lambda x, s: (x["G"], x["N"], x["K"], x["P"], x["Q"]),
}


def moved_words(operand: str, tile: int, temporal, spatial, stride: int = 1, keep_overlap: bool = False):
    """(words fetched into the unit that holds tile number `tile`, words of one tile) over the whole nest.

    `keep_overlap`: words that the tile before held too are not fetched again; else a tile is fetched whole whenever it is not
    the very same tile as before.
    """
    t = "WIO".index(operand)
    loops = []  # in the order of nesting, inner to outer: what is unrolled below a memory stands inside its temporal loops
    for level in range(6):
        loops += [(d, f, "space", level) for d, f, levels in spatial if levels[t] == level]
        loops += [(d, f, "time", level) for d, f, levels in temporal if levels[t] == level]
    inside, outside, step = [], [], dict.fromkeys("GNKCPQRS", 1)
    for d, f, kind, level in loops:
        (inside if level < tile else outside).append((d, f, kind, step[d]))
        step[d] *= f

    def words(at):
        found = set()
        for index in itertools.product(*(range(f) for _, f, _, _ in inside)):
            x = dict(at)
            for i, (d, _, _, size) in zip(index, inside, strict=True):
                x[d] += i * size
            found.add(WORDS_OF[operand](x, stride))
        return found

    fetched, before = 0, None
    walked = [loop for loop in outside if loop[2] == "time"][::-1]  # outermost first, as itertools counts
    for index in itertools.product(*(range(f) for _, f, _, _ in walked)):
        at = dict.fromkeys("GNKCPQRS", 0)
        for i, (d, _, _, size) in zip(index, walked, strict=True):
            at[d] += i * size
        now = words(at)
        if before is None or (now != before and not keep_overlap):
            fetched += len(now)
        elif now != before:
            fetched += len(now - before)
        before = now
    return fetched, len(now)
