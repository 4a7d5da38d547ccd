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


def typed(rng, text):
    """A question as people type it: sometimes without a capital or the last mark."""
    if rng.random() < 0.25:
        text = text[0].lower() + text[1:]
    if rng.random() < 0.25:
        text = text.rstrip("?.!。？！")
    return text
