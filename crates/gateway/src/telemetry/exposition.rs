//! Metrics as text: `OpenMetrics` 1.0.

use std::fmt::{Display, Write as _};

use tidings_log::meter::{BOUNDS_MICROS, Counted};

/// The media type of the text.
pub(crate) const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Names and values that tell samples of a family apart. Both come from the code, never from a request.
type Labels<'a> = &'a [(&'a str, &'a str)];

/// A text under way. A family is begun once; its samples follow.
#[derive(Default)]
pub(crate) struct Exposition(String);

impl Exposition {
    /// One number that only grows, and its family.
    pub(crate) fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "counter", help);
        self.sample(name, "_total", &[], value);
    }

    /// One number of this moment, and its family.
    pub(crate) fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, "", &[], value);
    }

    /// Begins a family. A name that ends in a unit says so.
    pub(crate) fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# TYPE {name} {kind}"));
        if let Some(unit) = ["seconds", "bytes"].into_iter().find(|unit| name.ends_with(&format!("_{unit}"))) {
            self.line(format_args!("# UNIT {name} {unit}"));
        }
        self.line(format_args!("# HELP {name} {help}"));
    }

    pub(crate) fn sample(&mut self, name: &str, suffix: &str, labels: Labels<'_>, value: impl Display) {
        let inside: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        if inside.is_empty() {
            self.line(format_args!("{name}{suffix} {value}"));
        } else {
            self.line(format_args!("{name}{suffix}{{{}}} {value}", inside.join(",")));
        }
    }

    /// The samples of a histogram in seconds.
    pub(crate) fn histogram(&mut self, name: &str, labels: Labels<'_>, counted: &Counted) {
        let bounds = BOUNDS_MICROS.iter().map(|micros| format!("{:?}", seconds(*micros)));
        for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(counted.cumulative) {
            let labels = [labels, &[("le", &bound)]].concat();
            self.sample(name, "_bucket", &labels, count);
        }
        self.sample(name, "_count", labels, counted.count());
        self.sample(name, "_sum", labels, counted.sum.as_secs_f64());
    }

    /// The whole text.
    pub(crate) fn finish(mut self) -> String {
        self.0.push_str("# EOF\n");
        self.0
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{line}");
    }
}

fn seconds(micros: u64) -> f64 {
    std::time::Duration::from_micros(micros).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use expect_test::expect;
    use tidings_log::meter::Histogram;

    use super::*;

    #[test]
    fn families_and_samples_are_written_as_openmetrics_says() {
        let mut text = Exposition::default();
        text.counter("t_events", "Events.", 3);
        text.gauge("t_free_bytes", "Room.", 4);
        text.family("t_took_seconds", "histogram", "Time.");
        let histogram = Histogram::default();
        histogram.record(Duration::from_millis(2));
        text.histogram("t_took_seconds", &[("route", "/events/{eventId}")], &histogram.read());
        let text = text.finish();
        let kept: Vec<_> = text.lines().filter(|line| !line.contains("le=\"0.0")).collect();
        expect![[r#"
            # TYPE t_events counter
            # HELP t_events Events.
            t_events_total 3
            # TYPE t_free_bytes gauge
            # UNIT t_free_bytes bytes
            # HELP t_free_bytes Room.
            t_free_bytes 4
            # TYPE t_took_seconds histogram
            # UNIT t_took_seconds seconds
            # HELP t_took_seconds Time.
            t_took_seconds_bucket{route="/events/{eventId}",le="0.1"} 1
            t_took_seconds_bucket{route="/events/{eventId}",le="0.25"} 1
            t_took_seconds_bucket{route="/events/{eventId}",le="0.5"} 1
            t_took_seconds_bucket{route="/events/{eventId}",le="1.0"} 1
            t_took_seconds_bucket{route="/events/{eventId}",le="5.0"} 1
            t_took_seconds_bucket{route="/events/{eventId}",le="+Inf"} 1
            t_took_seconds_count{route="/events/{eventId}"} 1
            t_took_seconds_sum{route="/events/{eventId}"} 0.002
            # EOF"#]]
        .assert_eq(&kept.join("\n"));
        assert!(text.contains("le=\"0.001\"} 0\n") && text.contains("le=\"0.0025\"} 1\n"), "{text}");
    }
}
