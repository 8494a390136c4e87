//! The table and the file: medians, spreads, and whether a target is met.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use super::machine::Machine;

/// All of a run.
#[derive(Serialize)]
pub(crate) struct Report {
    machine: Machine,
    settings: Settings,
    pub(crate) lines: Vec<Line>,
    /// Rows that could not be measured, and why.
    pub(crate) failures: Vec<String>,
}

/// How the run was asked to measure.
#[derive(Serialize)]
pub(crate) struct Settings {
    pub(crate) pairs: usize,
    pub(crate) seconds: f64,
    pub(crate) behind: u64,
    pub(crate) smoke: bool,
}

/// One line of the table: figures of both sides, pair by pair.
#[derive(Serialize)]
pub(crate) struct Line {
    row: String,
    title: String,
    unit: Unit,
    goal: Goal,
    /// The other side; empty where there is none.
    baseline: Vec<f64>,
    tidings: Vec<f64>,
    /// What else each measurement found, in the order it ran.
    details: Vec<Detail>,
}

/// Beside the figure: the whole report of the load, memory, processor time.
#[derive(Serialize)]
struct Detail {
    side: Side,
    found: Value,
}

/// The two that are measured in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Side {
    /// The raw program; where Tidings is compared with itself, the easier case.
    Baseline,
    /// What must hold its own.
    Tidings,
}

/// What a line counts in.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    EventsPerSecond,
    DeliveriesPerSecond,
    TimesPerSecond,
    Milliseconds,
    Seconds,
    Mib,
    Kib,
}

/// What a line must reach.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    /// The median of the pairs' ratios is at least this.
    RatioAtLeast(f64),
    /// The median of the pairs' ratios is at most this.
    RatioAtMost(f64),
    /// No pair's figures are further apart than this.
    ApartAtMost(f64),
    /// The median is at most this, whatever the other side, if there is one.
    AtMost(f64),
    /// The ratio is told and nothing demanded.
    RatioOnly,
}

/// The middle and the ends of some figures.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Report {
    pub(crate) fn new(machine: Machine, settings: Settings) -> Self {
        Self { machine, settings, lines: Vec::new(), failures: Vec::new() }
    }

    /// The table, the machine, and what failed.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::from(
            "| row | path | baseline | Tidings | ratio (min–max) | target | met |\n\
             | --- | --- | --- | --- | --- | --- | --- |\n",
        );
        for line in &self.lines {
            text.push_str(&line.markdown());
        }
        let Settings { pairs, seconds, smoke, .. } = self.settings;
        // Writing to a string cannot fail.
        let _ = write!(text, "\nMedians of {pairs} interleaved pairs of {seconds} s. {}.", self.machine.sentence());
        if smoke {
            text.push_str(" A smoke run: the figures mean nothing.");
        }
        for failure in &self.failures {
            let _ = write!(text, "\n\nFAILED {failure}");
        }
        text
    }
}

impl Line {
    pub(crate) fn new(row: &str, title: &str, unit: Unit, goal: Goal) -> Self {
        Self {
            row: row.to_owned(),
            title: title.to_owned(),
            unit,
            goal,
            baseline: Vec::new(),
            tidings: Vec::new(),
            details: Vec::new(),
        }
    }

    /// Adds the figure of one measurement.
    pub(crate) fn add(&mut self, side: Side, figure: f64) {
        match side {
            Side::Baseline => self.baseline.push(figure),
            Side::Tidings => self.tidings.push(figure),
        }
    }

    /// Adds what else a measurement found.
    pub(crate) fn note(&mut self, side: Side, found: Value) {
        self.details.push(Detail { side, found });
    }

    /// Tells whoever waits what a finished pair found.
    pub(crate) fn tell(&self, pair: usize) {
        let shown =
            |figures: &[f64]| figures.get(pair).map_or_else(|| "–".to_owned(), |figure| self.unit.show(*figure));
        eprintln!("  {} {}: {} | {}", self.row, pair + 1, shown(&self.baseline), shown(&self.tidings));
    }

    fn markdown(&self) -> String {
        let middle = |figures: &[f64]| {
            Spread::of(figures).map_or_else(|| "–".to_owned(), |spread| self.unit.show(spread.median))
        };
        format!(
            "| {} | {} | {} | {} | {} | {} | {} |\n",
            self.row,
            self.title,
            middle(&self.baseline),
            middle(&self.tidings),
            self.comparison(),
            self.target(),
            match self.met() {
                Some(true) => "yes",
                Some(false) => "**no**",
                None => "–",
            }
        )
    }

