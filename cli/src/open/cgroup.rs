//! The memory that control groups leave this process. Containers, services and jobs of a cluster have such limits.

use std::fs;
use std::path::Path;

/// Files of a group.
struct Names {
    /// The least of them counts.
    limits: &'static [&'static str],
    usage: &'static str,
    swap_limit: Option<&'static str>,
    swap_usage: Option<&'static str>,
}

const VERSION_1: Names = Names {
    limits: &["memory.limit_in_bytes"],
    usage: "memory.usage_in_bytes",
    // Counted together with the memory, if at all: none is promised.
    swap_limit: None,
    swap_usage: None,
};

const VERSION_2: Names = Names {
    // Beyond the first the group is ended, beyond the second it hardly runs.
    limits: &["memory.max", "memory.high"],
    usage: "memory.current",
    swap_limit: Some("memory.swap.max"),
    swap_usage: Some("memory.swap.current"),
};

/// Bytes that the group of this process and those around it leave, the least of them; `None` without a limit. `swap`: the free swap of the
/// machine in bytes.
pub fn free(swap: u64) -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    free_in(Path::new("/sys/fs/cgroup"), &groups, swap)
}

/// `groups`: lines of hierarchy, controllers and path, with a colon between them; in version 2 without controllers.
fn free_in(mount: &Path, groups: &str, swap: u64) -> Option<u64> {
    let of_line = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?.strip_prefix('/')?);
        let (mount, names) = match controllers {
            "" => (mount.to_owned(), VERSION_2),
            _ if controllers.split(',').any(|name| name == "memory") => {
                (mount.join("memory"), VERSION_1)
            }
            _ => return None,
        };
        // A container may see the path of its host. Then its own group is the mounted one, and others are not there.
        let group = mount.join(path);
        let around = group.ancestors().take_while(|group| group.starts_with(&mount));
        around.filter_map(|group| left(group, &names, swap)).min()
    };
    groups.lines().filter_map(of_line).min()
}

/// What a group leaves, if it has a limit.
fn left(group: &Path, names: &Names, swap: u64) -> Option<u64> {
    let text = |name: &str| fs::read_to_string(group.join(name)).ok();
    // "max" is none.
    let number = |name: &str| text(name)?.trim().parse::<u64>().ok();
    let limit = names.limits.iter().filter_map(|name| number(name)).min()?;
    let memory = limit.saturating_sub(number(names.usage)?);
    let swap = match (names.swap_limit, names.swap_usage) {
        (Some(limit), Some(usage)) => {
            let limit = number(limit).unwrap_or(u64::MAX);
            swap.min(limit.saturating_sub(number(usage).unwrap_or(0)))
        }
        _ => 0,
    };
    let reclaimable = text("memory.stat").map_or(0, |statistics| reclaimable(&statistics));
    Some(memory.saturating_add(reclaimable).saturating_add(swap))
}

/// Bytes in `memory.stat` that count towards the limit but that the kernel frees when memory is needed: cached files and the kernel's
/// data about them. In version 1 the names with `total_` include the groups below.
fn reclaimable(statistics: &str) -> u64 {
    let value = |name: &str| -> Option<u64> {
        let of = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
        statistics.lines().find_map(of)
    };
    let kinds = [
        &["total_inactive_file", "inactive_file"][..],
        &["total_active_file", "active_file"],
        // In version 2 only.
        &["slab_reclaimable"],
    ];
    kinds.iter().filter_map(|names| names.iter().find_map(|name| value(name))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_were_read_do_not_fill_a_group() {
        let second = "anon 9\nfile 700\nshmem 100\ninactive_file 400\nactive_file 200\nslab_reclaimable 5\nslab_unreclaimable 3\n";
        assert_eq!(reclaimable(second), 605);
        let first =
            "inactive_file 1\nactive_file 2\ntotal_inactive_file 30\ntotal_active_file 40\n";
        assert_eq!(reclaimable(first), 70);
        assert_eq!(reclaimable(""), 0);
    }

    #[test]
    fn the_least_of_the_groups_around_a_process_counts() {
        let mount = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = mount.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let free = |groups: &str, swap| free_in(mount.path(), groups, swap);
        write("system.slice/memory.max", "1000\n");
        write("system.slice/memory.current", "700\n");
        write("system.slice/memory.stat", "inactive_file 50\n");
        write("system.slice/glm.service/memory.max", "max\n");
        write("system.slice/glm.service/memory.current", "600\n");
        let groups = "0::/system.slice/glm.service\n";
        assert_eq!(free(groups, 0), Some(350));
        // As much swap as the machine has free and the group may have.
        assert_eq!(free(groups, 9), Some(359));
        write("system.slice/memory.swap.max", "100\n");
        write("system.slice/memory.swap.current", "96\n");
        assert_eq!(free(groups, 9), Some(354));
        write("system.slice/glm.service/memory.max", "900\n");
        write("system.slice/glm.service/memory.swap.max", "0\n");
        assert_eq!(free(groups, 9), Some(300));
        // Used up.
        write("system.slice/glm.service/memory.max", "500\n");
        assert_eq!(free(groups, 9), Some(0));

        // The lower of two limits, and the only one.
        write("system.slice/glm.service/memory.max", "900\n");
        write("system.slice/glm.service/memory.high", "650\n");
        assert_eq!(free(groups, 0), Some(50));
        write("system.slice/glm.service/memory.max", "max\n");
        assert_eq!(free(groups, 0), Some(50));
        write("system.slice/glm.service/memory.high", "max\n");
        assert_eq!(free(groups, 0), Some(350));

        // Version 1, in a container that sees the path of its host.
        write("memory/memory.limit_in_bytes", "800\n");
        write("memory/memory.usage_in_bytes", "300\n");
        assert_eq!(free("11:cpu,cpuacct:/a\n4:memory:/docker/1f\n0::/\n", 9), Some(500));

        for groups in
            ["", "0::/", "0::/user.slice\n", "1:cpu:/system.slice\n", "memory", "::", "4:memory:a"]
        {
            assert_eq!(free(groups, 9), None, "{groups}");
        }
    }
}
