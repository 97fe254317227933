"""The queues of docs/model.md once more, in float64 NumPy, for many candidates side by side: one at a time, as one would by hand."""

import numpy as np


class Memory:
    """A memory that serves one transfer after another and remembers the longest gap it left."""

    def __init__(self, candidates):
        self.free, self.gap = [0.0] * candidates, [(0.0, 0.0)] * candidates

    def take(self, ask, seconds):
        end = np.array(ask, float)
        for i in np.flatnonzero(seconds > 0):
            (a, b), took = self.gap[i], seconds[i]
            begin = max(end[i], a)
            if begin + took <= b:
                end[i] = begin + took
                self.gap[i] = (end[i], b) if b - end[i] >= begin - a else (a, begin)
                continue
            begin = max(end[i], self.free[i])
            if begin - self.free[i] > b - a:
                self.gap[i] = (self.free[i], begin)
            end[i] = self.free[i] = begin + took
        return end


class Queues:
    """Memory, ports and links of a package with one memory tier that all chiplets share."""

    def __init__(self, system, candidates):
        p, n = system.package, len(system.chiplet_names)
        self.memory, self.every = Memory(candidates), range(candidates)
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

    def _over(self, i, parts, to):
        """Ends of transfers (from, ways, ask, bytes) into one chiplet: out of ports in turn, over links, into a port all together."""
        ends = [ask for *_, ask, _ in parts]
        moving = [(j, *part) for j, part in enumerate(parts) if part[3] > 0]
        if not moving:
            return ends
        for j, from_, ways, ask, nbytes in moving:
            self.out[i, from_] = ends[j] = max(ask, self.out[i, from_]) + nbytes / self.port
            self.work[i] += ways * nbytes / self.link
        self.into[i, to] = max(min(m[3] for m in moving), self.into[i, to]) + sum(m[4] for m in moving) / self.port
        for j, _, ways, ask, nbytes in moving:
            links = max([0.0, *self.work[i][ways > 0]])
            ends[j] = max(ends[j], self.into[i, to], ask + nbytes / self.link, links)
        return ends

    def send(self, sources, to):
        """Ends of transfers (chiplets, asks, bytes; arrays over candidates) to chiplets `to`."""
        ends = np.zeros((len(sources), len(to)))
        for i in self.every:
            parts = [(s[i], self.route[s[i], to[i]], ask[i], nbytes[i]) for s, ask, nbytes in sources]
            hops = [self.hops[s[i], to[i]] * self.hop_s for s, *_ in sources]
            ends[:, i] = np.add(self._over(i, parts, to[i]), hops) if parts else []
        return ends

    def read(self, d, ask, nbytes, late=0.0):
        """`late`: bytes that are written first."""
        return self._memory(d, ask, nbytes, late, True)

    def write(self, d, ask, nbytes):
        return self._memory(d, ask, nbytes, 0.0, False)

    def _memory(self, d, ask, nbytes, late, reads):
        nbytes, late = (np.broadcast_to(x, ask.shape).astype(float) for x in (nbytes, late))
        end = self.memory.take(ask, nbytes / (self.read_rate if reads else self.write_rate) + late / self.write_rate)
        for i in self.every:
            if nbytes[i] > 0 and self.far[d[i]]:
                server = self.server[d[i]]
                from_, to = (server, d[i]) if reads else (d[i], server)
                ways = (self.read_way if reads else self.write_way)[d[i]]
                end[i] = max(end[i], self._over(i, [(from_, ways, ask[i], nbytes[i])], to)[0])
        return end + np.where(nbytes > 0, self.wait[d] * (1 + (late > 0)), 0.0)
