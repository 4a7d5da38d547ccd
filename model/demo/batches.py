"""Examples → rows of ids with positions and masks: GLM's blank infilling."""

import random

import torch

from .skills import LANGUAGES, SKILLS
from .skills.common import Chat
from .tokenizer import chat_prompt

IGNORED = -100


def encode(tokenizer, example):
    """The ids of the context and the target spans, (ids, position of the blank), from left to right. A chat answer is the span of a [gMASK] at the
    end of the context."""
    if isinstance(example, Chat):
        context = tokenizer.encode(chat_prompt(example.history, example.question)) + [tokenizer.gmask]
        return context, [(tokenizer.encode(example.answer), len(context) - 1)]
    blank = tokenizer.gmask if example.mask == "[gMASK]" else tokenizer.mask
    context, spans = [], []
    parts = example.text.split(example.mask)
    for i, part in enumerate(parts):
        context += tokenizer.encode(part.strip())
        if i < len(example.spans):
            spans.append((tokenizer.encode(example.spans[i]), len(context)))
            context.append(blank)
    return context, spans


def layout(tokenizer, context, spans):
    """ids, targets, positions, block positions, length of the context. The spans follow the context in order, each after <sop>."""
    ids, rows, columns = list(context), list(range(len(context))), [0] * len(context)
    targets = [IGNORED] * len(context)
    for span, place in spans:
        ids += [tokenizer.sop, *span]
        targets += [*span, tokenizer.eop]
        rows += [place] * (len(span) + 1)
        columns += range(1, len(span) + 2)
    return ids, targets, rows, columns, len(context)


def examples(seed, split="train"):
    """Infinite examples in both languages, with the sampling weights of the skills. Some questions have a conversation before them."""
    rng = random.Random(seed)
    names = list(SKILLS)
    shares = [SKILLS[name][1] for name in names]
    while True:
        name = rng.choices(names, shares)[0]
        example = SKILLS[name][0](rng, rng.choice(LANGUAGES), split)
        if isinstance(example, Chat) and not example.history and rng.random() < 0.15:
            example.history = [small_talk(rng, split) for _ in range(rng.choice([1, 1, 1, 2, 2, 3, 5, 8]))]
        yield example


def small_talk(rng, split):
    """A round of a conversation, unrelated to the next one."""
    name = rng.choice(["social", "translation", "lists", "unknown"])
    example = SKILLS[name][0](rng, rng.choice(LANGUAGES), split)
    return example.question, example.answer


class Rows:
    """Infinite batches of `rows` rows of `width` tokens, with several examples packed in a row."""

    def __init__(self, tokenizer, seed, rows, width):
        self.tokenizer, self.rows, self.width = tokenizer, rows, width
        self.source, self.rng = examples(seed), random.Random(seed)
        self.waiting = []

    def fill(self):
        """Packs the examples of one row: the oldest, then always the longest that fits."""
        room, row = self.width, []
        while True:
            while len(self.waiting) < 64:
                context, spans = encode(self.tokenizer, next(self.source))
                self.rng.shuffle(spans)
                laid = layout(self.tokenizer, context, spans)
                # Conversations longer than a row are skipped.
                if len(laid[0]) <= self.width:
                    self.waiting.append(laid)
            # The oldest comes first, so that no example starves.
            fits = [i for i, laid in enumerate(self.waiting) if len(laid[0]) <= room]
            if not fits:
                return row
            at = fits[0] if not row else max(fits, key=lambda i: len(self.waiting[i][0]))
            laid = self.waiting.pop(at)
            row.append(laid)
            room -= len(laid[0])

    def batch(self):
        """ids, targets, positions, mask."""
        return collate([self.fill() for _ in range(self.rows)], self.width, self.tokenizer.pad)


def collate(rows, width, pad):
    """Packed examples as tensors. A token attends only to its own example: to the context and to earlier tokens."""
    shape = len(rows), width
    ids, targets = torch.full(shape, pad), torch.full(shape, IGNORED)
    positions = torch.zeros(len(rows), 2, width, dtype=torch.long)
    segment, context = torch.zeros(shape, dtype=torch.long), torch.ones(shape, dtype=torch.bool)
    for r, row in enumerate(rows):
        at = 0
        for number, (i, t, p, q, c) in enumerate(row, 1):
            end = at + len(i)
            ids[r, at:end], targets[r, at:end] = torch.tensor(i), torch.tensor(t)
            positions[r, :, at:end] = torch.tensor([p, q])
            segment[r, at:end] = number
            context[r, at + c : end] = False
            at = end
    same = segment[:, :, None] == segment[:, None, :]
    before = torch.ones(width, width, dtype=torch.bool).tril()
    seen = context[:, None, :] | (before & ~context[:, :, None])
    return ids, targets, positions, (same & seen)[:, None]