    /// Each pair's ratio or distance, or Tidings' figures where there is no other side.
    fn compared(&self) -> Option<Spread> {
        let pairs = self.tidings.iter().zip(&self.baseline);
        match self.goal {
            Goal::RatioAtLeast(_) | Goal::RatioAtMost(_) | Goal::RatioOnly => {
                Spread::of(&pairs.map(|(ours, theirs)| ours / theirs).collect::<Vec<_>>())
            }
            Goal::ApartAtMost(_) => Spread::of(&pairs.map(|(ours, theirs)| ours - theirs).collect::<Vec<_>>()),
            Goal::AtMost(_) => Spread::of(&self.tidings),
        }
    }

    fn comparison(&self) -> String {
        let Some(Spread { median, min, max }) = self.compared() else {
            return "–".to_owned();
        };
        match self.goal {
            Goal::RatioAtLeast(_) | Goal::RatioAtMost(_) | Goal::RatioOnly => {
                format!("{median:.2} ({min:.2}–{max:.2})")
            }
            Goal::ApartAtMost(_) => format!("{median:+.1} MiB ({min:+.1} to {max:+.1})"),
            Goal::AtMost(_) => format!("{} to {}", self.unit.show(min), self.unit.show(max)),
        }
    }

    fn target(&self) -> String {
        match self.goal {
            Goal::RatioAtLeast(least) => format!("≥ {least}"),
            Goal::RatioAtMost(most) => format!("≤ {most}"),
            Goal::ApartAtMost(most) => format!("± {}", self.unit.show(most)),
            Goal::AtMost(most) => format!("≤ {}", self.unit.show(most)),
            Goal::RatioOnly => "–".to_owned(),
        }
    }

    fn met(&self) -> Option<bool> {
        let Spread { median, min, max } = self.compared()?;
        match self.goal {
            Goal::RatioAtLeast(least) => Some(median >= least),
            Goal::ApartAtMost(most) => Some(min.abs() <= most && max.abs() <= most),
            Goal::AtMost(most) | Goal::RatioAtMost(most) => Some(median <= most),
            Goal::RatioOnly => None,
        }
    }
}

impl Side {
    /// Both, in the order of pair number `pair`: who begins alternates, Tidings first.
    pub(crate) fn both(pair: usize) -> [Self; 2] {
        if pair.is_multiple_of(2) { [Self::Tidings, Self::Baseline] } else { [Self::Baseline, Self::Tidings] }
    }
}

impl Unit {
    fn show(self, figure: f64) -> String {
        match self {
            Self::EventsPerSecond | Self::DeliveriesPerSecond => format!("{figure:.0}/s"),
            Self::TimesPerSecond => format!("{figure:.1}/s"),
            Self::Milliseconds => format!("{figure:.2} ms"),
            Self::Seconds => format!("{figure:.3} s"),
            Self::Mib => format!("{figure:.1} MiB"),
            Self::Kib => format!("{figure:.2} KiB"),
        }
    }
}

impl Spread {
    fn of(figures: &[f64]) -> Option<Self> {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        } else {
            sorted[middle]
        };
        Some(Self { median, min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(goal: Goal, baseline: &[f64], tidings: &[f64]) -> Line {
        let mut line = Line::new("row", "title", Unit::Mib, goal);
        line.baseline.extend_from_slice(baseline);
        line.tidings.extend_from_slice(tidings);
        line
    }

    #[test]
    fn the_ratio_is_the_median_of_the_pairs_not_the_ratio_of_the_medians() {
        let line = line(Goal::RatioAtLeast(0.6), &[100.0, 50.0, 200.0], &[90.0, 25.0, 120.0]);
        assert_eq!(line.compared(), Some(Spread { median: 0.6, min: 0.5, max: 0.9 }));
        assert_eq!(line.met(), Some(true));
        assert!(line.markdown().contains("0.60 (0.50–0.90)"), "{}", line.markdown());
    }

    #[test]
    fn a_ratio_may_have_a_bound_above() {
        assert_eq!(line(Goal::RatioAtMost(2.0), &[1.0], &[1.9]).met(), Some(true));
        assert_eq!(line(Goal::RatioAtMost(2.0), &[1.0], &[2.1]).met(), Some(false));
    }

    #[test]
    fn one_pair_too_far_apart_is_too_far_apart() {
        assert_eq!(line(Goal::ApartAtMost(64.0), &[10.0, 10.0], &[12.0, 80.0]).met(), Some(false));
        assert_eq!(line(Goal::ApartAtMost(64.0), &[80.0, 10.0], &[10.0, 12.0]).met(), Some(false));
        assert_eq!(line(Goal::ApartAtMost(64.0), &[10.0, 10.0], &[12.0, 14.0]).met(), Some(true));
    }

    #[test]
    fn a_line_without_figures_is_neither_met_nor_missed() {
        assert_eq!(line(Goal::AtMost(1.0), &[], &[]).met(), None);
        assert_eq!(line(Goal::AtMost(1.0), &[], &[0.5, 2.0]).met(), Some(false));
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 3.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(Spread::of(&[]), None);
    }
}
