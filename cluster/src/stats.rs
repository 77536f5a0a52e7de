//! The one shape in which every part of the crate hands out its figures.

/// Receives one figure: its name, its labels, its value. Names that end in `_total` are counters,
/// all others are gauges.
pub type Emit<'a> = dyn FnMut(&str, &[(&str, &str)], f64) + 'a;
