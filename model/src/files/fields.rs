//! The fields of a JSON file in a model's folder. Errors name the file, the field and the allowed range.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::files::model_dir::ModelDir;
use crate::limits::file::MAX_SHOWN;

/// A value as messages show it: JSON, shortened.
pub(crate) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// The fields of one file. A field that is `null` counts as missing.
pub(crate) struct Fields<'f> {
    folder: &'f ModelDir<'f>,
    file: &'static str,
    /// The nested object that errors name, if it is not the whole file.
    section: Option<&'static str>,
    json: Map<String, Value>,
}

impl<'f> Fields<'f> {
    /// The fields of a file; no fields if the file is missing.
    ///
    /// # Errors
    /// As [`ModelDir::json`].
    pub(crate) fn open(folder: &'f ModelDir<'f>, file: &'static str) -> Result<Self> {
        Ok(Self { folder, file, section: None, json: folder.json(file)? })
    }

    /// The fields of `text`, which replaces a missing file.
    ///
    /// # Errors
    /// If the text is no JSON object.
    pub(crate) fn parse(folder: &'f ModelDir<'f>, file: &'static str, text: &str) -> Result<Self> {
        let json = serde_json::from_str(text);
        let json =
            json.map_err(|error| folder.error(file, format!("is no JSON object: {error}")))?;
        Ok(Self { folder, file, section: None, json })
    }

    /// The fields of a nested object; no fields if it is missing.
    pub(crate) fn nested(&self, name: &str) -> Self {
        let json = self.get(name).and_then(Value::as_object).cloned().unwrap_or_default();
        Self { json, ..*self }
    }

    /// The fields of a nested object, which errors name: it has fields of the same names as others of the file.
    pub(crate) fn section(&self, name: &'static str) -> Self {
        Self { section: Some(name), ..self.nested(name) }
    }

    /// The names of all fields.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.json.keys().map(String::as_str)
    }

    /// The folder of the file.
    pub(crate) fn folder(&self) -> &'f ModelDir<'f> {
        self.folder
    }

    /// A field, if it is present.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.json.get(name).filter(|value| !value.is_null())
    }

    /// Whether a field says something: it is no `false`, and not empty.
    pub(crate) fn is_set(&self, name: &str) -> bool {
        match self.get(name) {
            None | Some(Value::Bool(false)) => false,
            Some(Value::Array(list)) => !list.is_empty(),
            Some(Value::Object(map)) => !map.is_empty(),
            Some(Value::String(text)) => !text.is_empty(),
            Some(_) => true,
        }
    }

    /// Whether a field is `null`.
    pub(crate) fn is_null(&self, name: &str) -> bool {
        self.json.get(name).is_some_and(Value::is_null)
    }

    /// Whether a field is present.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// A string, if the field is present and is one.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }

    /// The value of a field as an error shows it.
    pub(crate) fn shown(&self, name: &str) -> String {
        self.json.get(name).map_or_else(|| "missing".to_owned(), shown)
    }

    /// An error about the file.
    pub(crate) fn error(&self, problem: impl Into<String>) -> Error {
        match self.section {
            Some(section) => self.folder.error(self.file, format!("{section}: {}", problem.into())),
            None => self.folder.error(self.file, problem),
        }
    }

    /// An integer in a range.
    pub(crate) fn size(&self, name: &str, range: RangeInclusive<usize>) -> Result<usize> {
        let value = self.get(name).and_then(Value::as_u64);
        let size = value.and_then(|value| usize::try_from(value).ok());
        size.filter(|size| range.contains(size)).ok_or_else(|| {
            let (low, high) = range.into_inner();
            let found = self.shown(name);
            self.error(format!("{name} must be an integer from {low} to {high}, found {found}"))
        })
    }

    /// An integer in a range, or `default` if the field is missing.
    pub(crate) fn size_or(
        &self,
        name: &str,
        range: RangeInclusive<usize>,
        default: usize,
    ) -> Result<usize> {
        if self.has(name) { self.size(name, range) } else { Ok(default) }
    }

    /// A boolean, or `default` if the field is missing.
    pub(crate) fn flag(&self, name: &str, default: bool) -> Result<bool> {
        match self.get(name) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.error(format!("{name} must be true or false, found {other}"))),
        }
    }

    /// Checks that a flag, if present, has the only value that this implementation supports.
    pub(crate) fn require(&self, name: &str, value: bool) -> Result<()> {
        match self.flag(name, value)? == value {
            true => Ok(()),
            false => Err(self.error(format!("{name} must be {value}"))),
        }
    }

    /// A positive number.
    pub(crate) fn positive(&self, name: &str) -> Result<f32> {
        let value = self.get(name).and_then(Value::as_f64).map(|value| value as f32);
        value.filter(|value| *value > 0.0 && value.is_finite()).ok_or_else(|| {
            let found = self.shown(name);
            self.error(format!("{name} must be a positive number, found {found}"))
        })
    }

    /// A positive number, or `default` if the field is missing.
    pub(crate) fn positive_or(&self, name: &str, default: f32) -> Result<f32> {
        if self.has(name) { self.positive(name) } else { Ok(default) }
    }

    /// A token id, less than `vocab`.
    pub(crate) fn id(&self, name: &str, vocab: usize) -> Result<u32> {
        Ok(self.size(name, 0..=vocab - 1)? as u32)
    }

    /// A token id, if the field is present.
    pub(crate) fn id_or_none(&self, name: &str, vocab: usize) -> Result<Option<u32>> {
        self.has(name).then(|| self.id(name, vocab)).transpose()
    }

    /// Those ids below `vocab` in a field that is one id, a list of them, or missing. What is no such id cannot occur in an answer.
    pub(crate) fn known_ids(&self, name: &str, vocab: usize) -> Vec<u32> {
        let listed = match self.get(name) {
            Some(Value::Array(listed)) => listed.as_slice(),
            Some(value) => std::slice::from_ref(value),
            None => &[],
        };
        let ids = listed.iter().filter_map(Value::as_u64).filter(|&id| id < vocab as u64);
        ids.map(|id| id as u32).collect()
    }

    /// Token ids: the field is one id, a list of them, or missing.
    pub(crate) fn ids(&self, name: &str, vocab: usize) -> Result<Vec<u32>> {
        let id = |value: &Value| value.as_u64().filter(|&id| id < vocab as u64).map(|id| id as u32);
        let ids = match self.get(name) {
            None => Some(Vec::new()),
            Some(Value::Array(ids)) => ids.iter().map(id).collect(),
            Some(value) => id(value).map(|id| vec![id]),
        };
        ids.ok_or_else(|| {
            let found = self.shown(name);
            self.error(format!("{name} must be ids below {vocab}, found {found}"))
        })
    }
}
