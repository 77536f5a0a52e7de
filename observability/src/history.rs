//! The last samples of the charts, kept on the server so that a reload shows them.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::traffic::Totals;

/// One point of every chart; absent where nothing is known. `f32` is more than a pixel needs.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Point {
    pub(crate) requests_per_second: f32,
    pub(crate) mean_ms: Option<f32>,
    pub(crate) p99_ms: Option<f32>,
    pub(crate) error_rate_percent: Option<f32>,
    pub(crate) active: f32,
    pub(crate) cpu_percent: Option<f32>,
    pub(crate) memory_percent: Option<f32>,
    pub(crate) score: f32,
}

/// A ring of points, oldest first.
#[derive(Debug)]
pub(crate) struct History {
    points: VecDeque<Point>,
    most: usize,
}

impl History {
    pub(crate) fn new(most: usize) -> Self {
        Self { points: VecDeque::with_capacity(most), most }
    }

    pub(crate) fn push(&mut self, point: Point) {
        if self.points.len() == self.most {
            self.points.pop_front();
        }
        self.points.push_back(point);
    }

    /// One array per chart, all of the same length.
    pub(crate) fn json(&self, interval: Duration) -> Value {
        let line = |pick: fn(&Point) -> Option<f32>| -> Vec<Value> {
            self.points.iter().map(|point| pick(point).map_or(Value::Null, round)).collect()
        };
        json!({
            "interval_seconds": interval.as_secs_f64(),
            "capacity": self.most,
            "requests_per_second": line(|p| Some(p.requests_per_second)),
            "mean_ms": line(|p| p.mean_ms),
            "p99_ms": line(|p| p.p99_ms),
            "error_rate_percent": line(|p| p.error_rate_percent),
            "active": line(|p| Some(p.active)),
            "cpu_percent": line(|p| p.cpu_percent),
            "memory_percent": line(|p| p.memory_percent),
            "score": line(|p| Some(p.score)),
        })
    }
}

/// Three digits after the point; `f32` printed as `f64` would show its error.
fn round(value: f32) -> Value {
    json!((f64::from(value) * 1e3).round() / 1e3)
}

/// The totals of the last samples, from which a window is taken.
#[derive(Debug)]
pub(crate) struct Window {
    /// Oldest first; the first one is the window's beginning.
    moments: VecDeque<(Instant, Totals)>,
    length: Duration,
}

/// Moments kept at most; bounds the memory (1.7 KB each) of a long window at a short interval.
const MOST: usize = 601;

impl Window {
    pub(crate) fn new(start: Instant, length: Duration) -> Self {
        Self { moments: VecDeque::from([(start, Totals::default())]), length }
    }

    /// Adds a moment and lets go of those that the window has left behind.
    pub(crate) fn push(&mut self, now: Instant, totals: Totals) {
        self.moments.push_back((now, totals));
        let left = |at: Instant| now.saturating_duration_since(at) >= self.length;
        while self.moments.len() > MOST || self.moments.get(1).is_some_and(|(at, _)| left(*at)) {
            // The last one stays: a window has a beginning.
            if self.moments.len() <= 2 {
                break;
            }
            self.moments.pop_front();
        }
    }

    /// Traffic from the window's beginning to these totals, and how long that is.
    pub(crate) fn until(&self, now: Instant, totals: &Totals) -> (Duration, Totals) {
        Self::between(self.moments.front(), now, totals)
    }

    /// The same from the latest moment.
    pub(crate) fn since_last(&self, now: Instant, totals: &Totals) -> (Duration, Totals) {
        Self::between(self.moments.back(), now, totals)
    }

    fn between(
        from: Option<&(Instant, Totals)>,
        now: Instant,
        totals: &Totals,
    ) -> (Duration, Totals) {
        match from {
            Some((at, before)) => (now.saturating_duration_since(*at), totals.since(before)),
            None => (Duration::ZERO, Totals::default()),
        }
    }
}

/// Events per second; none in no time.
pub(crate) fn rate(count: u64, elapsed: Duration) -> f64 {
    if elapsed.is_zero() { 0.0 } else { count as f64 / elapsed.as_secs_f64() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_keeps_the_newest() {
        let mut history = History::new(3);
        for n in 0..5_u8 {
            let value = f32::from(n) + 0.1;
            history.push(Point { requests_per_second: value, ..Point::default() });
        }
        let json = history.json(Duration::from_secs(5));
        assert_eq!(json["requests_per_second"], json!([2.1, 3.1, 4.1]));
        assert_eq!(json["mean_ms"], json!([null, null, null]));
        assert_eq!(json["interval_seconds"], 5.0);
    }

    #[test]
    fn a_window_slides_and_starts_with_the_service() {
        let start = Instant::now();
        let mut window = Window::new(start, Duration::from_secs(60));
        let totals = |finished| Totals { finished, ..Totals::default() };
        let at = |seconds| start + Duration::from_secs(seconds);
        for n in 1..=4 {
            window.push(at(n * 5), totals(n * 10));
        }
        let (length, traffic) = window.until(at(20), &totals(40));
        assert_eq!((length.as_secs(), traffic.finished), (20, 40), "not yet a full window");
        for n in 5..=100 {
            window.push(at(n * 5), totals(n * 10));
        }
        let (length, traffic) = window.until(at(500), &totals(1_000));
        assert_eq!((length.as_secs(), traffic.finished), (60, 120));
        assert_eq!(window.moments.len(), 13);
        let (length, traffic) = window.since_last(at(502), &totals(1_007));
        assert_eq!((length.as_secs(), traffic.finished), (2, 7));
    }

    #[test]
    fn an_interval_longer_than_the_window_is_the_window() {
        let start = Instant::now();
        let mut window = Window::new(start, Duration::from_secs(60));
        for n in 1..=3 {
            window.push(start + Duration::from_secs(n * 600), Totals::default());
        }
        let now = start + Duration::from_secs(2_000);
        let (length, _) = window.until(now, &Totals::default());
        assert_eq!(length.as_secs(), 800);
    }
}
