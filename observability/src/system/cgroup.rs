//! Where the control groups of this process are, and what their files say. Pure text.

use std::path::{Path, PathBuf};

use super::process::line;

/// Version 1 says "no limit" by a number near 2^63, rounded down to a page.
const UNLIMITED_V1: u64 = 1 << 62;

/// The two layouts differ in file names and units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

/// One controller's folder of this process, and how far up its parents may be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) version: Version,
    pub(crate) mount: PathBuf,
    pub(crate) folder: PathBuf,
}

impl Group {
    /// The folder, then its parents up to the mount: a limit on any of them binds.
    pub(crate) fn folders(&self) -> impl Iterator<Item = &Path> {
        self.folder.ancestors().take_while(|folder| folder.starts_with(&self.mount))
    }
}

/// The group of one controller (`cpu`, `cpuacct`, `memory`), from `/proc/self/cgroup` and
/// `/proc/self/mountinfo`. A controller bound to version 1 wins over the unified tree, which in a
/// mixed system does not have it.
pub(crate) fn locate(cgroup: &str, mountinfo: &str, controller: &str) -> Option<Group> {
    let path_of = |wanted: &str| {
        cgroup.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            controllers.split(',').any(|c| c == wanted).then_some(path)
        })
    };
    for (version, path) in [(Version::V1, path_of(controller)), (Version::V2, path_of(""))] {
        let Some(path) = path else { continue };
        for line in mountinfo.lines() {
            let Some(mount) = Mount::parse(line) else { continue };
            let fits = match version {
                Version::V1 => {
                    mount.kind == "cgroup" && mount.options.split(',').any(|o| o == controller)
                }
                Version::V2 => mount.kind == "cgroup2",
            };
            if fits {
                return Some(mount.group(version, path));
            }
        }
    }
    None
}

struct Mount<'a> {
    /// The folder of the file system that is mounted; in a container often its own group.
    root: &'a str,
    point: &'a str,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    /// A line of `mountinfo`: `id parent dev root point options [tags] - type source options`.
    fn parse(line: &'a str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (root, point) = (left.next()?, left.next()?);
        let mut right = right.split(' ');
        let (kind, _source, options) = (right.next()?, right.next()?, right.next().unwrap_or(""));
        Some(Self { root, point, kind, options })
    }

    fn group(&self, version: Version, path: &str) -> Group {
        // Without a namespace the path counts from the host's root, of which only a part is
        // mounted here; a path outside of that part is shown as the mount itself.
        let inside = Path::new(path).strip_prefix(self.root).unwrap_or(Path::new(""));
        let mount = PathBuf::from(self.point);
        // `..` would climb out of the mount; the kernel writes it for groups outside a namespace.
        let plain = inside.components().all(|c| matches!(c, std::path::Component::Normal(_)));
        let whole = inside.as_os_str().is_empty();
        let folder = if plain && !whole { mount.join(inside) } else { mount.clone() };
        Group { version, mount, folder }
    }
}

/// Cores of `cpu.max`; `None` without a quota.
pub(crate) fn cores_v2(cpu_max: &str) -> Option<f64> {
    let (quota, period) = cpu_max.trim().split_once(' ')?;
    ratio(quota.parse().ok()?, period.parse().ok()?)
}

/// Cores of `cpu.cfs_quota_us` and `cpu.cfs_period_us`; `None` for the quota -1.
pub(crate) fn cores_v1(quota: &str, period: &str) -> Option<f64> {
    ratio(quota.trim().parse().ok()?, period.trim().parse().ok()?)
}

fn ratio(quota: i64, period: i64) -> Option<f64> {
    (quota > 0 && period > 0).then(|| quota as f64 / period as f64)
}

/// A limit in bytes; `None` for `max` and for version 1's huge number.
pub(crate) fn limit_bytes(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|&bytes| bytes < UNLIMITED_V1)
}

/// Seconds of CPU the group used: `cpuacct.usage` in nanoseconds or `cpu.stat` of version 2.
pub(crate) fn usage_seconds(version: Version, text: &str) -> Option<f64> {
    match version {
        Version::V1 => Some(text.trim().parse::<f64>().ok()? / 1e9),
        Version::V2 => Some(line(text, "usage_usec ")?.trim().parse::<f64>().ok()? / 1e6),
    }
}

/// Seconds the group was held back by its quota, from `cpu.stat`.
pub(crate) fn throttled_seconds(version: Version, text: &str) -> Option<f64> {
    match version {
        Version::V1 => Some(line(text, "throttled_time ")?.trim().parse::<f64>().ok()? / 1e9),
        Version::V2 => Some(line(text, "throttled_usec ")?.trim().parse::<f64>().ok()? / 1e6),
    }
}

