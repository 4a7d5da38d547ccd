//! System calls that change a file fail in turn, in every command that writes files that are read later: of each kind of call on each file, the
//! first fails with an error, and the process is killed in place of the last. What there is afterwards is never wrong, and the same command given again makes what it makes without a fault.
//!
//! The library that fails the calls knows the numbers and registers of one system.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod common;
#[path = "../../model/tests/common/forge.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod forge;
#[path = "faults/injection.rs"]
mod injection;
// Compiled by the test. It is named here so that it is formatted with the rest.
#[cfg(false)]
#[path = "faults/shim.rs"]
mod shim;
#[path = "../../model/tests/common/split.rs"]
mod split;
#[path = "../../model/tests/common/stored.rs"]
mod stored;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use common::causal::Family;
use common::hub::{Hub, Repository};
use common::{isolated, stderr, stdout, text};
use glm_model::Format;
use injection::{Case, Ended, Ignored, Injection, Variables};
use serde_json::{Value, json};

/// `glm` at home in this folder.
fn glm(folder: &Path, words: &[&str], variables: &Variables) -> Command {
    let mut command = isolated(folder);
    command.args(words).env("HOME", folder).env("LC_ALL", "C").stdin(Stdio::null());
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    command
}

fn ended(command: &mut Command) -> Ended {
    let output = command.output().unwrap();
    Ended { code: output.status.code(), said: stderr(&output) + &stdout(&output) }
}

/// A case whose files are the same in each run.
fn case<'a>(
    prepare: &'a dyn Fn(&Path),
    run: &'a dyn Fn(&Path, &Variables) -> Ended,
    ignored: &'a [Ignored],
) -> Case<'a> {
    Case {
        prepare,
        run,
        ignored,
        grows: &[],
        may_stay: &|_| false,
        same: &|_, bytes| bytes,
        refuses: None,
        only: &|_| true,
        goes_on: false,
    }
}

/// A file of the user beside those of a command.
fn add_notes(folder: &Path) {
    fs::write(folder.join("notes.txt"), "mine").unwrap();
}

/// Files that are of no use any more do no harm in a finished folder, nor does a new name that a power failure may undo: the folder is
/// complete under either.
const AFTER_QUANTIZE: [Ignored; 5] = [
    Ignored { call: "sync", path: "/home", reason: "the folder is complete under either name" },
    Ignored {
        call: "sync",
        path: "/int4.part",
        reason: "the folder is complete under either name",
    },
    Ignored { call: "unlink", path: "/journal.json", reason: "it does no harm" },
    Ignored { call: "unlink", path: "/out/.glm-quantize", reason: "it does no harm" },
    Ignored { call: "unlink", path: "/model/.glm-quantize", reason: "it does no harm" },
];

#[test]
fn quantize() {
    let source = Family::ChatGlm3.folder();
    let run = |folder: &Path, variables: &Variables| {
        let target = folder.join("out");
        ended(&mut glm(folder, &["quantize", &text(source.path()), &text(&target)], variables))
    };
    let with_folder = |folder: &Path| {
        add_notes(folder);
        fs::create_dir(folder.join("out")).unwrap();
        fs::set_permissions(folder.join("out"), fs::Permissions::from_mode(0o700)).unwrap();
    };
    let injection = Injection::new();
    for prepare in [&add_notes as &dyn Fn(&Path), &with_folder] {
        injection.check(&Case {
            refuses: Some("holds model.safetensors already"),
            may_stay: &|path| ["/out/.glm-quantize", "/out/journal.json"].contains(&path),
            ..case(prepare, &run, &AFTER_QUANTIZE)
        });
    }
}

const NAME: &str = "a/m";

/// A hub with a tiny model in two files, or one.
fn hub(is_split: bool) -> Hub {
    let source = Family::ChatGlm3.folder();
    let split_in = tempfile::tempdir().unwrap();
    let folder = split_in.path().join("chatglm3-tiny");
    let repository = match is_split {
        true => {
            split::split(source.path(), &folder, Format::Safetensors, 2, None);
            Repository::of_folder(&folder)
        }
        false => Repository::of_folder(source.path()),
    };
    let hub = Hub::start();
    hub.add(NAME, repository);
    hub
}

/// Folders of a cache that are there before, with the model of another.
fn add_other_model(folder: &Path) {
    add_notes(folder);
    let other = folder.join(".cache/huggingface/hub/models--a--other/snapshots/1");
    fs::create_dir_all(&other).unwrap();
    fs::write(other.join("config.json"), "{}").unwrap();
}

