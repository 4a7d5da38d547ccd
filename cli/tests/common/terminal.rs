//! `glm` in a pseudo-terminal, and what a person would see on its screen.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pty_process::Size;
use pty_process::blocking::{Command, Pty, open};
use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{LocalModes, Termios, tcgetattr};
use tempfile::TempDir;

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
const SCROLLBACK: usize = 1000;

/// The prompt of a shell.
pub const SHELL: &str = "shell:";

/// How `glm` is started.
pub struct Start {
    words: Vec<String>,
    size: (u16, u16),
    variables: Vec<(String, String)>,
    home: Option<PathBuf>,
    in_shell: bool,
    ignores_hangup: bool,
}

impl Start {
    /// `glm` with these words, in 24 rows of 80 columns.
    pub fn new(words: &[&str]) -> Self {
        let words = words.iter().map(ToString::to_string).collect();
        Self {
            words,
            size: (24, 80),
            variables: Vec::new(),
            home: None,
            in_shell: false,
            ignores_hangup: false,
        }
    }

    /// Started as a job by an interactive shell, which it ends with.
    pub fn in_shell(self) -> Self {
        Self { in_shell: true, ..self }
    }

    /// SIGHUP is ignored, as `nohup` has it.
    pub fn ignores_hangup(self) -> Self {
        Self { ignores_hangup: true, ..self }
    }

    pub fn size(self, rows: u16, columns: u16) -> Self {
        Self { size: (rows, columns), ..self }
    }

    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A home folder that outlives the run.
    pub fn home(self, home: &Path) -> Self {
        Self { home: Some(home.to_owned()), ..self }
    }

    pub fn open(self) -> Terminal {
        let own = TempDir::new().unwrap();
        let home = self.home.unwrap_or_else(|| own.path().to_owned());
        let (pty, pts) = open().unwrap();
        let (rows, columns) = self.size;
        pty.resize(Size::new(rows, columns)).unwrap();
        let program = env!("CARGO_BIN_EXE_glm");
        let command = match (self.in_shell, self.ignores_hangup) {
            (true, _) => Command::new("sh").arg("-i"),
            (_, true) => Command::new("sh")
                .args(["-c", "trap '' HUP; exec \"$0\" \"$@\"", program])
                .args(&self.words),
            _ => Command::new(program).args(&self.words),
        };
        let mut command = command
            .env_clear()
            .env("PS1", SHELL)
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &home)
            .env("LANG", "C.UTF-8")
            .env("TERM", "xterm-256color")
            .current_dir(&home);
        for name in ["GLM_ISA", "ASAN_OPTIONS"] {
            if let Some(value) = std::env::var_os(name) {
                command = command.env(name, value);
            }
        }
        let child = command.envs(self.variables).spawn(pts).unwrap();
        let seen = Arc::new(Seen::new(rows, columns));
        let pty = Arc::new(pty);
        let (reader, writer) = (Arc::clone(&pty), Arc::clone(&seen));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Linux reports the end of the last process as an error.
            while let Ok(count @ 1..) = (&*reader).read(&mut bytes) {
                writer.add(&bytes[..count]);
            }
            writer.close();
        });
        let terminal = Terminal { pty, child, seen, home, _own: own };
        if self.in_shell {
            terminal.wait_for(SHELL);
            let words: Vec<_> = self.words.iter().map(|word| format!("'{word}'")).collect();
            // The screen is that of a program that was started alone.
            terminal.send(format!("printf '\\033[H\\033[2J'; '{program}' {}\n", words.join(" ")));
        }
        terminal
    }
}

/// What has arrived.
struct Seen {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    parser: vt100::Parser,
    bytes: Vec<u8>,
    is_closed: bool,
}

impl Seen {
    fn new(rows: u16, columns: u16) -> Self {
        let parser = vt100::Parser::new(rows, columns, SCROLLBACK);
        let state = State { parser, bytes: Vec::new(), is_closed: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn add(&self, bytes: &[u8]) {
        let mut state = self.lock();
        state.parser.process(bytes);
        state.bytes.extend_from_slice(bytes);
        self.changed.notify_all();
    }

    fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>, most: Duration) -> MutexGuard<'s, State> {
        let waited = self.changed.wait_timeout(state, most);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running `glm`. Dropping it ends it.
pub struct Terminal {
    pty: Arc<Pty>,
    child: Child,
    seen: Arc<Seen>,
    home: PathBuf,
    _own: TempDir,
}

impl Terminal {
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Types, or pastes, these bytes in one write.
    pub fn send(&self, bytes: impl AsRef<[u8]>) {
        (&*self.pty).write_all(bytes.as_ref()).unwrap();
    }

    /// The text on the screen, without blanks at the ends of lines.
    pub fn screen(&self) -> String {
        self.seen.lock().parser.screen().contents()
    }

    /// The screen with its colours.
    pub fn cells(&self) -> vt100::Screen {
        self.seen.lock().parser.screen().clone()
    }

    /// All that was written to the terminal.
    pub fn written(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().bytes).into_owned()
    }

    /// Waits until the text is on the screen.
    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        self.wait_until(&format!("{text:?} to be seen"), |screen| screen.contains(text));
    }

    /// Waits until the screen is as it should be, and returns it.
    #[track_caller]
    pub fn wait_until(&self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        self.wait(what, |state| is_so(&state.parser.screen().contents()))
    }

    #[track_caller]
    fn wait(&self, what: &str, is_so: impl Fn(&State) -> bool) -> String {
        let end = Instant::now() + PATIENCE;
        let mut state = self.seen.lock();
        loop {
            let screen = state.parser.screen().contents();
            if is_so(&state) {
                return screen;
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero() && !state.is_closed, "waited for {what}:\n{}", framed(&screen));
            state = self.seen.wait(state, left);
        }
    }

    /// Whether the program has ended, or closed its terminal.
    pub fn is_closed(&self) -> bool {
        self.seen.lock().is_closed
    }

    /// Waits until `glm chat` asks for the next line behind this one, or has ended.
    #[track_caller]
    pub fn wait_for_prompt(&self, line: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.is_closed() {
            let screen = self.screen();
            let after = screen.rfind(&format!("> {line}")).map(|at| &screen[at + line.len()..]);
            let after = if line.is_empty() { Some(&*screen) } else { after };
            if after.is_some_and(|after| after.trim_end().ends_with("\n>")) {
                return;
            }
            assert!(Instant::now() < end, "waited for a prompt:\n{}", framed(&screen));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn resize(&self, rows: u16, columns: u16) {
        self.seen.lock().parser.screen_mut().set_size(rows, columns);
        self.pty.resize(Size::new(rows, columns)).unwrap();
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// How the terminal treats keys.
    pub fn modes(&self) -> Termios {
        tcgetattr(&self.pty).unwrap()
    }

    /// Whether keys are echoed and lines are edited by the system, as a shell expects it.
    pub fn is_sane(&self) -> bool {
        let expected = LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        self.modes().local_modes.contains(expected)
    }

    /// Waits for the end of the program; `None` if a signal ended it.
    #[track_caller]
    pub fn exit_code(&mut self) -> Option<i32> {
        let end = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < end, "still runs:\n{}", framed(&self.screen()));
            std::thread::sleep(Duration::from_millis(5));
        };
        // What it wrote last may still be on its way.
        let mut state = self.seen.lock();
        while !state.is_closed && Instant::now() < end {
            let left = end.saturating_duration_since(Instant::now());
            state = self.seen.wait(state, left);
        }
        status.code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A screen for a message.
fn framed(screen: &str) -> String {
    screen.lines().map(|line| format!("  | {line}\n")).collect()
}
