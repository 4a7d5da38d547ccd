"""Short lists: sorted, reversed, repeated, counted, and counting itself."""

from ..words import PAIRS
from . import memory
from .common import Chat, fitting, typed

ASK = {
    "sort": {"en": "Sort {}|Sort these numbers: {}|Sort: {}|Put {} in order|Order the numbers {}|Sort from small to large: {}", "zh": "排序：{}|把{}排序|从小到大排列：{}|给{}排序|请排序：{}|将{}从小到大排序"},
    "reverse": {"en": "Reverse {}|Reverse this list: {}|Reverse: {}|Reverse the order of {}|Say {} backwards|Turn around {}", "zh": "反转：{}|把{}反过来|倒过来说：{}|颠倒{}|请反转：{}|倒序：{}"},
    "repeat": {"en": "Repeat {}|Repeat after me: {}|Repeat: {}|Say {}|Repeat this list: {}|Please repeat {}", "zh": "重复：{}|请重复：{}|跟我说：{}|重复一遍：{}|请跟着说：{}|照着说：{}"},
    "count": {"en": "How many words: {}?|Count the items: {}|How many items are in {}?|Count {}|How many are there: {}?|How long is the list {}?", "zh": "有几个：{}|数一数：{}|{}一共有几个？|数一下{}|这里有几个：{}|列表{}有多长？"},
    "from": {"en": "Count from {} to {}|Count from {} to {}.|Please count from {} to {}|Count: {} to {}", "zh": "从{}数到{}|请从{}数到{}|从{}到{}数数|由{}数到{}"},
}
COMMA = {"en": ", ", "zh": "，"}


def items(rng, language):
    """What a list holds: for each item its name in no language, and itself."""
    n = rng.randint(2, 6)
    draw = rng.random()
    if draw < 0.5:
        drawn = [str(x) for x in rng.sample(range(1, rng.choice([10, 10, 100])), n)]
    elif draw < 0.7:
        # Words that are none teach copying letter by letter. What the skill `memory` tests stays unknown.
        drawn = [memory.value(rng, rng.choice(["name", "colour"]), language, "train") for _ in range(n)]
    else:
        pairs = rng.sample(PAIRS, n)
        return [pair[1] for pair in pairs], [pair[language == "en"] for pair in pairs]
    return drawn, drawn


def draw(rng, kind, language):
    if kind == "from":
        start = rng.randint(0, 90)
        given = [str(x) for x in range(start, start + rng.randint(2, 9))]
        return [("from", given[0], given[-1])], given
    if kind == "sort":
        given = [str(x) for x in rng.sample(range(1, rng.choice([10, 100])), rng.randint(2, 5))]
        return [("list", *sorted(given))], given
    names, given = items(rng, language)
    return [("list", *sorted(names))], given


def example(rng, language, split):
    kind = rng.choices(list(ASK), [2, 2, 3, 1, 2])[0]
    given = fitting(split, lambda: draw(rng, kind, language))
    comma = COMMA[language]
    ask = rng.choice(ASK[kind][language].split("|"))
    if kind == "from":
        return Chat(typed(rng, ask.format(given[0], given[-1])), comma.join(given))
    result = list(given)
    if kind == "sort":
        result.sort(key=int)
    elif kind == "reverse":
        result.reverse()
    answer = str(len(given)) if kind == "count" else comma.join(result)
    return Chat(typed(rng, ask.format(comma.join(given))), answer)
