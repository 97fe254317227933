"""A slow, obvious, event-driven simulation of a package: it judges `perfmodel.evaluate` (docs/model.md).

Plain Python and NumPy. It shares with the model only the facts: the graph, the hardware and the cost table. Where
bytes go is decided while it runs, from what every buffer really holds (all passes of all models in flight); how long
they take comes from queues.

- Chiplets run one operator at a time, to its end; of the operators that are ready one of the model with the most passes
  in a round (rate-monotonic), of its oldest pass (in order of admission), in program order.
- Every memory, directed link, out-port and in-port is a first-come-first-served server of tiles. A transfer is cut
  into at most `tiles` tiles; the next tile asks for the first server when the one before leaves it, so transfers that
  meet share a server tile by tile. A tile passes from server to server as it streams (cut-through: it can finish at
  the next one a hop latency after it finishes at this one), so a lone transfer takes bytes / slowest bandwidth +
  latencies.
- An operator is enabled when its inputs exist and the operator before it (same pass, same chiplet) has started. A
  chiplet fetches inputs for its `fetch_ahead` oldest enabled operators (None: all; the buffer is the limit); an
  operator is ready when all its inputs and weights are there.
- A remote input needs its bytes in the consumer's buffer from the start of its transfer until the consumer has
  finished; if they are not free at that moment it goes through memory. A result needs its `hold_bytes` from the start
  of its producer; if they are not free at that moment it is written to memory when produced. A held result is given
  up when its last reader has finished (same chiplet) or has its copy (another chiplet, or memory). So nothing ever
  waits for space: no deadlock.
- Bytes that come from memory stream through the tile reserve (the largest `working_bytes`) and occupy nothing else.
"""

from dataclasses import dataclass, field
from heapq import heappop, heappush

import numpy as np


@dataclass
class Costs:
    """Cost table as NumPy, one column a chiplet."""

    exec_s: np.ndarray
    input_refetch: np.ndarray
    weight_refetch: np.ndarray
    weight_bytes: np.ndarray
    working_bytes: np.ndarray

    @classmethod
    def of(cls, table) -> "Costs":
        names = ("exec_s", "input_refetch", "weight_refetch", "weight_bytes", "working_bytes")
        got = {name: np.asarray(getattr(table, name), np.float64) for name in names}
        if getattr(table, "column", None) is not None:
            got = {name: x[:, np.asarray(table.column)] for name, x in got.items()}
        return cls(**got)


@dataclass
class Outcome:
    """What a simulation saw. `busy`: share of the measured time, in the order of `System.resource_names`.

    `peak_bytes`: most ever held in each buffer, weights and tile reserve included. `moved_bytes`: by purpose; for
    throughput of a round. `in_flight`: mean passes of each model in flight. `finish_s`: of each pass of each model,
    from the start. `latencies_s`: from admission to completion.
    """

    time_s: float
    busy: np.ndarray
    peak_bytes: np.ndarray
    capacity_bytes: np.ndarray
    resident: np.ndarray
    moved_bytes: dict
    finish_s: list = field(default_factory=list)
    latencies_s: list = field(default_factory=list)
    period_s: float = 0.0
    throughput_per_s: np.ndarray | None = None
    in_flight: np.ndarray | None = None
    trace: list | None = None


# What a finished transfer was for.
_INPUT, _READ, _SPILL, _LATE, _OUTPUT = range(5)
PURPOSES = ("network", "read_input", "read_weights", "read_outside", "write_spill", "write_late", "write_output")
_NETWORK, _R_INPUT, _R_WEIGHTS, _R_OUTSIDE, _W_SPILL, _W_LATE, _W_OUTPUT = range(7)


class _Transfer:
    __slots__ = ("row", "issue", "last", "left", "of", "purpose", "service", "servers", "source", "steps", "tail")


class _Pass:
    __slots__ = (
        "admitted", "arrived", "held", "in_memory", "left", "model", "need", "number", "readers", "seq", "wait",
        "waiting",
    )  # fmt: skip


