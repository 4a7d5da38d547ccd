//! `glm config`: the defaults of flags.

use std::path::{self, Path};

use anyhow::Result;
use serde_json::{Value, json};

use crate::args::{Config, Edit};
use crate::output::{self, note};
use crate::settings::{self, MODEL, NAMES, settings};
use crate::{failure, messages, models, table};

pub fn run(args: &Config) -> Result<()> {
    match &args.edit {
        None => show(args.json),
        Some(Edit::Path) => output::line(&settings::path()?.display().to_string()),
        Some(Edit::Set { name, values }) => {
            settings::check(name, values)?;
            let values = match name.as_str() {
                MODEL => vec![model(&values.concat())?],
                _ => values.clone(),
            };
            settings::set(&settings::path()?, name, &values)
        }
        Some(Edit::Unset { name }) => {
            let file = settings::path()?;
            if !settings::unset(&file, name)? {
                note(&messages::setting_is_not_set(name, file.display()));
            }
            Ok(())
        }
    }
}

/// The name of a model as it is written to the file: the path of a folder is made absolute, so that it is the same model everywhere.
/// A model that is not here is noted.
fn model(name: &str) -> Result<String> {
    match models::find(Path::new(name)) {
        Ok(found) if found.is_path() => Ok(path::absolute(found.folder)?.display().to_string()),
        Ok(_) => Ok(name.to_owned()),
        Err(error) => {
            note(&failure::message(&error));
            Ok(name.to_owned())
        }
    }
}

/// Prints every setting, its value and where that comes from.
fn show(as_json: bool) -> Result<()> {
    let settings = settings()?;
    let all = NAMES.iter().map(|name| match settings.get(name) {
        Some(value) => Row { name, words: value.words.clone(), origin: value.origin.to_string() },
        None => default(name),
    });
    if as_json {
        return output::json(&all.map(Row::json).collect());
    }
    let heads = ["NAME", "VALUE", "FROM"].map(str::to_owned);
    let rows = all.map(Row::cells);
    output::line(&table::aligned(&std::iter::once(heads).chain(rows).collect::<Vec<_>>()))
}

/// A setting. It has no words if the model decides.
struct Row {
    name: &'static str,
    words: Vec<String>,
    origin: String,
}

/// A setting that has no value: the default of its flag, and for the model the newest.
fn default(name: &'static str) -> Row {
    let newest = if name == MODEL { models::newest() } else { None };
    let (word, origin) = match newest {
        Some(found) => (Some(found.name), messages::is_newest()),
        None => (settings::default(name), messages::is_default()),
    };
    Row { name, words: word.into_iter().filter(|word| !word.is_empty()).collect(), origin }
}

impl Row {
    fn cells(self) -> [String; 3] {
        let value = if self.words.is_empty() { "-".to_owned() } else { self.words.join(", ") };
        [self.name.to_owned(), value, self.origin]
    }

    fn json(self) -> Value {
        let value = match self.words.as_slice() {
            [] => Value::Null,
            [word] => json!(word),
            words => json!(words),
        };
        json!({ "name": self.name, "value": value, "origin": self.origin })
    }
}
