//! A text in the user's own editor.

use std::io::{Read, Write};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use glm_model::open_regular;

use crate::limits::input::MAX_EDITED;
use crate::{messages, tty};

/// The editor where neither `VISUAL` nor `EDITOR` names one.
const FALLBACK: &str = if cfg!(windows) { "notepad" } else { "vi" };

/// Opens the editor on `text` and returns what was written, or `None` if nothing was changed or all was removed.
///
/// # Errors
/// If the editor cannot be started or fails.
pub fn edited(text: &str) -> Result<Option<String>> {
    let mut file = tempfile::Builder::new().prefix("glm-").suffix(".txt").tempfile()?;
    file.write_all(text.as_bytes())?;
    file.flush()?;
    let name = ["VISUAL", "EDITOR"].into_iter().filter_map(|name| std::env::var(name).ok());
    let editor = name.into_iter().find(|editor| !editor.is_empty());
    let editor = editor.unwrap_or_else(|| FALLBACK.to_owned());
    let mut command = started(&editor);
    let status = tty::lend(|| command.arg(file.path()).status());
    let status = status.with_context(|| editor.clone())?;
    ensure!(status.success(), messages::editor_failed(editor, status));
    // An editor may have put another file in its place.
    let mut bytes = Vec::new();
    open_regular(file.path())?.take(MAX_EDITED).read_to_end(&mut bytes)?;
    let written = String::from_utf8_lossy(&bytes);
    let written = written.trim_end_matches(['\n', '\r']);
    let is_new = !written.trim().is_empty() && written != text;
    Ok(is_new.then(|| written.to_owned()))
}

/// The editor with its own arguments: the variables may name some.
fn started(editor: &str) -> Command {
    if cfg!(windows) {
        return Command::new(editor);
    }
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("exec {editor} \"$1\""), "sh"]);
    shell
}
