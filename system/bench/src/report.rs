//! The table: what was measured, beside what, and whether the bar and the aim were reached.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

/// One line of the table.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Line {
    /// The row it belongs to.
    pub(crate) row: &'static str,
    /// What was measured.
    pub(crate) what: String,
    /// Forecastle's figure, with its unit.
    pub(crate) ours: String,
    /// The reference's figure; empty where there is none.
    pub(crate) reference: String,
    /// Ours to the reference's.
    pub(crate) ratio: Option<f64>,
    /// What has to hold, in words.
    pub(crate) bar: String,
    /// What is hoped for, in words.
    pub(crate) aim: String,
    /// Whether the bar holds.
    pub(crate) held: bool,
    /// Whether the aim is reached.
    pub(crate) reached: bool,
    /// How it was measured, and figures beside it.
    pub(crate) notes: Vec<String>,
}

impl Line {
    /// A line whose verdict is a ratio that has to be at least `bar`.
    pub(crate) fn at_least(row: &'static str, what: &str, ratio: f64, bar: f64, aim: f64) -> Self {
        Self::of_ratio(row, what, ratio, (ratio >= bar, format!("≥ {bar}")), (ratio >= aim, format!("≥ {aim}")))
    }

    /// A line whose verdict is a ratio that may be at most `bar`.
    pub(crate) fn at_most(row: &'static str, what: &str, ratio: f64, bar: f64, aim: f64) -> Self {
        Self::of_ratio(row, what, ratio, (ratio <= bar, format!("≤ {bar}")), (ratio <= aim, format!("≤ {aim}")))
    }

    /// A line without a reference, judged by its own figures.
    pub(crate) fn judged(row: &'static str, what: String, held: (bool, &str), reached: (bool, &str)) -> Self {
        let (held, bar) = (held.0, held.1.to_owned());
        let (reached, aim) = (reached.0, reached.1.to_owned());
        let (ours, reference) = (String::new(), String::new());
        Self { row, what, ours, reference, ratio: None, bar, aim, held, reached, notes: Vec::new() }
    }

    pub(crate) fn figures(mut self, ours: String, reference: String) -> Self {
        (self.ours, self.reference) = (ours, reference);
        self
    }

    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    fn of_ratio(row: &'static str, what: &str, ratio: f64, bar: (bool, String), aim: (bool, String)) -> Self {
        Self {
            row,
            what: what.to_owned(),
            ours: String::new(),
            reference: String::new(),
            ratio: Some(ratio),
            bar: bar.1,
            aim: aim.1,
            held: bar.0,
            reached: aim.0,
            notes: Vec::new(),
        }
    }

    /// One line of text, its notes indented below.
    pub(crate) fn render(&self) -> String {
        let ratio = self.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        let verdict = match (self.held, self.reached) {
            (false, _) => "MISSED",
            (true, false) => "held",
            (true, true) => "held, aim reached",
        };
        let mut text = format!(
            "| {} | {} | {} | {} | {} | {} | {verdict} |",
            self.what, self.ours, self.reference, ratio, self.bar, self.aim
        );
        for note in &self.notes {
            let _ = write!(text, "\n    {note}");
        }
        text
    }
}

/// All lines of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    short: bool,
    cores: usize,
    lines: Vec<Line>,
}

impl Report {
    pub(crate) fn new(short: bool) -> Self {
        let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        Self { short, cores, lines: Vec::new() }
    }

    pub(crate) fn push(&mut self, line: Line) {
        self.lines.push(line);
    }

    /// Whether every bar held, and there was one.
    pub(crate) fn held(&self) -> bool {
        !self.lines.is_empty() && self.lines.iter().all(|line| line.held)
    }

    pub(crate) fn render(&self) -> String {
        let mut text = format!(
            "| what ({} cores{}) | ours | reference | ratio | bar | aim | verdict |\n|---|---|---|---|---|---|---|\n",
            self.cores,
            if self.short { ", short" } else { "" }
        );
        for line in &self.lines {
            text.push_str(&line.render());
            text.push('\n');
        }
        text
    }

    pub(crate) fn write(&self, path: &Path) -> std::io::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, serde_json::to_string_pretty(self).expect("a report is plain data"))
    }
}

/// The middle value; the mean of the two middle ones of an even number. 0 of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_ones() {
        assert_eq!(median(&[9.0, 1.0, 4.0]), 4.0);
        assert_eq!(median(&[9.0, 1.0, 4.0, 6.0]), 5.0);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn a_report_without_a_line_has_not_held() {
        let mut report = Report::new(true);
        assert!(!report.held());
        report.push(Line::at_least("a", "read", 0.6, 0.5, 0.8));
        assert!(report.held());
        report.push(Line::at_most("c", "forecast", 4.1, 4.0, 2.0));
        assert!(!report.held());
        assert!(report.render().contains("MISSED"));
    }
}
