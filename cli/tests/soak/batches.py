"""Runs of `glm batch` that are ended and go on."""

import json
import pathlib
import signal
import subprocess
import tempfile
import time

import requests
from program import DEMO, check, holds_only, outputs, start, stop_and_continue, wait

STOPPED = {signal.SIGINT: 130, signal.SIGTERM: 130, signal.SIGHUP: 130, signal.SIGKILL: -signal.SIGKILL}


class Batches:
    def __init__(self, answers, models):
        self.answers, self.models = answers, [DEMO, *models]

    def step(self, rng):
        model = rng.choice(self.models)
        lines = [{"custom_id": str(n), "method": "POST", "url": requests.CHAT, "body": requests.chat(rng)} for n in range(rng.randint(1, 60))]
        wrong = [str(n) for n in range(len(lines)) if rng.random() < 0.05]
        for name in wrong:
            lines[int(name)]["body"]["temperature"] = "warm"
        with tempfile.TemporaryDirectory() as folder:
            source, target = pathlib.Path(folder, "in.jsonl"), pathlib.Path(folder, "out.jsonl")
            source.write_text("".join(json.dumps(line) + "\n" for line in lines))
            flags = rng.choice([[], ["--order"], ["--max-sequences", "3"]])
            words = ["batch", "-m", model, "--threads", "1", *flags, str(source), str(target)]
            for _ in range(rng.randrange(4)):
                self.interrupted(rng, folder, words)
            child = start(folder, words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            if rng.random() < 0.3:
                stop_and_continue(child, rng)
            _, said = outputs(child, "batch")
            check(child.returncode == 0, "batch:", child.returncode, said.decode())
            holds_only(folder, ["in.jsonl", "out.jsonl"])
            written = [json.loads(line) for line in target.read_text().splitlines()]
        self.compare(model, lines, wrong, written, "--order" in flags)

    def interrupted(self, rng, folder, words):
        """A run that a signal ends, unless it is done before."""
        child = start(folder, words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        time.sleep(rng.uniform(0, 2))
        kind = rng.choice(list(STOPPED))
        child.send_signal(kind)
        code = wait(child, "batch")
        said = child.stderr.read().decode()
        child.stderr.close()
        # Before the signal is caught, the system ends the program.
        check(code in (0, STOPPED[kind], -kind), "batch:", code, said)
        check("panic" not in said, said)
        holds_only(folder, ["in.jsonl", "out.jsonl"])

    def compare(self, model, lines, wrong, written, is_ordered):
        names = [answer["custom_id"] for answer in written]
        expected = [line["custom_id"] for line in lines]
        check((names if is_ordered else sorted(names, key=int)) == expected, "answers to", names, "and not", expected)
        for answer in written:
            name, response = answer["custom_id"], answer["response"]
            if name in wrong:
                check(response["status_code"] == 400, answer)
            else:
                check(response["status_code"] == 200, answer)
                body = lines[int(name)]["body"]
                self.answers.check(model, [requests.CHAT, body], requests.read(requests.CHAT, response["body"]))

    def close(self):
        pass
