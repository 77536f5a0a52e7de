//! The Prometheus text format for figures that are pulled: families of series, written in order.
//!
//! A family exists for one scrape only, so what is no longer reported is gone, and a counter that
//! starts again shows it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::label;

/// Figures of one scrape by family name.
#[derive(Debug, Default)]
pub(crate) struct Families {
    by_name: BTreeMap<String, Family>,
    /// Figures that were not finite.
    pub(crate) not_finite: u64,
}

type Labels = Vec<(String, String)>;

#[derive(Debug)]
struct Family {
    help: String,
    series: BTreeMap<Labels, f64>,
}

impl Families {
    /// Adds one figure. A name that ends in `_total` is a counter, any other a gauge; names and
    /// label values are made legal here. The last value of a series wins.
    pub(crate) fn add(&mut self, name: &str, help: &str, labels: &[(&str, &str)], figure: f64) {
        if !figure.is_finite() {
            self.not_finite += 1;
            return;
        }
        let family = match self.by_name.get_mut(&*label::name(name)) {
            Some(family) => family,
            None => self
                .by_name
                .entry(label::name(name).into_owned())
                .or_insert_with(|| Family { help: help.to_owned(), series: BTreeMap::new() }),
        };
        let mut labels: Labels = labels
            .iter()
            .map(|(key, value)| (label::name(key).into_owned(), label::value(value).into_owned()))
            .collect();
        labels.sort_unstable();
        // Prometheus refuses a whole scrape in which one series names a label twice.
        labels.dedup_by(|a, b| a.0 == b.0);
        family.series.insert(labels, figure);
    }

    /// Appends all families in the order of their names.
    pub(crate) fn write(&self, text: &mut String) {
        for (name, family) in &self.by_name {
            let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
            let help = family.help.replace('\\', "\\\\").replace('\n', "\\n");
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in &family.series {
                text.push_str(name);
                for (at, (key, value)) in labels.iter().enumerate() {
                    text.push(if at == 0 { '{' } else { ',' });
                    let value = value.replace('"', "\\\"");
                    let _ = write!(text, "{key}=\"{value}\"");
                }
                if !labels.is_empty() {
                    text.push('}');
                }
                let _ = writeln!(text, " {value}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(fill: impl FnOnce(&mut Families)) -> String {
        let mut families = Families::default();
        fill(&mut families);
        let mut text = String::new();
        families.write(&mut text);
        text
    }

    #[test]
    fn families_are_written_in_order_with_help_and_type() {
        let written = text(|f| {
            f.add("b_total", "Bs\nso far.", &[("z", "1"), ("a", "x\"y\\")], 2.5);
            f.add("a", "An a.", &[], 1e21);
            f.add("b_total", "Ignored.", &[("a", "w"), ("z", "1")], 3.0);
        });
        let expected = "# HELP a An a.\n# TYPE a gauge\na 1000000000000000000000\n\
            # HELP b_total Bs\\nso far.\n# TYPE b_total counter\n\
            b_total{a=\"w\",z=\"1\"} 3\nb_total{a=\"x\\\"y\",z=\"1\"} 2.5\n";
        assert_eq!(written, expected);
    }

    #[test]
    fn what_is_not_finite_is_counted_and_left_out() {
        let mut families = Families::default();
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            families.add("x", "An x.", &[], bad);
        }
        let mut text = String::new();
        families.write(&mut text);
        assert_eq!((families.not_finite, text.as_str()), (3, ""));
    }

    #[test]
    fn a_series_never_stands_twice() {
        let written = text(|f| {
            f.add("x", "An x.", &[("a", "1"), ("a", "2")], 1.0);
            f.add("x", "An x.", &[("a", "1")], 2.0);
            f.add("x", "An x.", &[("a", "1\\")], 3.0);
        });
        assert_eq!(written.lines().filter(|l| l.starts_with("x{")).count(), 1, "{written}");
    }
}
