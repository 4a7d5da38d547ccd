"""Storms over `glm serve`."""

import contextlib
import json
import pathlib
import random
import re
import signal
import socket
import statistics
import struct
import subprocess
import tempfile
import threading
import time

import requests
from program import DEMO, PATIENCE, Failure, check, holds_only, start, stop_and_continue, wait, wait_until

CLIENTS = 8
# A server may grow by this much after its first third: pages of the allocator, and what the debug build keeps for each thread.
GROWTH = 8 << 20
# Fewer measurements say nothing.
MEASUREMENTS = 24


class Server:
    def __init__(self, model, words=()):
        self.model, self.is_causal = model, model != DEMO
        self.home = tempfile.TemporaryDirectory()
        words = ["serve", "-m", model, "--port", "0", "--threads", "2", "--cache-memory", "8MB", "--client-timeout", "5", *words]
        self.child = start(self.home.name, words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.lines, self.port = [], None
        threading.Thread(target=self.listen, daemon=True).start()
        try:
            wait_until(lambda: self.port or self.child.poll() is not None, "the server listens")
            check(self.port, "the server has ended:", self.log())
            wait_until(lambda: self.get("/health")[0] == 200, "the server is ready")
            self.files = self.open_files()
        except BaseException:
            self.kill()
            raise

    def listen(self):
        for line in self.child.stderr:
            line = line.decode(errors="replace")
            self.lines.append(line)
            if found := re.search(r"served at http://127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])

    def log(self):
        return "".join(self.lines[-30:])

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)

    def send(self, data):
        """Sends bytes and returns the status and the body of the response, or none if there is no response."""
        with self.connect() as stream:
            # The server may have refused before it has read all.
            with contextlib.suppress(ConnectionError):
                stream.sendall(data)
            received = b""
            with contextlib.suppress(ConnectionError):
                while piece := stream.recv(1 << 16):
                    received += piece
        first, _, body = received.partition(b"\r\n\r\n")
        if not first:
            return None, b""
        if b"transfer-encoding: chunked" in first.lower():
            body = unchunked(body)
        return int(first.split()[1]), body

    def get(self, path):
        return self.send(requests.head(path, 0, "GET"))

    def metric(self, name):
        found = re.search(rf"^{name} (.*)$", self.get("/metrics")[1].decode(), re.M)
        return float(found[1])

    def memory(self):
        status = pathlib.Path(f"/proc/{self.child.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) << 10

    def open_files(self):
        return len(list(pathlib.Path(f"/proc/{self.child.pid}/fd").iterdir()))

    def settle(self):
        """What the clients had is free again, and the server answers."""
        check(self.get("/health") == (200, b'{"status":"ready"}'), self.get("/health"))
        for name in ("running", "waiting"):
            wait_until(lambda: self.metric(f"glm_sequences_{name}") == 0, f"no answer is {name}")
        wait_until(lambda: self.open_files() <= self.files, "connections are closed")

    def check_log(self):
        log = "".join(self.lines)
        check("panic" not in log and " 500: " not in log, log[-5000:])

    def kill(self):
        self.child.kill()
        self.child.wait()

    def end(self, kinds, codes):
        for kind in kinds:
            self.child.send_signal(kind)
            time.sleep(0.05)
        code = wait(self.child, "the server")
        check(code in codes, f"the exit code after {kinds} is {code}:", self.log())
        holds_only(self.home.name, [])
        self.home.cleanup()


def unchunked(data):
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size or b"0", 16)
        if not length:
            break
        body, data = body + data[:length], data[length + 2 :]
    return body


class Storm:
    """Clients that come and go for some seconds."""

    def __init__(self, server, answers, rng, seconds):
        self.server, self.answers, self.end = server, answers, time.monotonic() + seconds
        self.failures, self.ends, self.doing = [], threading.Event(), {}
        seeds = [rng.random() for _ in range(CLIENTS)]
        self.threads = [threading.Thread(target=self.client, args=[random.Random(seed)], daemon=True) for seed in seeds]
        for thread in self.threads:
            thread.start()

    def join(self):
        for thread in self.threads:
            thread.join(2 * PATIENCE)
            if thread.is_alive():
                numbers = self.server.get("/metrics")[1].decode()
                raise Failure(f"a client waits for ever: {self.doing.get(thread)}; {numbers}")
        check(not self.failures, *self.failures[:1])

    def client(self, rng):
        try:
            while time.monotonic() < self.end and not self.failures and not self.ends.is_set():
                self.come(rng)
        except Exception as error:
            # A server that ends or was killed closes connections at any place.
            if isinstance(error, Failure) or not self.ends.is_set():
                self.failures.append(f"{type(error).__name__}: {error}")

    def come(self, rng):
        kind = rng.random()
        if kind < 0.2:
            data = requests.bad(rng, self.server.is_causal)
            self.note("bad", data[:3000])
            status, body = self.server.send(data)
            is_well = status is None or status < 500 or (self.ends.is_set() and status == 503)
            check(is_well, status, body[:2000], "to", data[:3000])
        elif kind < 0.4:
            self.leave(rng)
        elif kind < 0.5:
            self.talk(rng)
        else:
            self.ask(rng, *requests.good(rng, self.server.is_causal))

    def note(self, *what):
        """What this client does, for the report of a failure."""
        self.doing[threading.current_thread()] = time.monotonic(), *what

    def leave(self, rng):
        """A client that goes away somewhere."""
        path, body = requests.good(rng, self.server.is_causal)
        if requests.streams(path):
            body |= {"stream": rng.random() < 0.7, "ignore_eos": True, "max_tokens": 200}
        data = requests.whole(path, body)
        self.note("leaving", path, body)
        with self.server.connect() as stream:
            stream.sendall(data[: rng.choice([len(data), len(data), rng.randrange(len(data))])])
            stream.settimeout(rng.uniform(0.01, 0.4))
            with contextlib.suppress(TimeoutError):
                stream.recv(rng.choice([1, 100, 4000]))
            if rng.random() < 0.5:
                # A reset, not an orderly end.
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def talk(self, rng):
        """A conversation of a few questions."""
        body = requests.chat(rng)
        for _ in range(rng.randint(2, 4)):
            answer = self.ask(rng, requests.CHAT, body)
            if answer is None:
                return
            said = {"role": "assistant", "content": answer[0][0]}
            next_question = requests.chat(rng)["messages"][0]
            body = {**body, "messages": [*body["messages"], said, next_question]}

    def ask(self, rng, path, body):
        """A whole answer, which is the known one."""
        if "model" in body and body["model"] is None:
            body["model"] = pathlib.Path(self.server.model).name
        is_stream = requests.streams(path) and rng.random() < 0.5
        self.note("asking", path, body, is_stream)
        status, data = self.server.send(requests.whole(path, {**body, "stream": True} if is_stream else body))
        if status == 429 or (self.ends.is_set() and status in (None, 503)):
            return None
        check(status == 200, path, body, "is answered", status, data[:2000])
        try:
            answer = self.read(path, data, is_stream)
        except (KeyError, ValueError, TypeError, IndexError) as error:
            if self.ends.is_set():
                return None
            raise Failure(f"{path} {body}: {error!r} of {data!r}") from error
        if answer is not None:
            self.answers.check(self.server.model, [path, body], answer)
        return answer

    def read(self, path, data, is_stream):
        if not is_stream:
            return requests.read(path, json.loads(data))
        lines = [line[6:] for line in data.decode().splitlines() if line.startswith("data: ")]
        is_error = "event: error" in data.decode() or "event: response.failed" in data.decode()
        if is_error:
            is_known = self.ends.is_set() or "queue" in lines[-1]
            check(is_known, "an event of an error:", lines[-1])
            return None
        if path not in ("/v1/responses", "/v1/messages"):
            if lines[-1:] != ["[DONE]"]:
                # The server was killed.
                check(self.ends.is_set(), "a stream without end:", data)
                return None
            lines.pop()
        return requests.read_events(path, [json.loads(line) for line in lines])


class Calm:
    """A server that lives as long as the run. Its memory stays the same."""

    def __init__(self, answers):
        self.answers, self.server, self.measured = answers, Server(DEMO), []

    def step(self, rng):
        storm = Storm(self.server, self.answers, rng, rng.uniform(2, 5))
        if rng.random() < 0.5:
            stop_and_continue(self.server.child, rng)
        storm.join()
        self.server.settle()
        self.server.check_log()
        self.measured.append(self.server.memory())

    def close(self):
        self.server.end([signal.SIGTERM], [0])
        self.server.check_log()
        megabytes = [round(bytes / 1e6, 1) for bytes in self.measured]
        print(f"memory of the server in MB: {megabytes}", flush=True)
        if len(self.measured) < MEASUREMENTS:
            print(f"they are not judged: fewer than {MEASUREMENTS}", flush=True)
        else:
            third = len(self.measured) // 3
            before, after = (statistics.median(part) for part in (self.measured[third : 2 * third], self.measured[-third:]))
            check(after - before <= GROWTH, f"the memory of the server grows by {after - before} bytes:", megabytes)


class Restless:
    """A server that is ended in the middle of a storm, and started again with the file of its cache."""

    def __init__(self, answers, models):
        self.answers, self.models, self.folder = answers, models, tempfile.TemporaryDirectory()

    def step(self, rng):
        model = rng.choice([DEMO, *self.models])
        words = rng.choice([[], ["--max-sequences", "3", "--queue", "2"], ["--kv-memory", "20MB"]]) + ["--grace", rng.choice(["0", "60"])]
        cache = pathlib.Path(self.folder.name, pathlib.Path(model).name)
        if model != DEMO:
            words += ["--cache-file", str(cache)]
        server = Server(model, words)
        try:
            self.storm(rng, server)
        finally:
            server.kill()

    def storm(self, rng, server):
        storm = Storm(server, self.answers, rng, rng.uniform(1, 4))
        time.sleep(rng.uniform(0, 3))
        is_idle = rng.random() < 0.3
        if is_idle:
            storm.join()
            server.settle()
        storm.ends.set()
        first = rng.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
        if first == signal.SIGKILL:
            server.end([first], [-signal.SIGKILL])
        elif rng.random() < 0.3:
            # The second may come too late.
            server.end([first, signal.SIGTERM], [0, 130, -signal.SIGTERM])
        else:
            server.end([first], [0])
        storm.join()
        server.check_log()
        # What a process that was killed has begun to write stays.
        if first != signal.SIGKILL:
            left = [path.name for path in pathlib.Path(self.folder.name).iterdir()]
            check(set(left) <= {pathlib.Path(model).name for model in self.models}, "left beside the cache:", left)

    def close(self):
        self.folder.cleanup()
