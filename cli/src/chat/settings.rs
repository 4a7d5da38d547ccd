//! The settings of a chat that can be changed while it runs.

use anyhow::{Result, anyhow};
use glm_model::{ConversationOptions, Overflow};

use crate::args;
use crate::messages;

/// How an answer is generated: a setting of `/set`.
struct Setting {
    name: &'static str,
    /// Values that have a name.
    values: &'static [&'static str],
    get: fn(&ConversationOptions) -> String,
    /// The error says what the value must be.
    set: fn(&mut ConversationOptions, &str) -> Result<(), String>,
    /// Takes the value of other options.
    copy: fn(&mut ConversationOptions, &ConversationOptions),
}

/// The instructions at the beginning of the conversation.
pub const SYSTEM: &str = "system";
/// Whether questions are remembered for the next run.
pub const HISTORY: &str = "history";
/// Whether the model thinks before it answers.
pub const THINK: &str = "think";
/// The value that a setting had when the chat began. For [`THINK`] also that of the template.
const DEFAULT: &str = "default";
const NONE: &str = "none";
const RANDOM: &str = "random";

/// A setting of sampling, with the parser of its flag.
macro_rules! sampling {
    ($name:literal, $field:ident, $parse:expr, $values:expr) => {
        Setting {
            name: $name,
            values: $values,
            get: |options| options.request.sampling.$field.to_string(),
            set: |options, value| {
                options.request.sampling.$field = $parse(value)?;
                Ok(())
            },
            copy: |options, other| options.request.sampling.$field = other.request.sampling.$field,
        }
    };
    ($name:literal, $field:ident) => {
        sampling!($name, $field, args::sampling(|sampling, x| sampling.$field = x), &[DEFAULT])
    };
}

const SETTINGS: &[Setting] = &[
    sampling!("temperature", temperature),
    sampling!("top-p", top_p),
    sampling!("top-k", top_k, args::whole(0..=u64::MAX), &[DEFAULT]),
    sampling!("min-p", min_p),
    sampling!("repetition-penalty", repetition_penalty),
    sampling!("seed", seed, seed, &[RANDOM, DEFAULT]),
    Setting {
        name: "max-new-tokens",
        values: &[NONE, DEFAULT],
        get: |options| {
            options.request.max_new_tokens.map_or_else(|| NONE.to_owned(), |n| n.to_string())
        },
        set: |options, value| {
            options.request.max_new_tokens = match value {
                NONE => None,
                _ => Some(args::positive(value)?),
            };
            Ok(())
        },
        copy: |options, other| options.request.max_new_tokens = other.request.max_new_tokens,
    },
    Setting {
        name: "stop",
        values: &[NONE, DEFAULT],
        get: |options| match options.stop_strings.as_slice() {
            [] => NONE.to_owned(),
            strings => strings.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(" "),
        },
        set: |options, value| {
            match value {
                NONE => options.stop_strings.clear(),
                _ => options.stop_strings.push(value.replace("\\n", "\n")),
            }
            Ok(())
        },
        copy: |options, other| options.stop_strings.clone_from(&other.stop_strings),
    },
    Setting {
        name: "draft",
        values: &["auto", "off", DEFAULT],
        get: |options| match options.request.draft {
            glm_model::Draft::Auto => "auto".to_owned(),
            glm_model::Draft::Fixed(most) => most.to_string(),
            _ => "off".to_owned(),
        },
        set: |options, value| {
            options.request.draft = args::draft(value)?;
            Ok(())
        },
        copy: |options, other| options.request.draft = other.request.draft,
    },
    Setting {
        name: THINK,
        values: &[args::ON, args::OFF, DEFAULT],
        get: |options| match options.prompt.thinking {
            None => DEFAULT.to_owned(),
            Some(true) => args::ON.to_owned(),
            Some(false) => args::OFF.to_owned(),
        },
        set: |options, value| {
            options.prompt.thinking = match value {
                args::ON => Some(true),
                args::OFF => Some(false),
                _ => return Err(messages::one_of("on, off")),
            };
            Ok(())
        },
        copy: |options, other| options.prompt.thinking = other.prompt.thinking,
    },
    Setting {
        name: "context-overflow",
        values: &["error", "drop-oldest", DEFAULT],
        get: |options| match options.overflow {
            Overflow::DropOldest => "drop-oldest".to_owned(),
            _ => "error".to_owned(),
        },
        set: |options, value| {
            options.overflow = match value {
                "error" => Overflow::Error,
                "drop-oldest" => Overflow::DropOldest,
                _ => return Err(messages::one_of("error, drop-oldest")),
            };
            Ok(())
        },
        copy: |options, other| options.overflow = other.overflow,
    },
];

fn seed(value: &str) -> Result<u64, String> {
    match value {
        RANDOM => Ok(args::random_seed()),
        _ => args::whole(0..=u64::MAX)(value),
    }
}

/// The names of all settings.
pub fn names() -> Vec<&'static str> {
    SETTINGS.iter().map(|setting| setting.name).chain([SYSTEM, HISTORY]).collect()
}

/// The values of a setting that have a name.
pub fn values(name: &str) -> &'static [&'static str] {
    match find(name) {
        Ok(setting) => setting.values,
        Err(_) if name == HISTORY => &["on", "off"],
        Err(_) => &[],
    }
}

/// Names and values.
pub fn list(options: &ConversationOptions) -> Vec<(&'static str, String)> {
    SETTINGS.iter().map(|setting| (setting.name, (setting.get)(options))).collect()
}

/// The value of a setting.
///
/// # Errors
/// If there is no such setting.
pub fn get(name: &str, options: &ConversationOptions) -> Result<String> {
    Ok((find(name)?.get)(options))
}

/// The options with another value of a setting; `start` has the default values.
///
/// # Errors
/// If there is no such setting, or the value is outside its range. The error names the range, as that of the flag does.
pub fn changed(
    name: &str,
    value: &str,
    options: &ConversationOptions,
    start: &ConversationOptions,
) -> Result<ConversationOptions> {
    let setting = find(name)?;
    let mut changed = options.clone();
    if value == DEFAULT {
        (setting.copy)(&mut changed, start);
        return Ok(changed);
    }
    (setting.set)(&mut changed, value).map_err(|problem| wrong(name, &problem, value))?;
    Ok(changed)
}

/// An error of a value. `problem` says what it must be.
pub fn wrong(name: &str, problem: &str, value: &str) -> anyhow::Error {
    anyhow!(messages::setting_is_wrong(name, problem, value))
}

fn find(name: &str) -> Result<&'static Setting> {
    let found = SETTINGS.iter().find(|setting| setting.name == name);
    found.ok_or_else(|| anyhow!(messages::no_such_setting(name, names().join(", "))))
}
