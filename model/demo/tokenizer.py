"""The tokenizer: a SentencePiece unigram model as in ChatGLM-6B, with the pre- and postprocessing of the official code."""

import random
import re
from collections import Counter

import sentencepiece

from .skills import LANGUAGES, SKILLS
from .skills.common import Chat
from .texts import POEMS, PROVERBS, lines
from .words import COLOURS, NAMES, PAIRS

PIECES = 4096
LONGEST_RUN = 80
SPECIAL = ["[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>"]
# Special tokens that the official tokenizer recognizes in text.
IN_TEXT = ["[MASK]", "<sop>", "<eop>", "<pad>", "<unk>"]


def chat_prompt(history, question):
    """A conversation in the prompt format of ChatGLM-6B."""
    if not history:
        return question
    rounds = "".join(f"[Round {i}]\n问：{q}\n答：{a}\n" for i, (q, a) in enumerate(history))
    return f"{rounds}[Round {len(history)}]\n问：{question}\n答："


def corpus(seed, examples=60_000):
    """Training text of the tokenizer. Chinese text is split at random into a few characters, which keeps pieces short."""
    rng = random.Random(seed)
    texts, answers = set(), Counter()
    for _ in range(examples):
        example = rng.choice(list(SKILLS.values()))[0](rng, rng.choice(LANGUAGES), "train")
        if isinstance(example, Chat):
            texts.add(chat_prompt(example.history, example.question))
            answers[example.answer] += 1
        else:
            texts.update([example.text.replace("[MASK]", " "), *example.spans])
    for language in LANGUAGES:
        texts.update(lines(PROVERBS[language]) + lines(POEMS[language]) + COLOURS[language])
    # Every character of a name needs a piece. Whole names and subjects are in the examples.
    texts.update(NAMES["surname"] + NAMES["given"])
    texts.update(word for pair in PAIRS for word in pair)
    # Answers are weighted by their frequency, up to a bound, because they are what the model generates.
    often = [answer for answer in sorted(answers) for _ in range(min(answers[answer], 100))]
    for text in sorted(texts) + often:
        for line in re.sub(r"(?<=[\u4e00-\u9fff])(?=[\u4e00-\u9fff])", lambda _: " " if rng.random() < 0.4 else "", text).split("\n"):
            yield line


def train(path, seed):
    """Writes `path`, an ice_text.model."""
    with open(path, "wb") as out:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=corpus(seed),
            model_writer=out,
            model_type="unigram",
            vocab_size=PIECES,
            hard_vocab_limit=False,
            byte_fallback=True,
            split_digits=True,
            character_coverage=1.0,
            max_sentencepiece_length=12,
            unk_id=0, bos_id=1, eos_id=2, pad_id=3, pad_piece="<pad>",
            user_defined_symbols=["<n>", "<|tab|>"] + [f"<|blank_{n}|>" for n in range(2, LONGEST_RUN + 1)],
            control_symbols=SPECIAL,
            num_threads=1,
            minloglevel=1,
        )  # fmt: skip


class Tokenizer:
    """Text → ids, as in the official tokenizer."""

    def __init__(self, path):
        self.model = sentencepiece.SentencePieceProcessor(model_file=str(path))
        self.mask, self.gmask, _, self.sop, self.eop = (self.model.piece_to_id(piece) for piece in SPECIAL)
        self.pad = self.model.pad_id()

    def __len__(self):
        return self.model.get_piece_size()

    def encode(self, text):
        parts = re.split(r"\s*(" + "|".join(map(re.escape, IN_TEXT)) + r")\s*", text)
        ids = []
        for i, part in enumerate(parts):
            if i % 2:
                ids.append(self.model.piece_to_id(part))
            else:
                part = part.replace("\n", "<n>").replace("\t", "<|tab|>")
                part = re.sub(r" {2,80}", lambda run: f"<|blank_{len(run[0])}|>", part)
                ids += self.model.encode(part)
        return ids
