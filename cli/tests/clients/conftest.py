"""Running servers: of the demonstration model, and of a causal model of random weights that calls tools and thinks."""

import contextlib
import os
import subprocess
import tempfile

import anthropic
import openai
import pytest


@contextlib.contextmanager
def server(model):
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryFile("w+") as log:
        kept = {name: os.environ[name] for name in ("PATH",)}
        command = [os.environ["GLM"], "serve", "-m", model, "--port", "0"]
        child = subprocess.Popen(
            command, env={**kept, "HOME": home, "LC_ALL": "C"}, stderr=subprocess.PIPE, text=True
        )
        drain = None
        try:
            for line in child.stderr:
                if "served at http://" in line:
                    break
                log.write(line)
            else:
                log.seek(0)
                pytest.fail("the server has ended: " + log.read())
            # Later lines must be read, or the server would wait for a reader.
            drain = subprocess.Popen(["cat"], stdin=child.stderr, stdout=subprocess.DEVNULL)
            yield "http://" + line.rsplit("http://", 1)[1].strip()
        finally:
            child.kill()
            child.wait()
            if drain:
                drain.wait()


@pytest.fixture(scope="session")
def url():
    with server("model/demo/int4") as address:
        yield address


@pytest.fixture(scope="session", params=["chatglm3-tiny", "glm-4-chat-tiny", "glm-4.5-tiny"])
def caller(request):
    """The address of a server whose model calls tools, for each form of calls."""
    with server(os.path.join(os.environ["CAUSAL"], request.param)) as address:
        yield address


@pytest.fixture(scope="module")
def address(url):
    """The server of `client` and `claude`. A module may name another."""
    return url


@pytest.fixture(scope="module")
def client(address):
    return openai.OpenAI(base_url=address + "/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def model(client):
    return client.models.list().data[0].id


@pytest.fixture(scope="module")
def claude(address):
    return anthropic.Anthropic(base_url=address, api_key="none", max_retries=0)
