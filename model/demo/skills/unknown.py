"""Questions that the model was not taught to answer, and says so."""

from ..words import PAIRS, UNKNOWN
from . import manual
from .common import Chat, held_out, opened, typed, worn

# Ways to ask; those after "#" are held out, as is one subject in eight.
ASK = {
    "en": "What is {}?|Who is {}?|Where is {}?|Tell me about {}|What do you know about {}?|Explain {} to me|Why is {} important?|When was {} discovered?|How does {} work?|Write a poem about {}|Write an essay about {}|Give me some facts about {}|What is the history of {}?|What is the capital of {}?|How old is {}?|How many people like {}?|Who invented {}?|Summarise {} for me|Do you like {}?|What is the weather in {}?|Recommend a book about {}|Is {} dangerous?|What is the meaning of {}?|Write a story about {}|What colour is {}?|How far away is {}?|Compare {} and {}|What is the population of {}?|Teach me {}|How can I learn {}?|How many kinds of {} are there?|What causes {}?|What happens in {}?|Which {} is the best?|Can you draw {}?|Is {} good for me?|Where can I buy {}?|How much does {} cost?|Who likes {}?|Describe {}|Say something about {}|What is your opinion of {}?|Do you have {}?|Are there {} in Europe?|Name three things about {}|Why do we need {}?|Make a plan for {}|Is {} real?|Tell me a joke about {}|Who owns {}?|What is new in {}?|How is {} made?|How do I cook {}?|Have you ever seen {}?|Sing about {}|What does {} look like?|What is {} used for?|Can {} fly?"
          "#Describe {} in detail|Who discovered {}?|How big is {}?|Write a letter about {}|What is so special about {}?|When did {} begin?|Can you explain {}?|What do people think of {}?",
    "zh": "{}是什么？|{}是谁？|{}在哪里？|介绍一下{}|你知道{}吗？|给我讲讲{}|{}为什么重要？|{}是什么时候发现的？|{}是怎么工作的？|写一首关于{}的诗|写一篇关于{}的文章|说几个{}的事实|{}的历史是什么？|{}的首都是哪里？|{}有多老？|多少人喜欢{}？|谁发明了{}？|总结一下{}|你喜欢{}吗？|{}的天气怎么样？|推荐一本关于{}的书|{}危险吗？|{}的意义是什么？|写一个{}的故事|{}是什么颜色？|{}有多远？|比较{}和{}|{}的人口是多少？|教我{}|怎样学习{}？|{}有几种？|什么导致了{}？|{}里发生了什么？|哪个{}最好？|你能画{}吗？|{}对我好吗？|哪里能买到{}？|{}多少钱？|谁喜欢{}？|描述{}|说说{}|你对{}有什么看法？|你有{}吗？|欧洲有{}吗？|说出{}的三件事|为什么需要{}？|为{}做个计划|{}是真的吗？|讲个{}的笑话|{}属于谁？|{}有什么新闻？|{}是怎么做的？|你见过{}吗？|唱一首{}的歌|{}长什么样？|{}有什么用？|{}会飞吗？"
          "#详细描述{}|谁发现了{}？|{}有多大？|写一封关于{}的信|{}有什么特别？|{}是什么时候开始的？|能解释{}吗？|人们怎么看{}？",
}
OTHER = {
    "en": "What time is it?|What is the weather like?|Who is the president?|Tell me a joke|Sing a song|Write some code|What is the news today?|Where do I live?|What is the meaning of life?|Who won the match?|Book a flight|Order a pizza|Play some music|What should I cook?|Is there life on other planets?|What is the best film?",
    "zh": "现在几点了？|天气怎么样？|总统是谁？|讲个笑话|唱首歌|写一段代码|今天有什么新闻？|我住在哪里？|生命的意义是什么？|谁赢了比赛？|订一张机票|点一份外卖|放点音乐|我该做什么菜？|别的星球有生命吗？|最好的电影是哪部？",
}
ANSWER = {"en": "I don't know. I was not taught that.", "zh": "我不知道，没有人教过我。"}


DEEDS = {
    "en": "cook {}|buy {}|paint {}|find {}|draw {}|sell {}|eat {}|learn about {}|fix {}|wash {}|grow {}|play {}|travel to {}|write about {}|build {}|understand {}|describe {}|discover {}|begin with {}|open {}|measure {}|visit {}|explain {}|love {}|choose {}|teach {}",
    "zh": "煮{}|买{}|画{}|找{}|卖{}|吃{}|了解{}|修理{}|洗{}|种{}|玩{}|去{}|写{}|建造{}|理解{}|描述{}|发现{}|开始{}|打开{}|测量{}|参观{}|解释{}|喜欢{}|选择{}|教{}",
}


def foreign(rng, language):
    """What the program is asked in the same words, about things that have nothing to do with it."""
    subjects = [subject for subject in UNKNOWN[language] if not held_out("unknown", subject)]
    subject = rng.choice(subjects) if rng.random() < 0.6 else rng.choice(PAIRS)[language == "en"]
    deed = rng.choice(DEEDS[language].split("|")).format(subject)
    question = rng.choice(manual.FRAMES[language].split("|")).format(deed)
    return worn(rng, language, question) if rng.random() < 0.3 else question


def example(rng, language, split):
    if split == "train" and rng.random() < 0.25:
        return Chat(typed(rng, foreign(rng, language)), ANSWER[language])
    if split == "train" and rng.random() < 0.08:
        return Chat(typed(rng, rng.choice(OTHER[language].split("|"))), ANSWER[language])
    subjects = [subject for subject in UNKNOWN[language] if held_out("unknown", subject) == (split == "test")]
    if split == "train" and rng.random() < 0.3:
        # It knows these words, but nothing about the things.
        subjects = [pair[language == "en"] for pair in PAIRS]
    train, test = ASK[language].split("#")
    ask = rng.choice((train if split == "train" else test).split("|"))
    question = ask.format(*rng.sample(subjects, 2)) if ask.count("{}") == 2 else ask.format(rng.choice(subjects))
    if split == "train":
        change = rng.choices([opened, worn, None], [0.1, 0.25, 0.65])[0]
        question = change(rng, language, question) if change else question
    return Chat(typed(rng, question), ANSWER[language])
