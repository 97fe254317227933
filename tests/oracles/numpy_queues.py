"""The queues of docs/model.md once more, in float64 NumPy, vectorised over candidates: no registers, no masks of links as bits."""

import numpy as np


class Memory:
    """A memory that serves one transfer after another and remembers the longest gap it left."""

    def __init__(self, candidates):
        self.free, self.gap_from, self.gap_to = (np.zeros(candidates) for _ in range(3))

    def take(self, ask, seconds):
        """Ends of transfers that ask at `ask`; nothing where there are no seconds."""
        a, b = self.gap_from, self.gap_to
        begin = np.maximum(ask, a)
        fits = begin + seconds <= b
        start = np.where(fits, begin, np.maximum(ask, self.free))
        end, moves = start + seconds, seconds > 0
        right = b - end >= begin - a  # the longer side of the gap that is taken is left
        opens = start - self.free > b - a  # or the gap before this transfer is the longest
        left_from = np.where(fits, np.where(right, end, a), np.where(opens, self.free, a))
        left_to = np.where(fits, np.where(right, b, begin), np.where(opens, start, b))
        self.gap_from, self.gap_to = np.where(moves, left_from, a), np.where(moves, left_to, b)
        self.free = np.where(moves & ~fits, end, self.free)
        return np.where(moves, end, ask)


class Queues:
    """Memory, ports and links of a package with one memory tier that all chiplets share."""

    def __init__(self, system, candidates):
        p, n = system.package, len(system.chiplet_names)
        self.memory, self.every = Memory(candidates), np.arange(candidates)
        self.out, self.into = np.zeros((candidates, n)), np.zeros((candidates, n))
        self.work = np.zeros((candidates, p.route.shape[0]))
        self.route = np.moveaxis(np.asarray(p.route), 0, -1)
        self.read_way, self.write_way = np.asarray(p.memory_route).T, np.asarray(p.memory_back).T
        serves = np.asarray(p.serves)
        self.server, self.far = serves.argmax(axis=0), serves.sum(axis=0)
        self.direct = not self.far.any()
        self.link, self.port, self.hop_s = float(p.link_bytes_per_s), float(p.port_bytes_per_s), float(p.hop_s)
        self.hops = np.asarray(p.hops)
        self.read_rate, self.write_rate = float(system.memory.bytes_per_s[0]), float(system.memory.write_bytes_per_s[0])
        self.wait = float(system.memory.latency_s[0]) + np.asarray(p.memory_hops) * self.hop_s

    def _over(self, parts, to):
        """Ends of transfers (from, ways, ask, bytes) into one chiplet: out of ports in turn, over links, into a port all together."""
        ends = []
        for from_, ways, ask, nbytes in parts:
            end = np.maximum(ask, self.out[self.every, from_]) + nbytes / self.port
            self.out[self.every, from_] = np.where(nbytes > 0, end, self.out[self.every, from_])
            self.work += ways * (nbytes / self.link)[:, None]
            ends.append(end)
        first = np.min([np.where(nbytes > 0, ask, np.inf) for *_, ask, nbytes in parts], axis=0)
        total = sum(nbytes for *_, nbytes in parts)
        last = np.maximum(first, self.into[self.every, to]) + total / self.port
        self.into[self.every, to] = np.where(total > 0, last, self.into[self.every, to])
        found = []
        for end, (_, ways, ask, nbytes) in zip(ends, parts, strict=True):
            links = np.where(ways > 0, self.work, 0.0).max(axis=1, initial=0.0)
            latest = np.max([end, last, ask + nbytes / self.link, links], axis=0)
            found.append(np.where(nbytes > 0, latest, ask))
        return found

    def send(self, sources, to):
        """Ends of transfers (chiplets, asks, bytes; arrays over candidates) to chiplets `to`."""
        if not sources:
            return []
        ends = self._over([(s, self.route[s, to], ask, nbytes) for s, ask, nbytes in sources], to)
        return [end + self.hops[s, to] * self.hop_s for end, (s, *_) in zip(ends, sources, strict=True)]

    def read(self, d, ask, nbytes, late=0.0):
        """`late`: bytes that are written first."""
        return self._memory(d, ask, nbytes, late, True)

    def write(self, d, ask, nbytes):
        return self._memory(d, ask, nbytes, 0.0, False)

    def _memory(self, d, ask, nbytes, late, reads):
        nbytes, late = (np.broadcast_to(x, ask.shape).astype(float) for x in (nbytes, late))
        end = self.memory.take(ask, nbytes / (self.read_rate if reads else self.write_rate) + late / self.write_rate)
        if not self.direct:
            server, far = self.server[d], nbytes * self.far[d]
            from_, to = (server, d) if reads else (d, server)
            ways = (self.read_way if reads else self.write_way)[d]
            end = np.where(far > 0, np.maximum(end, self._over([(from_, ways, ask, far)], to)[0]), end)
        return end + np.where(nbytes > 0, self.wait[d] * (1 + (late > 0)), 0.0)
