//! Which addresses are mapped files. A handler of signals can read this: it takes no lock and allocates nothing.
//!
//! The regions are a list that only grows. An entry that is no longer needed is used again for the next file, so that the list is as
//! long as the most files that were mapped at a time.

use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering, fence};
use std::sync::{Mutex, PoisonError};

struct Entry {
    /// Odd while the range is being changed. A handler takes a range only if this is even, and the same before and after it has read
    /// the range.
    version: AtomicUsize,
    start: AtomicUsize,
    /// 0 if the entry is free.
    end: AtomicUsize,
    is_cut: AtomicBool,
    /// Set before the entry is in the list, and never changed.
    next: *const Entry,
}

// SAFETY: `next` is null or points to an entry that is never freed, and it does not change once the entry is shared.
unsafe impl Sync for Entry {}

static FIRST: AtomicPtr<Entry> = AtomicPtr::new(ptr::null_mut());

/// The free entries. Whoever changes an entry's range holds it.
static FREE: Mutex<Vec<&'static Entry>> = Mutex::new(Vec::new());

/// All entries. Safe in a handler of signals.
fn entries() -> impl Iterator<Item = &'static Entry> {
    let mut next = FIRST.load(Ordering::Acquire).cast_const();
    std::iter::from_fn(move || {
        // SAFETY: null or an entry that is never freed. Its fields were written before it was published with `Release`.
        let entry = unsafe { next.as_ref() }?;
        next = entry.next;
        Some(entry)
    })
}

impl Entry {
    fn set(&self, range: Range<usize>) {
        self.version.fetch_add(1, Ordering::Relaxed);
        // The odd version is seen by whoever sees a part of the new range.
        fence(Ordering::Release);
        self.start.store(range.start, Ordering::Relaxed);
        self.end.store(range.end, Ordering::Relaxed);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// `None` if it is being changed: then it is not the region of a read that is under way, since such a region is not dropped.
    fn range(&self) -> Option<Range<usize>> {
        let version = self.version.load(Ordering::Acquire);
        let range = self.start.load(Ordering::Relaxed)..self.end.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        let is_whole = version.is_multiple_of(2);
        (is_whole && self.version.load(Ordering::Relaxed) == version).then_some(range)
    }
}

/// The addresses of a mapped file. Dropped before the file is unmapped.
pub(super) struct Region(&'static Entry);

impl Region {
    pub(super) fn new(addresses: Range<*const u8>) -> Self {
        let range = addresses.start.addr()..addresses.end.addr();
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = free.pop() {
            entry.is_cut.store(false, Ordering::Relaxed);
            entry.set(range);
            return Self(entry);
        }
        // The lock keeps others from adding an entry meanwhile.
        let entry = Box::leak(Box::new(Entry {
            version: AtomicUsize::new(0),
            start: AtomicUsize::new(range.start),
            end: AtomicUsize::new(range.end),
            is_cut: AtomicBool::new(false),
            next: FIRST.load(Ordering::Relaxed),
        }));
        FIRST.store(entry, Ordering::Release);
        Self(entry)
    }

    /// Whether [`cut`] was called for an address in it.
    pub(super) fn is_cut(&self) -> bool {
        self.0.is_cut.load(Ordering::Relaxed)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.set(0..0);
        free.push(self.0);
    }
}

/// Notes that the file at this address was cut, and returns the end of its region; `None` if no file is there. Safe in a handler of
/// signals, if the thread that it interrupts reads at the address.
pub(super) fn cut(address: usize) -> Option<usize> {
    entries().find_map(|entry| {
        let range = entry.range().filter(|range| range.contains(&address))?;
        entry.is_cut.store(true, Ordering::Relaxed);
        Some(range.end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_belong_to_the_files_that_are_mapped() {
        // No file is mapped there.
        let at = |start: usize| {
            ptr::without_provenance::<u8>(start)..ptr::without_provenance(start + 100)
        };
        let (first, second) = (Region::new(at(1000)), Region::new(at(2000)));
        assert_eq!(cut(2099), Some(2100));
        assert!(second.is_cut() && !first.is_cut());
        assert_eq!((cut(999), cut(1100), cut(2100)), (None, None, None));
        drop(second);
        assert_eq!(cut(2050), None);
        // Whichever entry it has.
        let third = Region::new(at(3000));
        assert!(!third.is_cut());
        assert_eq!((cut(1000), cut(3000), cut(2000)), (Some(1100), Some(3100), None));
    }

    #[test]
    fn a_range_is_never_read_in_part() {
        let end = std::thread::spawn(|| {
            for i in 0..20_000usize {
                let start = 10_000 + 1_000 * (i % 7);
                let (start, end) = (start, start + 10);
                drop(Region::new(ptr::without_provenance(start)..ptr::without_provenance(end)));
            }
        });
        while !end.is_finished() {
            for range in entries().filter_map(Entry::range) {
                let is_ours = (10_000..20_000).contains(&range.start);
                assert!(!is_ours || range.len() == 10, "{range:?}");
            }
        }
        end.join().unwrap();
    }
}
