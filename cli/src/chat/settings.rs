//! The settings of a chat that can be changed while it runs.

use anyhow::{Result, anyhow};
use glm_model::{ConversationOptions, Overflow};

use crate::args;
use crate::messages;

/// How an answer is generated: a setting of `/set`.
struct Setting {
    name: &'static str,
    /// What its values are, for people.
    range: fn() -> String,
    /// Values that have a name.
    values: &'static [&'static str],
    get: fn(&ConversationOptions) -> String,
    /// `None` if the value is none of `range`.
    set: fn(&mut ConversationOptions, &str) -> Option<()>,
    /// Takes the value of other options.
    copy: fn(&mut ConversationOptions, &ConversationOptions),
}

/// The instructions at the beginning of the conversation.
pub const SYSTEM: &str = "system";
/// Whether questions are remembered for the next run.
pub const HISTORY: &str = "history";
/// The value that a setting had when the chat began.
const DEFAULT: &str = "default";
const NONE: &str = "none";

const SETTINGS: &[Setting] = &[
    Setting {
        name: "temperature",
        range: || messages::range_numbers(0, 100),
        values: &[DEFAULT],
        get: |options| options.request.sampling.temperature.to_string(),
        set: |options, value| assign(&mut options.request.sampling.temperature, value),
        copy: |options, other| {
            options.request.sampling.temperature = other.request.sampling.temperature
        },
    },
    Setting {
        name: "top-p",
        range: messages::range_top_p,
        values: &[DEFAULT],
        get: |options| options.request.sampling.top_p.to_string(),
        set: |options, value| assign(&mut options.request.sampling.top_p, value),
        copy: |options, other| options.request.sampling.top_p = other.request.sampling.top_p,
    },
    Setting {
        name: "top-k",
        range: messages::range_top_k,
        values: &[DEFAULT],
        get: |options| options.request.sampling.top_k.to_string(),
        set: |options, value| assign(&mut options.request.sampling.top_k, value),
        copy: |options, other| options.request.sampling.top_k = other.request.sampling.top_k,
    },
    Setting {
        name: "min-p",
        range: || messages::range_numbers(0, 1),
        values: &[DEFAULT],
        get: |options| options.request.sampling.min_p.to_string(),
        set: |options, value| assign(&mut options.request.sampling.min_p, value),
        copy: |options, other| options.request.sampling.min_p = other.request.sampling.min_p,
    },
    Setting {
        name: "repetition-penalty",
        range: || messages::range_numbers(0.01, 100),
        values: &[DEFAULT],
        get: |options| options.request.sampling.repetition_penalty.to_string(),
        set: |options, value| assign(&mut options.request.sampling.repetition_penalty, value),
        copy: |options, other| {
            options.request.sampling.repetition_penalty = other.request.sampling.repetition_penalty
        },
    },
    Setting {
        name: "seed",
        range: messages::range_seed,
        values: &["random", DEFAULT],
        get: |options| options.request.sampling.seed.to_string(),
        set: |options, value| match value {
            "random" => {
                options.request.sampling.seed = args::random_seed();
                Some(())
            }
            _ => assign(&mut options.request.sampling.seed, value),
        },
        copy: |options, other| options.request.sampling.seed = other.request.sampling.seed,
    },
    Setting {
        name: "max-new-tokens",
        range: messages::range_max_tokens,
        values: &[NONE, DEFAULT],
        get: |options| {
            options.request.max_new_tokens.map_or_else(|| NONE.to_owned(), |n| n.to_string())
        },
        set: |options, value| {
            options.request.max_new_tokens = match value {
                NONE => None,
                _ => Some(args::positive(value).ok()?),
            };
            Some(())
        },
        copy: |options, other| options.request.max_new_tokens = other.request.max_new_tokens,
    },
    Setting {
        name: "stop",
        range: messages::range_stop,
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
            Some(())
        },
        copy: |options, other| options.stop_strings.clone_from(&other.stop_strings),
    },
    Setting {
        name: "draft",
        range: || messages::range_draft(glm_model::MAX_DRAFT),
        values: &["auto", "off", DEFAULT],
        get: |options| match options.request.draft {
            glm_model::Draft::Auto => "auto".to_owned(),
            glm_model::Draft::Fixed(most) => most.to_string(),
            _ => "off".to_owned(),
        },
        set: |options, value| {
            options.request.draft = args::draft(value).ok()?;
            Some(())
        },
        copy: |options, other| options.request.draft = other.request.draft,
    },
    Setting {
        name: "context-overflow",
        range: || messages::range_words("error, drop-oldest"),
        values: &["error", "drop-oldest", DEFAULT],
        get: |options| match options.overflow {
            Overflow::DropOldest => "drop-oldest".to_owned(),
            _ => "error".to_owned(),
        },
        set: |options, value| {
            options.overflow = match value {
                "error" => Overflow::Error,
                "drop-oldest" => Overflow::DropOldest,
                _ => return None,
            };
            Some(())
        },
        copy: |options, other| options.overflow = other.overflow,
    },
];

fn assign<T: std::str::FromStr>(field: &mut T, value: &str) -> Option<()> {
    *field = value.parse().ok()?;
    Some(())
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
/// If there is no such setting, or its range does not include the value. The error names the range.
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
    (setting.set)(&mut changed, value)
        .filter(|()| changed.request.sampling.validate().is_ok())
        .ok_or_else(|| wrong(name, &(setting.range)(), value))?;
    Ok(changed)
}

/// What is wrong with a value.
pub fn wrong(name: &str, range: &str, value: &str) -> anyhow::Error {
    anyhow!(messages::setting_out_of_range(name, range, value))
}

fn find(name: &str) -> Result<&'static Setting> {
    let found = SETTINGS.iter().find(|setting| setting.name == name);
    found.ok_or_else(|| anyhow!(messages::no_such_setting(name, names().join(", "))))
}
