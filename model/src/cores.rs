//! How many cores there are, and how many of them are fast.

/// The cores of the machine as far as this process may use them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cores {
    /// Threads that run at a time.
    pub threads: usize,
    /// Physical cores.
    pub physical: usize,
    /// Of them the fast ones, on a machine that has two kinds; otherwise all.
    pub fast: usize,
}

impl Cores {
    /// Asks the operating system.
    pub fn detect() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let physical = num_cpus::get_physical().clamp(1, threads);
        let fast = fast().map_or(physical, |fast| fast.clamp(1, physical));
        Self { threads, physical, fast }
    }

    /// Threads of a forward pass where nobody says how many: two on one core share its multipliers and its way to memory, and a
    /// slow core would keep the fast ones waiting.
    pub fn default_threads(self) -> usize {
        self.fast
    }
}

/// Fast cores, where the system has two kinds and tells.
#[cfg(target_os = "linux")]
fn fast() -> Option<usize> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    // Intel: the threads of fast cores have a list of their own; those of one core share its first.
    if let Some(list) = read("/sys/devices/cpu_core/cpus") {
        let first_of = |cpu| {
            let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
            read(&path).and_then(|siblings| cpus(&siblings).next()).unwrap_or(cpu)
        };
        return Some(cpus(&list).filter(|&cpu| first_of(cpu) == cpu).count());
    }
    // ARM: each core says what it can do, the best 1024.
    let capacity = |cpu| read(&format!("/sys/devices/system/cpu/cpu{cpu}/cpu_capacity"));
    let capacities = (0..).map_while(capacity).filter_map(|text| text.trim().parse().ok());
    among(capacities.collect())
}

/// Fast cores, where the system has two kinds and tells.
#[cfg(target_os = "macos")]
fn fast() -> Option<usize> {
    use sysctl::Sysctl;
    let value = sysctl::Ctl::new("hw.perflevel0.physicalcpu").ok()?.value_string().ok()?;
    value.trim().parse().ok()
}

/// Fast cores, where the system has two kinds and tells.
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn fast() -> Option<usize> {
    None
}

/// A list as Linux writes it: `0-3,8`.
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
fn cpus(list: &str) -> impl Iterator<Item = usize> {
    list.trim().split(',').flat_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        match (first.parse::<usize>(), last.parse::<usize>()) {
            (Ok(first), Ok(last)) => first..last.saturating_add(1),
            _ => 0..0,
        }
    })
}

/// How many of some capacities are near the largest: the middle cores of three kinds are, the small ones are not.
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
fn among(capacities: Vec<u32>) -> Option<usize> {
    let most = capacities.iter().max()?;
    Some(capacities.iter().filter(|&&capacity| 10 * capacity >= 7 * most).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_capacities_are_counted() {
        assert_eq!(cpus("0-3,8\n").collect::<Vec<_>>(), [0, 1, 2, 3, 8]);
        assert_eq!(cpus("5").collect::<Vec<_>>(), [5]);
        assert_eq!(cpus("\n").count(), 0);
        assert_eq!(among(vec![446, 446, 446, 446, 871, 871, 871, 1024]), Some(4));
        assert_eq!(among(vec![1024; 8]), Some(8));
        assert_eq!(among(Vec::new()), None);
    }

    #[test]
    fn there_is_a_core() {
        let cores = Cores::detect();
        assert!((1..=cores.physical).contains(&cores.fast) && cores.physical <= cores.threads);
    }
}
