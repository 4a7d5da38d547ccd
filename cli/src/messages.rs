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
