//! Whether a download shall stop.

use glm_model::{CancelToken, Error};

use crate::interrupt::Termination;

/// Ctrl-C or a signal that ends the program. Threads share it.
#[derive(Clone, Default)]
pub struct Stop {
    pub cancel: CancelToken,
    pub termination: Termination,
}

impl Stop {
    pub fn is_requested(&self) -> bool {
        self.cancel.is_cancelled() || self.termination.is_requested()
    }

    /// # Errors
    /// [`Error::Cancelled`] if the program shall stop.
    pub fn check(&self) -> Result<(), Error> {
        if self.is_requested() { Err(Error::Cancelled) } else { Ok(()) }
    }
}
