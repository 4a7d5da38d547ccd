//! `glm pull` from a hub on this machine into a home of its own.

#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::cache::Home;
use super::hub::{Hub, Repository};
use super::{isolated, stderr, stdout, talker};

/// The repository of most tests.
pub const NAME: &str = "THUDM/chatglm-6b";

/// A home without models, and a hub.
pub struct Pulling {
    pub home: Home,
    pub hub: Hub,
}

impl Pulling {
    /// The hub has a small model that answers, and files beside it that this program does not need.
    pub fn new() -> Self {
        let pulling = Self { home: Home::new(), hub: Hub::start() };
        pulling.hub.add(NAME, talking());
        pulling
    }

    /// `glm` with these words.
    pub fn glm(&self, words: &[&str]) -> Command {
        let mut command = isolated(self.home.path());
        command.args(words).env("HF_ENDPOINT", self.hub.url()).stdin(Stdio::null());
        command
    }

    pub fn run(&self, words: &[&str]) -> Output {
        self.glm(words).output().unwrap()
    }

    /// Runs `glm` with these words where no file may have more than so many blocks of 512 bytes. Writing more fails, as on a full disk.
    pub fn run_with_limit(&self, blocks: u32, words: &[&str]) -> Output {
        let glm = self.glm(words);
        // Without the trap, the system would end the process.
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
        let mut limited = Command::new("sh");
        limited.args(["-c", &script, "sh"]).arg(glm.get_program()).args(glm.get_args());
        for (name, value) in glm.get_envs() {
            match value {
                Some(value) => limited.env(name, value),
                None => limited.env_remove(name),
            };
        }
        limited.stdin(Stdio::null()).output().unwrap()
    }

    /// What a run that succeeds prints on stdout and stderr.
    pub fn succeed(&self, words: &[&str]) -> (String, String) {
        succeeded(&self.run(words))
    }

    /// What a run that must fail says; nothing is on its stdout.
    pub fn refusal(&self, words: &[&str]) -> String {
        refused(&self.run(words))
    }

    /// Pulls the model and returns its folder.
    pub fn pull(&self) -> PathBuf {
        self.succeed(&["pull", NAME]).0.trim_end().into()
    }

    /// Starts a run whose output is read later.
    pub fn start(&self, words: &[&str]) -> Child {
        self.glm(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Waits until the unfinished blob has so many bytes on the disk.
    pub fn wait_for_bytes(&self, hash: &str, bytes: u64) {
        let path = self.home.repository(NAME).join(format!("blobs/{hash}.incomplete"));
        let started = Instant::now();
        while fs::metadata(&path).map_or(0, |file| file.len()) < bytes {
            assert!(started.elapsed() < Duration::from_secs(30), "{}", path.display());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The blobs of the repository by name, those that are unfinished too.
    pub fn blobs(&self) -> Vec<String> {
        names(&self.home.repository(NAME).join("blobs"))
    }
}

pub fn succeeded(output: &Output) -> (String, String) {
    assert!(output.status.success(), "{:?}: {}", output.status, stderr(output));
    (stdout(output), stderr(output))
}

pub fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{}", stderr(output));
    assert!(output.stdout.is_empty(), "{}", stdout(output));
    let said = stderr(output);
    assert!(said.contains("error: ") && !said.contains("panicked"), "{said}");
    said
}

/// A small model that answers.
pub fn talking() -> Repository {
    Repository::of_folder(Path::new(&talker()))
        .with("README.md", b"# Model".to_vec())
        .with("modeling_chatglm.py", b"import torch".to_vec())
        .with("chatglm.gguf", b"GGUF".to_vec())
        .with("MODEL_LICENSE", b"The GLM-130B License".to_vec())
}

/// Ends a process with SIGKILL.
pub fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Sends SIGINT, as Ctrl-C does, and waits.
pub fn interrupt(child: Child) -> Output {
    let done = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(done.success());
    child.wait_with_output().unwrap()
}

/// The names in a folder, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().map(Result::unwrap);
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// All files below a folder with their contents, by their paths.
pub fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    names(folder)
        .into_iter()
        .flat_map(|name| {
            let path = folder.join(&name);
            if path.is_dir() {
                let inner = files(&path).into_iter();
                return inner.map(|(path, bytes)| (format!("{name}/{path}"), bytes)).collect();
            }
            vec![(name, fs::read(&path).unwrap())]
        })
        .collect()
}

/// Bytes that the files below a folder take on the disk. Files that vanish meanwhile take none.
pub fn allocated(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let of_entry = |path: PathBuf| match path.symlink_metadata() {
        Ok(entry) if entry.is_dir() => allocated(&path),
        Ok(entry) => entry.blocks() * 512,
        Err(_) => 0,
    };
    entries.map(|entry| of_entry(entry.path())).sum()
}
