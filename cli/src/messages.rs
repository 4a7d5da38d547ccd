//! What the program says to people, in English and in Chinese. One table; each message has both languages.

use std::fmt::Display;
use std::sync::OnceLock;

/// The language of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    English,
    Chinese,
}

/// The language that the environment asks for: that of `LC_ALL`, else `LC_MESSAGES`, else `LANG`.
pub fn language() -> Language {
    static LANGUAGE: OnceLock<Language> = OnceLock::new();
    *LANGUAGE.get_or_init(|| of(|name| std::env::var(name).ok()))
}

fn of(variable: impl Fn(&str) -> Option<String>) -> Language {
    let names = ["LC_ALL", "LC_MESSAGES", "LANG"].into_iter();
    let locale = names.filter_map(variable).find(|value| !value.is_empty());
    match locale.is_some_and(|locale| locale.to_lowercase().starts_with("zh")) {
        true => Language::Chinese,
        false => Language::English,
    }
}

/// For each message a function of its arguments. Arguments are named in the text as in `format!`.
macro_rules! messages {
    ($($name:ident($($argument:ident),*): $english:literal, $chinese:literal;)*) => {
        $(
            pub fn $name($($argument: impl Display),*) -> String {
                match language() {
                    Language::English => format!($english),
                    Language::Chinese => format!($chinese),
                }
            }
        )*

        /// Name, arguments, English and Chinese.
        #[cfg(test)]
        const TABLE: &[(&str, &[&str], &str, &str)] =
            &[$((stringify!($name), &[$(stringify!($argument)),*], $english, $chinese)),*];
    };
}

