//! How much memory JSON takes: a value of two bytes in a file may take some seventy in memory.

/// Checks that JSON has at most `most` values, without building them.
///
/// # Errors
/// If it may have more.
pub fn check_json_values(json: &[u8], most: usize) -> Result<(), String> {
    match values(json) <= most {
        true => Ok(()),
        false => Err(format!("has more than {most} values")),
    }
}

/// At least the number of values: one after each comma and each opening bracket outside of strings, and the whole.
fn values(json: &[u8]) -> usize {
    let mut values = 1;
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b',' | b'[' | b'{' => values += 1,
            b'"' => {
                while let Some(byte) = bytes.next()
                    && *byte != b'"'
                {
                    if *byte == b'\\' {
                        bytes.next();
                    }
                }
            }
            _ => {}
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_outside_of_strings() {
        for (json, expected) in [
            ("1", 1),
            (r#""a,[{""#, 1),
            (r#"["a\",[", "\\", 2]"#, 4),
            (r#"{"a": [], "b": {"c": null}}"#, 5),
            (r#""cut off \"#, 1),
        ] {
            assert_eq!(values(json.as_bytes()), expected, "{json}");
        }
        assert!(check_json_values(b"[1,2]", 3).is_ok());
        assert_eq!(check_json_values(b"[1,2]", 2).unwrap_err(), "has more than 2 values");
    }
}
