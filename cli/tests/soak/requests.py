"""Requests to a server: good ones, whose answers are known, and bad ones."""

import copy
import json

from program import QUESTIONS

CITY = {"enum": ["北京", "O'Hare"]}
PARAMETERS = {
    "type": "object",
    "properties": {"city": CITY, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "Weather", "parameters": PARAMETERS}}
CHAT = "/v1/chat/completions"
# Values that few fields take.
ODD = [None, True, -1, 0, 1.5, 1e308, 2**63, -(2**70), "", "x" * 1000, "\u0000\ud800", [], [[]], {}, {"a": {}}, "[MASK]", "<|user|>"]


def sampling(rng):
    return {"seed": rng.randrange(3), "temperature": rng.choice([0, 0.9, 1.5])}


def chat(rng, most=None):
    messages = [{"role": "user", "content": rng.choice(QUESTIONS)}]
    return {"messages": messages, "max_tokens": most or rng.choice([1, 4, 12]), **sampling(rng)}


def good(rng, is_causal):
    """A path and a body."""
    match rng.randrange(12 if is_causal else 10):
        case 0 | 1 | 2 | 3:
            return CHAT, chat(rng)
        case 4:
            return CHAT, {**chat(rng), "n": rng.choice([2, 3]), "logprobs": True, "top_logprobs": 2}
        case 5:
            return "/v1/completions", {"prompt": rng.choice(QUESTIONS), "max_tokens": 8, **sampling(rng)}
        case 6:
            return "/v1/responses", {"input": rng.choice(QUESTIONS), "max_output_tokens": 8, **sampling(rng)}
        case 7:
            body = chat(rng)
            return "/v1/messages", {**body, "model": None, "max_tokens": 8}
        case 8:
            return "/tokenize", {"text": rng.choice(QUESTIONS)}
        case 9 if not is_causal:
            return "/v1/fill", {"text": "床前[MASK]光，疑是地上[MASK]。", "max_tokens": 6, **sampling(rng)}
        case 9:
            return "/v1/messages/count_tokens", {"model": None, "messages": chat(rng)["messages"]}
        case 10:
            # The model cannot think: to ask for it is an error, and to do without is not.
            thinking = rng.choice([{}, {"enable_thinking": False}])
            choice = rng.choice(["auto", "required", {"type": "function", "function": {"name": "get_weather"}}])
            calls = {"tools": [TOOL], "tool_choice": choice, "chat_template_kwargs": thinking}
            return CHAT, {**chat(rng, 120), **calls}
        case _:
            schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": PARAMETERS}}
            return CHAT, {**chat(rng, 120), "response_format": schema}


def streams(path):
    return path in (CHAT, "/v1/completions", "/v1/responses", "/v1/messages")


def spoil(rng, body):
    """Replaces or adds a value somewhere."""
    places = [body]
    for place in places:
        values = place.values() if isinstance(place, dict) else place
        places += [value for value in values if isinstance(value, (dict, list)) and value]
    place, odd = rng.choice(places), copy.deepcopy(rng.choice(ODD))
    if isinstance(place, list):
        place[rng.randrange(len(place))] = odd
    else:
        names = [*place, "stop", "logit_bias", "tools", "tool_choice", "stream", "stream_options", "grammar", "response_format"]
        place[rng.choice(names)] = odd


def head(path, length, method="POST"):
    return f"{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n".encode()


def whole(path, body):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return head(path, len(data)) + data


def bad(rng, is_causal):
    """Bytes of a request that is wrong, or no request at all."""
    path, body = good(rng, is_causal)
    # Some values are shared with good requests.
    body = copy.deepcopy(body)
    text = json.dumps(body).encode()
    match rng.randrange(9):
        case 0 | 1 | 2:
            for _ in range(rng.randint(1, 3)):
                spoil(rng, body)
            # An answer without a limit is long.
            limit = "max_output_tokens" if path == "/v1/responses" else "max_tokens"
            if not isinstance(body.get(limit), int) or body[limit] > 500:
                body[limit] = 4
            return whole(path, body)
        case 3:
            return whole(path, text[: rng.randrange(len(text))])
        case 4:
            return whole(path, rng.choice([b"[", b'{"a":', b'{"messages":['] ) * rng.choice([1, 100, 20000]))
        case 5:
            return rng.randbytes(rng.randrange(1, 3000))
        case 6:
            at = rng.randrange(len(text))
            return whole(path, text[:at] + rng.randbytes(4) + text[at:])
        case 7:
            lines = "".join(f"x-{n}: {'y' * rng.randrange(900)}\r\n" for n in range(rng.randrange(130)))
            return f"POST {path} HTTP/1.1\r\nhost: localhost\r\n{lines}\r\n".encode() + text
        case _:
            chunks = b"transfer-encoding: chunked\r\n\r\n" + rng.choice([b"ffffffffffffffff\r\n", b"-1\r\n", b"5\r\nabc", b"zz\r\n"])
            return f"POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n".encode() + chunks


def read(path, reply):
    """What of a response must always be the same."""
    match path:
        case "/v1/chat/completions" | "/v1/completions":
            return [choice(part) for part in sorted(reply["choices"], key=lambda part: part["index"])]
        case "/v1/responses":
            texts = [piece.get("text") for item in reply["output"] for piece in item.get("content") or []]
            return [reply["status"], "".join(text or "" for text in texts)]
        case "/v1/messages":
            return [reply["stop_reason"], [[block["type"], block.get("text")] for block in reply["content"]]]
        case "/v1/fill":
            return [[answer["text"] for answer in reply["answers"]], reply["text"]]
        case "/tokenize":
            return reply["tokens"]
        case _:
            return reply["input_tokens"]


def choice(part):
    message = part.get("message", {"content": part.get("text")})
    calls = [[call["function"]["name"], call["function"]["arguments"]] for call in message.get("tool_calls") or []]
    return [message.get("content") or "", message.get("reasoning_content") or "", calls, part["finish_reason"]]


def read_events(path, events):
    """The same of the events of a stream."""
    if path == "/v1/responses":
        if events[-1]["type"] not in ("response.completed", "response.incomplete"):
            raise ValueError("a stream without end")
        return read(path, events[-1]["response"])
    if path == "/v1/messages":
        blocks = {}
        for event in events:
            if event["type"] == "content_block_start":
                blocks[event["index"]] = [event["content_block"]["type"], event["content_block"].get("text")]
            elif event["type"] == "content_block_delta" and "text" in event["delta"]:
                blocks[event["index"]][1] += event["delta"]["text"]
        [end] = [event["delta"]["stop_reason"] for event in events if event["type"] == "message_delta"]
        return [end, [blocks[index] for index in sorted(blocks)]]
    parts = {}
    for event in events:
        for piece in event["choices"]:
            said = parts.setdefault(piece["index"], ["", "", [], None])
            delta = piece.get("delta", {"content": piece.get("text")})
            said[0] += delta.get("content") or ""
            said[1] += delta.get("reasoning_content") or ""
            for call in delta.get("tool_calls") or []:
                if call["index"] == len(said[2]):
                    said[2].append([call["function"]["name"], ""])
                said[2][call["index"]][1] += call["function"].get("arguments") or ""
            said[3] = piece["finish_reason"] or said[3]
    return [parts[index] for index in sorted(parts)]
