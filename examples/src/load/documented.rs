//! The figures of the documented system's own load test, on 16 cores.

/// Concurrent users.
pub(super) const USERS: usize = 1_100;
/// Operations, all successful.
pub(super) const OPERATIONS: usize = 1_100;
/// Most users at one moment.
pub(super) const PEAK_CONCURRENT: usize = 1_199;
/// Operations a second.
pub(super) const THROUGHPUT_PER_SECOND: f64 = 2_439.0;
/// Mean response time.
pub(super) const MEAN_MS: f64 = 72.54;
/// Whole time.
pub(super) const TOTAL_SECONDS: f64 = 0.45;
/// Queue messages, their mean time in milliseconds and the share of errors.
pub(super) const QUEUE: (u64, f64, f64) = (22, 115.5, 0.0);
/// Healthy database nodes and timeouts.
pub(super) const DATABASE: (usize, u64) = (4, 0);
/// Fewer database reads by caching, from and to, in percent.
pub(super) const READS_SAVED: (u32, u32) = (60, 80);
/// An answer without the cache, and with it less than, in milliseconds.
pub(super) const ANSWER_MS: (f64, f64) = (50.0, 1.0);
/// Percent.
pub(super) const HEALTH_SCORE: f64 = 100.0;
