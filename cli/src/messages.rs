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
