"""The two kinds of examples, and what the skills share."""

import zlib
from dataclasses import dataclass, field


@dataclass
class Chat:
    """A question after `history`, and the one right answer."""

    question: str
    answer: str
    history: list = field(default_factory=list)


@dataclass
class Fill:
    """A text with blanks, and what belongs in each, from left to right. `mask` is the blank's name."""

    text: str
    spans: list
    mask: str = "[MASK]"


def held_out(*key):
    """Whether examples with this key are for testing: one in eight, the same on every machine."""
    return zlib.crc32(repr(key).encode()) % 8 == 0


def fitting(split, draw):
    """Draws (keys, value) until all keys belong to `split`."""
    while True:
        keys, value = draw()
        if all(held_out(*key) == (split == "test") for key in keys):
            return value


OPENINGS = {
    "en": ["Hi, ", "Hello, ", "Hey, ", "Good morning, ", "Please, ", "So, ", "Well, ", "Okay, ", "And ", "Now, ", "Sorry, ", "One question: "],
    "zh": ["你好，", "嗨，", "您好，", "请问，", "那么，", "好的，", "对了，", "请问", "麻烦问一下，", "不好意思，"],
}


def plain(text):
    """A question without what does not make it another one."""
    return text.lower().rstrip("?.!。？！")


def opened(rng, language, question, held=()):
    """A question after a word of politeness, unless that makes it one of those held out."""
    longer = rng.choice(OPENINGS[language]) + question[0].lower() + question[1:]
    return question if plain(longer) in map(plain, held) else longer


def worn(rng, language, question, held=()):
    """A question with a word or a character or two left out: what is asked does not hang on one word."""
    parts = question.split(" ") if language == "en" else list(question)
    if len(parts) < (4 if language == "en" else 6):
        return question
    at = rng.randrange(len(parts))
    del parts[at : at + rng.choice([1, 1, 2])]
    shorter = (" " if language == "en" else "").join(parts).strip()
    return question if plain(shorter) in map(plain, held) else shorter


def typed(rng, text):
    """A question as people type it: sometimes without a capital or the last mark."""
    if rng.random() < 0.25:
        text = text[0].lower() + text[1:]
    if rng.random() < 0.25:
        text = text.rstrip("?.!。？！")
    return text
