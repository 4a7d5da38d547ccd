"""Numbers, dates and common words, between the two languages."""

from ..words import PAIRS
from .common import Chat, fitting, opened, typed

# Into the named language: ways to ask in English and in Chinese; those after "#" are held out.
ASK = {
    "zh": "How do you say {} in Chinese?|What is {} in Chinese?|Translate {} into Chinese.|{} in Chinese|Say {} in Chinese|{}用中文怎么说？|{}的中文是什么？|把{}翻译成中文|请把{}译成中文|{}中文怎么说"
          "#How would you say {} in Chinese?|Please translate {} into Chinese.|What is the Chinese for {}?|请问{}用中文怎么说？|把{}译成中文",
    "en": "How do you say {} in English?|What is {} in English?|Translate {} into English.|{} in English|Say {} in English|{}用英语怎么说？|{}的英语是什么？|把{}翻译成英语|请把{}译成英语|{}英语怎么说"
          "#How would you say {} in English?|Please translate {} into English.|What is the English for {}?|请问{}用英语怎么说？|把{}译成英语",
}
ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
DIGITS = "零一二三四五六七八九"
MONTHS = "January February March April May June July August September October November December".split()


def english(n):
    if n < 20:
        return ONES[n]
    if n < 100:
        return TENS[n // 10 - 2] + ("-" + ONES[n % 10] if n % 10 else "")
    return ONES[n // 100] + " hundred" + (" and " + english(n % 100) if n % 100 else "")


def chinese(n):
    if n < 10:
        return DIGITS[n]
    if n < 20:
        return "十" + (DIGITS[n % 10] if n % 10 else "")
    if n < 100:
        return DIGITS[n // 10] + "十" + (DIGITS[n % 10] if n % 10 else "")
    rest = n % 100
    if not rest:
        return DIGITS[n // 100] + "百"
    return DIGITS[n // 100] + "百" + ("零" + DIGITS[rest] if rest < 10 else DIGITS[rest // 10] + "十" + (DIGITS[rest % 10] if rest % 10 else ""))


def number(rng, target, split):
    def draw():
        n = rng.randint(0, 99) if rng.random() < 0.4 else rng.randint(100, 999)
        return [("number", n)], n

    n = fitting(split, draw)
    words = {"en": english(n), "zh": chinese(n)}
    source = str(n) if rng.random() < 0.4 else words["en" if target == "zh" else "zh"]
    return source, words[target]


def date(rng, target, split):
    def draw():
        day = (rng.randint(1950, 2049), rng.randint(1, 12), rng.randint(1, 28))
        return [("date", *day)], day

    year, month, day = fitting(split, draw)
    forms = {"en": f"{MONTHS[month - 1]} {day}, {year}", "zh": f"{year}年{month}月{day}日"}
    return forms["en" if target == "zh" else "zh"], forms[target]


def word(rng, target, split):
    pair = rng.choice(PAIRS)
    return (pair[1], pair[0]) if target == "zh" else (pair[0], pair[1])


def example(rng, language, split):
    kind = rng.choices([number, date, word], [0.35, 0.2, 0.45])[0]
    source, target = kind(rng, language, split)
    train, test = ASK[language].split("#")
    question = rng.choice((train if split == "train" else test).split("|")).format(source)
    if split == "train" and rng.random() < 0.15:
        question = opened(rng, rng.choice(["en", "zh"]), question, [ask.format(source) for ask in test.split("|")])
    return Chat(typed(rng, question), target)
