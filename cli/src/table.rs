//! Tables for people.

use unicode_width::UnicodeWidthStr;

use crate::units;

/// Rows as lines, with columns of equal width.
pub fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let widths: [usize; N] =
        std::array::from_fn(|at| rows.iter().map(|row| row[at].width()).max().unwrap_or(0));
    let lines = rows.iter().map(|row| {
        let cells = row.iter().zip(widths);
        let cells = cells.map(|(cell, most)| units::left(cell, most));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows =
            [["NAME", "SIZE"], ["未完成", "1 B"], ["a", ""]].map(|row| row.map(str::to_owned));
        assert_eq!(aligned(&rows), "NAME    SIZE\n未完成  1 B\na");
    }
}
