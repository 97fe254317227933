"""Runs inside GenZ's environment: jobs on stdin (JSON), milliseconds and CPU seconds of each behind RESULT on stdout."""

import json
import sys
import time
import warnings

warnings.filterwarnings("ignore")


def answered(job: dict, prefill, decode) -> dict:
    """Latency in ms of a job, or why there is none."""
    shared = dict(
        model=job["model"],
        batch_size=int(job["batch"]),
        system_name=job["system"],
        bits=job["bits"],
        tensor_parallel=int(job["tensor"]),
    )
    start = time.process_time()
    try:
        if job["phase"] == "prefill":
            found = prefill(input_tokens=int(job["tokens"]), **shared)
        else:
            found = decode(Bb=1, input_tokens=int(job["tokens"]), output_tokens=int(job["new_tokens"]), **shared)
    except Exception as error:
        return {"error": str(error).splitlines()[0][:120], "cpu_s": time.process_time() - start}
    return {"ms": float(found["Latency"]), "cpu_s": time.process_time() - start}


def main() -> None:
    from GenZ import decode_moddeling, prefill_moddeling  # type: ignore

    jobs = json.load(sys.stdin)
    answered(jobs[0], prefill_moddeling, decode_moddeling)  # what is loaded once
    print("RESULT" + json.dumps([answered(job, prefill_moddeling, decode_moddeling) for job in jobs]))


if __name__ == "__main__":
    main()
