"""Conversations in `glm chat`, in a terminal and from a pipe."""

import errno
import fcntl
import json
import os
import pathlib
import pty
import re
import select
import signal
import struct
import subprocess
import tempfile
import termios
import time

from program import DEMO, GLM, PATIENCE, QUESTIONS, Failure, check, environment, holds_only, outputs, start, stop_and_continue

ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\r")
# Nobody reads these to the end.
LONG = "Sort: " + " ".join(str(n * 37 % 97) for n in range(120))
COMMANDS = ["/show", "/help", "/stats", "/undo", "/clear", "/regenerate", "/nonsense", "/set temperature 0", "/set top-k x", "/load none.json"]
# Keys that end, stop or hold what they are sent to, the ends of a line, and the key that lets the next one through.
SPECIAL = b"\x03\x04\x0a\x0d\x11\x13\x16\x1a\x1c"


class Terminal:
    """`glm` in a terminal whose other end is held here."""

    def __init__(self, home, words):
        self.master, slave = pty.openpty()
        self.slave, self.output, self.marks = slave, b"", 0
        self.modes = termios.tcgetattr(slave)
        self.resize(24, 80)
        # A session of its own, so that the terminal is its terminal.
        self.child = subprocess.Popen(
            [GLM, *words],
            env=environment(home),
            cwd=home,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def resize(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self, most):
        """Reads what comes in this time."""
        if not select.select([self.master], [], [], most)[0]:
            return False
        try:
            self.output += os.read(self.master, 1 << 16)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return False
        return True

    def send(self, text):
        data = text if isinstance(text, bytes) else text.encode()
        while data:
            # The program may write before it reads more.
            self.read(0)
            if select.select([], [self.master], [], 0.1)[1]:
                data = data[os.write(self.master, data[:512]) :]

    def text(self):
        return ESCAPES.sub(b"", self.output)

    def wait_for(self, text, again=b"", since=0):
        """Until this text came, behind so much of the output. What may be lost is sent again."""
        begin = sent = time.monotonic()
        while text not in self.text()[since:]:
            self.read(0.1)
            check(self.child.poll() is None, "the chat has ended:", self.child.returncode, self.text()[-2000:])
            check(time.monotonic() < begin + PATIENCE, text, "does not come:", self.text()[-2000:])
            if again and time.monotonic() > sent + 10:
                self.send(again)
                sent = time.monotonic()

    def settle(self):
        """Until all that was entered is done: what is entered last is answered."""
        self.marks += 1
        mark = f"/mark{self.marks}"
        # Ctrl-C takes the keys with it that have not been read yet.
        line = f"\x15{mark}\r".encode()
        self.send(line)
        self.wait_for(f"{mark}: no such command".encode(), line)

    def ended(self):
        """The exit code. The modes of the terminal are those of before."""
        end = time.monotonic() + PATIENCE
        while self.child.poll() is None:
            self.read(0.02)
            if time.monotonic() > end:
                self.child.kill()
                self.child.wait()
                raise Failure(f"the chat does not end: {self.text()[-2000:]}")
        while self.read(0):
            pass
        return self.child.returncode

    def close(self):
        for end in (self.master, self.slave):
            os.close(end)


class Chats:
    def __init__(self, answers):
        self.answers = answers

    def step(self, rng):
        with tempfile.TemporaryDirectory() as home:
            if rng.random() < 0.4:
                self.pipe(rng, home)
            else:
                self.terminal(rng, home)

    def pipe(self, rng, home):
        """Each line is a question. A signal may end it."""
        questions = [rng.choice(QUESTIONS) for _ in range(rng.randint(1, 5))]
        seed = str(rng.randrange(3))
        words = ["chat", "-m", DEMO, "--seed", seed, "--max-new-tokens", "16", "--threads", "1"]
        child = start(home, words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        kind = rng.choice([None, None, "stop", signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
        data = "".join(question + "\n" for question in questions).encode()
        child.stdin.write(data)
        child.stdin.close()
        child.stdin = None
        if kind is not None:
            time.sleep(rng.uniform(0, 1.5))
        if kind == "stop":
            stop_and_continue(child, rng)
        elif kind is not None:
            child.send_signal(kind)
        said, notes = outputs(child, "chat from a pipe")
        allowed = {signal.SIGINT: [0, 130, -signal.SIGINT]}.get(kind, [0] if kind in (None, "stop") else [0, -kind])
        check(child.returncode in allowed, "chat from a pipe:", kind, child.returncode, notes.decode())
        check(b"panic" not in notes, notes)
        if child.returncode == 0:
            self.answers.check(DEMO, ["chat", seed, questions], said.decode())
        holds_only(home, [])

    def terminal(self, rng, home):
        chat = Terminal(home, ["chat", "-m", DEMO, "--greedy", "--threads", "1"])
        try:
            chat.wait_for(b"\n> ")
            asked = []
            for _ in range(rng.randint(1, 6)):
                # What was asked without any disturbance has a known answer.
                asked = self.act(rng, chat, asked)
            if asked:
                self.save(chat, home, asked)
            self.leave(rng, chat)
            holds_only(home, ["said.json"])
        finally:
            if chat.child.poll() is None:
                chat.child.kill()
                chat.child.wait()
            chat.close()

    def act(self, rng, chat, asked):
        """Does something, and returns the questions of the conversation if they are known."""
        question = rng.choice(QUESTIONS)
        match rng.randrange(9):
            case 0 | 1 | 2:
                chat.send(question + "\r")
                asked = None if asked is None else [*asked, question]
            case 3:
                chat.send(f"\x1b[200~{question}\n{question}\x1b[201~\r")
                asked = None
            case 4:
                chat.send(question + "\r")
                for _ in range(rng.randint(1, 8)):
                    chat.resize(rng.choice([1, 2, 24, 200]), rng.choice([1, 2, 5, 80, 500]))
                    chat.read(rng.uniform(0, 0.05))
                chat.resize(24, 80)
                asked = None if asked is None else [*asked, question]
            case 5:
                chat.send(LONG + "\r")
                chat.read(rng.uniform(0, 1))
                time.sleep(rng.uniform(0, 1))
                chat.send("\x03")
                asked = None
            case 6:
                chat.send(question + "\r")
                stop_and_continue(chat.child, rng)
                asked = None if asked is None else [*asked, question]
            case 7:
                chat.send(rng.choice(COMMANDS) + "\r")
                asked = None
            case _:
                keys = bytes(key for key in rng.randbytes(30) if key not in SPECIAL)
                chat.send(keys)
                chat.read(0.2)
                chat.send("\x15\x0b\r")
                asked = None
        chat.settle()
        return asked

    def save(self, chat, home, asked):
        chat.send("/save said.json\r")
        chat.settle()
        saved = [message["content"] for message in json.loads(pathlib.Path(home, "said.json").read_text())]
        check(saved[::2] == asked, "asked", asked, "and saved", saved)
        self.answers.check(DEMO, ["terminal", asked], saved[1::2])

    def leave(self, rng, chat):
        kind = rng.choice(["bye", "end", "twice", signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGKILL])
        match kind:
            case "bye":
                chat.send("\x15/bye\r")
            case "end":
                chat.send("\x15\x04")
            case "twice":
                since = len(chat.text())
                chat.send("\x15\x03")
                # Before the prompt, it is no key, and stops nothing.
                chat.wait_for(b"or Ctrl-D, to leave\n> ", again=b"\x03", since=since)
                chat.send("\x03")
            case _:
                if rng.random() < 0.5:
                    chat.send(LONG + "\r")
                    chat.read(rng.uniform(0, 0.5))
                chat.child.send_signal(kind)
        code = chat.ended()
        expected = 0 if isinstance(kind, str) else -kind
        check(code == expected, f"the exit code after {kind} is {code}:", chat.text()[-2000:])
        check(b"panic" not in chat.text(), chat.text())
        if kind != signal.SIGKILL:
            check(termios.tcgetattr(chat.slave) == chat.modes, f"after {kind} the terminal has other modes")

    def close(self):
        pass