/// A name that a killed process gives a file until it is whole: letters that are random, or the number of the process.
fn is_temporary(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    name.starts_with(".glm-") && name.ends_with(".part")
        || name.ends_with(".part") && name.chars().any(|letter| letter.is_ascii_digit())
        || name.starts_with(".tmp")
}

const NO_LINKS: Ignored =
    Ignored { call: "link", path: ".part", reason: "where there are no links, files are copied" };

#[test]
fn pull() {
    let hub = hub(false);
    let run = |folder: &Path, variables: &Variables| {
        ended(glm(folder, &["pull", NAME], variables).env("HF_ENDPOINT", hub.url()))
    };
    Injection::new()
        .check(&Case { may_stay: &is_temporary, ..case(&add_other_model, &run, &[NO_LINKS]) });
}

#[test]
fn pull_and_quantize() {
    let hub = hub(true);
    let run = |folder: &Path, variables: &Variables| {
        let words = ["pull", NAME, "--quantize", "--threads", "1"];
        ended(glm(folder, &words, variables).env("HF_ENDPOINT", hub.url()))
    };
    let may_stay = |path: &str| {
        let ends = ["/int4/.glm-quantize", "/int4/journal.json"];
        is_temporary(path) || ends.iter().any(|end| path.ends_with(end))
    };
    let injection = Injection::new();
    let case = case(&add_other_model, &run, &AFTER_QUANTIZE);
    injection.check(&Case { may_stay: &may_stay, ..case });
    // A model of an older commit is replaced.
    let model = ".cache/huggingface/glm/models--a--m/int4";
    let older = |folder: &Path| {
        add_other_model(folder);
        fs::create_dir_all(folder.join(model)).unwrap();
        for (name, text) in [(".pull.json", r#"{"commit":"older"}"#), ("config.json", "older")] {
            fs::write(folder.join(model).join(name), text).unwrap();
        }
    };
    let is_of_publishing = |call: &str| {
        call.contains("/int4.old.part") || call.ends_with("/int4") && call.starts_with("rename")
    };
    injection.check(&Case {
        prepare: &older,
        only: &is_of_publishing,
        may_stay: &may_stay,
        ..case
    });
}

#[test]
fn settings() {
    let prepare = |folder: &Path| {
        let config = folder.join(".config/glm");
        fs::create_dir_all(&config).unwrap();
        fs::write(config.join("config.toml"), "# mine\nstats = true\n").unwrap();
        add_notes(&config);
    };
    let run = |folder: &Path, variables: &Variables| {
        ended(&mut glm(folder, &["config", "set", "threads", "3"], variables))
    };
    let injection = Injection::new();
    injection.check(&Case { may_stay: &is_temporary, ..case(&prepare, &run, &[]) });
    // The file and its folders are new.
    injection.check(&Case { may_stay: &is_temporary, ..case(&add_notes, &run, &[]) });
}

#[test]
fn batch() {
    let model = Family::ChatGlm3.folder();
    let prepare = |folder: &Path| {
        add_notes(folder);
        let line = |index: usize| {
            let messages = json!([{ "role": "user", "content": "hello" }]);
            let body = json!({ "messages": messages, "seed": index, "max_tokens": 3 });
            let request = json!({ "custom_id": index.to_string(), "method": "POST",
                "url": "/v1/chat/completions", "body": body });
            format!("{request}\n")
        };
        fs::write(folder.join("in.jsonl"), (0..5).map(line).collect::<String>()).unwrap();
    };
    let run = |folder: &Path, variables: &Variables| {
        let files = ["in.jsonl", "out.jsonl"].map(|name| text(&folder.join(name)));
        let model = text(model.path());
        let words = ["batch", "-m", &model, "--threads", "1", "--order", &files[0], &files[1]];
        ended(&mut glm(folder, &words, variables))
    };
    // Each answer has its time, and a name that is random.
    let same = |path: &str, bytes: Vec<u8>| {
        if !path.ends_with("out.jsonl") {
            return bytes;
        }
        let whole = String::from_utf8(bytes).unwrap();
        let timeless = |line: &str| match serde_json::from_str::<Value>(line) {
            Ok(mut answer) => {
                for field in ["created", "id"] {
                    answer["response"]["body"][field] = Value::Null;
                }
                format!("{answer}\n")
            }
            // A process that is killed may leave the begin of a line. The next removes it.
            Err(_) => String::new(),
        };
        whole.lines().map(timeless).collect::<String>().into_bytes()
    };
    let case = case(&prepare, &run, &[]);
    Injection::new().check(&Case { grows: &["/out.jsonl"], same: &same, ..case });
}

#[test]
fn saved_logits() {
    let model = Family::ChatGlm3.folder();
    let prepare = |folder: &Path| {
        add_notes(folder);
        fs::write(folder.join("text.txt"), "hello, hello and once more hello").unwrap();
    };
    let run = |folder: &Path, variables: &Variables| {
        let [input, saved] = ["text.txt", "saved"].map(|name| text(&folder.join(name)));
        let model = text(model.path());
        let words = ["perplexity", "-m", &model, "--threads", "1", "--window", "6"];
        let words = [&words[..], &["--save-logits", &saved, &input]].concat();
        ended(&mut glm(folder, &words, variables))
    };
    let injection = Injection::new();
    let case = case(&prepare, &run, &[]);
    injection.check(&Case { may_stay: &is_temporary, ..case });
    // There is one that fails: the file has its name only when it is on the disk.
    let is_sync = |call: &str| call.starts_with("sync");
    injection.check(&Case { may_stay: &is_temporary, only: &is_sync, ..case });
}

#[test]
#[cfg(feature = "serve")]
fn kept_prompts() {
    use common::server::Server;
    let model = Family::ChatGlm3.folder();
    let run = |folder: &Path, variables: &Variables| {
        let file = text(&folder.join("cache"));
        let variables: Vec<_> =
            variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let words = ["--cache-file", &file, "--threads", "1"];
        let server = Server::of(&text(model.path()), &words, &variables);
        let messages = json!([{ "role": "user", "content": "hello" }]);
        let body = json!({ "messages": messages, "seed": 1, "max_tokens": 2 });
        server.post("/v1/chat/completions", &body).ok();
        server.signal("TERM");
        let (code, said) = server.ended();
        Ended { code, said }
    };
    // A process that is killed leaves what it has written, which a later one removes when it is old.
    let may_stay = |path: &str| path.starts_with("/cache.") && path.ends_with(".part");
    Injection::new().check(&Case { may_stay: &may_stay, ..case(&add_notes, &run, &[]) });
}

/// Runs `glm chat` in a terminal and enters these lines.
#[cfg(feature = "demo")]
fn chat(folder: &Path, words: &[&str], lines: &[&str], variables: &Variables) -> Ended {
    use common::terminal::Start;
    let mut start = Start::new(&[&["chat", "--greedy"], words].concat());
    for (name, value) in variables {
        start = start.variable(name, value);
    }
    let mut chat = start.home(folder).size(100, 200).open();
    chat.wait_for_prompt("");
    for line in lines {
        if !chat.is_closed() {
            chat.send(format!("{line}\r"));
            chat.wait_for_prompt(line);
        }
    }
    if !chat.is_closed() {
        chat.send("\x04");
    }
    Ended { code: chat.exit_code(), said: chat.screen() }
}

#[test]
#[cfg(feature = "demo")]
fn conversations() {
    let prepare = |folder: &Path| {
        add_notes(folder);
        let said = json!([
            { "role": "user", "content": "Hello!" },
            { "role": "assistant", "content": "Hello!" },
        ]);
        fs::write(folder.join("talk.json"), said.to_string()).unwrap();
    };
    let run = |folder: &Path, variables: &Variables| {
        let [talk, copy] = ["talk.json", "copy.json"].map(|name| text(&folder.join(name)));
        let lines = ["/save", &format!("/save {copy}")];
        chat(folder, &["--no-history", "--continue", &talk], &lines, variables)
    };
    let case = case(&prepare, &run, &[]);
    Injection::new().check(&Case { may_stay: &is_temporary, goes_on: true, ..case });
}

#[test]
#[cfg(feature = "demo")]
fn history() {
    let older = |folder: &Path| {
        add_notes(folder);
        let state = folder.join(".local/state/glm");
        fs::create_dir_all(&state).unwrap();
        fs::write(state.join("history"), "#V2\n你好\n").unwrap();
    };
    // An equal question twice in a row is remembered once.
    let run = |folder: &Path, variables: &Variables| chat(folder, &[], &["Hello!"], variables);
    let injection = Injection::new();
    let private = [Ignored { call: "chmod", path: ".part", reason: "the file is private already" }];
    for prepare in [&add_notes as &dyn Fn(&Path), &older] {
        let case = case(prepare, &run, &private);
        injection.check(&Case { may_stay: &is_temporary, goes_on: true, ..case });
    }
}
