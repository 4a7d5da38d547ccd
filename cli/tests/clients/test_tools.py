"""curl, a short load by wrk, and requests that schemathesis makes of the description of the server."""

import json
import re
import subprocess
import sys
import urllib.request

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families


def test_curl(url):
    body = '{"messages": [{"role": "user", "content": "你好"}], "temperature": 0}'
    command = ["curl", "-sS", "--fail", url + "/v1/chat/completions", "-d", body]
    reply = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert "你好" in reply["choices"][0]["message"]["content"]


# As many clients as answers at a time and places in the queue.
COMPLETION = """
wrk.method = "POST"
wrk.body = '{"prompt": "你好", "max_tokens": 8, "seed": 1}'
"""


@pytest.mark.parametrize("path, script", [("/v1/models", ""), ("/v1/completions", COMPLETION)])
def test_a_load_has_no_errors(url, path, script, tmp_path):
    file = tmp_path / "load.lua"
    file.write_text(script, encoding="utf-8")
    command = ["wrk", "-t1", "-c64", "-d5s", "--timeout", "30s", "-s", str(file), url + path]
    report = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "Non-2xx" not in report and "Socket errors" not in report, report
    assert int(re.search(r"(\d+) requests in", report)[1]) > 0, report


def test_the_parser_of_prometheus_reads_the_metrics(url):
    with urllib.request.urlopen(url + "/metrics") as reply:
        families = list(text_string_to_metric_families(reply.read().decode()))
    names = {family.name: family.type for family in families}
    assert names["glm_time_to_first_token_seconds"] == "histogram"
    assert names["glm_answer_tokens"] == "counter" and names["glm_kv_pages"] == "gauge"


def test_answers_are_as_the_description_says(url, tmp_path):
    # Most wrong texts are answered all the same, so what is accepted and refused is not compared with the description.
    checks = ["not_a_server_error", "status_code_conformance", "content_type_conformance"]
    checks += ["response_headers_conformance", "response_schema_conformance"]
    command = [sys.executable.rsplit("/", 1)[0] + "/schemathesis", "run", url + "/openapi.json"]
    command += ["--checks", ",".join(checks), "--max-examples", "10", "--max-failures", "5"]
    command += ["--generation-deterministic", "--phases", "fuzzing", "--request-timeout", "20"]
    # It keeps files where it runs.
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
