"""Answers a file of requests with the workers of a Ray cluster: each takes a shard, and a shard whose worker dies is tried again.

    python workers.py SHARDS IN.jsonl OUT.jsonl [FLAGS OF glm batch]

IN, OUT and the model are on a file system that all machines share. The answers of shard I are in OUT.jsonl.I; the last step joins them.
"""

import shutil
import subprocess
import sys

import ray


# A shard counts as one CPU: `ray start --num-cpus 1` gives a machine one shard at a time. A worker that dies leaves whole lines, and the
# next one goes on.
@ray.remote(num_cpus=1, max_retries=5, retry_exceptions=True)
def answer(shard, shards, source, target, flags):
    # The program ends with its worker, so that it does not write beside the next one.
    with_worker = ["setpriv", "--pdeathsig", "KILL"]
    command = ["glm", "batch", "--shard", f"{shard}/{shards}", *flags, source, f"{target}.{shard}"]
    subprocess.run(with_worker + command, check=True)


def main():
    shards, source, target, *flags = sys.argv[1:]
    numbers = range(1, int(shards) + 1)
    ray.init()
    ray.get([answer.remote(number, shards, source, target, flags) for number in numbers])
    with open(target, "wb") as joined:
        for number in numbers:
            with open(f"{target}.{number}", "rb") as part:
                shutil.copyfileobj(part, joined)


main()
