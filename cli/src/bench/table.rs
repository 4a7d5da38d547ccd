//! A table in Markdown whose rows can be shown one by one.

use glm_model::Model;
use unicode_width::UnicodeWidthStr;

use super::measurement::Measurement;
use crate::units;

/// The columns: what is the same in each row, then what is measured.
pub struct Table {
    /// Model, size, parameters, instruction set and threads.
    constant: [String; 5],
    /// Tokens that are generated in a round.
    tokens: usize,
}

/// Name, least width, and whether it is right-aligned.
const COLUMNS: [(&str, usize, bool); 10] = [
    ("model", 0, false),
    ("size", 0, true),
    ("params", 0, true),
    ("isa", 0, false),
    ("threads", 0, true),
    ("test", 12, false),
    ("t/s", 14, true),
    ("limit", 6, true),
    ("share", 5, true),
    ("speedup", 7, true),
];

impl Table {
    pub fn new(name: &str, model: &Model, tokens: usize) -> Self {
        let inventory = model.inventory();
        let constant = [
            name.to_owned(),
            units::bytes(inventory.bytes()),
            units::parameters(inventory.parameters()),
            model.isa().name().to_owned(),
            model.threads().to_string(),
        ];
        Self { constant, tokens }
    }

    /// The first column.
    pub fn model(&self) -> &str {
        &self.constant[0]
    }

    /// The names of the columns, and the line below them.
    pub fn head(&self) -> String {
        let names = self.line(COLUMNS.map(|(name, ..)| name.to_owned()));
        let rules = self.widths().into_iter().zip(COLUMNS).map(|(width, (.., right))| {
            let dashes = "-".repeat(width + 1);
            if right { format!("{dashes}:") } else { format!(":{dashes}") }
        });
        format!("{names}\n|{}|", rules.collect::<Vec<_>>().join("|"))
    }

    pub fn row(&self, measured: &Measurement) -> String {
        let [name, size, parameters, isa, threads] = self.constant.clone();
        let spread = (measured.most() - measured.least()) / 2.0;
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        self.line([
            name,
            size,
            parameters,
            isa,
            threads,
            measured.test.name(self.tokens),
            speeds(&[measured.median(), spread]).join(" ± "),
            or_none(measured.limit.map(|limit| speeds(&[limit]).join(""))),
            or_none(measured.share().map(|share| format!("{:.0} %", share * 100.0))),
            or_none(measured.speedup.map(|speedup| format!("{speedup:.2}"))),
        ])
    }

    fn line(&self, cells: [String; COLUMNS.len()]) -> String {
        let cells = cells.iter().zip(self.widths()).zip(COLUMNS).map(|((cell, width), column)| {
            let aligned = if column.2 { units::right } else { units::left };
            format!(" {} ", aligned(cell, width))
        });
        format!("|{}|", cells.collect::<Vec<_>>().join("|"))
    }

    /// Characters of the columns on a terminal.
    fn widths(&self) -> [usize; COLUMNS.len()] {
        let mut widths = COLUMNS.map(|(name, least, _)| name.width().max(least));
        for (width, cell) in widths.iter_mut().zip(&self.constant) {
            *width = (*width).max(cell.width());
        }
        widths
    }
}

/// Numbers with as many decimals as give the first at least three digits, two at most.
fn speeds(numbers: &[f64]) -> Vec<String> {
    let decimals = match numbers[0] {
        1000.0.. => 0,
        100.0.. => 1,
        _ => 2,
    };
    numbers.iter().map(|number| format!("{number:.decimals$}")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::measurement::Test;
    use super::*;

    #[test]
    fn columns_are_aligned_whatever_the_name() {
        for name in ["ChatGLM-6B INT4", "模型 F16"] {
            let constant = [name, "3.51 GB", "6.17 B", "avx512", "2"].map(str::to_owned);
            let table = Table { constant, tokens: 16 };
            let mut measured = Measurement::new(Test::Decode(1000), vec![9.0, 8.5, 8.0]);
            let known = table.row(&measured);
            measured.limit = Some(10.0);
            measured.speedup = Some(1.0);
            let text = [table.head(), known, table.row(&measured)].join("\n");
            let lines: Vec<_> = text.lines().collect();
            assert_eq!(lines.len(), 4);
            assert!(lines.iter().all(|line| line.width() == lines[0].width()), "{text}");
            assert!(lines.iter().all(|line| line.matches('|').count() == 11), "{text}");
            assert!(lines[1].starts_with("|:--") && lines[1].ends_with("-:|"), "{text}");
            assert!(lines[2].contains("3.51 GB | 6.17 B | avx512"), "{text}");
            assert!(lines[3].contains("tg16@d1000") && lines[3].contains("8.50 ± 0.50"), "{text}");
            assert!(lines[3].contains(" 10.00 | "), "{text}");
            assert!(lines[3].contains(" 85 % ") && !lines[2].contains('%'), "{text}");
        }
    }

    #[test]
    fn speeds_have_at_least_three_digits() {
        assert_eq!(speeds(&[5.125, 0.5]), ["5.12", "0.50"]);
        assert_eq!(speeds(&[512.34, 1.0]), ["512.3", "1.0"]);
        assert_eq!(speeds(&[23013.96, 124.15]), ["23014", "124"]);
    }
}