messages! {
    // Errors and interruptions.
    error(message): "error: {message}", "错误：{message}";
    stopped(): "stopped", "已停止";

    // Which model.
    home_is_unknown(name): "the home folder is unknown: set HOME or {name}", "不知道主目录在哪里：请设置 HOME 或 {name}";
    not_a_repository(name): "{name} is not the name of a repository, such as THUDM/chatglm-6b",
        "{name} 不是仓库名，仓库名的例子：THUDM/chatglm-6b";
    model_of_settings(name, origin): "model: {name}, from {origin}", "模型：{name}，来自 {origin}";
    model_is_newest(name): "model: {name}, the newest of `glm list`; -m chooses another",
        "模型：{name}，是 `glm list` 中最新的；可用 -m 指定其他模型";
    model_is_demo(): "There is no model here yet, so the small demonstration model of this program answers. It knows only what it was \
        taught; ask what it can do.",
        "本机还没有模型，由程序自带的小型演示模型回答。它只会训练过的几件事，可以问问它会做什么。";
    get_a_model(): "Get a real one with `glm pull THUDM/chatglm-6b --quantize`, then start `glm`.",
        "运行 `glm pull THUDM/chatglm-6b --quantize` 下载真正的模型，然后启动 `glm`。";
    no_model(): "there is no model here, and none is part of this program: get one with `glm pull THUDM/chatglm-6b --quantize`, or name \
        a folder with -m",
        "本机没有模型，程序也不带演示模型：请运行 `glm pull THUDM/chatglm-6b --quantize` 下载，或用 -m 指定文件夹";
    demo_name(): "the small demonstration model of this program", "程序自带的小型演示模型";
    no_such_folder(name): "there is no folder {name}; `glm list` shows the models that are here",
        "没有文件夹 {name}；`glm list` 列出本机的模型";
    no_snapshot(name): "{name} is the folder of a repository in the cache of the hub, and no snapshot is in it: `glm pull` downloads one",
        "{name} 是缓存中的仓库文件夹，但里面没有快照：请用 `glm pull` 下载";
    link_to_nothing(name, target): "{name} is a link to {target}, which is not there: mend the link, or name the folder of the model",
        "{name} 是指向 {target} 的链接，而目标不存在：请修复链接，或直接指定模型的文件夹";
    no_such_model(name, hub, quantized, command):
        "there is no model {name}: it is no folder, and neither in {hub} nor in {quantized}. `{command}` downloads it; `glm list` shows \
        the models that are here",
        "没有模型 {name}：既没有这个文件夹，{hub} 和 {quantized} 中也没有。运行 `{command}` 下载；`glm list` 列出本机的模型";
    no_ollama_name(name): "{name} is no name of a model of Ollama, such as ollama:glm4 or ollama:glm4:9b",
        "{name} 不是 Ollama 的模型名称，应如 ollama:glm4 或 ollama:glm4:9b";
    no_ollama_model(name, stores): "there is no model {name} in {stores}; `ollama list` shows the models that are there, and OLLAMA_MODELS \
        names another folder",
        "{stores} 中没有模型 {name}；`ollama list` 列出其中的模型，OLLAMA_MODELS 可指定其他文件夹";
    no_ollama_gguf(manifest): "{manifest} names no GGUF file", "{manifest} 中没有 GGUF 文件";
    several_models(name, candidates): "{name} can mean several models: {candidates}", "{name} 可以指多个模型：{candidates}";
    model_is_incomplete(name, repository): "{name} is not downloaded completely: `glm pull {repository}` goes on with it",
        "{name} 尚未下载完整：运行 `glm pull {repository}` 继续下载";

    // Opening a model.
    loading(): "loading", "正在加载";
    model_summary(title, activations, threads, isa): "{title}; activations {activations}; threads {threads}, {isa}",
        "{title}；激活值 {activations}；线程数 {threads}，{isa}";
    model_title(architecture, name, weights): "{architecture} ({name}): weights {weights}",
        "{architecture}（{name}）：权重 {weights}";
    model_needs_memory(needed, available):
        "opening this model takes {needed} of memory, and {available} are free: `glm quantize` makes a folder that is mapped instead",
        "打开这个模型需要 {needed} 内存，而可用的只有 {available}：用 `glm quantize` 生成的文件夹可直接映射，不占这些内存";
    no_mmap_needs_memory(needed, available):
        "all weights of this model take {needed} of memory, and {available} are free: leave out --no-mmap, so that they are mapped",
        "这个模型的全部权重需要 {needed} 内存，而可用的只有 {available}：去掉 --no-mmap 即可映射文件";
    adapter(folder, tokens): "adapter: {folder}, {tokens} positions before every prompt",
        "适配器：{folder}，每个提示之前有 {tokens} 个位置";
    own_adapter(tokens): "the model has a trained prefix (P-Tuning v2): {tokens} positions before every prompt",
        "模型自带训练好的前缀（P-Tuning v2）：每个提示之前有 {tokens} 个位置";
    lora(folder, layers): "adapter: {folder}, updates of {layers} linear layers (LoRA)",
        "适配器：{folder}，更新 {layers} 个线性层（LoRA）";
    own_lora(layers): "the adapter (LoRA) in the folder of the model is applied: updates of {layers} linear layers",
        "已应用模型文件夹中的适配器（LoRA）：更新 {layers} 个线性层";
    adapter_has_a_name(name): "--adapter {name}=FOLDER: only `glm chat`, `glm serve` and `glm batch` take names of adapters; write the folder alone",
        "--adapter {name}=FOLDER：只有 `glm chat`、`glm serve` 和 `glm batch` 才接受适配器的名称；请只写文件夹";
    adapters_need_names(): "several adapters need names: write --adapter NAME=FOLDER",
        "多个适配器需要各自的名称：请写成 --adapter NAME=FOLDER";
    no_such_adapter(name, names): "there is no adapter {name}; there are: {names}", "没有名为 {name} 的适配器；可选：{names}";
    adapter_chosen(name): "adapter {name}; the next answer reads the conversation from its beginning",
        "适配器 {name}；下一次回答会从头读取对话";
    adapter_name_is_taken(name): "--adapter {name}=FOLDER: this name is taken already, or has a meaning of its own; choose another",
        "--adapter {name}=FOLDER：这个名称已被使用，或另有含义；请换一个";
    preload_is_in_vain(free):
        "--preload has no effect: the mapped weights do not fit in {free} of free memory",
        "--preload 不起作用：可用内存为 {free}，放不下映射的权重";
    int8_has_no_effect(): "--activations int8 has no effect: only quantized weights are multiplied with int8 activations",
        "--activations int8 不起作用：只有量化的权重才与 int8 激活值相乘";
    weights_are_16_bits(format, read, command):
        "the weights are {format}: {read} are read for every token; `{command}` makes a folder of about a quarter",
        "权重是 {format}：每生成一个 token 要读取 {read}；`{command}` 可把它缩小到约四分之一";
    weights_are_f32(read, command):
        "the weights are F32: {read} are read for every token; `{command}` makes a folder of about an eighth",
        "权重是 F32：每生成一个 token 要读取 {read}；`{command}` 可把它缩小到约八分之一";
    weights_are_joined(size): "{size} of them are published in pieces and are joined in memory when the model is opened",
        "其中 {size} 以分块形式发布，打开模型时在内存中拼接";
    head_is_the_embedding(): "there is no lm_head.weight: the embedding is used as the head",
        "没有 lm_head.weight：用词嵌入作为输出层";
    only_text_is_read(): "this model also reads images: that part of it is left out, and only text is read",
        "此模型还能读取图片：这一部分未被加载，只读取文字";
    prediction_layer_is_left_out():
        "the layer of this model that predicts a further token (multi-token prediction) is left out",
        "此模型中预测后续 token 的层（多 token 预测）未被加载";
    experts_are_streamed(size, free):
        "the model takes {size}, and {free} of memory are free: experts are read from the disk as tokens choose them, at its speed",
        "模型需要 {size}，可用内存为 {free}：token 选中的专家将从磁盘读取，速度取决于磁盘";
    variant_is_assumed(name):
        "nothing says whether this model is ChatGLM2 or ChatGLM3, whose files are alike: it is taken for {name}; --variant decides",
        "ChatGLM2 与 ChatGLM3 的文件相同，这里没有信息能区分：按 {name} 处理；可用 --variant 指定";
    weights_are_converted(size, format, command):
        "{size} of {format} are converted to the kernels' layout in memory when the model is opened; `{command}` does that once, \
        losslessly",
        "{size} 的 {format} 权重在打开模型时要在内存中转换成内核的布局；`{command}` 可一次性无损完成";

    // Perplexity.
    other_tokenizer(name): "the tokenizer of {name} gives other ids for this text: only models with the same tokenizer can be compared",
        "{name} 的分词器对这段文本给出不同的 id：只能比较分词器相同的模型";
    same_file(name): "{name} is read and would be replaced: name another file to write", "要写入的文件就是正在读取的 {name}：请指定另一个文件";
    windows(): "windows", "个窗口";
    perplexity(value): "perplexity {value}", "困惑度 {value}";
    loss(value, tokens): "loss {value}, tokens {tokens}", "损失 {value}，token 数 {tokens}";
    perplexity_of_reference(value, added): "perplexity of the reference {value}, loss added {added}",
        "参照模型的困惑度 {value}，损失增加 {added}";
    divergence(mean, median, percentile, largest): "KL {mean}, median {median}, 99th percentile {percentile}, largest {largest}",
        "KL {mean}，中位数 {median}，第 99 百分位 {percentile}，最大 {largest}";
    same_top(value): "same likeliest token {value}", "最可能的 token 相同 {value}";

    // Quantizing.
    source_is_target(folder): "source and target are the same folder, {folder}: name another folder to write",
        "源和目标是同一个文件夹 {folder}：请指定另一个目标文件夹";
    source_has_no_tokenizer(name): "{name} has no tokenizer: the new folder can be given ids only, until the files of the tokenizer are \
        copied to it",
        "{name} 没有分词器：把分词器的文件复制到新文件夹之前，模型只能处理 id";
    target_is_missing(name): "{name} is a folder: name the folder to write as well, as in `glm quantize {name} DST`",
        "{name} 是文件夹：还需指定目标文件夹，例如 `glm quantize {name} DST`";
    calibrating(tokens, memory): "calibrating with {tokens} tokens; this takes up to {memory} of memory beside the source",
        "用 {tokens} 个 token 校准；除源模型外最多需要 {memory} 内存";
    calibration_memory(needed, available):
        "calibration takes {needed} of memory, and {available} are free: choose fewer --calibration-tokens",
        "校准需要 {needed} 内存，而可用的只有 {available}：请减小 --calibration-tokens";
    calibration_memory_at_least(least, available):
        "calibration takes at least {least} of memory for this model, and {available} are free: close other programs, or quantize \
         without --calibrate",
        "校准此模型至少需要 {least} 内存，而可用的只有 {available}：请关闭其他程序，或不用 --calibrate";
    symmetric_is_for_4_bits(): "--symmetric is for 4 bits: groups of 8 bits never have a minimum",
        "--symmetric 只用于 4 位：8 位的组从来没有最小值";
    choosing_formats(bits): "measuring the matrices, to choose formats of {bits} bits a weight on average",
        "正在测量各矩阵，以选择平均每个权重 {bits} 位的格式";
    choosing_memory(needed, available): "choosing formats takes {needed} of memory, and {available} are free: close other programs",
        "选择格式需要 {needed} 内存，而可用的只有 {available}：请关闭其他程序";
    calibration_goes_on(): "What is done is kept: the same command goes on with it.", "已完成的部分会保留：再次运行同样的命令即可继续。";
    quantized_size(target, size, before): "{target}: {size} from {before}", "{target}：由 {before} 变为 {size}";
    matrices_quantized(number, bits, group): "{number} matrices are now INT{bits} in groups of {group}",
        "{number} 个矩阵已量化为 INT{bits}，每组 {group} 个";
    matrices_quantized_with_minimum(number, bits, group):
        "{number} matrices are now INT{bits} with a minimum, in groups of {group}",
        "{number} 个矩阵已量化为带最小值的 INT{bits}，每组 {group} 个";
    matrices_mixed(number, bits): "{number} matrices now have at most {bits} bits a weight on average; `glm info` shows their formats",
        "{number} 个矩阵已量化，平均每个权重不超过 {bits} 位；`glm info` 可查看各自的格式";
    matrices_kept(number): "{number} matrices were quantized already and keep their integers and scales",
        "{number} 个矩阵原已量化，其整数和缩放系数保持不变";
    head_left_out(name): "{name} is the same as the embedding and was left out", "{name} 与词嵌入相同，已省略";
    took(time): "in {time}", "用时 {time}";
    talk_to(name): "Talk to it with: glm -m {name}", "开始对话：glm -m {name}";

    // `glm pull --quantize`.
    reading_headers(): "reading the headers", "正在读取文件头";
    quantized_so_far(done, total): "quantized {done} of {total};", "已量化 {done} / {total}；";

    // Lists of models.
    no_models(): "There are no models here yet.", "本机还没有模型。";
    incomplete(): "incomplete", "未下载完";
    damaged(): "damaged", "已损坏";
    unsupported(): "not supported", "不支持";
    just_now(): "just now", "刚刚";
    minutes_ago(number): "{number} min ago", "{number} 分钟前";
    hours_ago(number): "{number} h ago", "{number} 小时前";
    days_ago(number): "{number} d ago", "{number} 天前";

    // Removing models.
    remove_model(name, size): "Remove {name}, {size}? [y/N]", "删除 {name}（{size}）？[y/N]";
    removal_needs_yes(): "nothing is removed without a terminal to ask at: add --yes", "没有终端，无法询问，未删除任何内容：请加上 --yes";
    removed(name, size): "{name}: removed, {size} freed", "{name}：已删除，释放 {size}";
    kept(name): "{name}: kept", "{name}：保留";
    folder_is_a_link(path): "{path} is a link to another place: remove the link and what it points to yourself",
        "{path} 是指向别处的链接：请自行删除该链接及其指向的内容";

    // Settings.
    no_such_setting(name, names): "there is no setting {name}; the settings are {names}", "没有设置项 {name}；可用的设置项：{names}";
    setting_is_a_table(name): "{name} must be a text or a number", "{name} 必须是文本或数字";
    setting_is_a_choice(name): "{name} must be true or false", "{name} 必须是 true 或 false";
    setting_is_not_set(name, path): "{name} is not in {path}", "{path} 中没有 {name}";
    variable_is_no_text(name): "{name} is not valid UTF-8", "{name} 不是有效的 UTF-8 文本";
    file_is_too_large(path, most): "{path} is larger than {most} bytes", "{path} 超过 {most} 字节";
    is_default(): "default", "默认值";
    is_newest(): "newest of `glm list`", "`glm list` 中最新的";
    // Errors in the command line.
    unexpected_argument(argument): "unexpected argument `{argument}`", "无法识别的参数 `{argument}`";
    missing_argument(argument): "missing: `{argument}`", "缺少参数：`{argument}`";
    missing_value(argument): "`{argument}` needs a value", "`{argument}` 需要一个值";
    too_many_values(argument, value):
        "`{value}` is one value too many for `{argument}`", "`{argument}` 多了一个值 `{value}`";
    given_twice(argument): "`{argument}` cannot be used twice", "`{argument}` 不能出现两次";
    conflict(argument, other):
        "`{argument}` cannot be used with `{other}`", "`{argument}` 不能与 `{other}` 同时使用";
    invalid_choice(value, argument, choices):
        "invalid value `{value}` for `{argument}`: must be one of `{choices}`",
        "`{argument}` 的值 `{value}` 无效：可选的值有 `{choices}`";
    invalid_value(value, argument, cause):
        "invalid value `{value}` for `{argument}`: {cause}", "`{argument}` 的值 `{value}` 无效：{cause}";
    similar(name): "did you mean `{name}`?", "您是否想用 `{name}`？";
    pass_as_text(argument):
        "to use `{argument}` as text, write `-- {argument}`", "如果 `{argument}` 是文本，请写成 `-- {argument}`";
    usage(usage): "usage: {usage}", "用法：{usage}";
    more_help(): "`--help` explains the arguments", "`--help` 说明各个参数";
    unknown_command(word): "there is no command `{word}`", "没有 `{word}` 这个命令";
    model_in_place_of_command(word):
        "to use it as a model: glm -m {word}", "如果它是模型，请用：glm -m {word}";
    list_of_commands(): "`glm --help` lists the commands", "`glm --help` 列出所有命令";
    between(least, most):
        "must be a whole number from {least} to {most}", "必须是 {least} 到 {most} 的整数";
    at_least(least): "must be a whole number, at least {least}", "必须是不小于 {least} 的整数";
    one_of(choices): "must be one of {choices}", "必须是以下之一：{choices}";
    number_must_be(range): "must be a number {range}", "必须是{range} 的数";
    draft_is_unknown(most):
        "must be auto, off or a number from 1 to {most}", "必须是 auto、off，或 1 到 {most} 的整数";
    how_to_read_a_page():
        "this is input for man: `glm man | man -l -` shows it", "以上是 man 的输入：`glm man | man -l -` 可显示";
    pages_written(count, folder):
        "{count} pages of the manual are in {folder}", "已将 {count} 页手册写入 {folder}";

    // Text, ids and files.
    no_prompt():
        "the prompt is empty: give it as an argument, as in `glm generate Hello`, or on stdin",
        "提示为空：请作为参数给出，如 `glm generate 你好`，或从标准输入给出";
    no_text():
        "the text is empty: give it as an argument, as in `glm fill 'Once upon a [MASK].'`, or on stdin",
        "文本为空：请作为参数给出，如 `glm fill '床前[MASK]光。'`，或从标准输入给出";
    no_question():
        "the text is empty: give a question, or a text with a blank",
        "文本为空：请给出一个问题，或一段带空白的文本";
    no_answers():
        "there are no answers to score: give them as arguments, or one a line on stdin",
        "没有要评分的答案：请作为参数给出，或从标准输入给出，每行一个";
    too_many_blanks(count):
        "the text has {count} blanks, and answers are scored in one: leave one, and write the others out",
        "文本中有 {count} 个空白，而只能在一个空白处评分：请只留一个，把其余的写出来";
    no_ids(): "--ids is an empty list", "--ids 是空列表";
    too_many_ids(count, most):
        "--ids has {count} ids, and the context holds {most}", "--ids 有 {count} 个编号，而上下文只能容纳 {most} 个";
    ids_only(reason): "ids only, no text: {reason}", "只输出编号，没有文本：{reason}";
    not_a_list_of_ids(cause):
        "expected a JSON list of ids such as [5, 6, 7]: {cause}", "应为 JSON 格式的编号列表，如 [5, 6, 7]：{cause}";
    not_a_schema(cause): "expected a JSON schema: {cause}", "应为 JSON 模式（JSON Schema）：{cause}";
    binary_on_terminal():
        "a safetensors file is not written to a terminal: give a file with --out, or redirect stdout",
        "不能把 safetensors 文件写到终端：请用 --out 指定文件，或重定向标准输出";
    too_long(most): "is longer than {most} bytes", "超过 {most} 字节";
    not_utf8(): "is not UTF-8", "不是 UTF-8";
    default_is_unusable(problem): "generation_config.json of the model: {problem}; the program's own default takes its place",
        "模型的 generation_config.json：{problem}；改用程序的默认值";
    is_utf16(): "is UTF-16: save it as UTF-8", "是 UTF-16：请另存为 UTF-8";
    is_lfs_pointer(): "is a git-lfs pointer and not the file itself: run `git lfs pull` in its repository",
        "是 git-lfs 指针，不是文件本身：请在其仓库中运行 `git lfs pull`";
    line_too_long(most): "a line is longer than {most} bytes", "有一行超过 {most} 字节";
    line_not_utf8(): "a line is not UTF-8", "有一行不是 UTF-8";
    no_folder(path): "{path}: there is no such folder", "{path}：没有这个文件夹";
    no_file_name(path): "{path}: is not the name of a file", "{path}：不是文件名";
    no_regular_file(path): "{path}: is no regular file", "{path}：不是普通文件";

    // `glm info`.
    processor(): "processor", "处理器";
    cores_label(): "cores", "核心";
    cores(count, threads): "{count}; threads by default: {threads}", "{count}；默认线程数：{threads}";
    cores_with_fast(count, fast, threads):
        "{count}, {fast} fast; threads by default: {threads}",
        "{count}，其中高性能核心 {fast}；默认线程数：{threads}";
    instruction_sets(): "instruction sets", "指令集";
    chosen(): "chosen", "使用";
    isa_is_forced(variable): "as {variable} says", "由 {variable} 指定";
    isa_is_best(variable): "the best; {variable} forces another", "最快的；{variable} 可指定其他";
    layers(): "layers", "层数";
    hidden_size(): "hidden size", "隐藏层大小";
    heads(): "heads", "注意力头";
    heads_of_values(heads, fewer): "{heads}, of keys and values {fewer}", "{heads}，其中键和值 {fewer}";
    heads_of_size(heads, size): "{heads}, of size {size}", "{heads}，大小 {size}";
    mlp_size(): "MLP size", "MLP 大小";
    experts(): "experts", "专家";
    experts_of_token(count, used, first):
        "{count} in each layer from layer {first} on, {used} of them for a token",
        "自第 {first} 层起每层 {count} 个，每个 token 用其中 {used} 个";
    latent_attention(): "latent attention", "潜在注意力";
    latent_sizes(rank, rotated): "{rank} numbers a token, and {rotated} that are rotated, for all heads",
        "每个 token {rank} 个数，另有 {rotated} 个旋转的数，所有头共用";
    vocabulary(): "vocabulary", "词表";
    context(): "context", "上下文";
    trained_prefix(): "trained prefix", "训练好的前缀";
    positions_of_prefix(tokens): "{tokens} positions (P-Tuning v2)", "{tokens} 个位置（P-Tuning v2）";
    calibration(): "calibration", "校准";
    calibrated_with(method, tokens, text): "{method} with {tokens} tokens, SHA-256 {text}...",
        "{method}，{tokens} 个 token，SHA-256 {text}…";
    bits_of_a_weight(): "bits a weight", "每个权重的位数";
    bits_of_target(bits, target): "{bits} on average; asked for: {target}", "平均 {bits}，指定 {target}";
    matrix(): "matrix", "矩阵";
    count(): "count", "个数";
    shape(): "shape", "形状";
    format(): "format", "格式";
    size(): "size", "大小";
    all_matrices(): "all matrices", "所有矩阵";
    read_per_token(): "read per token", "每 token 读取";
    expert_bytes(experts, always):
        "{experts} are experts, of which each token reads some; {always} are read for every token",
        "{experts} 是专家，每个 token 只读其中一部分；{always} 每个 token 都要读取";
    weights(mapped, copied):
        "weights: {mapped} mapped from the files, {copied} in memory",
        "权重：{mapped} 从文件映射，{copied} 在内存中";
    keys_and_values(): "keys and values", "键和值";
    workspace(): "workspace", "工作区";
    in_all(): "in all", "合计";
    tables(size):
        "of the mapped ones, {size} are tables, of which only the rows of tokens that occur are read",
        "映射的权重中有 {size} 是查找表，只读取出现过的 token 所在的行";
    program(size): "the program with its tokenizer: {size}", "程序和分词器：{size}";
    full_context(): "memory at most, once the context is full:", "上下文填满时最多占用的内存：";
    // glm bench.
    bench_random(): "making random weights", "正在生成随机权重";
    bench_memory(shape, capacity, needed, free):
        "{shape} with {capacity} tokens takes {needed} of memory, and {free} are free",
        "{shape}（{capacity} 个 token）需要 {needed} 内存，而空闲内存只有 {free}";
    bench_lengths(): "--prompts or --depths", "--prompts 或 --depths";
    bench_limits(): "measuring the limits of this machine", "正在测量本机的性能上限";
    bench_fill(tokens): "reading {tokens} tokens of context", "正在读入 {tokens} 个 token 的上下文";
    bench_warm_up(what): "warming up: {what}", "预热：{what}";
    bench_round(what, round, rounds): "measuring {what}, round {round} of {rounds}", "正在测量{what}，第 {round} 轮，共 {rounds} 轮";
    bench_prompt(tokens): "a prompt of {tokens} tokens", "长度为 {tokens} 个 token 的提示词";
    bench_decode(depth): "generation after {depth} tokens", "{depth} 个 token 之后的生成";
    bench_sequences(count): "generation of {count} sequences", "{count} 个序列的同时生成";
    bench_verify(tokens): "a pass of {tokens} tokens", "{tokens} 个 token 的一次前向计算";
    bench_lookup(tokens): "{tokens} tokens with prompt lookup", "使用提示词查找生成的 {tokens} 个 token";
    bench_no_points(context):
        "--plot has nothing to draw: no prompt or depth fits in the context of {context} tokens; name some with --prompts or --depths",
        "--plot 没有可画的数据：{context} 个 token 的上下文容不下默认的长度，请用 --prompts 或 --depths 指定";
    bench_plotted(path): "the picture is in {path}", "图已写入 {path}";

    // Answers.
    reading_prompt(tokens): "reading the prompt, {tokens} tokens", "正在读取提示词，共 {tokens} 个 token";
    context_ended_answer(): "[the context is full, and the answer ends here]", "[上下文已满，回答到此为止]";
    length_ended_answer(most): "[the answer ends here: {most} new tokens are the maximum]", "[回答到此为止：最多生成 {most} 个 token]";
    thought_for(time): "[thought for {time}]", "[思考了 {time}]";
    thought_and_folded(time): "[thought for {time}; /thoughts shows it]", "[思考了 {time}；/thoughts 显示思考内容]";
    answer_stats(read, kept, reading, written, writing, rate):
        "prompt: {read} tokens read, {kept} kept, {reading}; answer: {written} tokens, {writing}, {rate} tokens/s",
        "提示词：读取 {read} 个 token，复用 {kept} 个，{reading}；回答：{written} 个 token，{writing}，每秒 {rate} 个";
    context_stats(used, context): "; context: {used} of {context}", "；上下文：{used}/{context}";
    draft_stats(accepted, drafted, rate):
        "; drafts: {accepted} of {drafted} accepted, {rate} tokens a pass",
        "；草稿：{drafted} 个中接受 {accepted} 个，每轮 {rate} 个 token";

    // Chat.
    chat_begins(summary, context, choice): "{summary}, context {context}, {choice}", "{summary}，上下文 {context}，{choice}";
    with_seed(seed): "seed {seed}", "随机种子 {seed}";
    greedy(): "greedy", "贪心";
    how_to_begin(): "/help lists the commands; Ctrl-D leaves", "/help 列出命令；按 Ctrl-D 退出";
    how_to_leave(): "press Ctrl-C again, or Ctrl-D, to leave", "再按一次 Ctrl-C 或按 Ctrl-D 退出";
    answer_stopped(): "[stopped; Ctrl-C again leaves]", "[已停止；再按一次 Ctrl-C 退出]";
    conversation_in(path): "the conversation in {path}", "{path} 中的对话";
    nothing_to_answer(path):
        "{path} ends with an answer, so there is nothing to answer. To go on talking: glm chat --continue FILE",
        "{path} 以回答结尾，没有要回答的问题。要继续对话：glm chat --continue 文件";
    loaded(count, path): "messages loaded from {path}: {count}", "已从 {path} 载入 {count} 条消息";
    unanswered(question): "its last question has no answer yet: {question}", "最后一个问题还没有回答：{question}";
    rounds_dropped(count):
        "the conversation has become too long; rounds dropped at its beginning: {count}",
        "对话太长，已丢弃最早的 {count} 轮";
    context_advice():
        "/undo removes the last question, /clear starts a new conversation, /set context-overflow drop-oldest drops the oldest rounds (so does the flag --context-overflow drop-oldest)",
        "/undo 撤销上一个问题，/clear 开始新的对话，/set context-overflow drop-oldest 自动丢弃最早的几轮（启动时可用 --context-overflow drop-oldest）";
    overflow_advice():
        "--context-overflow drop-oldest drops the oldest rounds of a conversation that has become too long",
        "使用 --context-overflow drop-oldest 会自动丢弃太长的对话最早的几轮";
    line_is_repaired(number):
        "line {number} is not UTF-8; wrong bytes are read as U+FFFD, here and in further lines",
        "第 {number} 行不是 UTF-8；错误的字节按 U+FFFD 读取，后面的行也一样";
    input_not_utf8():
        "what was entered is not UTF-8; U+FFFD stands for the wrong byte and for what arrived with it",
        "输入的内容不是 UTF-8；错误的字节和随后一起到达的内容以 U+FFFD 代替";
    no_question_yet(): "there is no question yet", "还没有问题";
    nothing_to_undo(): "there is no question to remove", "没有可撤销的问题";
    back_to(question): "removed; the last question is now: {question}", "已撤销；现在最后一个问题是：{question}";
    back_to_beginning(): "removed; this is the beginning of the conversation", "已撤销；对话回到开头";
    cleared(): "a new conversation; the instructions stay", "新的对话；系统指令保留不变";
    nothing_changed(): "nothing was changed", "没有改动";
    editor_failed(editor, status): "{editor}: {status}; nothing was changed", "{editor}：{status}；没有改动";
    where_we_are(count, used, context):
        "messages: {count}; context used: {used} of {context} tokens",
        "消息：{count} 条；上下文：已用 {used} 个 token，共 {context} 个";
    file_of_conversation(path): "/save writes to {path}", "/save 会写入 {path}";
    save_needs_a_name(): "name a file: /save FILE", "请写出文件名：/save 文件";
    exists_already(path): "{path} exists already: choose another name, or remove it first", "{path} 已经存在：请换一个名字，或者先删除它";
    written_to(path): "written to {path}", "已写入 {path}";
    no_such_command(line):
        "{line}: no such command. /help lists the commands; type a space before a question that begins with /",
        "{line}：没有这个命令。/help 列出命令；以 / 开头的问题请在前面加一个空格";
    setting_is_wrong(name, problem, value): "{name} {problem}; found {value}", "{name} {problem}；实际是 {value}";
    no_history(reason): "questions are not remembered for the next run: {reason}", "问题不会保存到下次使用：{reason}";
    history_is_locked(): "another process has locked it", "它被另一个进程锁定";
    not_a_history(path): "{path} is not a history of questions", "{path} 不是问题的历史文件";
    help_set(): "change a setting for the next answers; without a value, show it", "更改之后回答的设置；不写值时显示它";
    help_show(): "show all settings and how much of the context is used", "显示所有设置和上下文的用量";
    help_system(): "give the model instructions; /system none removes them", "给模型系统指令；/system none 删除指令";
    help_regen(): "answer the last question again, with another seed", "换一个随机种子重新回答上一个问题";
    help_edit(): "change the last question in $VISUAL or $EDITOR and ask it again", "用 $VISUAL 或 $EDITOR 修改上一个问题，再问一次";
    help_undo(): "remove the last question and its answer", "撤销上一个问题和它的回答";
    help_clear(): "start a new conversation", "开始新的对话";
    help_save(): "write the conversation as JSON; glm chat --continue FILE goes on with it", "把对话写成 JSON；用 glm chat --continue 文件 可以继续";
    help_adapter(): "answer with this adapter from now on, or with none; without NAME, list them",
        "此后用这个适配器回答，none 表示不用；不带 NAME 则列出全部";
    help_load(): "go on with a conversation that was saved", "继续保存过的对话";
    help_think(): "whether the model thinks before it answers; without a value, show it", "回答前是否思考；不写值时显示当前设置";
    help_thoughts(): "show what the model thought before its last answer", "显示上一个回答之前的思考内容";
    no_thoughts(): "there were no thoughts before the last answer", "上一个回答之前没有思考内容";
    help_stats(): "print speed and context after each answer", "每次回答后显示速度和上下文用量";
    help_help(): "print this list; so does /?", "显示这个列表；/? 也可以";
    help_bye(): "leave; so do /exit, /quit and Ctrl-D", "退出；/exit、/quit 和 Ctrl-D 也可以";
    help_keys():
        "Several lines: put \"\"\" before and after them, or end a line with \\, or press Alt-Enter.\nCtrl-C stops an answer and keeps the text so far; Ctrl-C again leaves. Tab completes commands.\nType a space before a question that begins with /.",
        "多行输入：在前后各加 \"\"\"，或者在行尾加 \\，或者按 Alt-Enter。\nCtrl-C 停止回答并保留已有的文字，再按一次退出。Tab 补全命令。\n以 / 开头的问题请在前面加一个空格。";

    // glm pull.
    pulling(name, missing, total, files): "{name}: downloading {missing} of {total} in {files}",
        "{name}：正在下载 {missing}，共 {total}，{files}";
    calibration_is_there(folder): "{folder} holds a calibration that is not finished: go on with it with the same `glm quantize`, or remove the \
        folder",
        "{folder} 中有尚未完成的校准：请用同样的 `glm quantize` 命令继续，或删除该文件夹";
    origin_is_unclear(file, folder): "{file} does not say what {folder} was made from: remove that folder to make it anew",
        "{file} 没有说明 {folder} 是由什么生成的：请删除该文件夹，以便重新生成";
    not_of_pull(folder, name): "{folder} holds {name}, which `glm pull` has not made: move it elsewhere, or remove it",
        "{folder} 中的 {name} 不是由 `glm pull` 生成的：请将其移走或删除";
    nothing_to_pull(name): "{name}: all files are here already", "{name}：所有文件都已在本机";
    pulled(name, size, time): "{name}: {size} in {time}", "{name}：{size}，用时 {time}";
    same_command_goes_on(): "the same command goes on with the download", "再次运行同一命令可继续下载";
    another_uses(name): "{name}: another process writes or removes it; waiting", "{name}：另一个进程正在写入或删除，等待中";
    model_is_in_use(name): "{name}: another process writes or removes it: wait until it ends", "{name}：另一个进程正在写入或删除：请等待其结束";
    model_is_pulled(name): "{name} cannot be removed while another process writes it: stop that one, or wait until it ends",
        "{name} 正由另一个进程写入，无法删除：请停止该进程，或等待其结束";
    tried_again(cause, time): "{cause}; trying again in {time}", "{cause}；{time} 后重试";
    asked_to_wait(time): "the server asks to wait for {time}: try again later", "服务器要求等待 {time}：请稍后再试";
    stalled(seconds): "nothing arrived for {seconds} s", "{seconds} 秒内没有收到数据";
    no_answer(url): "{url}: no answer", "{url}：没有响应";
    connection_cut(): "the connection was cut", "连接中断";
    answer_too_long(most): "the answer is longer than {most} bytes", "响应超过 {most} 字节";
    server_refuses(url, status): "{url}: the server answers {status}", "{url}：服务器返回 {status}";
    offline(): "HF_HUB_OFFLINE forbids downloads: unset it, or take the model from ModelScope with --from modelscope",
        "HF_HUB_OFFLINE 禁止下载：请取消该变量，或用 --from modelscope 从 ModelScope 下载";
    not_an_endpoint(name, url): "{name} must be an address that starts with https:// or http://, and it is {url}",
        "{name} 必须是以 https:// 或 http:// 开头的地址，而它是 {url}";
    not_a_token(name): "the access token in {name}, or in the file of the hub's own tools, has characters that no token has",
        "{name} 或站点自带工具所存文件中的令牌含有令牌不可能有的字符";
    not_a_revision(name): "{name} is no revision: name a branch, a tag or a commit", "{name} 不是有效的版本：请指定分支、标签或提交";
    repository_is_gated(name, page, variable):
        "{name} is gated: accept its conditions at {page}, then set {variable} to a token of your account",
        "{name} 需要授权：请在 {page} 接受其条款，再把 {variable} 设为您账号的令牌";
    repository_needs_token(name, page, variable):
        "there is no repository {name}, or it is not public: check the name at {page}; if it is private or gated, accept its conditions \
        there and set {variable} to a token of your account",
        "没有仓库 {name}，或者它不公开：请在 {page} 核对名称；若为私有或需要授权，请在该页接受条款，并把 {variable} 设为您账号的令牌";
    no_such_repository(name, hub): "there is no repository {name} at {hub}: check the name", "{hub} 没有仓库 {name}：请核对名称";
    no_such_revision(name, revision): "{name} has no revision {revision}", "{name} 没有版本 {revision}";
    no_such_repository_or_revision(name, revision, hub):
        "there is no repository {name}, no revision {revision} of it, or no such file at {hub}: check the name",
        "{hub} 没有仓库 {name}，或没有版本 {revision}，或没有该文件：请核对名称";
    too_many_requests(hub, variable): "{hub} gets too many requests from here: try again later, or set {variable} to a token of your account",
        "{hub} 收到来自本机的请求过多：请稍后再试，或把 {variable} 设为您账号的令牌";
    nonsense(url): "{url}: the answer is not understood", "{url}：无法理解响应内容";
    foreign_page(url, next): "{url}: the next page is {next}, which is not of the same hub", "{url}：下一页 {next} 不属于同一站点";
    too_many_files(name, most): "{name} has more than {most} files", "{name} 的文件超过 {most} 个";
    unsafe_path(name, path): "{name} has a file with the path `{path}`, which is refused: it could lie outside of the folder",
        "{name} 中文件的路径 `{path}` 被拒绝：它可能位于文件夹之外";
    not_a_hash(text): "the hub names a hash that is none: {text}", "站点给出的哈希值无效：{text}";
    name_on_model_scope(name, other): "{name} is called {other} on ModelScope", "{name} 在 ModelScope 上名为 {other}";
    wrong_hash(path, hash): "{path} does not have the {hash} that the hub names; it was removed: try again, or use another mirror",
        "{path} 与站点给出的 {hash} 不符，已删除：请重试，或换一个镜像";
    starts_again(): "what was here is wrong; starting again", "已有的部分不正确，重新下载";
    longer_than_listed(size): "the server sends more than the {size} bytes of the file", "服务器发送的数据超过文件的 {size} 字节";
    wrong_range(): "the server sends another part than it was asked for", "服务器发送的不是所请求的部分";
    no_such_range(path): "{path} has no such range", "{path} 没有这个范围";
    no_ranges(): "the server cannot send parts of a file, which --quantize needs: use another mirror, or download without --quantize",
        "服务器不支持按范围下载，而 --quantize 需要它：请换一个镜像，或不带 --quantize 下载";
    disk_is_full(): "the disk is full: free some space, then run the same command again", "磁盘已满：请清理空间，再运行同一命令";
    disk_is_too_small(folder, needed, free): "{folder}: the download takes {needed}, and {free} are free on the disk",
        "{folder}：下载需要 {needed}，而磁盘只剩 {free}";
    model_is_not_supported(name, problem): "{name} is not a model that this program can run: config.json {problem}",
        "本程序无法运行 {name}：config.json {problem}";
    no_config(name): "{name} has no config.json: it is not a model that this program can run",
        "{name} 没有 config.json：本程序无法运行它";
    only_gguf(name): "{name} has only GGUF files, which `glm pull` does not download: download one of them and name it, as in `glm chat -m FILE.gguf`, or \
        pull the original model, such as THUDM/chatglm-6b",
        "{name} 只有 GGUF 文件，`glm pull` 不下载这种文件：请自行下载其一并指定，如 `glm chat -m FILE.gguf`，或下载原始模型，例如 THUDM/chatglm-6b";
    no_weights(name, names): "{name} has none of the files of weights that this program reads: {names}, or the same in several files",
        "{name} 没有本程序能读取的权重文件：{names}，或其分片形式";
    file_not_in_repository(path): "the repository has no file {path}", "仓库中没有文件 {path}";
    thread_failed(): "a download failed", "下载失败";

    // glm serve.
    not_an_origin(): "must be an origin such as https://example.org, without a path", "必须是源，例如 https://example.org，不带路径";
    not_a_key(origin, fewest):
        "{origin}: a key is one word of at least {fewest} ASCII characters; `openssl rand -hex 16` makes one",
        "{origin}：密钥必须是至少 {fewest} 个 ASCII 字符，且不含空格；可用 `openssl rand -hex 16` 生成";
    host_needs_key(host): "other machines can reach {host}: set a key with --api-key-file or GLM_API_KEY, or use 127.0.0.1",
        "其他机器可以访问 {host}：请用 --api-key-file 或 GLM_API_KEY 设置密钥，或使用 127.0.0.1";
    no_address(host): "{host} has no address", "{host} 没有地址";
    cannot_listen(address): "{address} cannot be listened on", "无法监听 {address}";
    cache_is_read(tokens, path): "kept prompts were read from {path}: {tokens} tokens", "已从 {path} 读取缓存的提示词：{tokens} 个 token";
    cache_is_not_read(problem): "{problem}. No kept prompts are read, and the file is replaced when the server ends",
        "{problem}。不读取缓存的提示词，服务器结束时会替换此文件";
    cache_is_being_saved(size, path): "kept prompts are being saved to {path} ({size}); another signal ends the server without saving them",
        "正在将缓存的提示词保存到 {path}（{size}）；再次发送信号会立即结束服务器，不再保存";
    cache_file_needs_causal(): "--cache-file: prompts of this bidirectional model have no beginnings to share, so there is nothing to save",
        "--cache-file：此模型是双向的，提示词没有可复用的开头，因此没有可保存的内容";
    serving(model, url): "{model} is served at {url}", "{model} 的服务地址：{url}";
    key_is_needed(): "requests need the key", "请求需要密钥";
    key_is_not_needed(): "requests need no key", "请求不需要密钥";
    draining(seconds): "ending: answers in progress have {seconds} s", "正在结束：进行中的回答还有 {seconds} 秒";
    engine_failed(): "the thread that computes answers has failed", "计算回答的线程出错了";
    field_is_ignored(path, name): "{path}: the field {name} is ignored", "{path}：忽略字段 {name}";
    request_done(line, status, seconds): "{line} {status}: {seconds} s", "{line} {status}：{seconds} 秒";
    request_answered(line, status, prompt, cached, answer, seconds):
        "{line} {status}: prompt {prompt} ({cached} cached), answer {answer} tokens, {seconds} s",
        "{line} {status}：提示词 {prompt}（缓存 {cached}），回答 {answer} 个 token，{seconds} 秒";
    // glm batch.
    not_a_shard(): "must be I/N with I from 1 to N, such as 2/4", "必须是 I/N，其中 I 从 1 到 N，例如 2/4";
    same_id_twice(name, first, second, id): "{name}: the lines {first} and {second} have the same custom_id {id}",
        "{name}：第 {first} 行和第 {second} 行的 custom_id 相同：{id}";
    batch_is_too_long(name, most): "{name}: more than {most} requests: divide the file", "{name}：请求超过 {most} 个：请拆分文件";
    batch_is_too_large(bytes): "more than {bytes} bytes: put the requests in a file", "超过 {bytes} 字节：请把请求存为文件";
    input_has_changed(name, line): "{name}: line {line} has changed since the command began", "{name}：命令开始后第 {line} 行被改动了";
    input_is_utf16(name): "{name}: the file is UTF-16: convert it to UTF-8", "{name}：文件是 UTF-16 编码，请转换为 UTF-8";
    output_is_input(name): "{name} is both input and output: name another file for the answers", "{name} 既是输入又是输出：请另选一个文件保存回答";
    output_is_other(name, line):
        "{name}: line {line} is no answer to a line of this input (or shard) by this model with these flags: name another file, or \
        replace this one with --restart",
        "{name}：第 {line} 行不是这个模型用这些选项对此输入（或分片）的回答：请另选文件，或用 --restart 覆盖";
    output_is_in_use(name): "{name}: another process is writing answers to it", "{name}：另一个进程正在写入";
    line_was_cut(name): "{name}: the last line was cut and is computed again", "{name}：最后一行不完整，将重新计算";
    batch_resumes(done, total): "{done} of {total} requests are answered already", "{total} 个请求中有 {done} 个已有回答";
    batch_tries(count): "requests that failed and are tried again: {count}", "将重试之前失败的请求：{count} 个";
    batch_failed(count):
        "requests that failed and may succeed later: {count}; the same command tries them again, with a higher --kv-memory or --max-sequences if their errors ask for it",
        "失败但以后可能成功的请求：{count} 个；再次运行同一命令会重试，必要时可按其错误信息调高 --kv-memory 或 --max-sequences";
    temporary_file(): "a temporary file", "临时文件";
    batch_done(count, wrong, tokens, seconds, speed):
        "{count} requests answered, {wrong} of them with an error; {tokens} tokens in {seconds}, {speed} tokens/s",
        "已回答 {count} 个请求，其中 {wrong} 个出错；{tokens} 个 token，用时 {seconds}，{speed} token/s";
    batch_goes_on(done, total): "{done} of {total} requests are answered; the same command goes on",
        "{total} 个请求中已回答 {done} 个；再次运行同一命令可继续";
    batch_speed(speed): "{speed} tokens/s", "每秒 {speed} 个 token";
    not_memory(): "must be a number of bytes, or a number with kB, MB, GB or TB, such as 2GB", "必须是字节数，或带 kB、MB、GB、TB 的数，例如 2GB";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_chooses_the_language() {
        let chosen = |variables: &[(&str, &str)]| {
            of(|name| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
        };
        assert_eq!(chosen(&[]), Language::English);
        assert_eq!(chosen(&[("LANG", "zh_CN.UTF-8")]), Language::Chinese);
        assert_eq!(chosen(&[("LC_ALL", "C"), ("LANG", "zh_CN.UTF-8")]), Language::English);
        assert_eq!(chosen(&[("LC_ALL", ""), ("LANG", "zh_TW")]), Language::Chinese);
        assert_eq!(chosen(&[("LC_MESSAGES", "zh_HK"), ("LANG", "en_US")]), Language::Chinese);
    }

    #[test]
    fn both_languages_use_all_arguments() {
        for (name, arguments, english, chinese) in TABLE {
            for argument in *arguments {
                let used = |text: &str| {
                    text.contains(&format!("{{{argument}}}"))
                        || text.contains(&format!("{{{argument}:"))
                };
                assert!(used(english) && used(chinese), "{name}: {argument}");
            }
            let is_chinese = chinese.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c));
            assert!(is_chinese && english.is_ascii(), "{name}");
        }
    }
}
