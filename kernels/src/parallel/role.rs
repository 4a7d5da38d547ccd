//! The role of a thread in a parallel region.

use std::cell::Cell;

use super::sync::thread_local;
use super::team::Team;

#[derive(Clone, Copy)]
pub(super) enum Role {
    /// In no region.
    Alone,
    /// Outside a step: a parallel loop becomes a step of this team.
    Leading(*const Team),
    /// Within a step: a parallel loop is run by this thread alone.
    Busy,
}

thread_local! {
    static ROLE: Cell<Role> = Cell::new(Role::Alone);
}

pub(super) fn current() -> Role {
    ROLE.with(Cell::get)
}

/// Gives this thread a role until it is dropped, then the previous one.
pub(super) struct RoleGuard(Role);

impl RoleGuard {
    pub(super) fn new(role: Role) -> Self {
        Self(ROLE.with(|current| current.replace(role)))
    }
}

impl Drop for RoleGuard {
    fn drop(&mut self) {
        ROLE.with(|current| current.set(self.0));
    }
}
