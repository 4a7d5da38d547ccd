"""Blanks in proverbs, verses and sequences of numbers: the objective that GLM is named for."""

import re

from ..texts import POEMS, PROVERBS, lines
from ..words import PAIRS
from .common import Fill, fitting

CHARACTERS = sorted(set("".join(lines(POEMS["zh"]) + lines(PROVERBS["zh"]) + [chinese for chinese, _ in PAIRS])) - set("，。"))
TEXTS = {language: lines(PROVERBS[language]) + lines(POEMS[language]) for language in PROVERBS}


def keys(split, whole, parts):
    """What decides whether a text with blanks is for training: all of it. What is tested is held out by its parts, too, each blank by
    itself: the first 22 000 steps of the bundled weights went by those."""
    return [whole] if split == "train" else [whole, *parts]


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


def window(rng, language, text):
    """A part of a text with at least four units."""
    found = units(language, text)
    if len(found) < 5:
        return 0, len(text)
    first = rng.randint(0, len(found) - 4)
    last = rng.randint(first + 3, len(found) - 1)
    return found[first].start(), found[last].end()


def known_text(rng, language, split):
    """A text of the collection, one to three blanks in it, in training up to five. No text is tested with blanks that it, or a part of
    it, has in training, all of them and no others."""
    def draw():
        text = rng.choice(TEXTS[language])
        spans = []
        # A part of a text is known, too; its blanks count as those of the whole.
        left, right = window(rng, language, text) if split == "train" and rng.random() < 0.4 else (0, len(text))
        for _ in range(rng.choice([1, 2, 3, 4, 5] if split == "train" else [1, 1, 2, 3])):
            start, end = cut(rng, language, text)
            if start < left or end > right:
                continue
            # Not all of a short text, and no two blanks side by side.
            if all(end + 2 < s or start > e + 2 for s, e in spans) and sum(e - s for s, e in spans) + end - start < len(text) * 0.6:
                spans.append((start, end))
        spans.sort()
        return keys(split, ("blanks", text, *spans), [("blank", text, *span) for span in spans]), (text, spans, left, right)

    while True:
        text, spans, at, right = fitting(split, draw)
        if not spans:
            continue
        out = ""
        for start, end in spans:
            out += text[at:start] + "[MASK]"
            at = end
        return Fill(out + text[at:right], [text[start:end] for start, end in spans])


def ending(rng, language, split):
    """The beginning of a text, and the rest of it to be written, at [gMASK]."""
    text = rng.choice(TEXTS[language])
    words = units(language, text)
    keep = words[rng.randint(2, max(2, len(words) // 2))].end() if len(words) > 4 else words[1].end()
    return Fill(text[:keep] + "[gMASK]", [text[keep:].strip()], "[gMASK]")


def told(rng, language, split):
    """Words without sense, told twice, the second time with blanks: what a blank begins and ends with stands beside it, whatever the
    text. Only in training."""
    def words():
        if language == "zh":
            return "".join(rng.choice(CHARACTERS) for _ in range(rng.randint(4, 12)))
        return " ".join(rng.choice(PAIRS)[1] for _ in range(rng.randint(4, 12)))

    text, spans = words(), []
    for _ in range(rng.randint(1, 4)):
        start, end = cut(rng, language, text)
        if all(end + 2 < s or start > e + 2 for s, e in spans) and sum(e - s for s, e in spans) + end - start < len(text) * 0.6:
            spans.append((start, end))
    if not spans:
        return told(rng, language, split)
    spans.sort()
    out, at = text + {"en": ". ", "zh": "。"}[language], 0
    for start, end in spans:
        out += text[at:start] + "[MASK]"
        at = end
    return Fill(out + text[at:] + {"en": ".", "zh": "。"}[language], [text[start:end] for start, end in spans])


def sequence(rng, language, split):
    """Equal steps, up or down, with one or two numbers missing. No sequence is tested that has the same gaps in training."""
    def draw():
        wide = split == "train" and rng.random() < 0.5
        step = rng.randint(1, 12) if wide else rng.choice([1, 1, 2, 2, 3, 5, 10])
        start = rng.randint(0, 120 if wide else 60)
        n = rng.randint(5, 7)
        numbers = [start + i * step for i in range(n)]
        if rng.random() < 0.25:
            numbers.reverse()
        gaps = sorted(rng.sample(range(n), rng.choice([1, 1, 2])))
        return keys(split, ("sequence", *numbers, *gaps), [("sequence", step, numbers[gap]) for gap in gaps]), (numbers, gaps)

    numbers, gaps = fitting(split, draw)
    shown = ["[MASK]" if i in gaps else str(number) for i, number in enumerate(numbers)]
    return Fill((", " if language == "en" else "，").join(shown), [str(numbers[i]) for i in gaps])


def example(rng, language, split):
    kinds = [known_text, sequence, ending, told]
    shares = [0.55, 0.25, 0.05, 0.15] if split == "train" else [0.65, 0.35, 0, 0]
    return rng.choices(kinds, shares)[0](rng, language, split)
