//! The number of cores that this process may use, and how many of them are performance cores.

use std::collections::BTreeMap;

/// The cores of the machine that this process may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cores {
    /// Hardware threads.
    pub threads: usize,
    /// Physical cores.
    pub physical: usize,
    /// Performance cores among them, on a hybrid CPU; otherwise all.
    pub fast: usize,
}

impl Cores {
    /// Asks the operating system for the cores.
    pub fn detect() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let (physical, fast) = count();
        let physical = physical.clamp(1, threads);
        let fast = fast.map_or(physical, |fast| fast.clamp(1, physical));
        Self { threads, physical, fast }
    }

    /// Default number of threads of a forward pass: one per performance core. Two threads of one core share its execution units
    /// and its memory bandwidth, and the performance cores would wait for an efficiency core at every barrier.
    pub fn default_threads(self) -> usize {
        self.fast
    }
}

/// Physical cores, and the number of performance cores if the CPU is hybrid and the system reports them.
#[cfg(target_os = "linux")]
fn count() -> (usize, Option<usize>) {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    count_allowed(read).unwrap_or_else(|| (num_cpus::get_physical(), None))
}

/// Physical cores, and the number of performance cores if the CPU is hybrid and the system reports them.
#[cfg(target_os = "macos")]
fn count() -> (usize, Option<usize>) {
    use sysctl::Sysctl;
    let value = sysctl::Ctl::new("hw.perflevel0.physicalcpu").and_then(|c| c.value_string());
    (num_cpus::get_physical(), value.ok().and_then(|value| value.trim().parse().ok()))
}

/// Physical cores; other systems do not report performance cores.
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn count() -> (usize, Option<usize>) {
    (num_cpus::get_physical(), None)
}

/// The cores in the affinity mask of this process. `read` reads a file of procfs or sysfs.
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
fn count_allowed(read: impl Fn(&str) -> Option<String>) -> Option<(usize, Option<usize>)> {
    let status = read("/proc/thread-self/status")?;
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let about = |cpu, what| read(&format!("/sys/devices/system/cpu/cpu{cpu}/{what}"));
    // A core is identified by the first of its hardware threads. The map has one allowed CPU per core. The affinity mask may list
    // CPUs that do not exist; those have no topology file and are skipped.
    let core = |cpu| cpus(&about(cpu, "topology/thread_siblings_list")?).next();
    let cores: BTreeMap<_, _> = cpus(allowed).filter_map(|cpu| Some((core(cpu)?, cpu))).collect();
    if cores.is_empty() {
        return None;
    }
    let fast = match read("/sys/devices/cpu_core/cpus") {
        // Intel hybrid: this file lists the hardware threads of the performance cores.
        Some(list) => {
            let fast: Vec<_> = cpus(&list).collect();
            Some(cores.values().filter(|cpu| fast.contains(cpu)).count())
        }
        // ARM: each core has a capacity; that of the fastest is 1024.
        None => {
            let capacity = |cpu| about(cpu, "cpu_capacity")?.trim().parse().ok();
            cores.values().map(|&cpu| capacity(cpu)).collect::<Option<_>>().and_then(count_fast)
        }
    };
    // A process whose affinity mask has efficiency cores only uses all of them.
    Some((cores.len(), fast.filter(|&fast| fast > 0)))
}

/// Parses a CPU list of Linux, such as `0-3,8`.
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

/// The number of capacities of at least 70 % of the largest. On a CPU with three kinds of cores this includes the medium ones.
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
fn count_fast(capacities: Vec<u64>) -> Option<usize> {
    let most = capacities.iter().max()?;
    Some(capacities.iter().filter(|&&capacity| 10 * capacity >= 7 * most).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_cpu_lists_and_counts_capacities() {
        assert_eq!(cpus("0-3,8\n").collect::<Vec<_>>(), [0, 1, 2, 3, 8]);
        assert_eq!(cpus("5").collect::<Vec<_>>(), [5]);
        assert_eq!(cpus("\n").count(), 0);
        assert_eq!(count_fast(vec![446, 446, 446, 446, 871, 871, 871, 1024]), Some(4));
        assert_eq!(count_fast(vec![1024; 8]), Some(8));
        assert_eq!(count_fast(Vec::new()), None);
    }

    /// Intel: two performance cores with two threads each and four efficiency cores. ARM: four big and four little cores.
    fn files<'a>(allowed: &'a str, intel: bool) -> impl Fn(&str) -> Option<String> + 'a {
        move |path| {
            let of = |what: &str| -> Option<u32> {
                let cpu = path.strip_prefix("/sys/devices/system/cpu/cpu")?;
                cpu.strip_suffix(what)?.parse().ok()
            };
            if path == "/proc/thread-self/status" {
                return Some(format!("Threads:\t1\nCpus_allowed_list:\t{allowed}\n"));
            }
            if let Some(cpu) = of("/topology/thread_siblings_list") {
                let last = if intel && cpu < 4 { cpu | 1 } else { cpu };
                let first = if intel && cpu < 4 { cpu & 2 } else { cpu };
                return (cpu < 8).then(|| format!("{first}-{last}\n"));
            }
            if path == "/sys/devices/cpu_core/cpus" {
                return intel.then(|| "0-3\n".to_owned());
            }
            let cpu = of("/cpu_capacity").filter(|&cpu| !intel && cpu < 8)?;
            Some(if cpu < 4 { "446\n" } else { "1024\n" }.to_owned())
        }
    }

    #[test]
    fn only_allowed_cores_are_counted() {
        let count = |allowed, intel| count_allowed(files(allowed, intel)).unwrap();
        assert_eq!(count("0-7", true), (6, Some(2)));
        assert_eq!(count("0,3,6-7", true), (4, Some(2)));
        assert_eq!(count("2-3", true), (1, Some(1)));
        assert_eq!(count("5-7", true), (3, None));
        assert_eq!(count("0-7", false), (8, Some(4)));
        // The mask lists CPUs that do not exist.
        assert_eq!(count("0-127", true), (6, Some(2)));
        assert_eq!(count("0-127", false), (8, Some(4)));
        assert_eq!(count("0-1,7", false), (3, Some(1)));
        assert_eq!(count("0-3", false), (4, Some(4)));
        assert_eq!(count_allowed(|_| None), None);
    }

    #[test]
    fn detects_at_least_one_core() {
        let cores = Cores::detect();
        assert!((1..=cores.physical).contains(&cores.fast) && cores.physical <= cores.threads);
    }
}
