//! The picture of a session in the README: drawn from the screen of a pseudo-terminal, and checked to be what the program does.
//! `GLM_BLESS=1` draws it anew.
#![cfg(all(unix, feature = "demo"))]

mod common;

use std::fmt::Write;
use std::path::Path;

use common::terminal::Start;

const ROWS: u16 = 30;
const COLUMNS: u16 = 76;
/// Size of a cell, distance of the text from the edges, height of the title.
const WIDTH: f32 = 8.4;
const HEIGHT: f32 = 19.0;
const MARGIN: f32 = 14.0;
const TITLE: f32 = 30.0;

/// What is entered, and what is waited for before the next input.
const SCRIPT: &[(&str, &str)] = &[
    ("你好\r", "你好！"),
    ("What can you do?\r", "\n"),
    ("My name is Clara.\r", "Clara!"),
    ("What is my name?\r", "Your name is Clara."),
    ("\"\"\"\rSort these numbers:\r42, 7, 19\r\"\"\"\r", "7, 19, 42"),
    ("/set temperature 0.7\r", "temperature 0.7"),
    ("/undo\r", "removed"),
    ("/save talk.json\r", "written to talk.json"),
];

#[test]
fn the_picture_shows_what_the_program_does() {
    let words = ["chat", "--greedy", "--draft", "off"];
    let chat = Start::new(&words).size(ROWS, COLUMNS).open();
    chat.wait_for("\n> ");
    // The first lines name the processor.
    chat.send("\x0c");
    chat.wait_until("an empty screen", |screen| screen.trim() == ">");
    for (input, expected) in SCRIPT {
        let line = format!("> {}\n", input.split('\r').next().unwrap());
        chat.send(input);
        chat.wait_until(expected, |screen| {
            let after = screen.rfind(&line).map(|at| &screen[at + line.len()..]);
            after.is_some_and(|after| after.contains(expected) && after.trim_end().ends_with("\n>"))
        });
    }
    let picture = drawn(&chat.cells(), "glm chat");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("session.svg");
    if std::env::var_os("GLM_BLESS").is_some() {
        std::fs::write(&path, &picture).unwrap();
    }
    let checked_in = std::fs::read_to_string(&path).unwrap();
    assert!(checked_in == picture, "GLM_BLESS=1 draws {} anew:\n{}", path.display(), chat.screen());
    assert!(picture.len() < 60_000, "{} bytes", picture.len());
}

/// The screen as SVG. Each word and each wide character has a place of its own, so that fonts of other widths change little.
fn drawn(screen: &vt100::Screen, title: &str) -> String {
    let rows = 1 + (0..ROWS).rfind(|&row| !runs(screen, row).is_empty()).unwrap_or(0);
    let width = f32::from(COLUMNS) * WIDTH + 2.0 * MARGIN;
    let height = TITLE + f32::from(rows) * HEIGHT + 2.0 * MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, 'Noto Sans Mono CJK SC', 'Noto Sans CJK SC', monospace\" \
         font-size=\"14\" xml:space=\"preserve\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#1e2128\"/>\n\
         <text x=\"{}\" y=\"20\" fill=\"#9aa0ab\" text-anchor=\"middle\">{title}</text>\n",
        width / 2.0
    );
    for row in 0..rows {
        let y = TITLE + MARGIN + f32::from(row) * HEIGHT + HEIGHT * 0.7;
        for run in runs(screen, row) {
            let x = MARGIN + f32::from(run.column) * WIDTH;
            let text = run.text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" {}>{text}</text>", run.style).unwrap();
        }
    }
    svg + "</svg>\n"
}

/// A word, or one wide character.
struct Run {
    style: &'static str,
    text: String,
    column: u16,
    /// The column behind it.
    end: u16,
}

fn runs(screen: &vt100::Screen, row: u16) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for column in 0..COLUMNS {
        let cell = screen.cell(row, column).unwrap();
        if cell.contents().trim().is_empty() {
            continue;
        }
        let style = match cell {
            _ if cell.dim() => "fill=\"#8b93a1\"",
            _ if cell.bold() => "fill=\"#56c2d6\" font-weight=\"bold\"",
            _ => "fill=\"#e4e7ec\"",
        };
        match runs.last_mut() {
            Some(run) if run.style == style && run.end == column && !cell.is_wide() => {
                run.text += cell.contents();
                run.end += 1;
            }
            _ => {
                let text = cell.contents().to_owned();
                // What follows a wide character does not belong to it.
                let end = if cell.is_wide() { u16::MAX } else { column + 1 };
                runs.push(Run { style, text, column, end });
            }
        }
    }
    runs
}
