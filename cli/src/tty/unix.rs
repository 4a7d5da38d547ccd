//! Modes of a terminal of Unix, and signals that stop or end the program while they are changed.

use std::fs::OpenOptions;
use std::io::{Write, stdin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_current_process_group};
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};
use signal_hook::consts::{SIGHUP, SIGQUIT, SIGTERM, SIGTSTP};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use crate::interrupt::is_ignored;

/// The modes before a chat changed them.
static ORIGINAL: Mutex<Option<Termios>> = Mutex::new(None);

/// How long a Ctrl-C may take to reach its handler, which has a thread of its own.
const LATENCY: Duration = Duration::from_millis(100);

/// How long the editor of the prompt may take to set the modes that it had before a line, or those for the next.
const CHANGE: Duration = Duration::from_millis(50);

/// Whether the program is about to end.
static IS_ENDING: AtomicBool = AtomicBool::new(false);

static IS_LENT: AtomicBool = AtomicBool::new(false);

/// How often the program was stopped by Ctrl-Z and went on.
static STOPS: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

/// The terminal neither echoes keys nor waits for the end of a line, until this is dropped. Ctrl-C and Ctrl-Z still send signals.
pub struct Quiet(());

impl Quiet {
    /// # Errors
    /// If stdin is no terminal, or signals cannot be caught.
    pub fn begin() -> Result<Self> {
        let modes = tcgetattr(stdin()).context("the terminal")?;
        lock(&ORIGINAL).replace(modes);
        // `nohup` has the signal ignored, and it must stay so.
        let hangup = (!is_ignored(SIGHUP)).then_some(SIGHUP);
        let caught = [SIGTSTP, SIGTERM, SIGQUIT].into_iter().chain(hangup);
        let mut signals = Signals::new(caught).context("signals")?;
        std::thread::spawn(move || {
            for signal in signals.forever() {
                match signal {
                    SIGTSTP => stop(),
                    _ => {
                        leave();
                        let _ = emulate_default_handler(signal);
                    }
                }
            }
        });
        quieten();
        Ok(Self(()))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        restore();
        lock(&ORIGINAL).take();
    }
}

/// Sets the modes that were there before the chat. Does nothing without a chat in a terminal.
fn restore() {
    if let Some(modes) = &*lock(&ORIGINAL) {
        let _ = tcsetattr(stdin(), OptionalActions::Now, modes);
        set_bracketed_paste(false);
    }
}

/// Sets the modes that were there before the chat, for a program that ends at once. Another thread may be setting modes at this moment.
pub fn leave() {
    let is_chat = lock(&ORIGINAL).is_some();
    IS_ENDING.store(true, Ordering::SeqCst);
    restore();
    if is_chat {
        std::thread::sleep(CHANGE);
        restore();
    }
}

/// Returns at once, or never if the program is about to end: the modes must stay as they are.
pub fn wait_for_end() {
    while IS_ENDING.load(Ordering::SeqCst) {
        std::thread::park();
    }
}

/// Runs `work` with the modes that were there before the chat.
pub fn with_restored<T>(work: impl FnOnce() -> T) -> T {
    restore();
    let done = work();
    quieten();
    done
}

/// Waits, for `most` at the longest, until stdin has a line, is closed or fails. Where the system edits lines, a line is read at once,
/// and so none is left in the buffer of stdin.
pub fn has_input(most: Duration) -> bool {
    let time = Timespec::try_from(most).ok();
    let stdin = stdin();
    let ready = poll(&mut [PollFd::new(&stdin, PollFlags::IN)], time.as_ref());
    // A signal ends the wait.
    ready.map_or_else(|error| error != Errno::INTR, |count| count > 0)
}

/// Runs `work`, another program that uses the terminal. Ctrl-C is its own meanwhile.
pub fn lend<T>(work: impl FnOnce() -> T) -> T {
    IS_LENT.store(true, Ordering::SeqCst);
    let done = with_restored(work);
    // A Ctrl-C that has ended the other program is still its own.
    std::thread::sleep(LATENCY);
    IS_LENT.store(false, Ordering::SeqCst);
    done
}

/// Whether another program has the terminal.
pub fn is_lent() -> bool {
    IS_LENT.load(Ordering::SeqCst)
}

