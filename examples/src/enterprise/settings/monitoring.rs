//! When the server warns.

use escala_observability::{Threshold, Thresholds};

/// The documented thresholds; CPU, memory and error rate in percent.
#[derive(Clone, Debug, clap::Args)]
pub struct Monitoring {
    /// Milliseconds between two alerts of one kind.
    #[arg(long, env = "MONITORING_ALERT_COOLDOWN", value_name = "MONITORING_ALERT_COOLDOWN",
          default_value_t = 300_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    pub alert_cooldown: u64,
    /// Milliseconds between two samples.
    #[arg(long, env = "MONITORING_METRICS_INTERVAL", value_name = "MONITORING_METRICS_INTERVAL",
          default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(100..=3_600_000))]
    pub metrics_interval: u64,
    /// CPU warning, percent.
    #[arg(
        long,
        env = "MONITORING_CPU_WARNING",
        value_name = "MONITORING_CPU_WARNING",
        default_value_t = 70.0
    )]
    pub cpu_warning: f64,
    /// CPU critical, percent.
    #[arg(
        long,
        env = "MONITORING_CPU_CRITICAL",
        value_name = "MONITORING_CPU_CRITICAL",
        default_value_t = 90.0
    )]
    pub cpu_critical: f64,
    /// Memory warning, percent.
    #[arg(
        long,
        env = "MONITORING_MEMORY_WARNING",
        value_name = "MONITORING_MEMORY_WARNING",
        default_value_t = 80.0
    )]
    pub memory_warning: f64,
    /// Memory critical, percent.
    #[arg(
        long,
        env = "MONITORING_MEMORY_CRITICAL",
        value_name = "MONITORING_MEMORY_CRITICAL",
        default_value_t = 95.0
    )]
    pub memory_critical: f64,
    /// Mean response time warning, milliseconds.
    #[arg(
        long,
        env = "MONITORING_RESPONSE_TIME_WARNING",
        value_name = "MONITORING_RESPONSE_TIME_WARNING",
        default_value_t = 1_000.0
    )]
    pub response_time_warning: f64,
    /// Mean response time critical, milliseconds.
    #[arg(
        long,
        env = "MONITORING_RESPONSE_TIME_CRITICAL",
        value_name = "MONITORING_RESPONSE_TIME_CRITICAL",
        default_value_t = 3_000.0
    )]
    pub response_time_critical: f64,
    /// Error rate warning, percent.
    #[arg(
        long,
        env = "MONITORING_ERROR_RATE_WARNING",
        value_name = "MONITORING_ERROR_RATE_WARNING",
        default_value_t = 1.0
    )]
    pub error_rate_warning: f64,
    /// Error rate critical, percent.
    #[arg(
        long,
        env = "MONITORING_ERROR_RATE_CRITICAL",
        value_name = "MONITORING_ERROR_RATE_CRITICAL",
        default_value_t = 5.0
    )]
    pub error_rate_critical: f64,
    /// Concurrent users warning.
    #[arg(
        long,
        env = "MONITORING_CONCURRENT_USERS_WARNING",
        value_name = "MONITORING_CONCURRENT_USERS_WARNING",
        default_value_t = 800.0
    )]
    pub concurrent_users_warning: f64,
    /// Concurrent users critical.
    #[arg(
        long,
        env = "MONITORING_CONCURRENT_USERS_CRITICAL",
        value_name = "MONITORING_CONCURRENT_USERS_CRITICAL",
        default_value_t = 950.0
    )]
    pub concurrent_users_critical: f64,
    /// Waiting jobs warning.
    #[arg(
        long,
        env = "MONITORING_QUEUE_SIZE_WARNING",
        value_name = "MONITORING_QUEUE_SIZE_WARNING",
        default_value_t = 1_000.0
    )]
    pub queue_size_warning: f64,
    /// Waiting jobs critical.
    #[arg(
        long,
        env = "MONITORING_QUEUE_SIZE_CRITICAL",
        value_name = "MONITORING_QUEUE_SIZE_CRITICAL",
        default_value_t = 5_000.0
    )]
    pub queue_size_critical: f64,
}

impl Monitoring {
    /// The six documented thresholds as set.
    #[must_use]
    pub fn thresholds(&self) -> Thresholds {
        let mut thresholds = Thresholds::default();
        thresholds.cpu = Threshold::new(self.cpu_warning, self.cpu_critical);
        thresholds.memory = Threshold::new(self.memory_warning, self.memory_critical);
        thresholds.response_time =
            Threshold::new(self.response_time_warning, self.response_time_critical);
        thresholds.error_rate = Threshold::new(self.error_rate_warning, self.error_rate_critical);
        thresholds.concurrent_users =
            Threshold::new(self.concurrent_users_warning, self.concurrent_users_critical);
        thresholds.queue_size = Threshold::new(self.queue_size_warning, self.queue_size_critical);
        thresholds
    }
}
