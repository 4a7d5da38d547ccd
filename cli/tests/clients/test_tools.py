"""curl, a short load by wrk, and requests that schemathesis makes of the description of the server."""

import json
import re
import subprocess
import sys


def test_curl(url):
    body = '{"messages": [{"role": "user", "content": "你好"}], "temperature": 0}'
    command = ["curl", "-sS", "--fail", url + "/v1/chat/completions", "-d", body]
    reply = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert "你好" in reply["choices"][0]["message"]["content"]


def test_a_load_has_no_errors(url):
    command = ["wrk", "-t1", "-c16", "-d5s", url + "/v1/models"]
    report = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "Non-2xx" not in report and "Socket errors" not in report, report
    assert int(re.search(r"(\d+) requests in", report)[1]) > 0


def test_no_request_of_the_description_makes_the_server_fail(url):
    # Most wrong texts are answered all the same: only failures of the server are looked for.
    command = [sys.executable.rsplit("/", 1)[0] + "/schemathesis", "run", url + "/openapi.json"]
    command += ["--checks", "not_a_server_error", "--max-examples", "10", "--max-failures", "5"]
    command += ["--generation-deterministic", "--phases", "fuzzing", "--request-timeout", "20"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