/// Bytes that cannot be given back at once: usage without the page cache's cold half. Counting
/// that too would make every file read look like a leak.
pub(crate) fn working_set(version: Version, usage: u64, memory_stat: &str) -> u64 {
    let key = match version {
        Version::V1 => "total_inactive_file ",
        Version::V2 => "inactive_file ",
    };
    let cold = line(memory_stat, key).and_then(|v| v.trim().parse().ok()).unwrap_or(0);
    usage.saturating_sub(cold)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HYBRID: &str = "5:memory:/jobs/a45\n2:cpuacct,cpu:/\n1:name=systemd:/\n0::/\n";
    const HYBRID_MOUNTS: &str = "\
        22 27 0:21 / /proc rw,relatime - proc proc rw\n\
        32 31 0:29 / /sys/fs/cgroup/cpu rw shared:5 - cgroup cgroup rw,cpu,cpuacct\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";

    fn folders(cgroup: &str, mounts: &str, controller: &str) -> Vec<String> {
        let group = locate(cgroup, mounts, controller).unwrap();
        group.folders().map(|f| f.display().to_string()).collect()
    }

    #[test]
    fn version_1_wins_where_it_has_the_controller() {
        assert_eq!(locate(HYBRID, HYBRID_MOUNTS, "memory").unwrap().version, Version::V1);
        assert_eq!(
            folders(HYBRID, HYBRID_MOUNTS, "memory"),
            [
                "/sys/fs/cgroup/memory/jobs/a45",
                "/sys/fs/cgroup/memory/jobs",
                "/sys/fs/cgroup/memory"
            ]
        );
        assert_eq!(folders(HYBRID, HYBRID_MOUNTS, "cpu"), ["/sys/fs/cgroup/cpu"]);
    }

    #[test]
    fn version_2_is_found_with_and_without_a_namespace() {
        let mounts = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(folders("0::/\n", mounts, "cpu"), ["/sys/fs/cgroup"]);
        let path = "0::/kubepods.slice/pod7/app\n";
        assert_eq!(folders(path, mounts, "memory").len(), 4);
        // Mounted from inside the group itself, as a container runtime does.
        let inside = "30 23 0:26 /docker/f00 /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        assert_eq!(folders("0::/docker/f00\n", inside, "cpu"), ["/sys/fs/cgroup"]);
        assert_eq!(folders("0::/docker/f00/sub\n", inside, "cpu").len(), 2);
        assert_eq!(folders("0::/../../etc\n", mounts, "cpu"), ["/sys/fs/cgroup"]);
        assert_eq!(locate("", mounts, "cpu"), None);
        assert_eq!(locate("0::/\n", "", "cpu"), None);
    }

    #[test]
    fn quotas_become_cores() {
        for (text, cores) in [
            ("150000 100000\n", Some(1.5)),
            ("max 100000\n", None),
            ("0 100000", None),
            ("50000 0", None),
            ("", None),
        ] {
            assert_eq!(cores_v2(text), cores, "{text:?}");
        }
        assert_eq!(cores_v1("-1\n", "100000\n"), None);
        assert_eq!(cores_v1("400000\n", "100000\n"), Some(4.0));
    }

    #[test]
    fn memory_limits_know_unlimited() {
        for (text, bytes) in [
            ("536870912\n", Some(536_870_912)),
            ("max\n", None),
            ("9223372036854771712\n", None),
            ("-1", None),
        ] {
            assert_eq!(limit_bytes(text), bytes, "{text:?}");
        }
    }

    #[test]
    fn usage_is_read_in_the_units_of_its_version() {
        assert_eq!(usage_seconds(Version::V1, "1500000000\n"), Some(1.5));
        let v2 = "usage_usec 2500000\nnr_throttled 3\nthrottled_usec 500000\n";
        assert_eq!(usage_seconds(Version::V2, v2), Some(2.5));
        assert_eq!(throttled_seconds(Version::V2, v2), Some(0.5));
        assert_eq!(throttled_seconds(Version::V1, "throttled_time 3000000000\n"), Some(3.0));
        assert_eq!(throttled_seconds(Version::V2, "usage_usec 1\n"), None);
        assert_eq!(working_set(Version::V2, 100, "anon 50\ninactive_file 30\n"), 70);
        assert_eq!(working_set(Version::V1, 100, "inactive_file 9\ntotal_inactive_file 40\n"), 60);
        assert_eq!(working_set(Version::V2, 10, "inactive_file 30\n"), 0);
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(a in any::<String>(), b in any::<String>()) {
            let cgroup = format!("0::{a}\n3:cpu:{b}");
            let mounts = format!("1 2 3 {a} {b} rw - cgroup2 x {b}\n1 2 3 / {a} rw - cgroup x cpu");
            if let Some(group) = locate(&cgroup, &mounts, "cpu") {
                prop_assert!(group.folders().count() < 1_000);
            }
            let _ = (cores_v2(&a), cores_v1(&a, &b), limit_bytes(&a));
            let _ = (usage_seconds(Version::V2, &a), working_set(Version::V1, 5, &b));
        }
    }
}
