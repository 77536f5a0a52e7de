//! Medians, and what a table says once.

/// The middle of the measurements; not a number without any.
#[must_use]
pub fn median(measured: &[f64]) -> f64 {
    let mut sorted = measured.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A blank line, and what the columns of the table below mean.
#[expect(clippy::print_stdout, reason = "the table is what the bench is for")]
pub fn title(text: &str) {
    println!("\n{text}");
}

/// One line of a table: a name, then cells of equal width.
#[expect(clippy::print_stdout, reason = "the table is what the bench is for")]
pub fn row(name: &str, cells: &[String]) {
    let cells: String = cells.iter().map(|cell| format!("{cell:>14}")).collect();
    println!("{name:<40}{cells}");
}
