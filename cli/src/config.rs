//! `glm config`: the defaults of flags.

use anyhow::Result;
use serde_json::{Value, json};

use crate::args::{Config, Edit};
use crate::output::{self, note};
use crate::settings::{self, NAMES, settings};
use crate::{failure, messages, table};

pub fn run(args: &Config) -> Result<()> {
    match &args.edit {
        None => show(args.json),
        Some(Edit::Path) => output::line(&settings::path()?.display().to_string()),
        Some(Edit::Set { name, values }) => {
            settings::check(name, values).map_err(|error| failure::usage(error.to_string()))?;
            settings::set(&settings::path()?, name, values)
        }
        Some(Edit::Unset { name }) => {
            let path = settings::path()?;
            if !settings::unset(&path, name)? {
                note(&messages::setting_is_not_set(name, path.display()));
            }
            Ok(())
        }
    }
}

/// Prints every setting, its value and where that comes from.
fn show(as_json: bool) -> Result<()> {
    let settings = settings()?;
    if as_json {
        let setting = |name: &&str| -> Value {
            let value = settings.get(name);
            let words = value.map(|value| match value.words.as_slice() {
                [word] => json!(word),
                words => json!(words),
            });
            let default = settings::default(name).filter(|text| !text.is_empty());
            json!({
                "name": name,
                "value": words.or(default.map(Value::from)),
                "origin": value.map_or("default".to_owned(), |value| value.origin.to_string()),
            })
        };
        return output::json(&NAMES.iter().map(setting).collect());
    }
    let heads = ["NAME", "VALUE", "FROM"].map(str::to_owned);
    let rows = NAMES.iter().map(|name| match settings.get(name) {
        Some(value) => [(*name).to_owned(), value.words.join(", "), value.origin.to_string()],
        None => {
            let default = settings::default(name).filter(|text| !text.is_empty());
            let value = default.unwrap_or_else(|| "-".to_owned());
            [(*name).to_owned(), value, messages::is_default()]
        }
    });
    output::line(&table::aligned(&std::iter::once(heads).chain(rows).collect::<Vec<_>>()))
}
