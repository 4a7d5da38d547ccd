"""Blanks in proverbs, verses and sequences of numbers: the objective that GLM is named for."""

import re

from ..texts import POEMS, PROVERBS, lines
from .common import Fill, fitting

TEXTS = {language: lines(PROVERBS[language]) + lines(POEMS[language]) for language in PROVERBS}


def units(language, text):
    """What a blank may cover a run of: words, or Chinese characters. Marks stand between them."""
    return list(re.finditer(r"[\w'-]+" if language == "en" else r"[\u4e00-\u9fff]", text))


def cut(rng, language, text):
    """A run of units to cut out of a text, never across a mark."""
    found = units(language, text)
    first = rng.randrange(len(found))
    most = rng.randint(1, 3 if language == "en" else 5)
    last = first
    for next_ in range(first + 1, min(first + most, len(found))):
        between = text[found[next_ - 1].end() : found[next_].start()]
        if between.strip():
            break
        last = next_
    return found[first].start(), found[last].end()


def known_text(rng, language, split):
    """A text of the collection, one to three blanks in it, in training up to five. No span that is tested is a blank in training."""
    def draw():
        text = rng.choice(TEXTS[language])
        spans = []
        for _ in range(rng.choice([1, 2, 3, 4, 5] if split == "train" else [1, 1, 2, 3])):
            start, end = cut(rng, language, text)
            # Not all of a short text, and no two blanks side by side.
            if all(end + 2 < s or start > e + 2 for s, e in spans) and sum(e - s for s, e in spans) + end - start < len(text) * 0.6:
                spans.append((start, end))
        spans.sort()
        return [("blank", text, *span) for span in spans], (text, spans)

    while True:
        text, spans = fitting(split, draw)
        if not spans:
            continue
        out, at = "", 0
        for start, end in spans:
            out += text[at:start] + "[MASK]"
            at = end
        return Fill(out + text[at:], [text[start:end] for start, end in spans])


def ending(rng, language, split):
    """The beginning of a text, and the rest of it to be written, at [gMASK]."""
    text = rng.choice(TEXTS[language])
    words = units(language, text)
    keep = words[rng.randint(2, max(2, len(words) // 2))].end() if len(words) > 4 else words[1].end()
    return Fill(text[:keep] + "[gMASK]", [text[keep:].strip()], "[gMASK]")


def sequence(rng, language, split):
    """Equal steps, up or down, with one or two numbers missing. No number that is tested is missing at that step in training."""
    def draw():
        step = rng.choice([1, 1, 2, 2, 3, 5, 10])
        start = rng.randint(0, 60)
        n = rng.randint(5, 7)
        numbers = [start + i * step for i in range(n)]
        if rng.random() < 0.25:
            numbers.reverse()
        gaps = sorted(rng.sample(range(n), rng.choice([1, 1, 2])))
        return [("sequence", step, numbers[gap]) for gap in gaps], (numbers, gaps)

    numbers, gaps = fitting(split, draw)
    shown = ["[MASK]" if i in gaps else str(number) for i, number in enumerate(numbers)]
    return Fill((", " if language == "en" else "，").join(shown), [str(numbers[i]) for i in gaps])


def example(rng, language, split):
    kinds = [known_text, sequence, ending]
    shares = [0.55, 0.35, 0.1] if split == "train" else [0.65, 0.35, 0]
    return rng.choices(kinds, shares)[0](rng, language, split)
