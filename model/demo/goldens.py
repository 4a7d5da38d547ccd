"""Records reference outputs for the tests of the engine: ids, greedy continuations and logits in float32."""

import json

import torch
from safetensors.torch import save_file

from .batches import encode
from .skills.common import Chat, Fill

STEPS = 8
# Rows of logits recorded while decoding; a row has 4096 values.
DECODED = 3
CASES = {
    "greeting": Chat("你好", ""),
    "sum": Chat("58+67", ""),
    "proverb": Fill("百闻不如[MASK]。", [""]),
    "remembered": Chat("我是谁？", "", [("我叫李雷。", "很高兴认识你，李雷！")]),
}


def logits(model, ids, start, place):
    """The logits of all tokens: a context of `start` ids, then the ids of an answer for the blank at `place`."""
    n = len(ids)
    rows = list(range(start)) + [place] * (n - start)
    columns = [0] * start + list(range(1, n - start + 1))
    context = torch.arange(n) < start
    mask = context[None, :] | (torch.ones(n, n, dtype=torch.bool).tril() & ~context[:, None])
    with torch.no_grad():
        return model.logits(model(torch.tensor([ids]), torch.tensor([[rows, columns]]), mask[None, None]))[0]


def record(model, tokenizer, folder):
    """Writes golden.json and golden.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    cases, tensors = [], {}
    for name, example in CASES.items():
        context, spans = encode(tokenizer, example)
        _, place = spans[0]
        prompt = context + [tokenizer.sop]
        ids, greedy, margins, decoded = list(prompt), [], [], []
        for step in range(STEPS + 1):
            found = logits(model, ids, len(context), place)
            if step == 0:
                tensors[f"{name}.prefill_logits"] = found[-1:]
            elif step <= DECODED:
                decoded.append(found[-1])
            if step == STEPS:
                break
            best = found[-1].topk(2).values
            greedy.append(int(found[-1].argmax()))
            margins.append(float(best[0] - best[1]))
            ids.append(greedy[-1])
        tensors[f"{name}.decode_logits"] = torch.stack(decoded)
        cases.append({"name": name, "prompt_ids": prompt, "greedy_ids": greedy, "top1_minus_top2_at_each_choice": margins})
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "golden.safetensors")
    (folder / "golden.json").write_text(json.dumps({"cases": cases}) + "\n")
