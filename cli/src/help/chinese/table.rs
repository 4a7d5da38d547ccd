//! x
pub const TABLE: &[(&str, &str)] = &[];
