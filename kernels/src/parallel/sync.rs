//! What the protocol takes from `std`, or under `--cfg loom` from loom.

#[cfg(loom)]
pub(super) use loom::{
    cell::UnsafeCell, hint::spin_loop, sync::atomic, thread::yield_now, thread_local,
};
#[cfg(not(loom))]
pub(super) use std::{hint::spin_loop, sync::atomic, thread::yield_now};

#[cfg(not(loom))]
pub(super) use plain::{UnsafeCell, panicking, stopped_by_panic, thread_local};

#[cfg(all(test, loom))]
pub(super) use simulated::panic_in_task;
#[cfg(loom)]
pub(super) use simulated::{panicking, stopped_by_panic};

#[cfg(not(loom))]
mod plain {
    pub(crate) use std::thread::panicking;

    /// [`std::cell::UnsafeCell`] with the methods of loom's.
    #[derive(Default)]
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        #[inline(always)]
        pub(crate) fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
            read(self.0.get())
        }
        #[inline(always)]
        pub(crate) fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
            write(self.0.get())
        }
    }

    /// [`std::thread_local`] with a constant initialiser, which loom's has not.
    macro_rules! const_thread_local {
        (static $name:ident: $type:ty = $init:expr;) => {
            std::thread_local! {
                static $name: $type = const { $init };
            }
        };
    }
    pub(crate) use const_thread_local as thread_local;

    /// Whether the task just called panicked. Never seen: the panic unwinds past the question.
    #[inline(always)]
    pub(crate) fn stopped_by_panic() -> bool {
        false
    }
}

/// Panics in the model.
///
/// loom runs all threads of a model as coroutines of one thread. The atomic operations in the `drop` of an unwinding coroutine
/// would switch to another one, for which [`std::thread::panicking`] would then be true, too. So a task of the model sets a
/// flag and returns. Whoever called it returns early, dropping the guards that unwinding would drop.
#[cfg(loom)]
mod simulated {
    use std::cell::Cell;

    loom::thread_local! {
        static PANICKING: Cell<bool> = Cell::new(false);
    }

    /// The last thing that a task of the model does instead of panicking.
    #[cfg(test)]
    pub(crate) fn panic_in_task() {
        PANICKING.with(|panicking| panicking.set(true));
    }

    pub(crate) fn panicking() -> bool {
        PANICKING.with(Cell::get)
    }

    pub(crate) fn stopped_by_panic() -> bool {
        panicking()
    }
}
