#!/usr/bin/env python3
"""Speed of servers that speak OpenAI's completions, measured in turn.

    serve.py URL [URL…]              clients at once, tokens of all answers per second
    serve.py --cached 1000 URL       time to the first token, new and with a cached beginning

Prompts are lists of ids, drawn at random and new in each round.
"""

import argparse
import http.client
import json
import random
import statistics
import threading
import time
from urllib.parse import urlsplit


def complete(url, prompt, answer, stream=False):
    """The usage, the seconds until the first token and in all."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=3600)
    body = {"prompt": prompt, "max_tokens": answer, "temperature": 0, "ignore_eos": True}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    begin = time.perf_counter()
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    assert response.status == 200, response.read()
    if not stream:
        return json.loads(response.read())["usage"], None, time.perf_counter() - begin
    first, usage = None, None
    for line in response:
        if line.startswith(b"data: {"):
            event = json.loads(line[6:])
            usage = event.get("usage") or usage
            if first is None and event["choices"]:
                first = time.perf_counter() - begin
    return usage, first, time.perf_counter() - begin


def ids(source, count):
    return [source.randrange(1000, 60000) for _ in range(count)]


def together(url, options, source):
    """Tokens of all answers per second."""
    prompts = [ids(source, options.prompt) for _ in range(options.clients)]
    tokens = [0] * options.clients

    def run(client):
        tokens[client] = complete(url, prompts[client], options.answer)[0]["completion_tokens"]

    threads = [threading.Thread(target=run, args=(client,)) for client in range(options.clients)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - begin
    assert tokens == [options.answer] * options.clients, tokens
    return sum(tokens) / seconds


def cached(url, options, source):
    """Seconds to the first token of a new prompt, and of one with the same beginning."""
    beginning = ids(source, options.cached)
    new = complete(url, beginning + ids(source, 4), 4, stream=True)[1]
    usage, again, _ = complete(url, beginning + ids(source, 4), 4, stream=True)
    return new, again, usage["prompt_tokens_details"]["cached_tokens"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("urls", nargs="+", metavar="URL")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--answer", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cached", type=int, help="tokens of the beginning that prompts share")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    source = random.Random(options.seed)
    speeds = {url: [] for url in options.urls}
    for _ in range(options.rounds):
        for url in options.urls:
            if options.cached:
                new, again, kept = cached(url, options, source)
                print(f"{url}: first token {new:.3f} s, with {kept} tokens cached {again:.3f} s, 1/{new / again:.0f}")
            else:
                speeds[url].append(together(url, options, source))
                print(f"{url}: {speeds[url][-1]:.2f} tokens/s")
    if not options.cached:
        for url, values in speeds.items():
            print(f"{url}: median {statistics.median(values):.2f} tokens/s")


if __name__ == "__main__":
    main()
