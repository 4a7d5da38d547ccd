"""Questions about glm itself, in many words; the answers are true of the program that the model is shipped with."""

from .common import Chat, opened, typed, worn

# topic: language: (ways to name the deed, held-out questions, answer).
# A way to name the deed follows one of FRAMES; one that begins with "=" is a whole question.
TOPICS = {
    "load": {
        "en": (
            "load ChatGLM-6B|run ChatGLM-6B|open ChatGLM-6B|use ChatGLM-6B|start ChatGLM-6B|chat with ChatGLM-6B|talk to ChatGLM-6B|load a real model|run a real model|use a bigger model|load another model|open a model folder|use my own model|load the 6B model|switch to a larger model|load a model from a folder|use the published checkpoint|load downloaded weights|=Which option chooses the model?|=Where do I put the model folder?|get a real model running|begin a chat with the 6B model|connect to ChatGLM-6B|have ChatGLM-6B answer|point glm to my folder|try the real ChatGLM|=I have the ChatGLM-6B files here, now what?|=My model is in a folder, how do I open it?|=Command to load a model?|=This model is too small, can I use a larger one?|=loading ChatGLM-6B",
            "How does one get ChatGLM-6B going?|I downloaded ChatGLM-6B, what next?|How can I chat with a real model instead?|What do I type to talk to ChatGLM-6B?|Is it possible to open my own model folder?|Give me the command that loads ChatGLM-6B",
            "Give its folder with -m: glm chat -m chatglm-6b",
        ),
        "zh": (
            "加载 ChatGLM-6B|运行 ChatGLM-6B|打开 ChatGLM-6B|使用 ChatGLM-6B|启动 ChatGLM-6B|和 ChatGLM-6B 聊天|跟 ChatGLM-6B 对话|加载真正的模型|运行真正的模型|用更大的模型|加载别的模型|打开模型文件夹|使用自己的模型|加载 6B 模型|换成大模型|从文件夹加载模型|使用发布的检查点|加载下载的权重|=哪个选项选择模型？|=模型文件夹放在哪里？|让真正的模型跑起来|开始和 6B 模型聊天|让 ChatGLM-6B 回答|告诉 glm 我的文件夹|试试真正的 ChatGLM|=ChatGLM-6B 的文件已经有了，然后呢？|=我的模型在文件夹里，怎么打开？|=加载模型的命令？|=这个模型太小，能用大的吗？|=加载 ChatGLM-6B",
            "ChatGLM-6B 该怎么跑起来？|我下载了 ChatGLM-6B，接下来呢？|想跟真正的模型聊天要输入什么？|能不能打开我自己的模型文件夹？|加载 ChatGLM-6B 的命令是哪个？|请教如何用 ChatGLM-6B 聊天",
            "用 -m 指定它的文件夹：glm chat -m chatglm-6b",
        ),
    },
    "quantise": {
        "en": (
            "quantise a model|quantize a model|quantise ChatGLM-6B|quantize ChatGLM-6B|make the model smaller|convert the model to INT4|convert it to 4 bits|compress the weights|turn the weights into INT4|get an INT4 model|quantise to 8 bits|reduce the size of a model|shrink the model|make a 4-bit model|prepare a quantised folder|=What does quantize do?|=Which command quantises?|get smaller weights|squeeze the model|use less disk space|produce 4-bit weights|make INT8 weights|pack the weights into 4 bits|=The model is too large for me, what now?|=How does quantisation work here?|=Is there a tool that makes models smaller?|=Command for INT4?|=quantisation",
            "How does one quantise the weights?|My model is too big, how do I make it smaller?|What do I type to get INT4 weights?|Is it possible to shrink ChatGLM-6B?|Give me the command for quantising|Where do I get a 4-bit version of the model?",
            "Run it once: glm quantize chatglm-6b chatglm-6b-q4",
        ),
        "zh": (
            "量化模型|量化 ChatGLM-6B|把模型变小|把模型转成 INT4|转换成 4 位|压缩权重|把权重变成 INT4|得到 INT4 模型|量化成 8 位|减小模型的大小|缩小模型|制作 4 位模型|准备量化的文件夹|进行量化|做量化|=quantize 是做什么的？|=哪个命令用来量化？|得到更小的权重|把模型压小|少占磁盘|生成 4 位的权重|生成 INT8 权重|把权重压成 4 位|=模型对我来说太大，怎么办？|=这里怎样做量化？|=有把模型变小的工具吗？|=INT4 的命令？|=量化",
            "权重该怎样量化？|模型太大了，怎么变小？|想要 INT4 权重要输入什么？|能不能缩小 ChatGLM-6B？|量化的命令是哪个？|请教如何得到 4 位的模型",
            "运行一次：glm quantize chatglm-6b chatglm-6b-q4",
        ),
    },
    "threads": {
        "en": (
            "choose the number of threads|set the number of threads|choose threads|set threads|change the thread count|use more threads|use fewer threads|use four threads|run it on two cores|limit the number of cores|use all cores|use only one core|change how many threads it uses|=How many threads does it use?|=Which option sets the threads?|=Does it use all my cores?|use both cores|give it eight threads|keep one core free|use half of my cores|make it use less CPU|pick how many cores work|tune the threads|=It takes all my cores, can I change that?|=How many cores does it take?|=Option for the number of threads?|=thread count",
            "How does one pick the thread count?|It should use only two cores, how?|What do I type for four threads?|Is it possible to limit the cores?|Give me the option for threads|Where do I set how many cores are used?",
            "With -t, for example -t 4. By default all cores are used.",
        ),
        "zh": (
            "选择线程数|设置线程数|选择线程|设置线程|改变线程数量|用更多线程|用更少的线程|用四个线程|在两个核上运行|限制核心数量|使用所有核心|只用一个核|改线程的数目|=它用多少个线程？|=哪个选项设置线程？|=它会用所有的核吗？|用两个核心|给它八个线程|留一个核|用一半的核|少用一点 CPU|选几个核来算|调整线程|=它占满了所有核，能改吗？|=它占几个核？|=线程数量的选项？|=线程数",
            "线程数该怎样定？|我只想用两个核，怎么办？|要四个线程该输入什么？|能不能限制核心？|线程的选项是哪个？|请教如何设定用几个核",
            "用 -t，例如 -t 4。默认使用所有的核。",
        ),
    },
    "fill": {
        "en": (
            "fill a blank|fill blanks|fill in a blank|fill in the blanks|fill a gap in a text|fill a mask|complete a sentence with a blank|use [gMASK]|use masks|fill a missing word|find a missing word|infill text|use infilling|complete a proverb|fill several blanks|=What does fill do?|=Which command fills blanks?|=How do I write a blank?|guess a missing word|have a gap completed|replace a blank|put words into a gap|restore missing text|fill holes in a sentence|=There is a gap in my text, who fills it?|=A word is missing in my sentence|=Can glm do blank infilling?|=Command for filling?|=infilling",
            "How does one fill a gap?|My sentence has a missing word, how do I get it?|What do I type to fill in blanks?|Is it possible to do infilling?|Give me the command for blanks|Where do I put the mask?",
            "Write MASK in square brackets for the blank: glm fill 'text'",
        ),
        "zh": (
            "填空|填写空白|填补空缺|补全句子里的空|填一个空|填几个空|使用 [gMASK]|使用掩码|补上缺的词|找出缺少的词|补全文本|填充中间的文字|补全谚语|给句子填空|=fill 是做什么的？|=哪个命令用来填空？|=空白怎么写？|猜缺少的词|把空缺补好|替换空白|在空白处放词|恢复缺失的文字|填句子里的洞|=我的文章有个空，谁来填？|=我的句子里少一个字|=glm 会完形填空吗？|=填充的命令？|=完形填空",
            "句子里的空该怎样填？|我的句子少了一个词，怎么补？|想填空要输入什么？|能不能补全中间的文字？|填空的命令是哪个？|请教如何补上空缺",
            "在空白处写方括号和 MASK：glm fill '文本'",
        ),
    },
    "library": {
        "en": (
            "link the library|use the library|use glm as a library|use it from Rust|call it from my program|call it from Rust code|embed it in my application|add it to my project|use the crate|use it in my own code|write a program with it|integrate it|=Is there a library?|=Is there a Rust API?|=Which crate do I need?|=Does it have an API?|call glm from other code|build an app on it|find the Rust interface|use glm inside a program|depend on it in Cargo|import it|=I am writing a Rust program, can I use glm?|=Which package is the library?|=Is glm a library too?|=Crate name?|=API",
            "How does one link it into a program?|I write Rust, how do I call it?|What do I import to use it in code?|Is it possible to embed it in an app?|Give me the name of the crate|Where do I find the API?",
            "Add the crate glm-model, then call Model::open and Session::new.",
        ),
        "zh": (
            "链接这个库|使用这个库|把 glm 当作库|从 Rust 使用它|从我的程序调用它|在 Rust 代码里调用|嵌入我的应用|加到我的项目里|使用这个 crate|在自己的代码里使用|用它写程序|集成它|=有库吗？|=有 Rust 接口吗？|=我需要哪个 crate？|=它有 API 吗？|从别的代码调用 glm|在它上面做应用|找 Rust 接口|在程序里使用 glm|在 Cargo 里依赖它|导入它|=我在写 Rust 程序，能用 glm 吗？|=库是哪个包？|=glm 也是库吗？|=crate 叫什么？|=接口",
            "程序里该怎样链接它？|我写 Rust，怎么调用它？|写代码要导入什么？|能不能嵌入应用？|crate 的名字是哪个？|请教如何找到接口",
            "添加 glm-model 这个 crate，然后调用 Model::open 和 Session::new。",
        ),
    },
    "memory": {
        "en": (
            "know how much memory it needs|see the size of a model|check the memory|inspect a model|see where the bytes go|find out how much RAM is needed|see what a folder holds|get information about a model|=How much memory does ChatGLM-6B need?|=How much RAM do I need?|=How much memory is needed?|=How large is ChatGLM-6B?|=Will it fit in 6 GB?|=Is 8 GB of memory enough?|=What does info do?|see how big a model is|learn the memory use|measure the RAM it takes|look into a model folder|=How many gigabytes does it take?|=I have 16 GB of RAM, will it run?|=Does it fit into my memory?|=What size is the model in memory?|=Memory of ChatGLM-6B?|=RAM needed|=How much space in memory?",
            "How does one learn how much memory is needed?|My laptop has 8 GB, is that enough?|What do I type to see the size of a model?|Is it possible to check the RAM first?|Give me the command that shows memory|How big is ChatGLM-6B in memory?",
            "ChatGLM-6B in INT4 needs about 4.5 GB. glm info -m chatglm-6b says more.",
        ),
        "zh": (
            "知道需要多少内存|看模型的大小|检查内存|查看模型|看字节用在哪里|查需要多少内存|看文件夹里有什么|得到模型的信息|=ChatGLM-6B 需要多少内存？|=我需要多少内存？|=要多大内存？|=ChatGLM-6B 有多大？|=6 GB 内存够吗？|=8 GB 内存够用吗？|=info 是做什么的？|看模型有多大|了解内存用量|测量它占的内存|看看模型文件夹|=它要几 GB？|=我有 16 GB 内存，能跑吗？|=我的内存装得下吗？|=模型在内存里多大？|=ChatGLM-6B 的内存？|=内存需求|=占多少内存空间？",
            "内存要多少该怎样查？|我的笔记本有 8 GB，够不够？|想看模型大小要输入什么？|能不能先检查内存？|显示内存的命令是哪个？|ChatGLM-6B 占多大内存？",
            "INT4 的 ChatGLM-6B 约需 4.5 GB。glm info -m chatglm-6b 会详细说明。",
        ),
    },
    "repeatable": {
        "en": (
            "get the same answer every time|make it deterministic|get repeatable answers|turn off randomness|make answers reproducible|repeat an answer exactly|use a seed|set the seed|use greedy decoding|=Why are the answers random?|=Why does the answer change?|=Which option makes it greedy?|=Is it deterministic?|=What does the seed do?|receive identical answers|fix the random numbers|have the same output again|choose greedy|avoid random answers|always take the likeliest word|=I get different answers every time|=It says something else each time, why?|=Can answers be the same twice?|=Option against randomness?|=greedy",
            "How does one get reproducible answers?|The answer changes each time, how do I stop that?|What do I type for the same answer again?|Is it possible to switch randomness off?|Give me the option for greedy answers|Where do I set the seed?",
            "Use --greedy, or --seed with a number.",
        ),
        "zh": (
            "每次得到同样的回答|让它确定|得到可重复的回答|关掉随机性|让回答可重现|精确重复回答|使用种子|设置种子|使用贪心解码|=为什么回答是随机的？|=为什么回答会变？|=哪个选项是贪心？|=它是确定的吗？|=种子是做什么的？|得到一样的回答|固定随机数|再得到相同的输出|选贪心|避免随机的回答|总是取最可能的词|=我每次得到不同的回答|=它每次说的不一样，为什么？|=回答能两次相同吗？|=不要随机的选项？|=贪心",
            "可重现的回答该怎样得到？|回答每次都变，怎么办？|想再得到同样的回答要输入什么？|能不能关闭随机？|贪心的选项是哪个？|请教如何设定种子",
            "用 --greedy，或者用 --seed 加一个数字。",
        ),
    },
    "stop": {
        "en": (
            "stop an answer|interrupt an answer|quit the chat|leave the chat|exit|quit|end the program|cancel the answer|make it stop talking|close the chat|=Which key stops the answer?|=Which key leaves?|=How do I get out?|=What does Ctrl-C do?|finish the program|get out of the chat|halt the answer|break off an answer|shut it down|leave glm|=It does not stop talking, what now?|=It keeps writing, how can I end it?|=Keys to stop?|=How do I say quit?|=exit key",
            "How does one interrupt it?|The answer is too long, how do I stop it?|What do I type to leave?|Is it possible to cancel an answer?|Give me the key that ends the chat|Where is the exit?",
            "Ctrl-C stops an answer, Ctrl-D leaves.",
        ),
        "zh": (
            "停止回答|打断回答|退出聊天|离开聊天|退出|结束程序|取消回答|让它别说了|关闭聊天|=哪个键停止回答？|=哪个键退出？|=怎么出去？|=Ctrl-C 是做什么的？|结束聊天|从聊天里出来|中止回答|中断回答|关掉它|离开 glm|=它说个不停，怎么办？|=它一直在写，怎样结束？|=停止的按键？|=怎么说退出？|=退出键",
            "回答该怎样打断？|回答太长了，怎么停？|想离开要按什么？|能不能取消回答？|结束聊天的键是哪个？|请教如何退出去",
            "Ctrl-C 停止回答，Ctrl-D 退出。",
        ),
    },
    "save": {
        "en": (
            "save the conversation|save a chat|save this chat to a file|keep the conversation|store the conversation|export the chat|write the conversation to a file|=Can it save the chat?|=Which command saves?|=Where is the conversation stored?|keep this talk|record the conversation|put the chat on disk|remember this chat as a file|=I want to read this chat later|=Can I get the conversation as a file?|=Command for saving?|=Is the chat written somewhere?|=saving chats",
            "How does one keep a chat?|I like this conversation, how do I save it?|What do I type to store the chat?|Is it possible to export the conversation?|Give me the command that saves|Where do I save this chat?",
            "Type /save and a file name.",
        ),
        "zh": (
            "保存对话|保存聊天|把聊天存到文件|保留对话|存储对话|导出聊天|把对话写进文件|=能保存聊天吗？|=哪个命令保存？|=对话存在哪里？|留下这次谈话|记录对话|把聊天放到磁盘|把聊天记成文件|=我想以后再看这段聊天|=能得到对话的文件吗？|=存储的命令？|=聊天写在哪里吗？|=保存聊天",
            "聊天该怎样保留？|我喜欢这段对话，怎么存？|想存聊天要输入什么？|能不能导出对话？|保存的命令是哪个？|请教如何存下聊天",
            "输入 /save 和文件名。",
        ),
    },
    "formats": {
        "en": (
            "know which files it reads|know which models are supported|=Which models are supported?|=Which models can it run?|=Which formats can it read?|=Does it read safetensors?|=Can it load .bin files?|=Does it load PyTorch files?|=Which files does it need?|=What file formats are supported?|=Does it support INT8?|=Can it read the official INT4?|=Is safetensors supported?|=Are .bin files okay?|=Will my safetensors files work?|=Which checkpoints does glm accept?|=Can I give it PyTorch weights?|=Does glm understand official INT8?|=What does it read?|=I have INT4 files from the authors, are they read?|=file formats|=Which model families run?",
            "What kinds of files does it read?|My model is a .bin file, does that work?|Are PyTorch files supported?|Is it possible to read the official INT4 files?|Give me the list of formats|Does the program support safetensors?",
            "ChatGLM-6B, from safetensors or PyTorch .bin files, also the official INT4 and INT8.",
        ),
        "zh": (
            "知道它读哪些文件|知道支持哪些模型|=支持哪些模型？|=能运行哪些模型？|=能读哪些格式？|=能读 safetensors 吗？|=能加载 .bin 文件吗？|=能加载 PyTorch 文件吗？|=需要哪些文件？|=支持什么文件格式？|=支持 INT8 吗？|=能读官方的 INT4 吗？|=支持 safetensors 吗？|=.bin 文件行吗？|=我的 safetensors 文件能用吗？|=glm 接受哪些检查点？|=能给它 PyTorch 权重吗？|=glm 懂官方的 INT8 吗？|=它读什么？|=我有作者的 INT4 文件，能读吗？|=文件格式|=哪些模型能跑？",
            "它读哪几种文件？|我的模型是 .bin 文件，可以吗？|PyTorch 文件支持吗？|能不能读官方的 INT4 文件？|支持的格式有哪些？|程序支持 safetensors 吗？",
            "ChatGLM-6B，可读 safetensors 或 PyTorch 的 .bin 文件，也可读官方的 INT4 和 INT8。",
        ),
    },
    "gpu": {
        "en": (
            "run it without a GPU|run it on a laptop|=Do I need a GPU?|=Does it need a GPU?|=Does it use the GPU?|=Can it run on a CPU?|=Does it need a graphics card?|=Does it work without a GPU?|=Which hardware do I need?|=Does it run on my laptop?|=Is a graphics card required?|=Does it need the internet?|=Does it need Python?|=Do I need CUDA?|=I have no graphics card, can I use it?|=Can my old laptop run it?|=Will it work on the processor alone?|=What computer do I need?|=Is a GPU necessary?|=GPU?|=Must I install CUDA?|=hardware requirements|=Do I have to install Python first?",
            "Must I have a graphics card?|My laptop has no GPU, does it work?|Is CUDA required?|Is it possible to run on a plain CPU?|What hardware is needed?|Does the program work without CUDA?",
            "No GPU is needed: glm runs on the CPU, without Python.",
        ),
        "zh": (
            "没有显卡运行|在笔记本上运行|=需要显卡吗？|=需要 GPU 吗？|=它用 GPU 吗？|=能在 CPU 上运行吗？|=一定要有显卡吗？|=没有 GPU 能用吗？|=需要什么硬件？|=能在我的笔记本上跑吗？|=显卡是必须的吗？|=需要联网吗？|=需要 Python 吗？|=需要 CUDA 吗？|=我没有显卡，能用吗？|=我的旧笔记本能跑吗？|=只有处理器行吗？|=要什么样的电脑？|=GPU 是必要的吗？|=要 GPU 吗？|=要装 CUDA 吗？|=硬件要求|=要先装 Python 吗？",
            "必须有显卡才行吗？|我的笔记本没有 GPU，能用吗？|CUDA 是必须的吗？|能不能在普通 CPU 上跑？|硬件有什么要求？|程序没有 CUDA 能运行吗？",
            "不需要 GPU：glm 在 CPU 上运行，也不需要 Python。",
        ),
    },
}