class Machine:
    """One workload on one system under one assignment, ready to be run (each run starts empty)."""

    def __init__(self, workload, system, assignment, costs, *,
                 tiles=8, least_tile_bytes=16384.0, fetch_ahead=None, trace=False):  # fmt: skip
        w, s = workload, system
        self.costs = c = costs if isinstance(costs, Costs) else Costs.of(costs)
        self.tiles, self.least_tile, self.fetch_ahead = tiles, least_tile_bytes, fetch_ahead or 1 << 30
        self.n, self.d, self.models = w.n_operators, s.n_chiplets, w.n_models
        chip = self.chip = [int(x) for x in assignment]
        model = np.asarray(w.model)
        self.rows = [[int(r) for r in np.flatnonzero(model == m)] for m in range(self.models)]
        self.first_row = [rows[0] for rows in self.rows]
        for rows in self.rows:
            assert rows == list(range(rows[0], rows[-1] + 1)), "rows of a model stand together"
        self.batch = np.asarray(w.batch, np.float64)
        self.rate = np.asarray(w.rate, np.float64)

        def here(column):
            return [float(column[r, chip[r]]) for r in range(self.n)]

        self.exec_s, self.in_refetch, self.w_refetch = here(c.exec_s), here(c.input_refetch), here(c.weight_refetch)
        self.weight_bytes = [float(x) for x in c.weight_bytes[:, 0]]
        op = w.operators
        self.out_bytes = [float(x) for x in np.asarray(op.out_elements) * np.asarray(op.out_bits) / 8]
        self.hold_bytes = [float(x) for x in w.hold_bytes]
        self.outside_in = [float(x) for x in w.outside_in_bytes]
        self.outside_out = [float(x) for x in w.outside_out_bytes]
        self.feeds: list[list] = [[] for _ in range(self.n)]  # (producer, bytes)
        self.readers: list[list] = [[] for _ in range(self.n)]  # one entry an edge
        for a, b, nbytes in zip(w.source, w.target, w.edge_bytes, strict=True):
            self.feeds[int(b)].append((int(a), float(nbytes)))
            self.readers[int(a)].append(int(b))
        self.before, self.after = [-1] * self.n, [-1] * self.n  # on the same chiplet, of the same model
        for rows in self.rows:
            latest: dict[int, int] = {}
            for r in rows:
                if chip[r] in latest:
                    self.before[r], self.after[latest[chip[r]]] = latest[chip[r]], r
                latest[chip[r]] = r

        self.reserve = float(np.max(c.working_bytes))
        self.buffer = np.asarray(s.chiplets.buffer_bytes, np.float64)
        self.resident = self._residency(np.asarray(w.live_bytes, np.float64))
        stored = [sum(self.weight_bytes[r] for r in range(self.n) if chip[r] == d) for d in range(self.d)]
        self.base = [self.reserve + (stored[d] if self.resident[d] else 0.0) for d in range(self.d)]
        self.loads = [self.weight_bytes[r] > 0 and not self.resident[chip[r]] for r in range(self.n)]

        # one pass as it starts: what each operator waits for
        self.wait0 = [len(self.feeds[r]) + (self.before[r] >= 0) for r in range(self.n)]
        # to be ready: inputs fetched (one token, turned into transfers), weights, bytes from outside
        self.need0 = [1 + self.loads[r] + (self.outside_in[r] > 0) for r in range(self.n)]
        self._network(s)
        self.trace = [] if trace else None

    def _residency(self, live):
        """Weights on a chiplet stay if beside them fits, for every model, its largest live set of an operator there,
        once for each of its passes in flight: as many as it has segments, at most one a chiplet."""
        answer = np.zeros(self.d, bool)
        for d in range(self.d):
            need = self.reserve
            for rows in self.rows:
                segments = 1 + sum(self.chip[a] != self.chip[b] for a, b in zip(rows[:-1], rows[1:], strict=True))
                need += min(segments, self.d) * max([live[r] for r in rows if self.chip[r] == d], default=0.0)
            stored = sum(self.weight_bytes[r] for r in range(self.n) if self.chip[r] == d)
            answer[d] = 0 < stored and stored + need <= self.buffer[d]
        return answer

    def _network(self, s):
        """Servers: links, out-ports, in-ports, memory; and for every pair of chiplets the servers on the way."""
        p, names, d = s.package, s.chiplet_names, self.d
        at = {tuple(xy): i for i, xy in enumerate(p.positions)}
        n_links = len(p.link_names)
        link = {name: i for i, name in enumerate(p.link_names)}
        out, into, self.memory = n_links, n_links + d, n_links + 2 * d
        self.n_servers = n_links + 2 * d + 1
        port, wire = float(p.port_bytes_per_s), float(p.link_bytes_per_s)
        self.s_per_byte = [1 / wire] * n_links + [1 / port] * (2 * d) + [1 / float(s.memory.bytes_per_s[0])]
        hop = float(p.hop_s)

        def way(a, b):
            """Servers from chiplet a to chiplet b, and the latency on leaving each: x first, then y."""
            servers, delays = [out + a], [0.0]
            x, y = p.positions[a]
            ex, ey = p.positions[b]
            while (x, y) != (ex, ey):
                nx, ny = (x + (1 if ex > x else -1), y) if x != ex else (x, y + (1 if ey > y else -1))
                servers.append(link[f"{names[at[x, y]]}->{names[at[nx, ny]]}"])
                delays.append(hop)
                x, y = nx, ny
            return (*servers, into + b), (*delays, 0.0)

        self.way = [[way(a, b) if a != b else None for b in range(d)] for a in range(d)]
        latency = float(s.memory.latency_s[0])
        serves = np.asarray(p.serves)
        self.read_way, self.write_way = [], []
        for x in range(d):
            servers = np.flatnonzero(serves[:, x])
            if len(servers) == 0:  # an interface of its own
                self.read_way.append(((self.memory,), (latency,)))
                self.write_way.append(((self.memory,), (latency,)))
            else:
                a = int(servers[0])
                there, delay = self.way[a][x]
                self.read_way.append(((self.memory, *there), (latency, *delay)))
                back, delay = self.way[x][a]
                self.write_way.append(((*back, self.memory), (*delay, latency)))

    def run(self, limit, quota, stop, slack=1.0, clear_at=None):
        """Run passes: at most `limit[m]` of model m in flight, `quota[m]` a round (0: none of it), models admitted in
        proportion (none more than `slack` rounds ahead of another), until `stop(done)` says so.

        `clear_at(done)`: once true, statistics start anew. Returns (time, time of clearing)."""
        self.now = 0.0
        self.events: list = []
        self.count = 0
        self.free = [0.0] * self.n_servers
        self.busy = [0.0] * self.n_servers
        self.chip_busy = [0.0] * self.d
        self.occupied, self.peak = list(self.base), list(self.base)
        self.running = [False] * self.d
        self.slots = [self.fetch_ahead] * self.d
        self.enabled: list[list] = [[] for _ in range(self.d)]
        self.ready: list[list] = [[] for _ in range(self.d)]
        self.moved = [0.0] * len(PURPOSES)
        self.admitted, self.done, self.total = [0] * self.models, [0] * self.models, 0
        self.finish_s: list[list] = [[] for _ in range(self.models)]
        self.latencies_s: list[list] = [[] for _ in range(self.models)]
        self.limit, self.quota, self.slack, self.sequence = limit, quota, slack, 0
        self._admit()
        cleared = 0.0 if clear_at is None else None
        events, free, busy = self.events, self.free, self.busy
        completed = 0
        while events:
            now, _, what, step = heappop(events)
            if step >= 0:  # a tile asks for a server
                servers, service = what.servers, what.service
                server, took = servers[step], service[step]
                leaves = free[server]
                if leaves < now:
                    leaves = now
                leaves += took
                free[server] = leaves
                busy[server] += took
                if step == 0 and what.issue:
                    what.issue -= 1
                    self.count += 1
                    heappush(events, (leaves, self.count, what, 0))
                if step < what.last:
                    after = service[step + 1]
                    self.count += 1
                    # it can finish there one delay after it finishes here: it starts earlier by the shorter service
                    asks = leaves + what.steps[step] - (after if after < took else took)
                    heappush(events, (asks, self.count, what, step + 1))
                else:
                    what.left -= 1
                    if not what.left:
                        self.count += 1
                        heappush(events, (leaves + what.tail, self.count, what, -1))
                continue
            self.now = now
            if step == -1:
                self._arrived(what)
            else:
                self._finished(*what)
            if self.total != completed:
                completed = self.total
                if cleared is None and clear_at(self.done):
                    cleared = now
                    busy[:] = [0.0] * self.n_servers
                    self.chip_busy = [0.0] * self.d
                    self.moved = [0.0] * len(PURPOSES)
                if stop(self.done):
                    return now, cleared
                self._admit()
        raise AssertionError(f"the simulation came to a halt after {self.done} passes of {self.admitted}")

    def _admit(self):
        """Start passes while limits allow, models in turn by how far each has come."""
        while True:
            share = [self.admitted[m] / q if (q := self.quota[m]) else np.inf for m in range(self.models)]
            least = min(share)
            can = [
                m
                for m in range(self.models)
                if self.quota[m] and self.admitted[m] - self.done[m] < self.limit[m] and share[m] < least + self.slack
            ]
            if not can:
                return
            self._start_pass(min(can, key=lambda m: share[m]))

    def _start_pass(self, m):
        p = _Pass()
        p.model, p.seq, p.number, p.admitted = m, self.sequence, self.admitted[m], self.now
        self.sequence += 1
        self.admitted[m] += 1
        # indexed by row; only the rows of this model mean something
        p.wait, p.need = list(self.wait0), list(self.need0)
        p.readers = [len(r) for r in self.readers]
        p.held, p.in_memory = [False] * self.n, [False] * self.n
        p.arrived = [0.0] * self.n
        p.waiting = {}  # producer -> rows that wait until it is in memory
        p.left = len(self.rows[m]) + sum(self.outside_out[r] > 0 for r in self.rows[m])
        for r in self.rows[m]:
            if self.before[r] < 0:
                self._load_weights(p, r)
            if self.outside_in[r] > 0:
                nbytes = self.outside_in[r] * self.in_refetch[r]
                self._send(self.read_way[self.chip[r]], nbytes, _READ, p, r, -1, _R_OUTSIDE)
            if p.wait[r] == 0:
                self._enable(p, r)

    def urgency(self, p):
        """What a chiplet prefers, least first: rate-monotonic (Liu and Layland 1973), then the oldest pass. Oldest first alone
        lets the few long passes of one model hold up all the short ones of another."""
        return -self.quota[p.model], p.seq

    def _load_weights(self, p, row):
        if self.loads[row]:
            self._send(self.read_way[self.chip[row]], self.weight_bytes[row], _READ, p, row, -1, _R_WEIGHTS)

    def _send(self, way, nbytes, purpose, p, row, source, statistic):
        """Start a transfer of `nbytes`; its last tile's arrival calls `_arrived`."""
        self.moved[statistic] += nbytes
        t = _Transfer()
        n = int(nbytes / self.least_tile) + 1
        if n > self.tiles:
            n = self.tiles
        t.servers, t.steps = way
        size = nbytes / n
        t.service = [size * self.s_per_byte[server] for server in t.servers]
        t.tail, t.last = t.steps[-1], len(t.servers) - 1
        t.issue, t.left = n - 1, n
        t.purpose, t.of, t.row, t.source = purpose, p, row, source
        self.count += 1
        heappush(self.events, (self.now, self.count, t, 0))

    def _enable(self, p, row):
        d = self.chip[row]
        heappush(self.enabled[d], (*self.urgency(p), row, p))
        self._fetch(d)

    def _fetch(self, d):
        """Fetch inputs of the oldest enabled operators as long as the chiplet has slots for them."""
        while self.slots[d] and self.enabled[d]:
            *_, row, p = heappop(self.enabled[d])
            self.slots[d] -= 1
            any_memory = self.outside_in[row] > 0
            for source, nbytes in self.feeds[row]:
                s = self.chip[source]
                if p.held[source] and s == d:
                    continue
                p.need[row] += 1
                if p.held[source] and self.occupied[d] + nbytes <= self.buffer[d]:
                    self._occupy(d, nbytes)
                    p.arrived[row] += nbytes
                    self._send(self.way[s][d], nbytes, _INPUT, p, row, source, _NETWORK)
                    continue
                any_memory = True
                if p.in_memory[source]:
                    self._read_input(p, row, source, nbytes)
                elif source in p.waiting:
                    p.waiting[source].append((row, nbytes))
                else:
                    p.waiting[source] = [(row, nbytes)]
                    self._send(self.write_way[s], self.out_bytes[source], _LATE, p, row, source, _W_LATE)
            if any_memory and self.loads[row] and self.w_refetch[row] > 1:
                p.need[row] += 1
                again = self.weight_bytes[row] * (self.w_refetch[row] - 1)
                self._send(self.read_way[d], again, _READ, p, row, -1, _R_WEIGHTS)
            self._needs_one_less(p, row)

    def _read_input(self, p, row, source, nbytes):
        if p.held[source]:  # its copy is in memory: this reader no longer needs the one in the buffer
            self._read_once(p, source)
        self._send(self.read_way[self.chip[row]], nbytes * self.in_refetch[row], _READ, p, row, source, _R_INPUT)

    def _read_once(self, p, source):
        """One reader of a held result is done with it."""
        p.readers[source] -= 1
        if p.readers[source] == 0:
            self.occupied[self.chip[source]] -= self.hold_bytes[source]

    def _occupy(self, d, nbytes):
        self.occupied[d] += nbytes
        if self.occupied[d] > self.peak[d]:
            self.peak[d] = self.occupied[d]
            assert self.occupied[d] <= self.buffer[d] * (1 + 1e-9), "a buffer holds more than it can"

    def _needs_one_less(self, p, row):
        p.need[row] -= 1
        if p.need[row] == 0:
            d = self.chip[row]
            heappush(self.ready[d], (*self.urgency(p), row, p))
            if not self.running[d]:
                self._start(d)

    def _start(self, d):
        if not self.ready[d]:
            return
        *_, row, p = heappop(self.ready[d])
        self.running[d] = True
        if self.readers[row]:
            p.held[row] = self.occupied[d] + self.hold_bytes[row] <= self.buffer[d]
            if p.held[row]:
                self._occupy(d, self.hold_bytes[row])
        self.chip_busy[d] += self.exec_s[row]
        self.count += 1
        heappush(self.events, (self.now + self.exec_s[row], self.count, (p, row), -2))
        if self.trace is not None:
            self.trace.append((p.model, p.number, row, self.now, self.now + self.exec_s[row], p.held[row]))
        self.slots[d] += 1
        after = self.after[row]
        if after >= 0:
            self._load_weights(p, after)
            self._waits_one_less(p, after)
        self._fetch(d)

    def _waits_one_less(self, p, row):
        p.wait[row] -= 1
        if p.wait[row] == 0:
            self._enable(p, row)

    def _finished(self, p, row):
        d = self.chip[row]
        self.running[d] = False
        self.occupied[d] -= p.arrived[row]
        for source, _ in self.feeds[row]:
            if p.held[source] and self.chip[source] == d:
                self._read_once(p, source)
        if p.held[row]:
            for reader in self.readers[row]:
                self._waits_one_less(p, reader)
        elif self.readers[row]:
            self._send(self.write_way[d], self.out_bytes[row], _SPILL, p, row, -1, _W_SPILL)
        if self.outside_out[row] > 0:
            self._send(self.write_way[d], self.outside_out[row], _OUTPUT, p, row, -1, _W_OUTPUT)
        if not self.running[d]:
            self._start(d)
        self._less_left(p)

    def _arrived(self, t):
        p = t.of
        if t.purpose == _READ:
            self._needs_one_less(p, t.row)
        elif t.purpose == _INPUT:
            self._read_once(p, t.source)
            self._needs_one_less(p, t.row)
        elif t.purpose == _SPILL:
            p.in_memory[t.row] = True
            for reader in self.readers[t.row]:
                self._waits_one_less(p, reader)
        elif t.purpose == _LATE:
            p.in_memory[t.source] = True
            for row, nbytes in p.waiting.pop(t.source):
                self._read_input(p, row, t.source, nbytes)
        else:
            self._less_left(p)

    def _less_left(self, p):
        p.left -= 1
        if p.left == 0:
            self.done[p.model] += 1
            self.finish_s[p.model].append(self.now)
            self.latencies_s[p.model].append(self.now - p.admitted)
            self.total += 1

    def outcome(self, duration) -> Outcome:
        ports_and_links = self.busy[:-1]
        return Outcome(
            time_s=self.now,
            busy=np.asarray([*self.chip_busy, *ports_and_links, self.busy[-1]]) / duration,
            peak_bytes=np.asarray(self.peak),
            capacity_bytes=self.buffer,
            resident=self.resident,
            moved_bytes=dict(zip(PURPOSES, self.moved, strict=True)),
            finish_s=self.finish_s,
            latencies_s=self.latencies_s,
            trace=self.trace,
        )


