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
    no_such_model(name, hub, quantized, command):
        "there is no model {name}: it is no folder, and neither in {hub} nor in {quantized}. `{command}` downloads it; `glm list` shows \
        the models that are here",
        "没有模型 {name}：既没有这个文件夹，{hub} 和 {quantized} 中也没有。运行 `{command}` 下载；`glm list` 列出本机的模型";
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
    shape_needs_memory(shape, capacity, needed, available):
        "{shape} with {capacity} tokens takes {needed} of memory, and {available} are free",
        "{shape} 加上 {capacity} 个 token 的上下文需要 {needed} 内存，而可用的只有 {available}";
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
    weights_are_converted(size, format, command):
        "{size} of {format} are converted to the kernels' layout in memory when the model is opened; `{command}` does that once, \
        losslessly",
        "{size} 的 {format} 权重在打开模型时要在内存中转换成内核的布局；`{command}` 可一次性无损完成";

    // Quantizing.
    source_is_target(folder): "source and target are the same folder, {folder}: name another folder to write",
        "源和目标是同一个文件夹 {folder}：请指定另一个目标文件夹";
    source_has_no_tokenizer(name): "{name} has no tokenizer: the result can be given ids only, until the files of the tokenizer are copied \
        to it",
        "{name} 没有分词器：把分词器的文件复制到结果文件夹之前，结果只能处理 id";
    target_is_missing(name): "{name} is a folder: name the folder to write as well, as in `glm quantize {name} DST`",
        "{name} 是文件夹：还需指定目标文件夹，例如 `glm quantize {name} DST`";
    quantized_size(target, size, before): "{target}: {size} from {before}", "{target}：由 {before} 变为 {size}";
    matrices_quantized(number, bits, group): "{number} matrices are now INT{bits} in groups of {group}",
        "{number} 个矩阵已量化为 INT{bits}，每组 {group} 个";
    matrices_kept(number): "{number} matrices were quantized already and keep their integers and scales",
        "{number} 个矩阵原已量化，其整数和缩放系数保持不变";
    head_left_out(name): "{name} is the same as the embedding and was left out", "{name} 与词嵌入相同，已省略";
    took(time): "in {time}", "用时 {time}";
    talk_to(name): "Talk to it with: glm -m {name}", "开始对话：glm -m {name}";

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