FRAMES = {
    "en": "How do I {}?|How can I {}?|How to {}?|How to {}|How do you {}?|I want to {}.|I would like to {}.|I need to {}.|Can I {}?|Can you tell me how to {}?|Please tell me how to {}.|Please explain how to {}.|What is the command to {}?|Which command do I use to {}?|What should I do to {}?|Show me how to {}.|What is the way to {}?|Could you explain how to {}?|Help me {}.|Tell me how to {}|Is there a way to {}?|I am trying to {}.|With glm, how do I {}?|How do I {} with glm?|What must I do to {}?|I don't know how to {}.|How would I {}?",
    "zh": "怎么{}？|怎样{}？|如何{}？|怎么{}|如何{}|我想{}|我要{}|我想知道怎么{}|请问怎么{}？|请问如何{}？|请告诉我怎么{}|请解释怎样{}|{}用什么命令？|{}的命令是什么？|要{}该怎么做？|可以{}吗？|能{}吗？|教我{}|{}的方法是什么？|有办法{}吗？|用 glm 怎么{}？|我不知道怎么{}|{}要怎么做？|帮我{}|我需要{}|我该如何{}？",
}


def example(rng, language, split):
    deeds, test, answer = TOPICS[rng.choice(list(TOPICS))][language]
    if split == "test":
        question = rng.choice(test.split("|"))
    else:
        deed = rng.choice(deeds.split("|"))
        question = deed[1:] if deed[0] == "=" else rng.choice(FRAMES[language].split("|")).format(deed)
        change = rng.choices([opened, worn, None], [0.1, 0.25, 0.65])[0]
        question = change(rng, language, question, test.split("|")) if change else question
    return Chat(typed(rng, question), answer)
