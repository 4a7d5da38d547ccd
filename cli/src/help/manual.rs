//! `glm man`: pages of the manual, from the definitions of the arguments.

use std::fs;
use std::io::{IsTerminal, Write, stdout};

use anyhow::{Context, Result};
use clap::Command;
use clap_mangen::roff::{Roff, bold, roman};

use super::footer::{self, Block};
use crate::args::{self, Man};
use crate::failure::usage;
use crate::output::{self, note};
use crate::{file, messages};

const EXIT_STATUS: [(&str, &str); 4] = [
    ("0", "Success."),
    (
        "1",
        "Failure: a file, a model, the network, the memory, or a text that does not fit in the context.",
    ),
    (
        "2",
        "Wrong usage: an unknown command, flag or setting, or a value that is missing, cannot be parsed or is out of range, on the \
         command line, in the environment or in the file of settings.",
    ),
    ("130", "Stopped by Ctrl-C."),
];

const ENVIRONMENT: [(&str, &str); 16] = [
    ("GLM_MODEL", "The model where -m names none."),
    ("GLM_THREADS", "The number of threads where --threads gives none."),
    (
        "GLM_ISA",
        "The instruction set in place of the best that the processor has; `glm info --cpu` lists them.",
    ),
    ("GLM_API_KEY", "The key of `glm serve` where --api-key-file names none."),
    ("HF_HOME", "The folder of the Hugging Face hub, by default ~/.cache/huggingface."),
    ("HF_HUB_CACHE", "The cache of its models, by default the folder hub in HF_HOME."),
    (
        "HF_ENDPOINT",
        "The address from which models are downloaded in place of https://huggingface.co.",
    ),
    ("HF_TOKEN", "The access token for models that are not public."),
    ("HF_HUB_OFFLINE", "If it is 1, nothing is downloaded from the Hugging Face hub."),
    (
        "MODELSCOPE_ENDPOINT, MODELSCOPE_API_TOKEN",
        "The address in place of https://modelscope.cn, and the access token there.",
    ),
    (
        "HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY",
        "The proxy of downloads, and the hosts that need none.",
    ),
    ("NO_COLOR", "If it is set and not empty, no colours are used."),
    (
        "LC_ALL, LC_MESSAGES, LANG",
        "The language of help and messages: the first that is set and not empty. A value that starts with zh selects Chinese, every other English.",
    ),
    ("COLUMNS", "The width of help where stdout is no terminal."),
    ("VISUAL, EDITOR", "The editor of the command /edit of a chat."),
    (
        "XDG_CONFIG_HOME, XDG_STATE_HOME, XDG_CACHE_HOME",
        "The base folders in place of ~/.config, ~/.local/state and ~/.cache.",
    ),
];

const FILES: [(&str, &str); 4] = [
    ("~/.config/glm/config.toml", "Defaults; `glm config` shows where each value comes from."),
    ("~/.local/state/glm/history", "The questions that were typed in chats."),
    ("~/.cache/huggingface/hub", "Downloaded models, in the layout of the Hugging Face hub."),
    ("~/.cache/huggingface/glm", "Models that `glm pull --quantize` made."),
];

pub fn run(args: &Man) -> Result<()> {
    let root = root();
    let pages = || std::iter::once(&root).chain(root.get_subcommands());
    let Some(folder) = &args.folder else {
        let name = args.command.as_deref().unwrap_or("glm");
        let command = pages().find(|command| command.get_name() == name);
        let command = command.ok_or_else(|| usage(messages::unknown_command(name)))?;
        output::say(&page(&root, command)?)?;
        if stdout().is_terminal() {
            note(&messages::how_to_read_a_page());
        }
        return Ok(());
    };
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    for command in pages() {
        let page = page(&root, command)?;
        let path = folder.join(format!("{}.1", title(command)));
        file::replace(&path, |out| Ok(out.write_all(page.as_bytes())?))?;
    }
    note(&messages::pages_written(pages().count(), folder.display()));
    Ok(())
}

/// The command line with all that clap adds, but without the command `help`, which needs no page.
fn root() -> Command {
    let mut root = args::command().disable_help_subcommand(true);
    root.build();
    root
}

/// `glm` or `glm-chat`.
fn title(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

/// The page of a command as the input of `man`.
fn page(root: &Command, command: &Command) -> Result<String> {
    let is_root = command.get_name() == root.get_name();
    let version = format!("glm {}", root.get_version().unwrap_or_default());
    let man = clap_mangen::Man::new(command.clone()).source(version).manual("Manual of glm");
    let (description, examples) = notes(command);
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    description.to_writer(&mut page)?;
    man.render_options_section(&mut page)?;
    if is_root {
        man.render_subcommands_section(&mut page)?;
    }
    examples.to_writer(&mut page)?;
    list("EXIT STATUS", &EXIT_STATUS).to_writer(&mut page)?;
    if is_root {
        list("ENVIRONMENT", &ENVIRONMENT).to_writer(&mut page)?;
        list("FILES", &FILES).to_writer(&mut page)?;
    } else {
        let mut other = Roff::new();
        other.control("SH", ["SEE ALSO"]);
        other.text([bold("glm"), roman("(1), for the environment and the files of all commands")]);
        other.to_writer(&mut page)?;
    }
    String::from_utf8(page).context("the page is not UTF-8")
}

/// The footer of the help: what belongs to the description, and the examples.
fn notes(command: &Command) -> (Roff, Roff) {
    let (mut description, mut examples) = (Roff::new(), Roff::new());
    let footer = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    for block in footer::blocks(&footer) {
        match block {
            Block::Paragraph(text) if text == "Examples:" => {
                examples.control("SH", ["EXAMPLES"]);
            }
            // The section says it in full.
            Block::Paragraph(text) if text.starts_with("Exit codes:") => {}
            Block::Paragraph(text) => {
                description.control("PP", []);
                description.text([roman(text)]);
            }
            Block::Examples(lines) => {
                examples.control("nf", []);
                lines.iter().for_each(|line| {
                    examples.text([roman(line.as_str())]);
                });
                examples.control("fi", []);
            }
        }
    }
    (description, examples)
}

/// A section that explains terms.
fn list(title: &str, terms: &[(&str, &str)]) -> Roff {
    let mut section = Roff::new();
    section.control("SH", [title]);
    for (term, text) in terms {
        section.control("TP", []);
        section.text([bold(*term)]);
        section.text([roman(*text)]);
    }
    section
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_its_sections() {
        let root = root();
        for command in std::iter::once(&root).chain(root.get_subcommands()) {
            let page = page(&root, command).unwrap();
            for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXAMPLES"] {
                assert!(page.contains(&format!("\n.SH {section}\n")), "{section}: {page}");
            }
            assert!(page.contains(".SH \"EXIT STATUS\""), "{page}");
        }
        let page = page(&root, &root).unwrap();
        assert!(page.contains("glm\\-chat(1)") && page.contains("GLM_ISA"), "{page}");
        assert!(page.contains(".SH ENVIRONMENT") && page.contains(".SH FILES"), "{page}");
    }
}