/// Stops the program and its pipeline as Ctrl-Z does, and returns when it goes on.
pub fn suspend() {
    let mut stops = lock(&STOPS.0);
    let before = *stops;
    if kill_current_process_group(Signal::TSTP).is_ok() {
        while *stops == before {
            stops = STOPS.1.wait(stops).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// How often the program was stopped by Ctrl-Z and went on.
pub fn stops() -> usize {
    *lock(&STOPS.0)
}

fn quieten() {
    wait_for_end();
    if let Some(modes) = &*lock(&ORIGINAL) {
        let mut modes = modes.clone();
        modes.local_modes -= LocalModes::ECHO;
        // The editor of the prompt takes keys as they are. The system would also keep 4096 bytes of a line at most. Where it edits
        // the lines, it must.
        if !super::is_dumb() {
            modes.input_modes -= InputModes::ICRNL;
            modes.local_modes -= LocalModes::ICANON;
            modes.special_codes[SpecialCodeIndex::VMIN] = 1;
            modes.special_codes[SpecialCodeIndex::VTIME] = 0;
        }
        let _ = tcsetattr(stdin(), OptionalActions::Now, &modes);
    }
}

/// Stops the program with the modes of the shell, and sets its own again when it goes on.
fn stop() {
    if is_lent() {
        // The modes are those of the other program, which stops as well.
        let _ = emulate_default_handler(SIGTSTP);
    } else if is_job() {
        let modes = tcgetattr(stdin());
        restore();
        // The shell writes below what is here.
        write(b"\n");
        let _ = emulate_default_handler(SIGTSTP);
        if let Ok(modes) = modes {
            let _ = tcsetattr(stdin(), OptionalActions::Now, &modes);
            // Only the editor of the prompt takes Ctrl-C as a key.
            if !modes.local_modes.contains(LocalModes::ISIG) {
                set_bracketed_paste(true);
            }
        }
    }
    *lock(&STOPS.0) += 1;
    STOPS.1.notify_all();
}

/// Whether a shell in the same session can let the program go on: a process group without one is orphaned. The system ignores Ctrl-Z
/// there, as in a container or a window of its own, but not the signal that stops a program which has caught it.
fn is_job() -> bool {
    let Some(own) = Process::own() else { return false };
    let mut ancestor = own.parent();
    while let Some(process) = ancestor {
        if process.group != own.group {
            return process.session == own.session;
        }
        ancestor = process.parent();
    }
    false
}

/// Where a process belongs. Each number is 0 where it names a process outside the namespace of this one.
struct Process {
    parent: i32,
    group: i32,
    session: i32,
}

impl Process {
    fn parent(&self) -> Option<Self> {
        Self::of(Pid::from_raw(self.parent)?)
    }

    #[cfg(target_os = "linux")]
    fn own() -> Option<Self> {
        Self::read("self")
    }

    #[cfg(target_os = "linux")]
    fn of(pid: Pid) -> Option<Self> {
        Self::read(&pid.to_string())
    }

    /// `getpgid` and `getsid` of the crate take it that no process is outside.
    #[cfg(target_os = "linux")]
    fn read(pid: &str) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in parentheses, may have blanks. The state follows.
        let mut numbers = stat.rsplit_once(')')?.1.split_whitespace().skip(1);
        let mut next = || numbers.next()?.parse().ok();
        Some(Self { parent: next()?, group: next()?, session: next()? })
    }

    #[cfg(not(target_os = "linux"))]
    fn own() -> Option<Self> {
        let parent = rustix::process::getppid();
        Some(Self {
            parent: parent.map_or(0, Pid::as_raw_pid),
            ..Self::of(rustix::process::getpid())?
        })
    }

    /// The parent of another process is unknown here.
    #[cfg(not(target_os = "linux"))]
    fn of(pid: Pid) -> Option<Self> {
        let group = rustix::process::getpgid(Some(pid)).ok()?.as_raw_pid();
        let session = rustix::process::getsid(Some(pid)).ok()?.as_raw_pid();
        Some(Self { parent: 0, group, session })
    }
}

/// Whether the terminal marks what is pasted.
fn set_bracketed_paste(is_on: bool) {
    if !super::is_dumb() {
        write(if is_on { b"\x1b[?2004h" } else { b"\x1b[?2004l" });
    }
}

/// Writes to the terminal, wherever stdout and stderr lead.
fn write(bytes: &[u8]) {
    if let Ok(mut terminal) = OpenOptions::new().write(true).open("/dev/tty") {
        let _ = terminal.write_all(bytes);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
