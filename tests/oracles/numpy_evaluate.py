"""docs/model.md once more, in float64 NumPy: vectorised over candidates, a plain loop over operators, no registers, no masks.

Independent of `perfmodel.schedule`: it shares the workload, the system and the cost table, nothing else. The judge of the
batched evaluator at odd batch sizes, and its rival in benchmarks/schedules_per_second.py.
"""

import numpy as np
from oracles.numpy_fusion import Plan, Streaming
from oracles.numpy_queues import Queues


def evaluate_numpy(workload, system, assignment, costs, sub_batch=1.0, dtype=np.float64, fusion=None):
    """Throughput, latency by model, energy per inference, period, busy seconds of `B` hard candidates.

    `assignment`: `B x L` integers.  `costs`: dictionary of `L x D` arrays (or `B x L x D`): exec_s, onchip_j, input_refetch,
    weight_refetch, working_bytes.  `system.chiplets` fields may be `D` or `B x D`.  `fusion`: `B x E`, hard, of one model's
    workload (costs then also: launch_s, moving_s).
    """
    where = np.asarray(assignment).astype(np.int64)
    n_candidates, n_rows = where.shape
    n = len(system.chiplet_names)
    every = np.arange(n_candidates)
    package, memory, b = system.package, system.memory, sub_batch
    buffer_bytes = np.broadcast_to(np.asarray(system.chiplets.buffer_bytes, dtype), (n_candidates, n))
    buffer_j = np.broadcast_to(np.asarray(system.chiplets.buffer_j_per_byte, dtype), (n_candidates, n))

    def cost(name, row):
        table = costs[name]
        return table[row][where[:, row]] if table.ndim == 2 else table[every, row, where[:, row]]

    op = workload.operators
    weight_bytes = np.asarray(op.weight_elements * op.weight_bits / 8, dtype)
    out_bytes = np.asarray(op.out_elements * op.out_bits / 8, dtype) * b
    hold, live_set = workload.hold_bytes * b, np.broadcast_to(workload.live_bytes * b, (n_candidates, n_rows))
    plan = None
    if fusion is not None:
        plan = Plan(workload, where, fusion, b)
        live_set = plan.live()
    last_reader = {
        int(s): int(max(t for p, t in zip(workload.source, workload.target, strict=True) if p == s))
        for s in set(workload.source)
    }
    models = range(len(workload.model_names))
    rows_of = [np.flatnonzero(workload.model == m) for m in models]

    # resident weights
    placed = np.zeros((n_candidates, n), dtype)
    for row in range(n_rows):
        placed[every, where[:, row]] += weight_bytes[row]
    activations = np.zeros((n_candidates, n), dtype)
    for rows in rows_of:
        segments = 1 + (where[:, rows[1:]] != where[:, rows[:-1]]).sum(axis=1)
        largest = np.zeros((n_candidates, n), dtype)
        for row in rows:
            largest[every, where[:, row]] = np.maximum(largest[every, where[:, row]], live_set[:, row])
        activations += np.minimum(segments, n)[:, None] * largest
    tile = costs["working_bytes"].max(axis=-2)
    free = buffer_bytes - tile
    resident = (placed > 0) & (placed + activations <= free)
    room = free - resident * placed

    bw = float(memory.bytes_per_s[0])
    busy = np.zeros((n_candidates, n), dtype)
    traffic = np.zeros((n_candidates, n, n), dtype)
    read, written = np.zeros((n_candidates, n), dtype), np.zeros((n_candidates, n), dtype)
    on_chip = np.zeros(n_candidates, dtype)
    first_result = np.zeros((n_candidates, len(rows_of)), dtype)

    for m in models:
        rate = float(workload.rate[m])
        live, chip_free, last_start = (np.zeros((n_candidates, n), dtype) for _ in range(3))
        finish, held, stored, queues = {}, {}, {}, Queues(system, n_candidates)
        streams = None if plan is None else Streaming(plan, n_candidates, n)
        for row in rows_of[m]:
            d = where[:, row]
            execute, refetch = cost("exec_s", row), cost("input_refetch", row)
            space = room[every, d] - live[every, d]
            arrived = np.zeros(n_candidates, dtype)
            outside = workload.outside_in_bytes[row] * b
            reads = outside * refetch
            asked = last_start[every, d]
            off_chip, sources = np.full(n_candidates, bool(outside)), []
            for p, nbytes in zip(workload.inputs[row], workload.input_bytes[row] * b, strict=True):
                if p < 0:
                    continue
                s = where[:, p]
                away = held[p] & (s != d)
                network = away & (arrived + nbytes <= space)
                late = away & ~network
                from_memory = ~held[p] | late
                arrived += network * nbytes
                np.add.at(traffic, (every, s, d), network * nbytes * rate)
                written[every, s] += late * out_bytes[p] * rate
                off_chip |= from_memory
                sources.append((p, s, nbytes, network, late, from_memory))
            load = weight_bytes[row] * np.where(off_chip, cost("weight_refetch", row), 1.0) * ~resident[every, d]
            ready = queues.read(d, asked, load + reads)
            sent = queues.send([(s, np.maximum(stored[p], asked), net * size) for p, s, size, net, *_ in sources], d)
            when, into, first = asked, 0.0, 0.0
            for p, s, nbytes, _, late, from_memory in sources:
                written_at = np.where(from_memory, np.maximum(stored[p], asked), asked)
                if queues.direct:
                    first = first + late * out_bytes[p]
                else:
                    written_at = queues.write(s, written_at, late * out_bytes[p])
                when, into = np.maximum(when, written_at), into + from_memory * nbytes * refetch
            fetched = queues.read(d, when, into, first)
            for (p, _, _, network, _, from_memory), arrived_at in zip(sources, sent, strict=True):
                ready = np.maximum(
                    ready,
                    np.where(network, arrived_at, np.where(from_memory, np.maximum(fetched, stored[p]), finish[p])),
                )
            reads = reads + into
            start = np.maximum(ready, chip_free[every, d])
            is_output = row not in last_reader
            if streams is None:
                held[row] = (arrived + hold[row] <= space) if not is_output else np.ones(n_candidates, bool)
            else:
                execute, held[row] = streams.row(row, d, weight_bytes[row], resident, held, arrived, space, cost)
            finish[row] = start + execute
            last_start[every, d], chip_free[every, d] = start, finish[row]
            if streams is None:
                live[every, d] += held[row] * (0.0 if is_output else hold[row])
                for p in {int(p) for p in workload.inputs[row] if p >= 0}:
                    if last_reader[p] == row:
                        live[every, where[:, p]] -= held[p] * hold[p]
            else:
                streams.after(row, d, where, live)
            out = out_bytes[row] * (1.0 if is_output else ~held[row])
            end = queues.write(d, finish[row], out + (0.0 if is_output else workload.outside_out_bytes[row] * b))
            stored[row] = np.where(held[row], finish[row], end)
            end = end if is_output or workload.outside_out_bytes[row] else finish[row]
            first_result[:, m] = np.maximum(first_result[:, m], end)
            busy[every, d] += execute * rate
            read[every, d] += (reads + load) * rate
            written[every, d] += out * rate
            on_chip += cost("onchip_j", row) * rate

    route, way_in, way_out = (np.asarray(x) for x in (package.route, package.memory_route, package.memory_back))
    links = np.einsum("kab,nab->nk", route, traffic) + read @ way_in.T + written @ way_out.T
    serves = np.asarray(package.serves)
    far = serves.sum(axis=0)
    out = traffic.sum(axis=2) + far * written + read @ serves.T
    into = traffic.sum(axis=1) + far * read + written @ serves.T
    dram = (read + written).sum(axis=1)
    resources = np.concatenate(
        [
            busy,
            links / float(package.link_bytes_per_s),
            np.concatenate([out, into], axis=1) / float(package.port_bytes_per_s),
            dram[:, None] / bw,
        ],
        axis=1,
    )
    largest = resources.max(axis=1)
    period = largest * ((resources / largest[:, None]) ** 16).sum(axis=1) ** (1 / 16)
    moved = traffic.sum(axis=2) + traffic.sum(axis=1) + read + written
    hop_bytes = (traffic * np.asarray(package.hops)).sum(axis=(1, 2)) + (
        (read + written) * np.asarray(package.memory_hops)
    ).sum(axis=1)
    static_w = np.asarray(system.chiplets.static_w).sum(axis=-1) + float(memory.static_w[0])
    energy = (
        on_chip + (moved * buffer_j).sum(axis=1) + hop_bytes * float(package.hop_j_per_byte)
        + dram * float(memory.j_per_byte[0]) + static_w * period
    )  # fmt: skip
    inferences = float((workload.rate * workload.batch).sum()) * b
    return dict(throughput_per_s=inferences / period, latency_s=first_result.max(axis=1), model_latency_s=first_result,
                energy_j=energy / inferences, period_s=period, busy_s=resources)  # fmt: skip
