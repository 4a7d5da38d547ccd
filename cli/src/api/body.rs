//! The body of a request: JSON of a type. Fields that the type does not have are ignored, and named.

use crate::limits::request::{LONGEST_NAME, MOST_NAMES};
use std::collections::BTreeSet;

use glm_model::{MOST_JSON_VALUES, check_json_values};
use serde::de::DeserializeOwned;

use super::error::{ApiError, Result};
use super::fields::{Fields, unread};

/// The value, and the names of the fields that it does not have. Names are without the numbers of lists.
///
/// # Errors
/// If the bytes are not JSON of the type.
pub fn parse<T: DeserializeOwned + Fields>(bytes: &[u8]) -> Result<(T, BTreeSet<String>)> {
    check_json_values(bytes, MOST_JSON_VALUES)
        .map_err(|problem| ApiError::invalid(format!("the body {problem}")))?;
    let mut names = BTreeSet::new();
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let mut ignored = |path: serde_ignored::Path<'_>| add(&mut names, &name(&path));
    let json_of = serde_ignored::Deserializer::new(&mut json, &mut ignored);
    let value: T = serde_path_to_error::deserialize(json_of).map_err(|error| {
        let path = error.path().to_string();
        let problem = error.into_inner().to_string();
        match path.as_str() {
            "." | "?" => {
                ApiError::invalid(format!("the body is not the JSON that was expected: {problem}"))
            }
            _ => ApiError::field(&path, format!("{path}: {problem}")),
        }
    })?;
    let rest = json.end();
    rest.map_err(|error| ApiError::invalid(format!("the body is not JSON: {error}")))?;
    unread(&value).iter().for_each(|name| add(&mut names, name));
    Ok((value, names))
}

fn add(names: &mut BTreeSet<String>, name: &str) {
    if names.len() < MOST_NAMES {
        names.insert(name.chars().take(LONGEST_NAME).collect());
    }
}

/// A path without the numbers of lists, so that a field of a hundred messages is named once.
fn name(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Map { parent, key } => match name(parent).as_str() {
            "" => key.clone(),
            parent => format!("{parent}.{key}"),
        },
        Path::Seq { parent, .. }
        | Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => name(parent),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Sample {
        temperature: Option<f32>,
        #[serde(default)]
        inner: Vec<Inner>,
    }

    impl Fields for Sample {}

    #[derive(Debug, Deserialize)]
    struct Inner {
        name: String,
    }

    fn problem(json: &str) -> (String, Option<String>) {
        let error = parse::<Sample>(json.as_bytes()).unwrap_err().body().error;
        (error.message, error.param)
    }

    #[test]
    fn a_body_of_very_many_values_is_refused() {
        let many = format!(r#"{{"x": [{}0]}}"#, "0,".repeat(MOST_JSON_VALUES));
        assert!(problem(&many).0.contains("has more than"));
    }

    #[test]
    fn unknown_fields_are_ignored_and_named() {
        let json = br#"{"temperature": 1, "store": true, "inner": [{"name": "a", "age": 1}]}"#;
        let (sample, names) = parse::<Sample>(json).unwrap();
        assert_eq!((sample.temperature, sample.inner[0].name.as_str()), (Some(1.0), "a"));
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["inner.age", "store"]);
    }

    #[test]
    fn a_wrong_field_is_named() {
        let (message, param) = problem(r#"{"temperature": "hot"}"#);
        assert!(message.contains("temperature") && message.contains("hot"), "{message}");
        assert_eq!(param.as_deref(), Some("temperature"));
        assert_eq!(problem(r#"{"inner": [{}]}"#).1.as_deref(), Some("inner[0]"));
        for json in ["", "[", "{} x", "5", "\u{0}"] {
            assert_eq!(problem(json).1, None, "{json:?}");
        }
    }
}
