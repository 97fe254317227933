"""Runs LLM-Viewer from its checkout: a question on stdin (JSON), milliseconds of each job, timed calls and the files that ran on stdout."""

import hashlib
import json
import sys
import time
from pathlib import Path


def latency_ms(analyzer, job: dict, fused: bool) -> float:
    """Prefill of the prompt, or the mean of the new tokens."""
    shared = dict(batchsize=job["batch"], use_flashattention=fused, tp_size=job["tensor"])
    shared |= dict(zip(("w_bit", "a_bit", "kv_bit"), job["bits"], strict=True))
    if job["new_tokens"]:
        found = analyzer.analyze_generate_task(job["tokens"], job["new_tokens"], **shared)
        return 1e3 * (found["inference_time"] - found["prefill_time"]) / job["new_tokens"]
    return 1e3 * analyzer.analyze(job["tokens"], **shared)["total_results"]["prefill"]["inference_time"]


def timed(analyzer, points: list) -> float:
    """CPU seconds of a call for each of `points`: bits, ranks, batch, context."""
    start = time.process_time()
    for bits, tensor, batch, context in points:
        analyzer.analyze(context, batch, bits, bits, bits, use_flashattention=True, tp_size=tensor)
    return time.process_time() - start


def ran(checkout: Path) -> dict[str, str]:
    """Git's name of the content of each file of the checkout that was imported."""
    found = {}
    for module in list(sys.modules.values()):
        path = Path(getattr(module, "__file__", None) or "/")
        if path.is_relative_to(checkout):
            content = path.read_bytes()
            found[str(path.relative_to(checkout))] = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return dict(sorted(found.items()))


def main() -> None:
    question = json.load(sys.stdin)
    checkout = Path(question["checkout"]).resolve()
    sys.path.insert(0, str(checkout))
    import transformers
    from model_analyzer import ModelAnalyzer  # type: ignore

    jobs = []
    for job in question["jobs"]:
        analyzer = ModelAnalyzer(**job["target"])
        jobs.append({"fused": latency_ms(analyzer, job, True), "plain": latency_ms(analyzer, job, False)})
    analyzer, points = ModelAnalyzer(**question["timed"]), question["points"]
    cpu_s = [timed(analyzer, points) for _ in range(question["repeats"] + 1)][1:]
    answer = {
        "jobs": jobs,
        "calls": len(points),
        "cpu_s": cpu_s,
        "files": ran(checkout),
        "transformers": transformers.__version__,
    }
    print("RESULT" + json.dumps(answer))


if __name__ == "__main__":
    main()
