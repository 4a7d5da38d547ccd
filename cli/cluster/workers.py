"""Answers a file of requests with the workers of a Ray cluster: each takes a shard, and a shard whose worker dies is tried again.

    python workers.py SHARDS IN.jsonl OUT.jsonl [FLAGS OF glm batch]

IN, OUT and the model are on a file system that all machines share. The answers of shard I are in OUT.jsonl.I; the last step joins them.
The exit code is that of `glm batch`: 1 if a shard has failed, or requests that may succeed when the same command is given again.
"""

import json
import os
import shutil
import subprocess
import sys

import ray


# A shard counts as one CPU: `ray start --num-cpus 1` gives a machine one shard at a time. A worker that dies leaves whole lines, and the
# next one goes on.
@ray.remote(num_cpus=1, max_retries=5, retry_exceptions=True)
def answer(shard, shards, source, part, flags):
    """Answers a shard, and returns the exit code of `glm batch`."""
    # The program ends with its worker, so that it does not write beside the next one.
    with_worker = ["setpriv", "--pdeathsig", "KILL"]
    command = ["glm", "batch", "--shard", f"{shard}/{shards}", *flags, source, part]
    code = subprocess.run(with_worker + command).returncode
    # A signal has ended it. After an error it would say the same again.
    if code < 0 or code == 130:
        raise RuntimeError(f"glm batch --shard {shard}/{shards} was stopped (exit code {code})")
    return code


def lines(names):
    """The lines of files that are not empty."""
    for name in filter(os.path.exists, names):
        with open(name, "rb") as file:
            yield from filter(bytes.strip, file)


def join(parts, target):
    """Writes the lines of all parts to `target`, which has all of them or is not changed."""
    with open(f"{target}.new", "wb") as joined:
        for name in parts:
            with open(name, "rb") as part:
                shutil.copyfileobj(part, joined)
    os.replace(f"{target}.new", target)


def is_wrong(line):
    response = json.loads(line)["response"]
    return response is None or response["status_code"] != 200


def main():
    if len(sys.argv) < 4 or not sys.argv[1].isdecimal() or int(sys.argv[1]) == 0:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    shards, source, target, *flags = int(sys.argv[1]), *sys.argv[2:]
    parts = [f"{target}.{shard}" for shard in range(1, shards + 1)]
    ray.init()
    codes = []
    for task in [answer.remote(shard, shards, source, part, flags) for shard, part in enumerate(parts, 1)]:
        try:
            codes.append(ray.get(task))
        except ray.exceptions.RayError as error:
            print(error, file=sys.stderr)
            codes.append(1)
    if 2 in codes:
        sys.exit(2)
    requests = sum(1 for _ in lines([source]))
    # The last line of a program that was killed may be cut.
    wrong = [is_wrong(line) for line in lines(parts) if line.endswith(b"\n")]
    if len(wrong) < requests:
        sys.exit(f"{target}.*: {len(wrong)} of {requests} requests are answered; the same command goes on")
    join(parts, target)
    print(f"{target}: {requests} requests answered, {sum(wrong)} of them with an error", file=sys.stderr)
    if any(codes):
        sys.exit("some requests may succeed later; the same command tries them again")


main()
