//! Reads the files. What cannot be read (another system than Linux, a hidden `/proc`) is absent.

use std::fs;
use std::path::Path;

use super::cgroup::{self, Group, Version};
use super::process;

/// One look at the process and its limits.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Sample {
    pub(crate) cpu_seconds: Option<f64>,
    pub(crate) threads: Option<u64>,
    pub(crate) start_seconds: Option<f64>,
    pub(crate) virtual_bytes: Option<u64>,
    pub(crate) resident_bytes: Option<u64>,
    pub(crate) open_fds: Option<u64>,
    pub(crate) max_fds: Option<u64>,
    /// CPUs the process may run on.
    pub(crate) cpus: Option<u64>,
    /// The container's CPU quota in cores.
    pub(crate) cores_limit: Option<f64>,
    pub(crate) container_cpu_seconds: Option<f64>,
    pub(crate) throttled_seconds: Option<f64>,
    /// The container's limit, where it is below the machine's memory.
    pub(crate) memory_limit: Option<u64>,
    pub(crate) working_set: Option<u64>,
    pub(crate) machine_memory: Option<u64>,
    pub(crate) machine_available: Option<u64>,
}

impl Sample {
    /// Cores this process may use: the lesser of quota and allowed CPUs.
    pub(crate) fn cores(&self) -> Option<f64> {
        let cpus = self.cpus.map(|n| n as f64);
        match (self.cores_limit, cpus) {
            (Some(limit), Some(cpus)) => Some(limit.min(cpus)),
            (limit, cpus) => limit.or(cpus),
        }
    }

    /// Bytes in use and the most there may be: the container's, or the machine's without a limit,
    /// because its out-of-memory killer does not ask whose the memory is.
    pub(crate) fn memory(&self) -> Option<(u64, u64)> {
        match (self.working_set, self.memory_limit) {
            (Some(used), Some(limit)) => Some((used, limit)),
            _ => {
                let total = self.machine_memory?;
                Some((total.saturating_sub(self.machine_available?), total))
            }
        }
    }

    pub(crate) fn memory_percent(&self) -> Option<f64> {
        let (used, limit) = self.memory()?;
        (limit > 0).then(|| used as f64 * 100.0 / limit as f64)
    }
}

/// Knows where the groups are; they do not move during a process's life.
#[derive(Debug)]
pub(crate) struct Reader {
    cpu: Option<Group>,
    cpuacct: Option<Group>,
    memory: Option<Group>,
    boot_seconds: Option<u64>,
}

impl Reader {
    pub(crate) fn new() -> Self {
        let cgroup = text("/proc/self/cgroup").unwrap_or_default();
        let mounts = text("/proc/self/mountinfo").unwrap_or_default();
        let locate = |controller| cgroup::locate(&cgroup, &mounts, controller);
        Self {
            cpu: locate("cpu"),
            cpuacct: locate("cpuacct"),
            memory: locate("memory"),
            boot_seconds: text("/proc/stat").and_then(|t| process::boot_seconds(&t)),
        }
    }

    /// About ten small reads, under 100 µs; nothing here waits for a disk.
    pub(crate) fn sample(&self) -> Sample {
        let mut sample = Sample::default();
        self.process(&mut sample);
        self.cpu(&mut sample);
        self.memory(&mut sample);
        sample
    }

    fn process(&self, sample: &mut Sample) {
        if let Some(stat) = text("/proc/self/stat").and_then(|t| process::stat(&t)) {
            let ticks = rustix::param::clock_ticks_per_second() as f64;
            let page = rustix::param::page_size() as u64;
            sample.cpu_seconds = Some(stat.cpu_ticks as f64 / ticks);
            sample.threads = Some(stat.threads);
            sample.virtual_bytes = Some(stat.virtual_bytes);
            sample.resident_bytes = Some(stat.resident_pages.saturating_mul(page));
            let started = stat.start_ticks as f64 / ticks;
            sample.start_seconds = self.boot_seconds.map(|boot| boot as f64 + started);
        }
        // The folder being listed is itself one of the entries.
        sample.open_fds =
            fs::read_dir("/proc/self/fd").ok().map(|all| (all.count() as u64).saturating_sub(1));
        sample.max_fds = text("/proc/self/limits").and_then(|t| process::max_fds(&t));
        sample.cpus = text("/proc/self/status").and_then(|t| process::allowed_cpus(&t));
    }

