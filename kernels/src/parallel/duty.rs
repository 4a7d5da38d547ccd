//! The role of a thread in a parallel region.

use std::cell::Cell;

use super::sync::thread_local;
use super::team::Team;

#[derive(Clone, Copy)]
pub(super) enum Duty {
    /// In no region.
    Alone,
    /// Outside a step: a parallel loop becomes a step of this team.
    Leading(*const Team),
    /// Within a step: a parallel loop is run by this thread alone.
    Busy,
}

thread_local! {
    static DUTY: Cell<Duty> = Cell::new(Duty::Alone);
}

pub(super) fn current() -> Duty {
    DUTY.with(Cell::get)
}

/// Gives this thread a role until it is dropped, then the previous one.
pub(super) struct DutyGuard(Duty);

impl DutyGuard {
    pub(super) fn new(role: Duty) -> Self {
        Self(DUTY.with(|current| current.replace(role)))
    }
}

impl Drop for DutyGuard {
    fn drop(&mut self) {
        DUTY.with(|current| current.set(self.0));
    }
}
