"""A running `glm serve` of the demonstration model."""

import os
import subprocess
import tempfile

import pytest


@pytest.fixture(scope="session")
def url():
    with tempfile.TemporaryDirectory() as home:
        kept = {name: os.environ[name] for name in ("PATH",)}
        command = [os.environ["GLM"], "serve", "-m", "model/demo/int4", "--port", "0"]
        server = subprocess.Popen(
            command, env={**kept, "HOME": home, "LC_ALL": "C"}, stderr=subprocess.PIPE, text=True
        )
        try:
            for line in server.stderr:
                if "served at http://" in line:
                    break
            else:
                pytest.fail("the server has ended")
            # Later lines must be read, or the server would wait for a reader.
            drain = subprocess.Popen(["cat"], stdin=server.stderr, stdout=subprocess.DEVNULL)
            yield "http://" + line.rsplit("http://", 1)[1].strip()
        finally:
            server.kill()
            server.wait()
            drain.wait()
