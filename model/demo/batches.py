"""Examples → rows of ids with positions and masks: GLM's blank infilling."""

import random

import torch

from .skills import LANGUAGES, SKILLS
from .skills.common import Chat
from .tokenizer import chat_prompt

IGNORED = -100


def encode(tokenizer, example):
    """A context, and the spans to be written, (ids, place of the blank), from left to right. A chat answer is the span of a [gMASK] at the end."""
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
    """ids, targets, positions and whether a token is context: spans follow the context in their order, each after <sop>."""
    ids, rows, columns = list(context), list(range(len(context))), [0] * len(context)
    targets = [IGNORED] * len(context)
    for span, place in spans:
        ids += [tokenizer.sop, *span]
        targets += [*span, tokenizer.eop]
        rows += [place] * (len(span) + 1)
        columns += range(1, len(span) + 2)
    return ids, targets, rows, columns, len(context)


def examples(seed, split="train"):
    """Examples without end, in both languages, in the skills' shares; some questions come later in a conversation."""
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
    """A round that has nothing to do with the next one."""
    name = rng.choice(["social", "translation", "lists", "unknown"])
    example = SKILLS[name][0](rng, rng.choice(LANGUAGES), split)
    return example.question, example.answer


class Rows:
    """Batches of `rows` rows of `width` tokens, examples packed one after the other, without end."""

    def __init__(self, tokenizer, seed, rows, width):
        self.tokenizer, self.rows, self.width = tokenizer, rows, width
        self.source, self.rng = examples(seed), random.Random(seed)
        self.waiting = []

    def fill(self):
        """Examples of one row, the longest that fits first."""
        room, row = self.width, []
        while True:
            while len(self.waiting) < 64:
                context, spans = encode(self.tokenizer, next(self.source))
                self.rng.shuffle(spans)
                laid = layout(self.tokenizer, context, spans)
                # A conversation that is longer than a row is left out.
                if len(laid[0]) <= self.width:
                    self.waiting.append(laid)
            # The oldest goes first, so that nothing waits for ever.
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
    """Rows of laid-out examples as tensors. A token sees only tokens of its own example: the context, and what comes before it."""
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