    fn cpu(&self, sample: &mut Sample) {
        let Some(group) = &self.cpu else { return };
        let quota = |folder: &Path| match group.version {
            Version::V1 => cgroup::cores_v1(
                &text(folder.join("cpu.cfs_quota_us"))?,
                &text(folder.join("cpu.cfs_period_us"))?,
            ),
            Version::V2 => cgroup::cores_v2(&text(folder.join("cpu.max"))?),
        };
        let tightest = group
            .folders()
            .filter_map(|folder| Some((quota(folder)?, folder)))
            .min_by(|a, b| a.0.total_cmp(&b.0));
        let Some((cores, folder)) = tightest else { return };
        sample.cores_limit = Some(cores);
        let stat = text(folder.join("cpu.stat"));
        sample.throttled_seconds =
            stat.as_deref().and_then(|t| cgroup::throttled_seconds(group.version, t));
        sample.container_cpu_seconds = match group.version {
            Version::V2 => stat.and_then(|t| cgroup::usage_seconds(Version::V2, &t)),
            Version::V1 => self.cpuacct_usage(group, folder),
        };
    }

    /// Version 1 counts CPU time in another controller, often mounted elsewhere.
    fn cpuacct_usage(&self, cpu: &Group, folder: &Path) -> Option<f64> {
        let inside = folder.strip_prefix(&cpu.mount).ok()?;
        let accounts = self.cpuacct.as_ref()?.mount.join(inside).join("cpuacct.usage");
        cgroup::usage_seconds(Version::V1, &text(accounts)?)
    }

    fn memory(&self, sample: &mut Sample) {
        if let Some((total, available)) =
            text("/proc/meminfo").and_then(|t| process::machine_memory(&t))
        {
            sample.machine_memory = Some(total);
            sample.machine_available = Some(available);
        }
        let Some(group) = &self.memory else { return };
        let (limit, usage) = match group.version {
            Version::V1 => ("memory.limit_in_bytes", "memory.usage_in_bytes"),
            Version::V2 => ("memory.max", "memory.current"),
        };
        let tightest = group
            .folders()
            .filter_map(|folder| Some((cgroup::limit_bytes(&text(folder.join(limit))?)?, folder)))
            .min_by_key(|(bytes, _)| *bytes);
        let Some((bytes, folder)) = tightest else { return };
        if sample.machine_memory.is_some_and(|machine| bytes >= machine) {
            return;
        }
        sample.memory_limit = Some(bytes);
        let used = text(folder.join(usage)).and_then(|t| t.trim().parse().ok());
        let stat = text(folder.join("memory.stat")).unwrap_or_default();
        sample.working_set = used.map(|used| cgroup::working_set(group.version, used, &stat));
    }
}

fn text(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_the_container_comes_before_the_machine() {
        let mut sample = Sample {
            machine_memory: Some(1_000),
            machine_available: Some(400),
            ..Sample::default()
        };
        assert_eq!(sample.memory_percent(), Some(60.0));
        sample.memory_limit = Some(200);
        assert_eq!(sample.memory_percent(), Some(60.0), "a limit of unknown use says nothing");
        sample.working_set = Some(50);
        assert_eq!(sample.memory_percent(), Some(25.0));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_can_be_read() {
        let sample = Reader::new().sample();
        assert!(sample.threads.is_some_and(|n| n >= 1));
        assert!(sample.resident_bytes.is_some_and(|n| n > 100_000));
        assert!(sample.open_fds.is_some_and(|n| n >= 3));
        assert!(sample.cores().is_some_and(|n| n > 0.0));
        assert!(sample.memory_percent().is_some_and(|p| p > 0.0 && p <= 100.0));
        // 2020: the start is a wall-clock time, not ticks after boot.
        assert!(sample.start_seconds.is_some_and(|s| s > 1.577e9));
    }
}
