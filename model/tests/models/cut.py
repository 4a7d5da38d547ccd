"""Makes the small fixtures of this folder from the whole ones: python3 cut.py SHARED/fixtures/models

A `*-layer` fixture is the first layer of a model, with the rows of the embedding that one recorded prompt uses. Its golden holds the
recorded activations up to the end of that layer. Of a long prompt, only the logits of the last tokens are kept.
"""

import json
import struct
import sys
from pathlib import Path

HERE = Path(__file__).parent
# Logits of a prompt that stay.
ROWS = 8


def read(path):
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    tensors = json.loads(data[8:start])
    tensors.pop("__metadata__", None)
    for tensor in tensors.values():
        begin, end = tensor.pop("data_offsets")
        tensor["data"] = data[start + begin : start + end]
    return tensors


def write(path, tensors):
    header, at = {}, 0
    for name, tensor in tensors.items():
        size = len(tensor["data"])
        header[name] = {"dtype": tensor["dtype"], "shape": tensor["shape"], "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(tensor["data"] for tensor in tensors.values()))


def rows(tensor, which):
    size = len(tensor["data"]) // tensor["shape"][0]
    data = b"".join(tensor["data"][row * size : (row + 1) * size] for row in which)
    return {**tensor, "shape": [len(which), *tensor["shape"][1:]], "data": data}


def last_logits(source, target):
    """Copies a golden with the logits of the last tokens of each prompt."""
    tensors = read(source / "golden.safetensors")
    for name, tensor in tensors.items():
        if name.endswith(".prefill_logits"):
            count = tensor["shape"][0]
            tensors[name] = rows(tensor, range(max(0, count - ROWS), count))
    write(target / "golden.safetensors", tensors)


def first_layer(source, form, target, case, settings):
    """The first layer of a model, and the recorded activations of one prompt."""
    golden = json.loads((source / "golden.json").read_text())
    config = json.loads((source / form / "config.json").read_text())
    [case] = [one for one in golden["cases"] if one["name"] == case]
    special = golden.get("special") or {}
    kept = sorted({*case["prompt_ids"], *special.values()})
    new = {old: index for index, old in enumerate(kept)}

    tensors = {}
    for name, tensor in read(source / form / "model.safetensors").items():
        if tensor["shape"][0] == config["vocab_size"]:
            tensors[name] = rows(tensor, kept)
        elif "position_embeddings" in name:
            tensors[name] = rows(tensor, range(settings["max_sequence_length"] + 1))
        elif ".layers." not in name or ".layers.0." in name:
            tensors[name] = tensor
    write(target / "model.safetensors", tensors)

    for name in ("eos_token_id", "pad_token_id"):
        if name in config:
            ids = config[name]
            config[name] = [0] if isinstance(ids, list) else 0
    config |= {**settings, "vocab_size": len(kept)}
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")

    recorded = read(source / "golden.safetensors")
    prefix = f"{case['name']}.act."
    names = (prefix + "embedding", prefix + "layer0")
    write(target / "golden.safetensors", {name: t for name, t in recorded.items() if name.startswith(names)})
    case = {
        "name": case["name"],
        "prompt_ids": [new[id] for id in case["prompt_ids"]],
        "greedy_ids": [],
        "top1_minus_top2_at_each_choice": [],
    }
    special = {name: new[id] for name, id in special.items()}
    (target / "golden.json").write_text(json.dumps({"special": special, "cases": [case]}, indent=1) + "\n")


def main(models):
    for name in ("chatglm-6b-tiny", "chatglm-6b-tiny/int4", "chatglm2-6b-tiny/int4", "glm-130b-narrow/int4"):
        last_logits(models / name, HERE / name)
    for name in ("glm-4-0414", "glm-4-9b-chat-hf"):
        first_layer(models / f"{name}-tiny", "bf16", HERE / f"{name}-layer", "len7", {"num_hidden_layers": 1})
    settings = {"num_layers": 1, "max_sequence_length": 31}
    first_layer(models / "glm-10b-tiny", "f16", HERE / "glm-10b-layer", "gmask_len7", settings)


main(Path(sys.argv[1]))
