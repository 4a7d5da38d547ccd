//! A library that is loaded into a program before its own and fails one of its system calls.
//!
//! It installs a filter of system calls (seccomp) by which each call that may change a file raises SIGSYS. The handler makes the call in
//! its place, or fails it. So calls are seen that do not go through the C library, too. Threads inherit the filter.
//!
//! ```text
//! FAULTS_FOLDER   calls count whose file lies in this folder
//! FAULTS_LOG      each of them is a line in this file: `NAME\tPATH`, or `NAME\tPATH\tPATH`; before the one that fails is a `!`
//! FAULTS_CALL     the number of the call that fails, from 1 on
//! FAULTS_KIND     the number of the error; or `kill`, which ends the process in place of the call;
//!                 or `short`: every write from one buffer has half the bytes
//! ```
//!
//! The test compiles this file. It calls the system by its own instruction, of which the filter knows the address.

use std::ffi::{CStr, c_int, c_long, c_ulong, c_void};
use std::fs::File;
use std::os::fd::{IntoRawFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Longer than any path of a test.
const PATH: usize = 1024;

/// Where a call names its file.
#[derive(Clone, Copy)]
enum At {
    /// A descriptor.
    File(usize),
    /// A path.
    Path(usize),
    /// A descriptor of a folder, and a path in it.
    Folder(usize, usize),
}

/// Which calls of a number change a file.
#[derive(Clone, Copy, PartialEq)]
enum When {
    Always,
    /// Those that create a file: the flags are this argument.
    Creates(usize),
    /// Those that map one.
    Maps,
}

struct Call {
    number: u32,
    name: &'static str,
    when: When,
    first: At,
    second: Option<At>,
}

const fn one(number: u32, name: &'static str, first: At) -> Call {
    Call { number, name, when: When::Always, first, second: None }
}

const fn two(number: u32, name: &'static str, first: At, second: At) -> Call {
    Call { number, name, when: When::Always, first, second: Some(second) }
}

/// The calls of Linux on x86-64 by which Rust's standard library and our dependencies change files.
static CALLS: [Call; 29] = {
    use At::{File, Folder, Path};
    [
        one(1, "write", File(0)),
        one(18, "write", File(0)),
        one(20, "write", File(0)),
        one(296, "write", File(0)),
        one(40, "copy", File(0)),
        one(326, "copy", File(2)),
        Call { when: When::Creates(1), ..one(2, "create", Path(0)) },
        Call { when: When::Creates(2), ..one(257, "create", Folder(0, 1)) },
        Call { when: When::Maps, ..one(9, "map", File(4)) },
        one(74, "sync", File(0)),
        one(75, "sync", File(0)),
        one(76, "truncate", Path(0)),
        one(77, "truncate", File(0)),
        one(285, "truncate", File(0)),
        two(82, "rename", Path(0), Path(1)),
        two(264, "rename", Folder(0, 1), Folder(2, 3)),
        two(316, "rename", Folder(0, 1), Folder(2, 3)),
        two(86, "link", Path(0), Path(1)),
        two(265, "link", Folder(0, 1), Folder(2, 3)),
        one(88, "link", Path(1)),
        one(266, "link", Folder(1, 2)),
        one(83, "mkdir", Path(0)),
        one(258, "mkdir", Folder(0, 1)),
        one(84, "rmdir", Path(0)),
        one(87, "unlink", Path(0)),
        one(263, "unlink", Folder(0, 1)),
        one(90, "chmod", Path(0)),
        one(91, "chmod", File(0)),
        one(268, "chmod", Folder(0, 1)),
    ]
};

const OPEN_CREATES: usize = 0o100;
const MAP_ANONYMOUS: usize = 0x20;
/// Stands for the current folder.
const CURRENT: i32 = -100;

const READLINK: usize = 89;
const GETPID: usize = 39;
const KILL: usize = 62;
const WRITE: usize = 1;

#[derive(PartialEq)]
enum Kind {
    Error(usize),
    Kill,
    Short,
}

struct Plan {
    folder: Vec<u8>,
    log: RawFd,
    call: usize,
    kind: Kind,
}

static PLAN: OnceLock<Plan> = OnceLock::new();
static COUNT: AtomicUsize = AtomicUsize::new(0);

// The system call that the filter lets through: number in `rdi`, arguments behind it.
core::arch::global_asm!(
    ".globl faults_call",
    "faults_call:",
    "mov rax, rdi",
    "mov rdi, [rsi]",
    "mov rdx, [rsi + 16]",
    "mov r10, [rsi + 24]",
    "mov r8, [rsi + 32]",
    "mov r9, [rsi + 40]",
    "mov rsi, [rsi + 8]",
    "syscall",
    ".globl faults_called",
    "faults_called:",
    "ret",
);

unsafe extern "C" {
    fn faults_call(number: usize, arguments: *const [usize; 6]) -> isize;
    static faults_called: u8;
    fn sigaction(signal: c_int, new: *const Action, old: *mut Action) -> c_int;
    fn prctl(option: c_int, ...) -> c_int;
}

/// Makes a system call.
///
/// # Safety
/// The arguments must be sound for the call.
unsafe fn call(number: usize, arguments: [usize; 6]) -> isize {
    // SAFETY: the caller has checked the arguments; the stub changes only what a system call may.
    unsafe { faults_call(number, &arguments) }
}

#[used]
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn() = start;

extern "C" fn start() {
    let variable = |name: &str| std::env::var_os(name).map(OsStringExt::into_vec);
    let (Some(folder), Some(log)) = (variable("FAULTS_FOLDER"), std::env::var_os("FAULTS_LOG"))
    else {
        return;
    };
    let number = |text: Vec<u8>| String::from_utf8(text).ok()?.parse().ok();
    let kind = match variable("FAULTS_KIND").unwrap_or_default().as_slice() {
        b"kill" => Kind::Kill,
        b"short" => Kind::Short,
        code => Kind::Error(number(code.to_vec()).unwrap_or(0)),
    };
    let call = variable("FAULTS_CALL").and_then(number).unwrap_or(0);
    let log = File::options().append(true).create(true).open(log).expect("a file for the log");
    let plan = Plan { folder, log: log.into_raw_fd(), call, kind };
    assert!(PLAN.set(plan).is_ok());
    install();
}

/// `struct sigaction` of the C library.
#[repr(C)]
struct Action {
    handler: unsafe extern "C" fn(c_int, *mut c_void, *mut Context),
    mask: [c_ulong; 16],
    flags: c_int,
    restorer: usize,
}

/// The begin of `ucontext_t`.
#[repr(C)]
struct Context {
    flags: c_ulong,
    link: usize,
    stack: [usize; 3],
    registers: [usize; 23],
}

/// Where `registers` has the arguments of a system call, and its number, which becomes its result.
const ARGUMENTS: [usize; 6] = [8, 9, 12, 2, 0, 1];
const RESULT: usize = 13;

/// An instruction of a filter.
#[repr(C)]
struct Step {
    code: u16,
    yes: u8,
    no: u8,
    value: u32,
}

#[repr(C)]
struct Filter {
    length: u16,
    steps: *const Step,
}

fn install() {
    const LOAD: u16 = 0x20;
    const IS: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const NUMBER: u32 = 0;
    const ADDRESS: u32 = 8;
    const TRAP: u32 = 0x0003_0000;
    const ALLOW: u32 = 0x7fff_0000;
    const SIGSYS: c_int = 31;
    let step = |code, value| Step { code, yes: 0, no: 0, value };
    // SAFETY: only the address is taken.
    let own = (&raw const faults_called) as u64;
    // Those of the stub are let through: both halves of the address are its own.
    let mut steps = vec![
        step(LOAD, ADDRESS),
        Step { no: 3, ..step(IS, own as u32) },
        step(LOAD, ADDRESS + 4),
        Step { no: 1, ..step(IS, (own >> 32) as u32) },
        step(RETURN, ALLOW),
        step(LOAD, NUMBER),
    ];
    for call in &CALLS {
        steps.push(Step { no: 1, ..step(IS, call.number) });
        steps.push(step(RETURN, TRAP));
    }
    steps.push(step(RETURN, ALLOW));
    // Signals keep their handlers while one runs; the call goes on behind it.
    let flags = 4 | 0x4000_0000 | 0x1000_0000;
    let action = Action { handler: trapped, mask: [0; 16], flags, restorer: 0 };
    let filter = Filter { length: steps.len() as u16, steps: steps.as_ptr() };
    // SAFETY: all structures are those of the C library and outlive the calls.
    let done = unsafe {
        sigaction(SIGSYS, &action, std::ptr::null_mut()) == 0
            && prctl(38, 1 as c_long, 0 as c_long, 0 as c_long, 0 as c_long) == 0
            && prctl(22, 2 as c_long, &filter) == 0
    };
    assert!(done, "the system filters no calls: {}", std::io::Error::last_os_error());
}

/// Makes the system call that raised the signal, or fails it. Nothing is allocated: the call may be one of the allocator.
unsafe extern "C" fn trapped(_: c_int, _: *mut c_void, context: *mut Context) {
    // SAFETY: the system gives the handler a context that is its own until it returns.
    let registers = unsafe { &mut (*context).registers };
    let number = registers[RESULT];
    let mut arguments = ARGUMENTS.map(|at| registers[at]);
    let failed = decide(number, &mut arguments);
    // SAFETY: they are the arguments of the program, of which at most a length is smaller.
    let made = || unsafe { call(number, arguments) };
    registers[RESULT] = failed.unwrap_or_else(made) as usize;
}

/// Logs a call. Returns what the program gets in its place, if it fails.
fn decide(number: usize, arguments: &mut [usize; 6]) -> Option<isize> {
    let plan = PLAN.get()?;
    let known = CALLS.iter().find(|call| call.number as usize == number)?;
    let changes = match known.when {
        When::Always => true,
        When::Creates(flags) => arguments[flags] & OPEN_CREATES != 0,
        When::Maps => arguments[3] & MAP_ANONYMOUS == 0,
    };
    if !changes {
        return None;
    }
    let mut line = Line { bytes: [0; 3 * PATH], length: 0 };
    line.add(b"!").add(known.name.as_bytes());
    let mut is_watched = false;
    for at in [Some(known.first), known.second].into_iter().flatten() {
        let start = line.length + 1;
        line.add(b"\t").add_path(at, arguments);
        let path = &line.bytes[start..line.length];
        is_watched |= path.starts_with(&plan.folder)
            && matches!(path.get(plan.folder.len()), None | Some(b'/'));
    }
    if !is_watched {
        return None;
    }
    let is_hit = COUNT.fetch_add(1, Ordering::Relaxed) + 1 == plan.call;
    line.add(b"\n");
    let line = &line.bytes[usize::from(!is_hit)..line.length];
    // SAFETY: the bytes live until the call returns.
    unsafe { call(WRITE, [plan.log as usize, line.as_ptr() as usize, line.len(), 0, 0, 0]) };
    match plan.kind {
        Kind::Short if known.name == "write" && number != 20 && number != 296 => {
            arguments[2] = arguments[2].div_ceil(2);
            None
        }
        _ if !is_hit => None,
        Kind::Error(code) => Some(-(code as isize)),
        // SAFETY: these calls have no pointers.
        Kind::Kill => unsafe {
            let own = call(GETPID, [0; 6]) as usize;
            Some(call(KILL, [own, 9, 0, 0, 0, 0]))
        },
        Kind::Short => None,
    }
}

/// A line of the log.
struct Line {
    bytes: [u8; 3 * PATH],
    length: usize,
}

impl Line {
    /// Adds bytes, as far as there is space.
    fn add(&mut self, bytes: &[u8]) -> &mut Self {
        let space = &mut self.bytes[self.length..];
        let length = bytes.len().min(space.len());
        space[..length].copy_from_slice(&bytes[..length]);
        self.length += length;
        self
    }

    fn add_path(&mut self, at: At, arguments: &[usize; 6]) {
        match at {
            At::File(at) => self.add_descriptor(arguments[at] as i32),
            At::Path(at) => self.add_text(CURRENT, arguments[at]),
            At::Folder(folder, at) => self.add_text(arguments[folder] as i32, arguments[at]),
        }
    }

    /// Adds the path at an address, behind that of its folder if it is relative.
    fn add_text(&mut self, folder: i32, text: usize) {
        if text == 0 {
            return self.add_descriptor(folder);
        }
        // SAFETY: a path that a program gives the system ends with 0.
        let text = unsafe { CStr::from_ptr(text as *const _) }.to_bytes();
        if !text.starts_with(b"/") {
            self.add_descriptor(folder);
            self.add(b"/");
        }
        self.add(&text[..text.len().min(PATH)]);
    }

    /// Adds the path of an open file.
    fn add_descriptor(&mut self, descriptor: i32) {
        let mut link = [0; 32];
        let mut digits = [0; 10];
        let name: &[u8] = match u32::try_from(descriptor) {
            _ if descriptor == CURRENT => b"cwd",
            Err(_) => return,
            Ok(mut rest) => {
                let mut at = digits.len();
                loop {
                    at -= 1;
                    digits[at] = b'0' + (rest % 10) as u8;
                    rest /= 10;
                    if rest == 0 {
                        break &digits[at..];
                    }
                }
            }
        };
        let start: &[u8] = if descriptor == CURRENT { b"/proc/self/" } else { b"/proc/self/fd/" };
        link[..start.len()].copy_from_slice(start);
        link[start.len()..start.len() + name.len()].copy_from_slice(name);
        let space = &mut self.bytes[self.length..];
        let (to, length) = (space.as_mut_ptr() as usize, space.len().min(PATH));
        // SAFETY: the link ends with 0, and the system writes at most so many bytes to the space.
        let read = unsafe { call(READLINK, [link.as_ptr() as usize, to, length, 0, 0, 0]) };
        self.length += usize::try_from(read).unwrap_or(0);
    }
}
