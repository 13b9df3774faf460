//! The text format of Prometheus (0.0.4) and OpenMetrics 1.0, which differ in how counters are called and in how a page ends.

use std::fmt::{Display, Write as _};

/// How a page is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// What every scraper reads.
    Prometheus,
    /// For those that ask for it.
    OpenMetrics,
}

impl Format {
    /// The content type.
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    /// Only grows, until its process starts anew.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size.
    Histogram,
}

/// Names and values.
pub(crate) type Labels<'a> = &'a [(&'a str, &'a str)];

/// A page being written.
#[derive(Debug)]
pub(crate) struct Page {
    text: String,
    format: Format,
}

impl Page {
    pub(crate) const fn new(format: Format) -> Self {
        Self { text: String::new(), format }
    }

    /// Begins a family: its name without `_total`, its unit, which ends its name, and what it tells.
    pub(crate) fn family(&mut self, name: &'static str, kind: Type, unit: &str, help: &str) -> Family<'_> {
        debug_assert!(unit.is_empty() || name.ends_with(unit), "{name} does not end with its unit {unit}");
        let total = if kind == Type::Counter { "_total" } else { "" };
        let declared = match self.format {
            Format::Prometheus => total,
            Format::OpenMetrics => "",
        };
        let called = match kind {
            Type::Counter => "counter",
            Type::Gauge => "gauge",
            Type::Histogram => "histogram",
        };
        let _ = writeln!(self.text, "# HELP {name}{declared} {help}");
        let _ = writeln!(self.text, "# TYPE {name}{declared} {called}");
        if self.format == Format::OpenMetrics && !unit.is_empty() {
            let _ = writeln!(self.text, "# UNIT {name} {unit}");
        }
        Family { page: self, name, total }
    }

    pub(crate) fn end(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

/// A family, for its samples.
#[derive(Debug)]
pub(crate) struct Family<'p> {
    page: &'p mut Page,
    name: &'static str,
    total: &'static str,
}

impl Family<'_> {
    pub(crate) fn sample(&mut self, labels: Labels<'_>, value: impl Display) -> &mut Self {
        self.line(self.total, labels, None, value);
        self
    }

    /// A histogram: its upper bounds with the counts up to each, then the count of all and their sum.
    pub(crate) fn histogram(&mut self, labels: Labels<'_>, buckets: &[(f64, u64)], count: u64, sum: f64) {
        for (bound, up_to) in buckets {
            self.line("_bucket", labels, Some(&bound.to_string()), up_to);
        }
        self.line("_bucket", labels, Some("+Inf"), count);
        self.line("_sum", labels, None, sum);
        self.line("_count", labels, None, count);
    }

    fn line(&mut self, suffix: &str, labels: Labels<'_>, bound: Option<&str>, value: impl Display) {
        let text = &mut self.page.text;
        text.push_str(self.name);
        text.push_str(suffix);
        let mut open = '{';
        for (name, value) in labels.iter().copied().chain(bound.map(|bound| ("le", bound))) {
            text.push(open);
            open = ',';
            let _ = write!(text, "{name}=\"");
            escape(text, value);
            text.push('"');
        }
        if open == ',' {
            text.push('}');
        }
        let _ = writeln!(text, " {value}");
    }
}

/// Names come from nodes, which parse what comes from outside: none of them begins a line of its own.
fn escape(text: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c if c.is_control() => text.push('\u{fffd}'),
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(format: Format) -> String {
        let mut page = Page::new(format);
        page.family("a_seconds", Type::Counter, "seconds", "Time.").sample(&[], 1.5);
        page.family("b", Type::Gauge, "", "A name.").sample(&[("x", "a\"b\\c\nd\r"), ("y", "")], 2);
        page.family("c_seconds", Type::Histogram, "seconds", "Sizes.").histogram(
            &[("x", "1")],
            &[(0.000_064, 1), (1.048_576, 2)],
            3,
            4.25,
        );
        page.end()
    }

    #[test]
    fn a_page_is_written_as_both_formats_have_it() {
        let samples = "\
b{x=\"a\\\"b\\\\c\\nd\u{fffd}\",y=\"\"} 2
";
        let sizes = "\
c_seconds_bucket{x=\"1\",le=\"0.000064\"} 1
c_seconds_bucket{x=\"1\",le=\"1.048576\"} 2
c_seconds_bucket{x=\"1\",le=\"+Inf\"} 3
c_seconds_sum{x=\"1\"} 4.25
c_seconds_count{x=\"1\"} 3
";
        assert_eq!(
            page(Format::Prometheus),
            format!(
                "# HELP a_seconds_total Time.\n# TYPE a_seconds_total counter\na_seconds_total 1.5\n# HELP b A name.\n# TYPE b gauge\n{samples}# HELP c_seconds Sizes.\n# TYPE c_seconds histogram\n{sizes}"
            )
        );
        assert_eq!(
            page(Format::OpenMetrics),
            format!(
                "# HELP a_seconds Time.\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\na_seconds_total 1.5\n# HELP b A name.\n# TYPE b gauge\n{samples}# HELP c_seconds Sizes.\n# TYPE c_seconds histogram\n# UNIT c_seconds seconds\n{sizes}# EOF\n"
            )
        );
    }
}
