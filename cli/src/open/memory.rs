//! The memory that a model needs, and the memory that is free.

use anyhow::{Result, bail};
use glm_model::Inventory;

use super::cgroup;
use crate::messages;
use crate::units::bytes;

/// Refuses a model that does not fit in memory, before the system ends the process. Weights that stay mapped, which are none with
/// `no_mmap`, need no memory of their own.
pub fn check(inventory: &Inventory, no_mmap: bool, available: u64) -> Result<()> {
    let copied = inventory.copied_bytes;
    let needed = if no_mmap { inventory.bytes() } else { copied };
    // 0: the system does not say.
    if available == 0 || needed <= available {
        return Ok(());
    }
    let [needed_bytes, available_bytes] = [needed, available].map(bytes);
    match copied <= available {
        true => bail!(messages::no_mmap_needs_memory(needed_bytes, available_bytes)),
        false => bail!(messages::model_needs_memory(needed_bytes, available_bytes)),
    }
}

/// Tokens of a context for which there should be memory beside mapped experts.
const CONTEXT: usize = 2048;

/// Bytes of a model whose experts do not fit in memory beside all else and a context of some length, so that they are read from the disk
/// as tokens choose them; `None` if they fit, or are copied. `available`: memory that can hold files.
pub fn streamed(inventory: &Inventory, no_mmap: bool, available: u64) -> Option<u64> {
    let context = CONTEXT.min(inventory.config.max_context);
    let (cache, workspace) = inventory.context_bytes(context);
    let needed = inventory.resident_bytes(context) + cache + workspace;
    let experts = inventory.expert_bytes;
    let are_mapped = !no_mmap && experts > 0 && inventory.mapped_bytes() >= experts;
    // 0: the system does not say.
    (are_mapped && available > 0 && needed > available).then_some(needed)
}

/// Whether all that is mapped can be in memory at the same time: else the last of it would take the place of the first.
pub fn can_preload(inventory: &Inventory, available: u64) -> bool {
    available == 0 || inventory.mapped_bytes() <= available
}

/// Bytes of memory that can hold files: files do not go to the swap, and limits of a process do not count them. 0 if the system does not
/// say.
pub fn free_for_files() -> u64 {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    let available = system.available_memory();
    cgroup::free(0).map_or(available, |left| available.min(left.max(1)))
}

/// Bytes of memory that are free; 0 if the system does not say.
pub fn free() -> u64 {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    let swap = system.free_swap();
    let mut available = system.available_memory() + swap;
    if let Some(left) = cgroup::free(swap) {
        // Not 0, which stands for unknown.
        available = available.min(left.max(1));
    }
    match (available, address_space()) {
        (0, u64::MAX) => 0,
        (0, left) => left.max(1),
        (available, left) => available.min(left.max(1)),
    }
}

/// Bytes that this process may still have of the address space (`ulimit -v`) and of memory of its own (`ulimit -d`).
#[cfg(target_os = "linux")]
fn address_space() -> u64 {
    use rustix::process::{Resource, getrlimit};
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let left = |(resource, name)| {
        let limit = getrlimit(resource).current?;
        Some(limit.saturating_sub(kilobytes(&status, name)? << 10))
    };
    let limits = [(Resource::As, "VmSize:"), (Resource::Data, "VmData:")];
    limits.into_iter().filter_map(left).min().unwrap_or(u64::MAX)
}

#[cfg(not(target_os = "linux"))]
fn address_space() -> u64 {
    u64::MAX
}

/// Memory of this process, including the parts of mapped files that were read; `None` if the system does not say.
pub fn own() -> Option<u64> {
    of_process("VmRSS:")
}

/// The most of [`own`] since it began.
pub fn peak() -> Option<u64> {
    of_process("VmHWM:")
}

fn of_process(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    Some(kilobytes(&status, name)? << 10)
}

/// A number of `/proc/self/status`.
fn kilobytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// Bytes for keys and values beside the weights. Weights that stay mapped may be larger than the memory, and then they are read again
/// and again: that is slow, but something must be left for the answers.
pub fn beside(weights: u64, available: u64) -> u64 {
    (available.saturating_sub(weights) / 4 * 3).max(available / 4)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use glm_model::ModelFiles;

    use super::*;

    #[test]
    fn the_status_of_a_process_has_numbers() {
        let status = "Name:\tglm\nVmPeak:\t   9 kB\nVmSize:\t  1234 kB\nThreads:\t1\n";
        assert_eq!(kilobytes(status, "VmSize:"), Some(1234));
        assert_eq!(kilobytes(status, "Threads:"), None);
        assert_eq!(kilobytes(status, "VmData:"), None);
    }

    #[test]
    fn a_model_that_would_not_fit_into_memory_is_refused() {
        let models =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/models/chatglm-6b-tiny");
        let open =
            |variant: &str| ModelFiles::open(models.join(variant)).unwrap().inventory().clone();
        let (copied, mapped) = (open("int4"), open("bin-f16"));
        let needed = copied.copied_bytes;
        let refusal = check(&copied, false, needed - 1).unwrap_err().to_string();
        assert!(refusal.contains(&format!("takes {} of memory", bytes(needed))), "{refusal}");
        assert!(refusal.contains("`glm quantize`"), "{refusal}");
        assert!(check(&copied, false, needed).is_ok());
        assert!(check(&mapped, false, 1).is_ok());
        // The system does not say.
        assert!(check(&copied, false, 0).is_ok());
        // What would be mapped is counted.
        let all = mapped.bytes();
        assert!(all > mapped.copied_bytes && check(&mapped, true, all).is_ok());
        let refusal = check(&mapped, true, all - 1).unwrap_err().to_string();
        assert!(refusal.contains("leave out --no-mmap"), "{refusal}");
        assert!(check(&copied, true, copied.bytes() - 1).is_err());
    }

    #[test]
    fn only_experts_that_are_larger_than_memory_are_streamed() {
        let models =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/models/chatglm-6b-tiny");
        let mut inventory = ModelFiles::open(models.join("bin-f16")).unwrap().inventory().clone();
        assert_eq!(streamed(&inventory, false, 1), None);
        inventory.expert_bytes = inventory.bytes() / 2;
        let all = streamed(&inventory, false, 1).unwrap();
        // Keys and values count, too.
        assert!(all > inventory.bytes());
        assert_eq!(streamed(&inventory, false, all - 1), Some(all));
        assert_eq!(streamed(&inventory, true, all - 1), None);
        let mut copied = inventory.clone();
        copied.copied_bytes = copied.bytes();
        assert_eq!(streamed(&copied, false, all - 1), None);
        let mapped = inventory.mapped_bytes();
        assert!(mapped > 0 && can_preload(&inventory, mapped) && can_preload(&inventory, 0));
        assert!(!can_preload(&inventory, mapped - 1));
        // Enough memory, or the system does not say.
        assert_eq!([all, 0].map(|free| streamed(&inventory, false, free)), [None, None]);
    }

    #[test]
    fn keys_and_values_have_memory_beside_any_weights() {
        assert_eq!(beside(4 << 30, 12 << 30), 6 << 30);
        assert_eq!(beside(12 << 30, 8 << 30), 2 << 30);
    }
}
