//! The values of a GGUF file's metadata.

use crate::files::cursor::Cursor;
use crate::limits::gguf::MAX_DEPTH;
use crate::memory::{copy, copy_text};

/// The type of a value, and of the elements of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    Array,
    U64,
    I64,
    F64,
}

impl Kind {
    fn read(cursor: &mut Cursor<'_>) -> Result<Self, String> {
        use Kind::{Array, Bool, F32, F64, I8, I16, I32, I64, Text, U8, U16, U32, U64};
        let kinds = [U8, I8, U16, I16, U32, I32, F32, Bool, Text, Array, U64, I64, F64];
        let code = cursor.u32()?;
        let kind = kinds.get(code as usize).copied();
        kind.ok_or_else(|| format!("has a value of type {code}, and the types are 0 to 12"))
    }

    /// The fewest bytes that a value takes.
    fn least(self) -> usize {
        match self {
            Kind::U8 | Kind::I8 | Kind::Bool => 1,
            Kind::U16 | Kind::I16 => 2,
            Kind::U32 | Kind::I32 | Kind::F32 => 4,
            Kind::U64 | Kind::I64 | Kind::F64 | Kind::Text => 8,
            Kind::Array => 12,
        }
    }
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    Array(Array),
}

/// A checked array. Its elements stay as the file has them, so that it takes no more memory than there.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Array {
    kind: Kind,
    len: usize,
    bytes: Vec<u8>,
}

impl Value {
    pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<Self, String> {
        let kind = Kind::read(cursor)?;
        Self::of(kind, cursor)
    }

    fn of(kind: Kind, cursor: &mut Cursor<'_>) -> Result<Self, String> {
        Ok(match kind {
            Kind::U8 => Value::Unsigned(u8::from_le_bytes(cursor.array()?).into()),
            Kind::U16 => Value::Unsigned(u16::from_le_bytes(cursor.array()?).into()),
            Kind::U32 => Value::Unsigned(cursor.u32()?.into()),
            Kind::U64 => Value::Unsigned(cursor.u64()?),
            Kind::I8 => Value::Signed(i8::from_le_bytes(cursor.array()?).into()),
            Kind::I16 => Value::Signed(i16::from_le_bytes(cursor.array()?).into()),
            Kind::I32 => Value::Signed(i32::from_le_bytes(cursor.array()?).into()),
            Kind::I64 => Value::Signed(i64::from_le_bytes(cursor.array()?)),
            Kind::F32 => Value::Float(f32::from_le_bytes(cursor.array()?).into()),
            Kind::F64 => Value::Float(f64::from_le_bytes(cursor.array()?)),
            Kind::Bool => Value::Bool(boolean(cursor)?),
            Kind::Text => {
                let text = copy_text(cursor.text()?, "its text");
                Value::Text(text.map_err(|error| error.to_string())?)
            }
            Kind::Array => {
                let (kind, len) = array_start(cursor)?;
                let bytes = cursor.consumed(|cursor| skip(kind, len, cursor, 1))?;
                let bytes = copy(bytes, "its array").map_err(|error| error.to_string())?;
                Value::Array(Array { kind, len, bytes })
            }
        })
    }

    /// The integer, if it is one that is not negative.
    pub(crate) fn unsigned(&self) -> Option<u64> {
        match *self {
            Value::Unsigned(value) => Some(value),
            Value::Signed(value) => u64::try_from(value).ok(),
            _ => None,
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn array(&self) -> Option<&Array> {
        match self {
            Value::Array(array) => Some(array),
            _ => None,
        }
    }

    /// The value in JSON. Arrays have none. Numbers that are not finite are strings there, so that an error can show them.
    pub(crate) fn json(&self) -> Option<serde_json::Value> {
        Some(match self {
            Value::Unsigned(value) => (*value).into(),
            Value::Signed(value) => (*value).into(),
            Value::Float(value) => match serde_json::Number::from_f64(*value) {
                Some(number) => number.into(),
                None => value.to_string().into(),
            },
            Value::Bool(value) => (*value).into(),
            Value::Text(text) => text.as_str().into(),
            Value::Array(_) => return None,
        })
    }
}

impl Array {
    /// Elements.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The elements, if they are strings.
    pub(crate) fn texts(&self) -> Option<impl Iterator<Item = &str>> {
        let mut cursor = Cursor::new(&self.bytes);
        // The elements were checked when the array was read.
        (self.kind == Kind::Text).then(|| (0..self.len).map_while(move |_| cursor.text().ok()))
    }

    /// The elements, if they are integers of 32 bits.
    pub(crate) fn integers(&self) -> Option<impl Iterator<Item = i32>> {
        let numbers = self.bytes.as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes));
        matches!(self.kind, Kind::I32 | Kind::U32).then_some(numbers)
    }

    /// The elements, if they are floating-point numbers of 32 bits.
    pub(crate) fn floats(&self) -> Option<impl Iterator<Item = f32>> {
        let numbers = self.bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        (self.kind == Kind::F32).then_some(numbers)
    }
}

fn boolean(cursor: &mut Cursor<'_>) -> Result<bool, String> {
    let [byte] = cursor.array()?;
    match byte {
        0 | 1 => Ok(byte == 1),
        other => Err(format!("has a boolean of {other}, which is neither 0 nor 1")),
    }
}

/// The type of the elements and their number, which the rest of the file can hold.
fn array_start(cursor: &mut Cursor<'_>) -> Result<(Kind, usize), String> {
    let kind = Kind::read(cursor)?;
    let len = cursor.count(kind.least(), "elements of an array")?;
    Ok((kind, len))
}

/// Checks `len` values of one type and passes over them.
fn skip(kind: Kind, len: usize, cursor: &mut Cursor<'_>, depth: usize) -> Result<(), String> {
    match kind {
        Kind::Text => (0..len).try_for_each(|_| cursor.text().map(|_| ())),
        Kind::Bool => (0..len).try_for_each(|_| boolean(cursor).map(|_| ())),
        Kind::Array if depth == MAX_DEPTH => {
            Err(format!("has arrays in arrays of more than {MAX_DEPTH} levels"))
        }
        Kind::Array => (0..len).try_for_each(|_| {
            let (kind, len) = array_start(cursor)?;
            skip(kind, len, cursor, depth + 1)
        }),
        // No overflow: `count` has compared the product with the rest of the file.
        number => cursor.take(len * number.least()).map(|_| ()),
    }
}
