//! What this machine has and can do.

pub(crate) mod cores;
pub(crate) mod roofline;
