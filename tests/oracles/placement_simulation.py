"""An event simulation of a placement: devices that run queues of tasks, links that send queues of tensors.

Nothing here walks the tasks in list order. Each device has a queue of its tasks; with congestion each device also has a queue of
what it sends and one of what it receives, in the order in which consumers need it. Time jumps from one completion to the next.
"""

import heapq


def simulate(problem, placement, order, scenario: int = 0) -> tuple[list[float], list[float], float]:
    """(start, finish, makespan) of every task."""
    n, d, edges = problem.n_tasks, problem.n_devices, range(len(problem.source))
    placement, rank = [int(k) for k in placement], {int(task): i for i, task in enumerate(order)}
    factors = problem.factors[scenario]
    queue = [sorted((t for t in range(n) if placement[t] == k), key=rank.get) for k in range(d)]
    waits_for = {t: set() for t in range(n)}
    for e in edges:
        waits_for[int(problem.target[e])].add(int(e))

    def ends(e):
        return placement[problem.source[e]], placement[problem.target[e]]

    def crosses(e):
        a, b = ends(e)
        return a != b

    def on_wire(e):
        return problem.congestion and bool(problem.moves[e]) and crosses(e)

    # a consumer asks for its inputs in the order in which their producers are listed
    needed = sorted(
        (e for e in edges if on_wire(e)), key=lambda e: (rank[int(problem.target[e])], rank[int(problem.source[e])], e)
    )
    outbox = [[e for e in needed if ends(e)[0] == k] for k in range(d)]
    inbox = [[e for e in needed if ends(e)[1] == k] for k in range(d)]

    start, finish = [None] * n, [None] * n
    produced, running, sending, receiving = set(), [None] * d, [False] * d, [False] * d
    events, number, now = [], 0, 0.0

    def at(when, what, which):
        nonlocal number
        heapq.heappush(events, (when, number, what, which))
        number += 1

    def begin():
        """Start whatever can start now; True if something did."""
        for k in range(d):
            if running[k] is None and queue[k] and not waits_for[queue[k][0]]:
                task = running[k] = queue[k].pop(0)
                start[task] = now
                at(now + float(problem.times[task, k]), "done", task)
                return True
            if outbox[k] and not sending[k]:
                e = outbox[k][0]
                to = ends(e)[1]
                if e in produced and inbox[to][0] == e and not receiving[to]:
                    outbox[k].pop(0)
                    inbox[to].pop(0)
                    sending[k] = receiving[to] = True
                    at(now + float(problem.transfer[e, k, to] * factors[k, to]), "sent", e)
                    return True
        return False

    while True:
        while begin():
            pass
        if not events:
            break
        now, _, what, which = heapq.heappop(events)
        if what == "done":
            finish[which], running[placement[which]] = now, None
            for e in edges:
                if problem.source[e] == which:
                    produced.add(e)
                    if not crosses(e):
                        waits_for[int(problem.target[e])].discard(e)
                    elif not on_wire(e):
                        a, b = ends(e)
                        at(now + float(problem.transfer[e, a, b] * factors[a, b]), "arrived", e)
        else:
            waits_for[int(problem.target[which])].discard(which)
            if what == "sent":
                a, b = ends(which)
                sending[a] = receiving[b] = False
    assert all(f is not None for f in finish), "deadlock"
    return start, finish, max(finish)
