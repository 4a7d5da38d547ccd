"""What the model is taught: programs that write examples.

A skill is a function (rng, language, split) → Chat or Fill. `split` is "train" or "test"; no test example, and no held-out way of
asking, is ever produced for "train".
"""

from . import arithmetic, blanks, lists, manual, memory, social, translation, unknown

# name: (function, share of the training examples)
SKILLS = {
    "social": (social.example, 0.12),
    "manual": (manual.example, 0.11),
    "arithmetic": (arithmetic.example, 0.05),
    "memory": (memory.example, 0.06),
    "blanks": (blanks.example, 0.40),
    "translation": (translation.example, 0.08),
    "lists": (lists.example, 0.08),
    "unknown": (unknown.example, 0.10),
}
LANGUAGES = ["en", "zh"]
