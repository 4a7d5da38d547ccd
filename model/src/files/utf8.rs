//! Text files. Some editors put a byte-order mark before the text, which is no part of it, and some write UTF-16.

use std::fmt;

/// What UTF-8 may begin with.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// The two bytes that UTF-16 begins with.
const UTF_16: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];

/// Bytes that are examined for the zeros of a UTF-16 without a mark.
const SAMPLE: usize = 64;

/// Why bytes are not the text of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotUtf8 {
    /// They are UTF-16.
    Utf16,
    /// They are something else.
    Other,
}

impl fmt::Display for NotUtf8 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Utf16 => "is UTF-16: save it as UTF-8",
            Self::Other => "is not UTF-8",
        })
    }
}

impl std::error::Error for NotUtf8 {}

/// The text of a file, without a byte-order mark.
///
/// # Errors
/// If the bytes are not UTF-8.
pub fn utf8(bytes: &[u8]) -> Result<&str, NotUtf8> {
    if is_utf_16(bytes) {
        return Err(NotUtf8::Utf16);
    }
    let text = bytes.strip_prefix(MARK).unwrap_or(bytes);
    str::from_utf8(text).map_err(|_| NotUtf8::Other)
}

/// The same of bytes that are not needed any more.
///
/// # Errors
/// As [`utf8`].
pub fn owned_utf8(mut bytes: Vec<u8>) -> Result<String, NotUtf8> {
    if is_utf_16(&bytes) {
        return Err(NotUtf8::Utf16);
    }
    if bytes.starts_with(MARK) {
        bytes.drain(..MARK.len());
    }
    String::from_utf8(bytes).map_err(|_| NotUtf8::Other)
}

/// Whether the bytes are UTF-16: by their mark, or because every second byte of the beginning is zero. JSON, templates and Latin letters
/// are like that, and no text in UTF-8 is.
fn is_utf_16(bytes: &[u8]) -> bool {
    if UTF_16.iter().any(|mark| bytes.starts_with(mark)) {
        return true;
    }
    let sample = &bytes[..bytes.len().min(SAMPLE) & !1];
    let zeros = |first: usize| sample.iter().skip(first).step_by(2).all(|&byte| byte == 0);
    sample.len() >= 4 && (zeros(0) != zeros(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_no_text_and_utf_16_is_named() {
        let utf_16 = |text: &str, big: bool| -> Vec<u8> {
            let bytes = |unit: u16| if big { unit.to_be_bytes() } else { unit.to_le_bytes() };
            text.encode_utf16().flat_map(bytes).collect()
        };
        for (bytes, expected) in [
            (b"\xef\xbb\xbf{}".to_vec(), Ok("{}")),
            (b"\xef\xbb\xbf".to_vec(), Ok("")),
            ("你好".into(), Ok("你好")),
            // Only the first is a mark.
            ("\u{feff}\u{feff}a".into(), Ok("\u{feff}a")),
            (b"a\0b".to_vec(), Ok("a\0b")),
            (b"\xff".to_vec(), Err(NotUtf8::Other)),
            (utf_16("\u{feff}你好", false), Err(NotUtf8::Utf16)),
            (utf_16("\u{feff}{}", true), Err(NotUtf8::Utf16)),
            (utf_16("{\"a\": 1}", false), Err(NotUtf8::Utf16)),
            (utf_16("{\"a\": 1}", true), Err(NotUtf8::Utf16)),
        ] {
            assert_eq!(utf8(&bytes), expected, "{bytes:?}");
            assert_eq!(owned_utf8(bytes.clone()).as_deref(), expected.as_ref().map(|text| *text));
        }
    }
}
