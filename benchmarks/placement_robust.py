"""Placement for links of uncertain speed: what it costs and saves; and placing anew when a device is lost.

    python benchmarks/placement_robust.py [--seeds 5] [--seconds 30]

Links: log-normal factors on every link, standard deviation 0.5 of the logarithm; 32 scenarios to place for, 256 others to judge by.
Loss: 500 operators on 4 devices, each lost in turn; the new placement beside a search of 10 s that knew before.
"""

import statistics
from dataclasses import replace

from _common import arguments, report
from placement import DATA, layered

INSTANCES = (("GoogLeNet", 0.1), ("yolov5x", 1.0))


def figures(problem, uncertain, unseen, found) -> dict:
    from search.placement import makespans

    drawn, new = makespans(uncertain, *found), makespans(unseen, *found)
    return dict(
        nominal=float(makespans(problem, *found)[0]), drawn_mean=float(drawn.mean()), drawn_worst=float(drawn.max()),
        unseen_mean=float(new.mean()), unseen_p95=float(sorted(new)[int(0.95 * len(new))]), unseen_worst=float(new.max()),
    )  # fmt: skip


def uncertain_links(seconds: float) -> tuple[dict, list[str]]:
    from search.placement import load_instance, robust
    from search.placement.methods import price_of_robustness

    answer, lines = {}, []
    for name, scale in INSTANCES:
        problem = load_instance(DATA / f"{name}.json", comm_scale=scale)
        unseen = robust(problem, 256, spread=0.5, key=1)
        for goal in ("mean", "worst"):
            uncertain = robust(problem, 32, spread=0.5, worst_case=goal == "worst", key=0)
            price, nominal, placed = price_of_robustness(problem, uncertain, time_limit_s=seconds)
            one, two = (figures(problem, uncertain, unseen, found) for found in (nominal, placed))
            answer[f"{name} x{scale:g} {goal}"] = dict(
                placed_for_nominal=one, placed_for_drawn=two, price=price.price, gain=price.gain
            )
            said = f"price at nominal links {price.price:+.1%}, gain over the drawn {price.gain:+.1%}"
            lines.append(f"{name} x{scale:g}, {goal} of 32 drawn: {said}")
            for who, f in (("nominal", one), ("drawn", two)):
                lines.append(f"  placed for {who:8}" + "".join(f"  {k} {v:.4g}" for k, v in f.items()))
    return answer, lines


def lost_device(seeds: int) -> tuple[dict, list[str]]:
    from search.placement import makespan, place, replace_after_loss
    from search.placement.methods import without

    problem = layered(500, 4)
    problem = replace(problem, capacity_bytes=problem.capacity_bytes * 1.4)  # so that three devices hold everything
    before = place(problem, "search", time_limit_s=15.0)
    replace_after_loss(problem, before.placement, before.order, 0)  # compiles, as a running service has done
    answer = {}
    lines = [f"{'lost':>6}{'seconds':>10}{'before':>10}{'patched':>10}{'after':>10}{'anew, 10 s':>12}{'moved':>8}"]
    for device, name in enumerate(problem.device_names):
        runs = [replace_after_loss(problem, before.placement, before.order, device, seed=s) for s in range(seeds)]
        masked = without(problem, device)
        row = dict(
            seconds=statistics.median(info["seconds"] for *_, info in runs), before=before.makespan,
            patched=statistics.median(info["patched"] for *_, info in runs),
            after=statistics.median(makespan(masked, p, o) for p, o, _ in runs),
            anew=place(masked, "search", time_limit_s=10.0).makespan, moved=int(statistics.median(i["moved"] for *_, i in runs)),
        )  # fmt: skip
        answer[name] = row
        numbers = "".join(f"{row[k]:10.4g}" for k in ("seconds", "before", "patched", "after"))
        lines.append(f"{name:>6}{numbers}{row['anew']:12.4g}{row['moved']:8}")
    return answer, lines


def main() -> None:
    args = arguments(
        __doc__.splitlines()[0],
        seeds=(5, "runs of every loss"),
        seconds=(30.0, "of each search"),
    )
    links, lines = uncertain_links(args.seconds)
    lost, more = lost_device(args.seeds)
    report("placement_robust", args, {"links": links, "lost": lost}, [*lines, "", "500 operators on 4 devices", *more])


if __name__ == "__main__":
    main()
