"""Accuracy of the exported INT4 model on held-out cases, with greedy sampling, through the `glm` program."""

import itertools
import json
import math
import random
import subprocess
import tempfile
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
from safetensors.numpy import load_file

from .batches import encode, examples, layout
from .skills import LANGUAGES, SKILLS
from .skills.common import Fill

FLOORS = {"social": 95, "manual": 85, "arithmetic": 95, "memory": 90, "blanks": 90, "translation": 90, "lists": 85, "unknown": 80}


def plain(text):
    """NFKC normalization, as in the tokenizer, and no space before a full stop, as in its decoded text."""
    return unicodedata.normalize("NFKC", text).strip().replace(" .", ".")


def run(glm, *words):
    done = subprocess.run([glm, *words], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{words}: {done.stderr}")
    return done.stdout


def answer(glm, example, model):
    """The output of the program for an example: the answer, or the spans."""
    flags = [*model, "--greedy", "--threads", "1", "--max-new-tokens", "100", "--json"]
    if isinstance(example, Fill):
        return json.loads(run(glm, "fill", *flags, example.text))["spans"]
    said = [turn for round_ in example.history for turn in round_] + [example.question]
    messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said)]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(messages, file)
        file.flush()
        return json.loads(run(glm, "chat", *flags, "--messages", file.name))["text"]


def is_right(example, given):
    if isinstance(example, Fill):
        return [plain(span) for span in given] == [plain(span) for span in example.spans]
    return plain(given) == plain(example.answer)


def cases(skill, language, count, seed):
    """Up to `count` distinct held-out cases."""
    rng = random.Random(f"{seed} {skill} {language}")
    found = {}
    for _ in range(count * 20):
        example = SKILLS[skill][0](rng, language, "test")
        asked = example.text if isinstance(example, Fill) else f"{example.history} {example.question}".lower().rstrip(".?!。？！")
        found.setdefault(asked, example)
        if len(found) == count:
            break
    return list(found.values())


def skills(glm, model, count, seed, log=print):
    """The accuracy of every skill, and the failed cases."""
    report, wrong = {}, []
    for skill, floor in FLOORS.items():
        report[skill] = {"floor": floor}
        for language in LANGUAGES:
            asked = cases(skill, language, count, seed)
            with ThreadPoolExecutor(2) as pool:
                given = list(pool.map(lambda example: answer(glm, example, model), asked))
            right = [is_right(example, text) for example, text in zip(asked, given)]
            report[skill][language] = {"cases": len(asked), "right": sum(right), "percent": round(100 * sum(right) / len(asked), 1)}
            wrong += [(skill, language, example, text) for example, text, ok in zip(asked, given, right) if not ok]
        log(skill, report[skill], flush=True)
    return report, wrong


def perplexity(glm, tokenizer, folder, activations, count, seed):
    """exp of the mean negative log-likelihood of a token of held-out answers and spans."""
    total = tokens = 0
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "logits.safetensors"
        for example in itertools.islice(examples(seed, "test"), count):
            context, spans = encode(tokenizer, example)
            # As in the published code, the position is that of the first blank.
            ids, targets, _, _, start = layout(tokenizer, context, spans[:1])
            run(glm, "logits", "-m", str(folder), "--activations", activations, "--ids", json.dumps(ids), "--out", str(out))
            logits = load_file(out)["logits"].astype(numpy.float64)[start:]
            logits -= logits.max(-1, keepdims=True)
            logs = logits - numpy.log(numpy.exp(logits).sum(-1, keepdims=True))
            wanted = targets[start:]
            total -= logs[numpy.arange(len(wanted)), wanted].sum()
            tokens += len(wanted)
    return math.exp(total / tokens)
