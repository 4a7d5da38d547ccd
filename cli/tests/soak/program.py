"""Running `glm`, and what all storms share."""

import json
import os
import pathlib
import random
import signal
import subprocess
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[3]
GLM = os.environ.get("GLM", str(ROOT / "target/debug/glm"))
CAUSAL = os.environ.get("CAUSAL", str(ROOT / "target/debug/examples/causal"))
DEMO = str(ROOT / "model/demo/int4")
# Longer than anything takes on a busy machine.
PATIENCE = 120
QUESTIONS = ["你好", "3加5等于几？", "谢谢", "Hello!", "你是谁？", "My name is Clara.", "What can you do?", "北京?"]


class Failure(Exception):
    """What was found."""


def check(holds, *found):
    if not holds:
        raise Failure(" ".join(str(thing) for thing in found))


def environment(home):
    """An empty home: no models, settings or language of the developer."""
    kept = {name: os.environ[name] for name in ("PATH", "GLM_ISA") if name in os.environ}
    return {**kept, "HOME": str(home), "LC_ALL": "C.UTF-8", "TERM": "xterm-256color"}


def start(home, words, **options):
    return subprocess.Popen([GLM, *words], env=environment(home), cwd=home, **options)


def causal_models(folder):
    """Folders of models that call tools, of random weights."""
    made = subprocess.run([CAUSAL, folder], timeout=PATIENCE, check=False)
    check(made.returncode == 0, "the models cannot be made")
    return sorted(str(path) for path in pathlib.Path(folder).iterdir())


def wait(child, what):
    """The exit code; that of a signal is negative."""
    try:
        return child.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
        raise Failure(f"{what} does not end") from None


def outputs(child, what):
    """What it writes until it ends."""
    try:
        return child.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        raise Failure(f"{what} does not end") from None


def wait_until(holds, what):
    end = time.monotonic() + PATIENCE
    while not holds():
        check(time.monotonic() < end, "waited in vain:", what)
        time.sleep(0.02)


def stop_and_continue(child, rng):
    """The process stands still for a moment."""
    child.send_signal(signal.SIGSTOP)
    time.sleep(rng.uniform(0.05, 1))
    child.send_signal(signal.SIGCONT)


def holds_only(folder, names):
    """Nothing else is left in a folder. Chats make the history of questions, and nothing more, in their home; one that was killed may leave a part of it."""
    found = {str(path.relative_to(folder)) for path in pathlib.Path(folder).rglob("*") if path.is_file()}
    state = ".local/state/glm/history"
    found -= {state, f"{state}.lock", f"{state}.part"}
    check(found <= set(names), f"left in {folder}:", found - set(names))


class Answers:
    """What was answered to each request. The same request has the same answer at any time, beside any others, and from each command."""

    def __init__(self):
        self.known = {}
        self.lock = threading.Lock()
        self.repeated = 0

    def check(self, model, request, answer):
        key = model + json.dumps(request, sort_keys=True)
        with self.lock:
            known = self.known.setdefault(key, answer)
            self.repeated += known is not answer
        check(known == answer, key, "was answered", known, "and is answered", answer)


class Actor(threading.Thread):
    """Does `step` again and again until the time is over or something is found."""

    def __init__(self, name, seed, step, end, stopped):
        super().__init__(name=name, daemon=True)
        self.seed, self.step, self.end, self.stopped = seed, step, end, stopped
        self.steps, self.failure = 0, None

    def run(self):
        while time.monotonic() < self.end and not self.stopped.is_set():
            try:
                self.step(random.Random(f"{self.seed} {self.name} {self.steps}"))
            except Exception as error:
                kind = "" if isinstance(error, Failure) else f"{type(error).__name__}: "
                self.failure = f"{self.name}, step {self.steps}: {kind}{error}"
                if kind:
                    import traceback

                    self.failure += "\n" + traceback.format_exc()
                self.stopped.set()
                return
            self.steps += 1
