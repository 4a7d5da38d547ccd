//! Help, pages of the manual and completions, as the program prints them.

mod common;

use std::fs;

use common::{glm, refusal, stderr, stdout, text};

const COMMANDS: &[&str] = &[
    "chat",
    "generate",
    "fill",
    "score",
    "perplexity",
    "quantize",
    "info",
    "tokenize",
    "logits",
    "bench",
    "batch",
    "pull",
    #[cfg(feature = "serve")]
    "serve",
];

#[test]
fn help_has_the_width_of_the_terminal() {
    for columns in ["40", "60", "100"] {
        for command in COMMANDS {
            let output = glm(&[command, "--help"]).env("COLUMNS", columns).output().unwrap();
            assert!(output.status.success());
            let footer = stdout(&output);
            let (_, footer) = footer.split_once("  -h, --help").unwrap();
            for line in footer.lines().filter(|line| !line.starts_with(' ')) {
                assert!(line.chars().count() <= columns.parse().unwrap(), "{command}: {line}");
            }
            assert!(footer.contains("Examples:\n  "), "{command}: {footer}");
        }
    }
}

#[test]
fn help_lists_commands_and_exit_codes() {
    let help = stdout(&glm(&["--help"]).env("COLUMNS", "100").output().unwrap());
    for part in ["Exit codes: 0 success, 1 failure, 2 wrong usage, 130", "  man ", "  completions "]
    {
        assert!(help.contains(part), "{part}: {help}");
    }
}

#[test]
fn help_is_chinese_where_the_environment_says_so() {
    for command in COMMANDS {
        for flag in ["--help", "-h"] {
            let output = glm(&[command, flag]).env("LC_ALL", "zh_CN.UTF-8").output().unwrap();
            let help = stdout(&output);
            assert!(output.status.success() && stderr(&output).is_empty());
            for part in ["用法：glm ", "选项:", "显示帮助", "示例："] {
                assert!(help.contains(part), "{command}: {part}: {help}");
            }
            for part in ["Usage", "Options", "Print", "Examples", "default:", "possible"] {
                assert!(!help.contains(part), "{command}: {part}: {help}");
            }
        }
    }
}

#[test]
fn the_manual_is_a_folder_or_a_page() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("share/man1");
    let output = glm(&["man", &text(&folder)]).output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty(), "{}", stderr(&output));
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    for command in COMMANDS {
        let page = read(&format!("glm-{command}.1"));
        assert!(page.contains(&format!(".TH glm-{command} 1")), "{page}");
        assert!(page.contains(".SH EXAMPLES") && page.contains("EXIT STATUS"), "{page}");
        assert_eq!(page, stdout(&glm(&["man", "--command", command]).output().unwrap()));
    }
    let page = read("glm.1");
    for part in [".SH ENVIRONMENT", "GLM_ISA", "HF_HOME", ".SH FILES", "config.toml", "130"] {
        assert!(page.contains(part), "{part}");
    }
    assert_eq!(page, stdout(&glm(&["man"]).output().unwrap()));
    // A file is in the way.
    let file = tempfile::NamedTempFile::new().unwrap();
    refusal(&["man", &text(file.path())], 1);
}

#[test]
fn every_shell_has_completions() {
    for (shell, part) in [
        ("bash", "complete -F _glm"),
        ("zsh", "#compdef glm"),
        ("fish", "complete -c glm"),
        ("powershell", "Register-ArgumentCompleter"),
        ("elvish", "edit:completion:arg-completer[glm]"),
    ] {
        let output = glm(&["completions", shell]).output().unwrap();
        let script = stdout(&output);
        assert!(output.status.success() && script.contains(part), "{shell}: {script}");
        assert!(script.contains("max-new-tokens"), "{shell}");
    }
}

/// What bash would offer for the last of these words. Folders are offered by bash itself, which the script asks for it with `compopt`.
#[cfg(unix)]
fn completed(words: &[&str], folder: &std::path::Path) -> String {
    let script = folder.join("completions");
    fs::write(&script, glm(&["completions", "bash"]).output().unwrap().stdout).unwrap();
    let (last, before) = (words[words.len() - 1], words[words.len() - 2]);
    let body = r#"compopt() { echo "$@"; }; . "$1"; shift; last=$1 before=$2; shift 2
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _glm glm "$last" "$before" 2>/dev/null
        printf '%s\n' "${COMPREPLY[@]}""#;
    let mut bash = std::process::Command::new("bash");
    bash.args(["--norc", "-c", body, "bash"]).arg(&script).args([last, before]).args(words);
    stdout(&bash.current_dir(folder).output().unwrap())
}

#[cfg(unix)]
#[test]
fn bash_completes_commands_flags_values_and_files() {
    let dir = tempfile::tempdir().unwrap();
    let completed = |words: &[&str]| completed(words, dir.path());
    assert_eq!(completed(&["glm", "qu"]), "quantize\n");
    assert_eq!(completed(&["glm", "chat", "--tempe"]), "--temperature\n");
    assert_eq!(completed(&["glm", "chat", "--kv", "f3"]), "f32\n");
    fs::write(dir.path().join("my.gguf"), "").unwrap();
    assert!(completed(&["glm", "chat", "-m", "my"]).contains("my.gguf"));
}
