"""The queues of docs/model.md once more, in float64 NumPy, for many candidates side by side: a row each, a column a resource."""

import numpy as np


class Queue:
    """Resources that serve one transfer after another and remember the longest gap they left."""

    def __init__(self, candidates, resources):
        self.free, self.gap_from, self.gap_to = (np.zeros((candidates, resources)) for _ in range(3))
        self.every = np.arange(candidates)

    def take(self, which, ask, seconds):
        """End of a transfer that asks resource `which` (one a candidate) at `ask` for `seconds`."""
        end = np.array(ask, float)
        for i in np.flatnonzero(np.broadcast_to(seconds, self.every.shape) > 0):  # one at a time, as one would by hand
            r, took, when = which[i], np.broadcast_to(seconds, self.every.shape)[i], end[i]
            a, b, free = self.gap_from[i, r], self.gap_to[i, r], self.free[i, r]
            begin = max(when, a)
            if begin + took <= b:
                end[i] = begin + took
                left, right = (a, begin), (end[i], b)
                self.gap_from[i, r], self.gap_to[i, r] = right if b - end[i] >= begin - a else left
                continue
            begin = max(when, free)
            if begin - free > b - a:
                self.gap_from[i, r], self.gap_to[i, r] = free, begin
            end[i] = self.free[i, r] = begin + took
        return end


class Queues:
    """Memory, ports and links of a package with one memory tier that all chiplets share."""

    def __init__(self, system, candidates):
        p, n = system.package, len(system.chiplet_names)
        self.memory, self.out, self.into = Queue(candidates, 1), Queue(candidates, n), Queue(candidates, n)
        self.work = np.zeros((candidates, p.route.shape[0]))
        self.route = np.moveaxis(np.asarray(p.route), 0, -1)
        self.read_way, self.write_way = np.asarray(p.memory_route).T, np.asarray(p.memory_back).T
        serves = np.asarray(p.serves)
        self.server, self.far = serves.argmax(axis=0), serves.sum(axis=0)
        self.link, self.port = float(p.link_bytes_per_s), float(p.port_bytes_per_s)
        self.read_rate, self.write_rate = float(system.memory.bytes_per_s[0]), float(system.memory.write_bytes_per_s[0])
        self.wait = float(system.memory.latency_s[0]) + np.asarray(p.memory_hops) * float(p.hop_s)
        self.zeros = np.zeros(candidates, int)

    def over(self, from_, to, ways, ask, nbytes):
        """From a port over links into a port."""
        end = np.maximum(self.out.take(from_, ask, nbytes / self.port), self.into.take(to, ask, nbytes / self.port))
        if self.work.shape[1]:
            self.work += ways * (nbytes / self.link)[:, None]
            done = np.where(ways > 0, self.work, 0.0).max(axis=1)
            end = np.where(nbytes > 0, np.maximum(end, np.maximum(ask + nbytes / self.link, done)), end)
        return end

    def send(self, from_, to, ask, nbytes):
        return self.over(from_, to, self.route[from_, to], ask, nbytes)

    def read(self, d, ask, nbytes):
        return self._memory(d, ask, nbytes, self.read_rate, True)

    def write(self, d, ask, nbytes):
        return self._memory(d, ask, nbytes, self.write_rate, False)

    def _memory(self, d, ask, nbytes, rate, reads):
        nbytes = np.broadcast_to(nbytes, ask.shape).astype(float)
        end = self.memory.take(self.zeros, ask, nbytes / rate)
        far = nbytes * self.far[d]
        if far.any():
            server = self.server[d]
            from_, to = (server, d) if reads else (d, server)
            there = self.over(from_, to, (self.read_way if reads else self.write_way)[d], ask, far)
            end = np.where(far > 0, np.maximum(end, there), end)
        return end + np.where(nbytes > 0, self.wait[d], 0.0)
