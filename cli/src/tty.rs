//! The modes of the terminal while a chat runs: keys that are typed during an answer are neither echoed into it nor lost, and the
//! modes return to what they were whenever the program stops or ends.

#[cfg(unix)]
mod unix;

#[cfg(unix)]
pub use unix::{
    Quiet, has_input, is_lent, leave, lend, stops, suspend, wait_for_end, with_restored,
};

/// Elsewhere the modes stay as they are.
#[cfg(not(unix))]
mod other {
    use std::time::Duration;

    use anyhow::Result;

    pub struct Quiet;

    impl Quiet {
        pub fn begin() -> Result<Self> {
            Ok(Self)
        }
    }

    pub fn has_input(_: Duration) -> bool {
        true
    }

    pub fn leave() {}

    pub fn wait_for_end() {}

    pub fn suspend() {}

    pub fn stops() -> usize {
        0
    }

    pub fn with_restored<T>(work: impl FnOnce() -> T) -> T {
        work()
    }

    pub fn lend<T>(work: impl FnOnce() -> T) -> T {
        work()
    }

    pub fn is_lent() -> bool {
        false
    }
}

#[cfg(not(unix))]
pub use other::{
    Quiet, has_input, is_lent, leave, lend, stops, suspend, wait_for_end, with_restored,
};

/// The width of the terminal; unknown where it says 0.
pub fn columns() -> Option<usize> {
    terminal_size::terminal_size().map(|(width, _)| width.0.into()).filter(|&columns| columns > 0)
}

/// The height of the terminal; unknown where it says 0.
pub fn rows() -> Option<usize> {
    terminal_size::terminal_size().map(|(_, height)| height.0.into()).filter(|&rows| rows > 0)
}

/// Whether the terminal obeys no escape sequences; the variable `TERM` says so.
pub fn is_dumb() -> bool {
    std::env::var("TERM").is_ok_and(|term| ["", "dumb", "cons25", "emacs"].contains(&&*term))
}

/// Whether colours are wanted: `NO_COLOR` is not set, and the terminal obeys escape sequences.
pub fn has_colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && !is_dumb()
}
