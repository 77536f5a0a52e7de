//! CPU percentage from two samples.

use tokio::time::Instant;

use super::reader::Sample;

/// Remembers the last sample.
#[derive(Debug, Default)]
pub(crate) struct CpuMeter {
    last: Option<(Instant, Used)>,
}

/// Seconds of CPU used, and by whom; the two kinds must not be subtracted from each other.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Used {
    Container(f64),
    Process(f64),
}

impl CpuMeter {
    /// CPU since the last call, in percent of what may be used; `None` at first.
    ///
    /// Under a quota it is the container's, because all its processes share the quota; otherwise
    /// this process's, over the CPUs it may run on.
    pub(crate) fn percent(&mut self, now: Instant, sample: &Sample) -> Option<f64> {
        let used = match (sample.cores_limit, sample.container_cpu_seconds) {
            (Some(_), Some(seconds)) => Used::Container(seconds),
            _ => Used::Process(sample.cpu_seconds?),
        };
        let (at, before) = self.last.replace((now, used))?;
        let elapsed = now.duration_since(at).as_secs_f64();
        let spent = match (before, used) {
            (Used::Container(a), Used::Container(b)) | (Used::Process(a), Used::Process(b)) => {
                b - a
            }
            _ => return None,
        };
        let cores = sample.cores()?;
        (elapsed > 0.0 && spent >= 0.0).then(|| spent / elapsed / cores * 100.0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn run(samples: &[Sample]) -> Vec<Option<f64>> {
        let mut meter = CpuMeter::default();
        let start = Instant::now();
        let at = |n: usize| start + Duration::from_secs(10 * n as u64);
        samples.iter().enumerate().map(|(n, sample)| meter.percent(at(n), sample)).collect()
    }

    #[test]
    fn without_a_quota_it_is_the_process_over_its_cpus() {
        let sample = |cpu| Sample { cpu_seconds: Some(cpu), cpus: Some(4), ..Sample::default() };
        assert_eq!(run(&[sample(100.0), sample(120.0)]), [None, Some(50.0)]);
    }

    #[test]
    fn under_a_quota_it_is_the_container_over_the_quota() {
        let sample = |container| Sample {
            cpu_seconds: Some(1.0),
            container_cpu_seconds: Some(container),
            cores_limit: Some(0.5),
            cpus: Some(16),
            ..Sample::default()
        };
        assert_eq!(run(&[sample(10.0), sample(14.0)]), [None, Some(80.0)]);
    }

    #[test]
    fn a_quota_above_the_allowed_cpus_does_not_count() {
        let sample = |container| Sample {
            container_cpu_seconds: Some(container),
            cores_limit: Some(8.0),
            cpus: Some(2),
            ..Sample::default()
        };
        assert_eq!(run(&[sample(0.0), sample(10.0)]), [None, Some(50.0)]);
    }

    #[test]
    fn changed_bases_and_lost_time_say_nothing() {
        let process = Sample { cpu_seconds: Some(9.0), cpus: Some(2), ..Sample::default() };
        let container = Sample {
            container_cpu_seconds: Some(50.0),
            cores_limit: Some(1.0),
            ..Sample::default()
        };
        let fallen = Sample { cpu_seconds: Some(1.0), cpus: Some(2), ..Sample::default() };
        assert_eq!(run(&[process.clone(), container, process.clone(), fallen]), [None; 4]);
        assert_eq!(run(&[Sample::default(), process]), [None; 2]);
    }
}
