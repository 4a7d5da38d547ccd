//! English help and its Chinese, sorted by the English. A paragraph that stands on several lines in the source is on one line here.

#[rustfmt::skip]
pub const TABLE: &[(&str, &str)] = &[
    (
        "A branch, a tag or a commit. [default: main; on ModelScope, master]",
        "分支、标签或提交。[默认：main；在 ModelScope 上为 master]",
    ),
    ("A browser shows a chat page at the address of the server.", "在浏览器中打开服务地址，即可使用聊天页面。"),
    (
        "A folder with only the files of the tokenizer is enough. For each id, the id and its text are printed.",
        "文件夹里只有分词器的文件也可以。每个编号占一行：编号及其文本。",
    ),
    (
        "A model is a name of `glm list`, a folder as published by its authors or as written by `glm quantize`, or a GGUF \
         file. `glm` alone opens a chat with the newest model. Answers go to stdout, everything else to stderr. Ctrl-C stops an answer.",
        "模型可以是 `glm list` 中的名称、文件夹（作者发布的，或由 `glm quantize` 写出的），也可以是 GGUF 文件。单独运行 `glm` 即与最新的模型对话。回答写到标准输出，其余写到标准错误。按 Ctrl-C 停止回答。",
    ),
    (
        "A setting has the name of its flag. A flag comes first, then the environment (GLM_MODEL, GLM_THREADS), then the \
         file, then the default of the program or of the model.",
        "设置项与对应的命令行选项同名。命令行选项优先，其次是环境变量（GLM_MODEL、GLM_THREADS），再次是配置文件，最后是程序或模型的默认值。",
    ),
    ("Above 1, tokens that occurred before become less likely", "重复惩罚：大于 1 时，已出现过的 token 概率降低"),
    ("Address to listen on. One that other machines can reach needs a key", "监听的地址。其他机器能访问的地址需要密钥"),
    (
        "After each answer, print to stderr how long it took, how much of the context is used, and how many drafted tokens \
         were accepted",
        "每次回答后，在标准错误上显示用时、已用的上下文，以及被接受的草稿 token 数",
    ),
    (
        "Afterwards, print to stderr how long it took and how many drafted tokens were accepted",
        "完成后，在标准错误上显示用时，以及被接受的草稿 token 数",
    ),
    ("Always choose the likeliest token", "总是选择概率最高的 token"),
    (
        "An adapter (LoRA) to merge into the weights before they are quantized: a folder of the peft library. The weights must \
         be the original ones",
        "在量化之前合并到权重中的适配器（LoRA）：peft 库的文件夹。权重必须是原始的，未经量化",
    ),
    (
        "An adapter that was trained for the model: a folder of the peft library (LoRA), or one with `config.json` and the \
         weights of the prefix encoder (P-Tuning v2). `glm serve` and `glm batch` also take NAME=FOLDER, several times: requests \
         choose one by this name as their model. So does `glm chat`: /adapter NAME chooses",
        "为该模型训练的适配器：peft 库的文件夹（LoRA），或含 `config.json` 和前缀编码器权重的文件夹（P-Tuning v2）。`glm serve` 和 `glm batch` 还接受 NAME=FOLDER，可多次给出：请求以此名称作为 model 来选用。`glm chat` 也接受：用 /adapter NAME 选用",
    ),
    (
        "Another name under which requests may ask for the model; can be given several times",
        "请求中可以使用的模型别名；可多次给出",
    ),
    ("Answer one prompt", "回答一个提示"),
    (
        "Answer the Ith of every N requests only, so that several machines share the work",
        "只回答每 N 个请求中的第 I 个，以便多台机器分担",
    ),
    (
        "Answer the conversation in this file once: a JSON list of {\"role\", \"content\"}; `-` reads it from stdin. A \
         conversation that ends with an answer goes on as with --continue",
        "回答此文件中的对话，只答一次：JSON 列表，每项为 {\"role\", \"content\"}；`-` 表示从标准输入读取。以回答结尾的对话会像 --continue 那样继续",
    ),
    (
        "Answer the requests in a file, as OpenAI's batch API does",
        "按 OpenAI 批处理接口的格式回答文件中的请求",
    ),
    ("Answer the requests of other programs, as OpenAI's API does", "以 OpenAI 的接口回答其他程序的请求"),
    ("Answers", "回答"),
    ("Answers that are generated at the same time", "同时生成的回答数"),
    (
        "Answers that may wait for their turn. More are refused with status 429",
        "可以排队等待的回答数。超出的请求以状态码 429 拒绝",
    ),
    (
        "At the prompt, /help lists the commands. Ctrl-C stops an answer. Ctrl-D leaves, and so does a second Ctrl-C at the \
         prompt; the exit code is 0. A question of several lines stands between \"\"\" and \"\"\", or each of its lines but the last ends with \\. If stdin is not a terminal, each of its \
         lines is a question. Only the answers are written to stdout.",
        "在提示符后输入 /help 可列出命令。Ctrl-C 停止回答。按 Ctrl-D 或在提示符处按两次 Ctrl-C 退出，退出码为 0。多行的问题写在 \"\"\" 和 \"\"\" 之间，或让除最后一行外的每行以 \\ 结尾。如果标准输入不是终端，则每行是一个问题。只有回答写到标准输出。",
    ),
    ("Begin again: what is in the output is replaced", "从头开始：覆盖输出文件中已有的内容"),
    ("Bits of a random weight: 4 or 8", "随机权重的位数：4 或 8"),
    (
        "Bits of a weight on average, such as 4.3, 4.5 or 5, with all scales and minima. The format of each matrix is chosen by measuring how much it changes the predictions of the model, which takes minutes for 6 billion weights",
        "平均每个权重的位数，如 4.3、4.5 或 5，包括所有缩放系数和最小值。程序测量每个矩阵对模型预测的影响，据此选择其格式；60 亿权重的模型需要几分钟",
    ),
    ("Bits of a weight: 4 or 8", "权重的位数：4 或 8"),
    ("Chat with GLM models on a CPU", "在 CPU 上与 GLM 模型对话"),
    (
        "Choose among the N likeliest tokens only; 0 means all. The default is usually 50",
        "只从概率最高的 N 个 token 中选择；0 表示全部。默认通常为 50",
    ),
    (
        "Choose among the likeliest tokens whose probabilities reach this sum; 0 is greedy. For ChatGLM-6B the default is 0.7",
        "只从概率最高、且概率之和达到此值的 token 中选择；0 表示贪心。ChatGLM-6B 的默认值为 0.7",
    ),
    (
        "Choose among tokens with at least this fraction of the likeliest token's probability; 0 means all",
        "只从概率不低于最高概率的这个比例的 token 中选择；0 表示全部",
    ),
    (
        "Compare with the predictions in this file, which --save-logits wrote",
        "与此文件中的预测比较，文件由 --save-logits 写出",
    ),
    (
        "Compare with this model, which runs with f32 activations and an f32 cache: a folder, or a name of `glm list`",
        "与此模型比较，它以 f32 激活值和 f32 缓存运行：文件夹，或 `glm list` 中的名称",
    ),
    ("Continue after the end of the answer, up to --max-new-tokens", "回答结束后继续生成，直到 --max-new-tokens"),
    ("Convert ids to text: a JSON list", "将编号转换为文本：JSON 列表"),
    ("Convert text to ids, or ids to text", "将文本转换为编号，或将编号转换为文本"),
    (
        "Describe the processor in place of a model: its cores, its instruction sets, and those that are used",
        "显示处理器而不是模型：核心数、指令集，以及实际使用的指令集",
    ),
    ("Do not ask", "不询问"),
    (
        "Download a model",
        "下载模型",
    ),
    (
        "Draft tokens by prompt lookup and verify several in one pass. auto drafts if that is measured to be faster, N always \
         drafts up to N tokens. The answer is the same",
        "从提示中查找草稿 token，一次验证多个。auto 在实测更快时才起草，N 表示总是最多起草 N 个。回答不变",
    ),
    (
        "Draw the speed of prompts and of generation, with their limits, as an SVG picture. By default it shows prompts of \
         up to 512 and depths of up to 2000 tokens, and only what it shows is measured",
        "把提示和生成的速度及其上限画成 SVG 图。默认画出至多 512 个 token 的提示和至多 2000 个 token 的上下文，只测量图中的内容",
    ),
    (
        "Each line of the input is a JSON object with `custom_id`, `method` (POST), `url` (/v1/chat/completions, /v1/completions or /v1/responses) and `body`. Each line of the output has the `custom_id` and the response. A request that is wrong is answered with an error, and the others go on. A command that was stopped or killed goes on when it is given again: requests that are answered in the output are skipped. Requests that may succeed later, because memory was too small (status 503) or `n` was above --max-sequences, are the last in the output: the exit code is 1, and the same command tries them again, also with a higher --kv-memory or --max-sequences. Stdin is read to its end first. Answers on stdout cannot be gone on with.",
        "输入的每行是一个 JSON 对象，含 `custom_id`、`method`（POST）、`url`（/v1/chat/completions、/v1/completions 或 /v1/responses）和 `body`。输出的每行含 `custom_id` 和响应。有错的请求得到一个错误，其余请求照常进行。命令中断或被终止后，再次运行同一命令即可继续：输出文件中已有回答的请求会跳过。因内存不足（状态码 503）或 `n` 超过 --max-sequences 而失败、以后可能成功的请求写在输出的末尾：此时退出码为 1，再次运行同一命令会重试它们，也可调高 --kv-memory 或 --max-sequences。标准输入会先全部读完。写到标准输出的回答无法续接。",
    ),
    ("End the answer before this text; can be given several times", "遇到此文本前结束回答；可以给出多次"),
    (
        "Environment: HF_ENDPOINT (a mirror), HF_TOKEN, HF_HOME, HF_HUB_CACHE and HF_HUB_OFFLINE as in Python; MODELSCOPE_ENDPOINT, MODELSCOPE_API_TOKEN; HTTPS_PROXY.",
        "环境变量：HF_ENDPOINT（镜像）、HF_TOKEN、HF_HOME、HF_HUB_CACHE 和 HF_HUB_OFFLINE，含义与 Python 工具相同；MODELSCOPE_ENDPOINT、MODELSCOPE_API_TOKEN；HTTPS_PROXY。",
    ),
    ("Examples:", "示例："),
    (
        "Exit codes: 0 success, 1 failure, 2 wrong usage, 130 stopped by Ctrl-C. `glm man | man -l -` shows the manual.",
        "退出码：0 成功，1 失败，2 用法错误，130 被 Ctrl-C 停止。`glm man | man -l -` 显示手册（英文）。",
    ),
    ("File of answers; `-` is stdout", "保存回答的文件；`-` 表示标准输出"),
    ("File of requests; `-` is stdin", "请求文件；`-` 表示标准输入"),
    (
        "File from which the kept prompts are read at the start and to which they are written at the end. Not for bidirectional models",
        "缓存的提示词的文件：启动时读取，结束时写入。不适用于双向模型",
    ),
    (
        "File with the key that requests must have, as in `Authorization: Bearer KEY`: at least 16 characters. [default: the variable GLM_API_KEY, else none]",
        "存放密钥的文件；请求必须带有该密钥，即 `Authorization: Bearer KEY`，至少 16 个字符。[默认：变量 GLM_API_KEY，未设置则不需要密钥]",
    ),
    (
        "Files that another revision of the same repository has as well are kept. A folder that is not in a cache is not \
         removed.",
        "同一仓库的其他版本也在使用的文件会保留。不在缓存中的文件夹不会被删除。",
    ),
    ("Fill the blanks in a text", "填写文本中的空白"),
    ("Go on with the conversation in this file, as /save wrote it", "继续此文件中的对话，文件由 /save 写出"),
    (
        "How long answers in progress may take when the server is asked to end, in seconds",
        "要求服务器结束时，进行中的回答还可以持续的秒数",
    ),
    (
        "If the text has a blank, each answer is scored in the place of the blank; more than one blank is an error. If it has \
         none, the text is a question, and each answer is scored as its answer. One line is printed for each answer, the \
         likeliest first: the natural logarithm of its probability, its number of tokens, and its text.",
        "如果文本中有空白，则在空白处给每个答案评分；空白多于一个是错误。如果没有空白，则文本是一个问题，按问题的回答评分。每个答案输出一行，最可能的在前：概率的自然对数、token 数和文本。",
    ),
    ("Include models of other kinds, which this program cannot run", "也列出本程序不能运行的其他种类的模型"),
    ("Include the probability that the answer ends there", "计入答案在此处结束的概率"),
    ("Instructions for the whole conversation, for models that support them", "对整个对话的指示，需要模型支持"),
    ("Its value; `stop` takes several", "设置的值；`stop` 可以有多个"),
    (
        "Lengths of prompts; by default those of 32,128,512 that fit in the context",
        "提示的长度；默认为 32,128,512 中上下文能容纳的",
    ),
    (
        "Let names of special tokens inside of messages, such as <|user|>, be these tokens. Without this they are text, so that nobody speaks in the role of another",
        "把消息里的特殊 token 名称（如 <|user|>）当作这些 token。不加此项时它们只是文本，因此无人能冒充其他角色",
    ),
    (
        "Let pages of this origin, such as `https://example.org`, use the server from a browser, and accept its host, which a proxy passes on; can be given several times",
        "允许此来源（如 https://example.org）的网页在浏览器中使用服务器，并接受代理转发的该主机名；可多次给出",
    ),
    ("List the models that are here", "列出本机的模型"),
    (
        "Longest time in seconds that a client may take to send the headers or the body of a request, be idle between requests, or delay a response because it reads less than 4 KiB of it a second",
        "客户端发送请求头或请求体、在两次请求之间空闲、或因每秒读取响应不足 4 KiB 而使其停滞的最长秒数",
    ),
    ("Longest time of a request in seconds; 0 means no limit", "一个请求最长的秒数；0 表示不限"),
    (
        "Maximum number of tokens of an answer. [default: as many as fit in the context]",
        "回答的最大 token 数。[默认：上下文能容纳多少就多少]",
    ),
    (
        "Measure how fast a model runs on this machine, and the limits of the machine",
        "测量模型在本机上的速度，以及本机的上限",
    ),
    (
        "Measure how well the model predicts a text, also compared with another model",
        "测量模型预测一段文本的能力，也可与另一个模型比较",
    ),
    (
        "Measure random weights in memory, with the shape of a published model, in place of a model",
        "不用模型，而是测量内存中的随机权重，形状与已发布的某个模型相同",
    ),
    (
        "Memory for prompts that are kept for requests with the same beginning; 0 keeps none",
        "缓存提示词所用的内存，供开头相同的请求复用；0 表示不缓存",
    ),
    (
        "Memory for the keys and values of all sequences, such as 2GB. [default: three quarters of what is free beside the weights]",
        "所有序列的键和值可用的内存，例如 2GB。[默认：除权重外空闲内存的四分之三]",
    ),
    ("Models, by their names in `glm list`", "模型，用 `glm list` 中的名称"),
    (
        "Most answers that are generated at the same time, if memory allows",
        "内存允许时，最多同时生成的回答数",
    ),
    ("Neither read nor write the history of questions", "不读取也不保存问题的历史记录"),
    (
        "Numbers of sequences that are generated together; 0 measures none. By default 4,8 if they fit in the context",
        "一起生成的序列数；0 表示不测。默认为 4,8，如果上下文能容纳",
    ),
    (
        "Only the files that this program reads are downloaded, into the cache of the Hugging Face hub; what Python downloaded there is used. The folder is printed on stdout. A download that was stopped goes on with the same command.",
        "只下载本程序需要的文件，存入 Hugging Face 的缓存；Python 已下载的文件直接使用。文件夹路径写到标准输出。中断的下载可用同一命令继续。",
    ),
    (
        "Only the first N windows. [default: all]",
        "只用前 N 个窗口。[默认：全部]",
    ),
    ("Port to listen on; 0 lets the system choose one", "监听的端口；0 表示由系统选择"),
    (
        "Predict this number of tokens in the middle of each window",
        "预测每个窗口中间的这么多个 token",
    ),
    ("Print JSON", "输出 JSON"),
    ("Print JSON, and the table on stderr", "以 JSON 输出，表格写到标准错误"),
    (
        "Print JSON: a list of name, bytes, format, kind, state, changed (seconds since 1970) and folder",
        "以 JSON 输出列表，每项有 name、bytes、format、kind、state、changed（1970 年以来的秒数）和 folder",
    ),
    ("Print JSON: a list of name, value and origin", "以 JSON 输出列表，每项有 name、value 和 origin"),
    (
        "Print JSON: for each answer in the order given its text, ids, log_probability and end_log_probability",
        "输出 JSON：按给出的顺序，每个答案的 text、ids、log_probability 和 end_log_probability",
    ),
    ("Answer in JSON that follows this schema: a file, or the schema itself if the text begins with `{`", "按此模式（JSON Schema）回答 JSON：可以是文件；若以 `{` 开头，则为模式本身"),
    ("Answer in the language of this grammar: a file in the notation of Lark, with the rule `start`", "按此文法回答：用 Lark 记法写成的文件，从规则 `start` 开始"),
    ("Print JSON: ids, text, finish and more", "输出 JSON：ids、text、finish 等"),
    (
        "Print JSON: the filled text, its spans, and the answers with ids and more",
        "输出 JSON：填好的文本、各处填入的内容，以及带编号等的回答",
    ),
    (
        "Print JSON: {\"ids\": […]}, or {\"text\": \"…\"} with --decode",
        "输出 JSON：{\"ids\": […]}；用 --decode 时为 {\"text\": \"…\"}",
    ),
    (
        "Print a model's sizes, the formats of its weights, and the memory it needs",
        "显示模型的规模、权重的格式和所需内存",
    ),
    ("Print a page of the manual, or write all pages to a folder", "输出一页手册，或将所有页写入一个文件夹"),
    (
        "Print a script with which a shell completes commands and arguments",
        "输出 shell 的补全脚本，用于补全命令和参数",
    ),
    ("Print help", "显示帮助"),
    ("Print help (see a summary with '-h')", "显示帮助（用 '-h' 看摘要）"),
    ("Print help (see more with '--help')", "显示帮助（用 '--help' 看更多）"),
    ("Print how likely given answers are, the likeliest first", "显示给定答案的概率，最可能的在前"),
    ("Print the answer as JSON: text, prompt_ids, ids and more", "以 JSON 输出回答：text、prompt_ids、ids 等"),
    ("Print the defaults of flags and where each comes from, or change them", "显示各选项的默认值及其来源，或修改它们"),
    ("Print the page of this command", "输出此命令的手册页"),
    ("Print the path of the file", "显示配置文件的路径"),
    ("Print this message or the help of the given subcommand(s)", "显示本帮助，或某个命令的帮助"),
    ("Print version", "显示版本"),
    (
        "Programs send requests as to OpenAI's API: POST /v1/chat/completions, /v1/responses, /v1/completions, /v1/fill, /tokenize and /detokenize; GET /v1/models, /health, /metrics and /openapi.json. POST /v1/messages is as in Anthropic's API. SIGTERM or Ctrl-C ends the server after the answers in progress; a second one ends it at once.",
        "程序以 OpenAI 的接口发送请求：POST /v1/chat/completions、/v1/responses、/v1/completions、/v1/fill、/tokenize 和 /detokenize；GET /v1/models、/health、/metrics 和 /openapi.json。POST /v1/messages 与 Anthropic 的接口相同。SIGTERM 或 Ctrl-C 在进行中的回答完成后结束服务器；再来一次则立即结束。",
    ),
    (
        "Quantize the weights as they arrive, to 4 bits or 8. The result is called NAME:int4 or the like",
        "边下载边量化权重，量化为 4 位或 8 位。结果名为 NAME:int4 等",
    ),
    (
        "Random weights of 4 bits that have only a scale for each group, no minimum",
        "4 位随机权重每组只有缩放系数，没有最小值",
    ),
    (
        "Random weights that share a scale: 32, 64 or 128. [default: 64; 32 without a minimum]",
        "共用一个缩放系数的随机权重数：32、64 或 128。[默认：64；没有最小值时为 32]",
    ),
    (
        "Read all weights into memory in place of mapping their files, which may then be changed while the model is in use. It takes the \
         memory of all weights, and opening takes longer",
        "把所有权重读入内存，而不是映射文件：之后即使模型还在使用，也可以更改这些文件。需要容纳全部权重的内存，打开也更慢",
    ),
    (
        "Read all weights into memory before the first token: for a slow disk",
        "在生成第一个 token 之前把所有权重读入内存：适合慢速磁盘",
    ),
    ("Read the text from stdin, to the last byte", "从标准输入读取文本，直到最后一个字节"),
    ("Remove a setting from the file", "从配置文件中删除一个设置项"),
    ("Remove models that were downloaded or quantized", "删除下载的或量化的模型"),
    (
        "Round the weights for the inputs that a text gives them: much nearer to the original, but it takes hours for a model of 6 billion weights. FILE is a text, or with the ending .json a conversation, or .jsonl one a line; without FILE, a text in English and Chinese that is part of the program",
        "按一段文本给出的输入对权重取整：更接近原模型，但 60 亿权重的模型要几个小时。FILE 是文本；以 .json 结尾时是一个对话，以 .jsonl 结尾时每行一个对话；不给 FILE 时使用程序自带的中英文文本",
    ),
    ("Rounds of each measurement", "每项测量的轮数"),
    (
        "Sampling temperature: higher is more varied, 0 is greedy. The default of each sampling setting is the model's own; \
         for ChatGLM-6B this one is 0.95",
        "采样温度：越高越多样，0 为贪心。各项采样设置的默认值由模型给出；ChatGLM-6B 的温度为 0.95",
    ),
    (
        "Seed of the random numbers; the same seed gives the same answer. [default: random]",
        "随机数种子；种子相同则回答相同。[默认：随机]",
    ),
    (
        "Store only a scale for each group, no minimum, for 4 bits: less exact at the same size",
        "每组只存缩放系数，不存最小值（仅用于 4 位）：大小相同，但不如默认格式精确",
    ),
    ("Talk with the model, or answer a conversation in a file", "与模型对话，或回答文件中的对话"),
    ("The answers; without any, each line of stdin is an answer", "答案；若不给出，则标准输入的每行是一个答案"),
    ("The chat template to use in place of the model's own", "代替模型自带模板的对话模板"),
    (
        "The file has one tensor, `logits`, of type f32 and shape [tokens, vocab].",
        "文件中有一个张量 `logits`，类型为 f32，形状为 [token 数, 词表大小]。",
    ),
    (
        "The file with the text, in UTF-8; `-` is stdin",
        "文本文件，UTF-8 编码；`-` 表示标准输入",
    ),
    ("The files are not loaded: only their headers are read.", "不加载文件，只读取文件头。"),
    (
        "The folder for all pages; it is created if it does not exist. Without it, one page is printed",
        "存放所有手册页的文件夹；不存在则创建。若不给出，则只输出一页",
    ),
    (
        "The folder to write. It is created if it does not exist, and must not contain a model. Without it, a model of `glm \
         list` is written beside it, with `:int4` or the like behind its name",
        "要写入的文件夹。不存在则创建，其中不能已有模型。不给出时，`glm list` 中的模型会写在它旁边，名称后加 `:int4` 等",
    ),
    ("The ids: a JSON list", "编号：JSON 列表"),
    (
        "The model: a folder, a GGUF file, a name of `glm list` such as THUDM/chatglm-6b or THUDM/chatglm-6b:int4, or one of \
         Ollama such as ollama:glm4. The owner may be left out if the name is unique. [default: GLM_MODEL, else the setting \
         `model`, else the newest model here]",
        "模型：文件夹、GGUF 文件、`glm list` 中的名称（如 THUDM/chatglm-6b、THUDM/chatglm-6b:int4），或 Ollama 的模型（如 ollama:glm4）。名称唯一时可省略所有者。[默认：GLM_MODEL，否则设置项 `model`，否则本机最新的模型]",
    ),
    ("The model: a folder, a GGUF file, or a name of `glm list`", "模型：文件夹、GGUF 文件，或 `glm list` 中的名称"),
    (
        "The most tokens of the text that are read",
        "最多读取文本的多少个 token",
    ),
    (
        "The newest model comes first: it is the one that `glm` alone talks to. The models are those in the cache of the \
         Hugging Face hub, also those that Python downloaded, and those that `glm pull --quantize` and `glm quantize` made. \
         An incomplete download is marked; `glm pull` goes on with it.",
        "最新的模型排在最前，单独运行 `glm` 时就用它。列出的是 Hugging Face 缓存中的模型（包括 Python 下载的），以及 `glm pull --quantize` 和 `glm quantize` 生成的模型。未下载完的会标出，可用 `glm pull` 继续下载。",
    ),
    (
        "The official INT4 and INT8 keep their weights exactly; only their order in the file changes. INT4 is rounded with the \
         inputs that each layer has for random tokens. One layer is in memory at a time. The folder is written under its name with \
         .quantize.part added, and gets its name when it is complete. If Ctrl-C, SIGTERM or SIGHUP stops the command (exit code 130), \
         nothing stays; with --calibrate, the same command goes on with it.",
        "官方的 INT4 和 INT8 权重保持不变，只改变在文件中的顺序。INT4 按随机 token 时各层的输入来舍入，内存中每次只有一层。写入时文件夹的名称后加有 .quantize.part，完成后才改为正式名称。命令被 Ctrl-C、SIGTERM 或 SIGHUP 停止时（退出码 130）不留下任何内容；使用 --calibrate 时，再次运行同样的命令即可继续。",
    ),
    (
        "The oldest rounds are dropped, so that a quarter of the context (or --max-new-tokens, if less) is free for the \
         answer. A note says how many",
        "丢弃最早的几轮，为回答留出上下文的四分之一（如果 --max-new-tokens 更小，则以它为准），并说明丢弃了几轮",
    ),
    ("The pages are in English.", "手册页为英文。"),
    (
        "The perplexity is the exponential of the mean loss, the negative natural logarithm of the probability of a token. KL is the Kullback-Leibler divergence from the reference in nats. Behind ± is the standard error.",
        "困惑度是平均损失的指数，损失是 token 概率的负自然对数。KL 是相对参照模型的 KL 散度，单位为 nat。± 之后是标准误差。",
    ),
    ("The prompt, without a flag", "提示，不带选项名"),
    (
        "The prompt; `-`, or no prompt, reads it from stdin, without the last line break",
        "提示；`-` 或不给出时从标准输入读取，去掉最后的换行",
    ),
    ("The question is refused with an error", "拒绝问题并报错"),
    (
        "The repository, such as THUDM/chatglm-6b",
        "仓库名，例如 THUDM/chatglm-6b",
    ),
    ("The rows of the table are named as in llama-bench:", "表格各行的名称与 llama-bench 相同："),
    (
        "The safetensors file to write; an existing file is replaced. `-` writes to stdout, if that is no terminal",
        "要写入的 safetensors 文件；已有的文件会被替换。`-` 表示写到标准输出，标准输出不能是终端",
    ),
    ("The setting", "设置项"),
    ("The shell", "shell 的名称"),
    (
        "The speed is the median of the rounds and half the difference of the fastest and the slowest one. The limit is the \
         speed at which the memory bandwidth or the multiply-adds of the processor would be used up. Both are measured \
         several times in the same run, and the best counts; a row shows what is known by then. The speedup is relative to \
         one token of one sequence. Close other programs first.",
        "速度是多轮测量的中位数，± 后是最快与最慢一轮之差的一半。上限是用尽内存带宽或处理器乘加能力时的速度，两者在同一次运行中测量多次，取最好的一次；每一行按当时已知的上限显示。speedup 是相对于单个序列逐个生成 token 的倍数。请先关闭其他程序。",
    ),
    ("The text", "文本"),
    (
        "The text is cut into windows. In each window the last tokens are predicted: as many as --stride, at most half of the window. ChatGLM-6B, GLM-10B and GLM-130B read what is before them as a bidirectional context, and the others as a causal one. With --blank, tokens in the middle of the window are predicted from both sides, which only the three can do.",
        "文本被切成窗口。每个窗口预测末尾的 token：个数等于 --stride，最多为窗口的一半。ChatGLM-6B、GLM-10B 和 GLM-130B 把前面的部分作为双向上下文读取，其他模型则作为单向上下文。加上 --blank 时，根据两侧的文本预测窗口中间的 token，只有这三个模型能做到。",
    ),
    ("The text with a blank, or the question", "带空白的文本，或问题"),
    (
        "The text with blanks, `[MASK]` or `[gMASK]`; `-`, or no text, reads it from stdin, without the last line break",
        "带空白的文本，空白写作 `[MASK]` 或 `[gMASK]`；`-` 或不给出时从标准输入读取，去掉最后的换行",
    ),
    (
        "The whole prompt as ids: a JSON list. Nothing is added to it, and no tokenizer is needed",
        "以编号给出的完整提示：JSON 列表。不再添加任何内容，也不需要分词器",
    ),
    (
        "Threads that quantize; by default one for each fast core",
        "量化使用的线程数；默认每个高性能核心一个",
    ),
    ("Threads; by default one for each fast core", "线程数；默认每个高性能核心一个"),
    (
        "Tokens from the beginning of a window to that of the next. [default: half of the window]",
        "从一个窗口的开头到下一个窗口开头的 token 数。[默认：窗口的一半]",
    ),
    (
        "Tokens in front of those that are generated; by default those of 32,1000 that fit in the context",
        "生成之前已有的 token 数；默认为 32,1000 中上下文能容纳的",
    ),
    (
        "Tokens of passes that verify a draft: the last token and those drafted; 0 measures none. By default 2,4,8,16 if they \
         fit in the context",
        "验证草稿的一遍中的 token 数：最后一个 token 加上草稿；0 表示不测。默认为 2,4,8,16，如果上下文能容纳",
    ),
    (
        "Tokens of the text in a window",
        "每个窗口中文本的 token 数",
    ),
    ("Tokens that are generated in a round", "每轮生成的 token 数"),
    (
        "Tokens that the context holds, prompt and answer together. [default: the maximum of the model, up to 32768]",
        "上下文能容纳的 token 数，提示和回答合计。[默认：模型的最大值，至多 32768]",
    ),
    (
        "Tokens that the context holds. [default: the maximum of the model, up to 32768]",
        "上下文能容纳的 token 数。[默认：模型的最大值，至多 32768]",
    ),
    (
        "Type of cached keys and values: int8 takes half the memory of f16 and is slightly less exact; int4 takes a little more \
         than a quarter and is less exact. int16 is as large as f16, more exact, and faster with latent attention. By default f32 if \
         the activations are f32, otherwise int16 with latent attention and f16 without",
        "键和值缓存的类型：int8 占用的内存是 f16 的一半，精度略低；int4 占用四分之一稍多，精度更低。int16 与 f16 一样大，更精确，使用潜在注意力（latent attention）时更快。激活值为 f32 时默认 f32，否则使用潜在注意力时默认 int16，其余默认 f16",
    ),
    (
        "Type of the activations: int8 is several times faster with quantized weights, f32 is for comparisons. By default int8 \
         if the weights are quantized",
        "激活值的类型：权重已量化时，int8 快数倍；f32 用于比较。权重已量化时默认 int8",
    ),
    (
        "Weights that share a scale: 32, 64 or 128. Fewer are more exact, more take less memory. [default: 64; 32 without a minimum]",
        "共用一个缩放系数的权重数：32、64 或 128。越少越精确，越多越省内存。[默认：64；没有最小值时为 32]",
    ),
    ("What happens when the conversation no longer fits in the context", "对话超出上下文时的处理方式"),
    (
        "Where the repository is. ModelScope has its own names of owners: THUDM and zai-org are ZhipuAI there",
        "从哪个站点下载。ModelScope 上的所有者名称不同：THUDM 和 zai-org 在那里是 ZhipuAI",
    ),
    (
        "Whether a model that can think does so before it answers; requests may say otherwise. Thoughts are no part of the answer: a \
         terminal shows them, and programs get them as `reasoning_content`. [default: as the template of the model says]",
        "会思考的模型在回答之前是否思考；请求中可以另行指定。思考内容不属于回答：终端会显示它，程序以 `reasoning_content` 得到它。[默认：由模型的模板决定]",
    ),
    (
        "Which of two models with the same files it is, if they do not say: chatglm2 for ChatGLM2 and CodeGeeX2, or chatglm3",
        "两种模型的文件相同而又无法区分时，指明是哪一种：chatglm2（ChatGLM2 和 CodeGeeX2）或 chatglm3",
    ),
    (
        "With --quantize, each file of weights is quantized as it arrives and then removed: far less disk is needed.",
        "使用 --quantize 时，每个权重文件下载后立即量化并删除，所需磁盘空间大为减少。",
    ),
    (
        "Write a model quantized to 4 or 8 bits that opens without preparation",
        "写出量化为 4 位或 8 位的模型，打开时无需再处理",
    ),
    ("Write a setting to the file", "把一个设置项写入配置文件"),
    (
        "Write answers in the order of their requests. Without this they are written as they end",
        "按请求的顺序写出回答。不加此项时，先完成的先写",
    ),
    ("Write the bodies of requests to the log. They contain the prompts", "把请求的正文写入日志，其中包含提示词"),
    ("Write the logits of every token to a file", "将每个 token 的 logits 写入文件"),
    (
        "Write the predictions to this file: about 1.3 bytes for each token and id of the vocabulary. An existing file is replaced",
        "把预测写入此文件：每个 token 和词表中每个 id 约 1.3 字节。已有的文件会被替换",
    ),
    (
        "[MASK] stands for a few words, [gMASK] for a text of any length; GLM and GLM-130B also have [sMASK] for a sentence. \
         Several blanks are filled from left to right, and the model sees what was filled before.",
        "[MASK] 代表几个词，[gMASK] 代表任意长度的文本；GLM 和 GLM-130B 还有代表一句话的 [sMASK]。多个空白从左到右依次填写，模型能看到前面已填的内容。",
    ),
];
