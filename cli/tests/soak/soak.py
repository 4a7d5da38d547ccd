"""Storms over `glm serve`, `glm chat` and `glm batch`, all at the same time: `soak.py MINUTES [SEED]`, in the folder of the workspace.

A seed repeats what is done. When the processes do it is the system's, so a finding may need several runs.
"""

import pathlib
import random
import sys
import tempfile
import threading
import time

import program
from batches import Batches
from chats import Chats
from serving import Calm, Restless


def main(minutes, seed):
    print(f"seed {seed}", flush=True)
    begin = time.monotonic()
    answers, stopped = program.Answers(), threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        models = program.causal_models(folder)
        storms = [Calm(answers), Restless(answers, models), Chats(answers), Batches(answers, models)]
        end = time.monotonic() + 60 * minutes
        actors = [program.Actor(type(storm).__name__, seed, storm.step, end, stopped) for storm in storms]
        for actor in actors:
            actor.start()
        for actor in actors:
            actor.join()
        failures = [actor.failure for actor in actors if actor.failure]
        for storm in storms:
            try:
                storm.close()
            except program.Failure as failure:
                failures.append(f"{type(storm).__name__}: {failure}")
    steps = ", ".join(f"{actor.steps} of {actor.name}" for actor in actors)
    print(f"steps: {steps}; {answers.repeated} answers were asked for again and were the same; {time.monotonic() - begin:.0f} s")
    idle = [actor.name for actor in actors if actor.steps == 0]
    if not failures and (idle or answers.repeated == 0):
        failures.append(f"too little was done in this time: no step of {idle}, or no answer twice")
    if failures:
        print(*failures, f"Again: .ci/soak {minutes:g} {seed}", sep="\n")
        sys.exit(1)


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else str(random.randrange(10**6)))
