//! The handler of SIGBUS: a read of a mapped file where the file has no bytes any more.
//!
//! The handler puts pages of zeros in their place and returns, so that the read is repeated and succeeds. The results are wrong, and the
//! region says so: whoever computes with a mapped file [checks](super::MappedFiles::check) that before the results count.
//!
//! Between the read and the end of the handler the file stays mapped, because the thread that reads holds it. What the handler calls must
//! be safe at any point of a program. It reads atomic variables, which never wait. `mmap` and `sigaction` are single calls of the system:
//! POSIX lists `sigaction` as safe in handlers, and the C libraries of Linux and macOS keep no state of their own for `mmap`.

use std::ffi::{c_int, c_void};
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::regions;

/// What was done at SIGBUS before.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// Bytes of a page.
static PAGE: AtomicUsize = AtomicUsize::new(0);

/// Installs the handler, once.
pub(super) fn install() -> io::Result<()> {
    static IS_INSTALLED: Mutex<bool> = Mutex::new(false);
    let mut is_installed = IS_INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if *is_installed {
        return Ok(());
    }
    // SAFETY: the call takes a number and returns one.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let page = usize::try_from(page).ok().filter(|page| page.is_power_of_two());
    PAGE.store(page.ok_or_else(io::Error::last_os_error)?, Ordering::Relaxed);
    // SAFETY: all zeros are a valid `sigaction`: no flags, no handler, an empty mask.
    let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a null pointer asks for the present action only, which is written to `before`.
    check(unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut before) })?;
    // Before the handler can run, which reads it.
    let before = BEFORE.get_or_init(|| before);
    // A stack that has overflowed is a SIGBUS on some systems, and has no room for a handler. The standard library gives its threads a
    // stack for signals.
    let mut ours = *before;
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = handle;
    ours.sa_sigaction = handler as usize;
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: `ours` is a copy of a valid action with a handler of the type that `SA_SIGINFO` asks for. That is safe to run at any point
    // of the program, see above.
    check(unsafe { libc::sigaction(libc::SIGBUS, &raw const ours, ptr::null_mut()) })?;
    *is_installed = true;
    Ok(())
}

fn check(returned: c_int) -> io::Result<()> {
    if returned == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

extern "C" fn handle(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the system gives a handler with `SA_SIGINFO` a valid description of the signal.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr().addr()) };
    // Other codes: another process has sent the signal, and there is no address; or memory that nobody reads is broken.
    let is_read = (BUS_ADRALN..=BUS_MCEERR_AR).contains(&code);
    if !(is_read && code != BUS_MCEERR_AR && put_zeros(address)) {
        pass_on(is_read, signal, info, context);
    }
}

/// The codes of a SIGBUS by an access: a wrong alignment, an address without memory, an error of what is mapped, and on Linux broken memory.
/// The numbers are those of POSIX systems, and `libc` has them for some only.
const BUS_ADRALN: c_int = 1;
const BUS_MCEERR_AR: c_int = 4;

/// Puts zeros in place of a mapped file, from the page of `address` on. `false` if no file is mapped there, or the system refuses.
fn put_zeros(address: usize) -> bool {
    let Some(end) = regions::cut(address) else { return false };
    let start = address & !(PAGE.load(Ordering::Relaxed) - 1);
    let flags = libc::MAP_FIXED | libc::MAP_ANON | libc::MAP_PRIVATE;
    let address = ptr::with_exposed_provenance_mut(start);
    // SAFETY: the number of the last error of this thread, which always has one.
    let last = unsafe { &mut *last_error() };
    let before = *last;
    // SAFETY: the pages from `start` to that of the last byte belong to the map of a file, since maps begin with a page and end with one.
    // The file stays mapped while the thread that was interrupted reads it. So no other memory is replaced. That the bytes of a map may
    // change at any time was accepted when it was made.
    let placed = unsafe { libc::mmap(address, end - start, libc::PROT_READ, flags, -1, 0) };
    // The thread may be about to read it.
    *last = before;
    placed != libc::MAP_FAILED
}

/// Does what was done before at a signal that is not about a mapped file.
fn pass_on(is_read: bool, signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let Some(before) = BEFORE.get() else { return };
    match before.sa_sigaction {
        libc::SIG_IGN if !is_read => {}
        libc::SIG_DFL | libc::SIG_IGN => {
            // The read is repeated after the return and has the effect that it had without this handler. A signal that was sent is not
            // repeated by itself.
            // SAFETY: the action is that of before.
            unsafe { libc::sigaction(signal, before, ptr::null_mut()) };
            if !is_read {
                // SAFETY: the call takes a number. The signal waits until this handler returns.
                unsafe { libc::raise(signal) };
            }
        }
        address if before.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: a handler with this flag has this type.
            let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
                unsafe { std::mem::transmute(address) };
            handler(signal, info, context);
        }
        address => {
            // SAFETY: a handler without the flag has this type.
            let handler: extern "C" fn(c_int) = unsafe { std::mem::transmute(address) };
            handler(signal);
        }
    }
}

#[cfg(target_os = "linux")]
use libc::__errno_location as last_error;
#[cfg(target_os = "macos")]
use libc::__error as last_error;