def simulate_latency(workload, system, assignment, costs, model=0, **options) -> Outcome:
    """One pass of one model in an otherwise empty package; `time_s` is when its outputs are in memory."""
    machine = Machine(workload, system, assignment, costs, **options)
    only = [int(m == model) for m in range(machine.models)]
    end, _ = machine.run(only, only, lambda done: done[model] == 1)
    return machine.outcome(end)


def simulate_throughput(
    workload, system, assignment, costs, *, rounds=40, measure=20, in_flight=None, slack=3.0, **options
) -> Outcome:
    """Successive rounds of `rate[m]` passes of each model m (integers). `period_s`: time of the last `measure` rounds /
    `measure`.

    `in_flight`: most passes in flight of each model (a number, or one for each). None: three quarters of a
    round of them, and at least four a chiplet. Little's law: n passes in flight feed the bottleneck as long as a
    pass takes no longer than n times what the bottleneck spends on one. One a chiplet would do if all stages took
    equally long; but a pass comes by every chiplet many times, behind operators of unlike length, and all the short
    passes of a model can stand behind one long operator of another. More in flight need more buffer, and what does
    not fit is spilled: `moved_bytes` tells. Models are admitted in proportion to their rates, none `slack` rounds
    ahead of another, and admission never ends before the measurement does: neither start nor drain is in the measured
    time.
    """
    machine = Machine(workload, system, assignment, costs, **options)
    rate = np.round(machine.rate).astype(int)
    if np.any(np.abs(rate - machine.rate) > 1e-9) or np.any(rate < 1):
        raise ValueError(f"rates are {machine.rate}; the simulation needs integers of at least 1")
    limit = np.maximum(4 * machine.d, np.ceil(0.75 * rate)) if in_flight is None else in_flight
    limit = [int(x) for x in np.broadcast_to(limit, machine.models)]
    rate = [int(r) for r in rate]
    warm = rounds - measure

    def reached(count):
        return lambda done: all(done[m] >= count * rate[m] for m in range(machine.models))

    end, begin = machine.run(limit, rate, reached(rounds), slack, reached(warm) if warm else None)
    out = machine.outcome(end - begin)
    out.period_s = (end - begin) / measure
    out.throughput_per_s = np.asarray(rate) * machine.batch / out.period_s
    out.in_flight = np.asarray(
        [
            sum(max(0.0, f - max(begin, f - x)) for f, x in zip(*both, strict=True) if f > begin) / (end - begin)
            for both in zip(machine.finish_s, machine.latencies_s, strict=True)
        ]
    )
    out.moved_bytes = {name: x / measure for name, x in out.moved_bytes.items()}
    return out


def best_throughput(workload, system, assignment, costs, limits, **options) -> Outcome:
    """The shortest period over several limits of passes in flight: too few starve the bottleneck, too many spill."""
    runs = [simulate_throughput(workload, system, assignment, costs, in_flight=limit, **options) for limit in limits]
    return min(runs, key=lambda out: out.period_s)
