"""Names, numbers and colours told in an earlier round."""

from ..words import COLOURS, NAMES, PAIRS, chinese_name
from .common import Chat, held_out, typed

# fact: language: (ways to tell it, the reply, ways to ask, the answer)
FACTS = {
    "name": {
        "en": ("My name is {}.|I am {}.|I'm {}.|Call me {}.|Hello, my name is {}.|Hi, I am {}.|People call me {}.|You can call me {}.", "Nice to meet you, {}!",
               "What is my name?|Who am I?|Do you remember my name?|Tell me my name.|What am I called?|Do you know my name?|What did I say my name was?", "Your name is {}."),
        "zh": ("我叫{}。|我是{}。|我的名字是{}。|你好，我叫{}。|叫我{}吧。|你可以叫我{}。|大家叫我{}。|我的名字叫{}", "很高兴认识你，{}！",
               "我叫什么名字？|我是谁？|你记得我的名字吗？|我的名字是什么？|我叫什么？|告诉我我的名字|还记得我叫什么吗？", "你叫{}。"),
    },
    "number": {
        "en": ("Remember the number {}.|My number is {}.|Please remember {}.|The number is {}.|My lucky number is {}.|Keep the number {} in mind.|The code is {}.", "I will remember {}.",
               "What was the number?|Which number did I tell you?|What is the number?|Tell me the number.|Do you remember the number?|What number did I give you?|What is my number?", "The number is {}."),
        "zh": ("请记住数字{}。|我的号码是{}。|记住{}。|数字是{}。|我的幸运数字是{}。|请记住这个数：{}|密码是{}。", "我会记住{}。",
               "数字是多少？|我告诉你的数字是什么？|我的号码是多少？|那个数是几？|还记得那个数字吗？|请说出那个数字|我说的数是多少？", "数字是{}。"),
    },
    "colour": {
        "en": ("My favourite colour is {}.|I like {} best.|I love the colour {}.|The colour is {}.|My favorite color is {}.|My car is {}.|Remember the colour {}.", "I will remember: {}.",
               "What is my favourite colour?|Which colour do I like?|What was the colour?|Do you remember the colour?|Tell me the colour.|Which colour did I tell you?|What is my favorite color?", "The colour is {}."),
        "zh": ("我最喜欢的颜色是{}。|我最喜欢{}。|我爱{}。|颜色是{}。|我喜欢的颜色是{}。|我的车是{}的。|请记住颜色{}。", "我会记住：{}。",
               "我最喜欢什么颜色？|我喜欢哪种颜色？|颜色是什么？|还记得那个颜色吗？|告诉我那个颜色|我说的是什么颜色？|我喜欢什么颜色？", "颜色是{}。"),
    },
}
CHARACTERS = sorted(set("".join(NAMES["surname"] + NAMES["given"] + [chinese for chinese, _ in PAIRS])))
ASIDE = {
    "en": [("Hello", "Hello! How can I help you?"), ("Thanks", "You are welcome!"), ("How are you?", "Hello! How can I help you?"), ("2+3", "2+3=5 so 5")],
    "zh": [("你好", "你好！有什么可以帮你的吗？"), ("谢谢", "不客气！"), ("你好吗？", "你好！有什么可以帮你的吗？"), ("2加3", "2+3=5 得 5")],
}


def invented(rng, language):
    """A word that is none."""
    if language == "zh":
        return "".join(rng.choice(CHARACTERS) for _ in range(rng.randint(1, 3)))
    onsets, ends = list("bcdfghjklmnprstvwyz") + ["", "th", "ch", "br", "st", "gr"], list("aeiou") + "ar er il on ie ee in an es ly am ur".split()
    return "".join(rng.choice(onsets) + rng.choice(ends) for _ in range(rng.randint(1, 3)))


def value(rng, fact, language, split):
    """A name, number or colour of `split`. Many of the training's names and colours are other words, so that copying is learnt."""
    while True:
        if fact == "number":
            drawn = str(rng.randint(10, 9999))
        elif split == "train" and rng.random() < 0.6:
            drawn = rng.choice(PAIRS)[language == "en"] if rng.random() < 0.3 else invented(rng, language)
            drawn = drawn.capitalize() if fact == "name" else drawn
        elif fact == "colour":
            drawn = rng.choice(COLOURS[language])
        elif language == "zh":
            drawn = chinese_name(rng)
        else:
            drawn = rng.choice(NAMES["en"])
        if held_out("memory", drawn) == (split == "test"):
            return drawn


def example(rng, language, split):
    # Long conversations cost most of the training's time, short ones teach most of the copying.
    facts = rng.sample(list(FACTS), rng.choice([1, 1, 1, 1, 2, 3] if split == "train" else [1, 1, 2, 3]))
    told = {fact: value(rng, fact, language, split) for fact in facts}
    history = []
    for fact in facts:
        tell, reply, _, _ = FACTS[fact][language]
        history.append((rng.choice(tell.split("|")).format(told[fact]), reply.format(told[fact])))
    if len(history) < 3 and rng.random() < 0.4:
        history.insert(rng.randint(0, len(history)), rng.choice(ASIDE[language]))
    if split == "train" and rng.random() < 0.4:
        # The reply to what is being told.
        question, answer = history.pop()
        return Chat(question, answer, history)
    fact = rng.choice(facts)
    _, _, ask, answer = FACTS[fact][language]
    return Chat(typed(rng, rng.choice(ask.split("|"))), answer.format(told[fact]), history)
