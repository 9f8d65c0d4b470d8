//! The outcome in words, for a terminal and for `summary.md`. Sorted and stable.
//!
//! Each violation has the same six labels: what, when, where, why, again, see. What would make a
//! pass meaningless comes before the passes.

use std::fmt::Write as _;

use crate::results::Results;
use crate::verdict::{Answer, Launch, Verdict, Violation};

/// Lines of reasons that are shown.
const REASONS_SHOWN_MAX: usize = 20;

/// Characters of a value that are shown.
const VALUE_SHOWN_MAX: usize = 160;

/// Text for a terminal, no escape codes, a newline at its end.
pub fn text(results: &Results) -> String {
    let mut out = String::new();
    headline(&mut out, results);
    blocks(&mut out, results);
    let _ = writeln!(out, "\n{}", table(results));
    out
}

/// The same as Markdown.
pub fn markdown(results: &Results) -> String {
    let mut out = String::from("# ");
    headline(&mut out, results);
    if results.laws.iter().any(|law| !law.violations.is_empty()) {
        out.push_str("\n## Violations\n\n```text");
        blocks(&mut out, results);
        out.push_str("```\n");
    }
    let _ = writeln!(out, "\n## Laws\n\n```text\n{}```", table(results));
    out.push_str("\n## Laws against faults\n\n");
    let kinds: Vec<&String> = results.matrix.first().map(|row| row.cells.keys().collect()).unwrap_or_default();
    if kinds.is_empty() {
        out.push_str("No fault was injected.\n");
        return out;
    }
    let heads: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
    let _ = writeln!(out, "| law | {} |\n|---{}|", heads.join(" | "), "|---".repeat(heads.len()));
    for row in &results.matrix {
        let cells: Vec<String> = row.cells.values().map(|cell| format!("{} ({})", cell.status, cell.checks)).collect();
        let _ = writeln!(out, "| {} | {} |", row.law, cells.join(" | "));
    }
    out
}

fn headline(out: &mut String, results: &Results) {
    let meaning = match results.verdict {
        Launch::Go => "every required law held, with enough evidence",
        Launch::ConditionalGo => "every law held, a budget was missed",
        Launch::NoGo => "a no-go law was violated",
        Launch::InsufficientEvidence => "something required was not shown",
        Launch::HarnessBroke => "the harness itself broke",
    };
    let Results { verdict, scope, engine, run_id, seed, exit_code, .. } = results;
    let _ = writeln!(out, "{}, scope {scope}, engine {engine}: {meaning}", verdict.name());
    let dirty = if results.dirty { " with changes" } else { "" };
    let _ = writeln!(out, "run {run_id} · seed {seed} · commit {}{dirty} · exit {exit_code}", results.commit);
    for reason in results.reasons.iter().take(REASONS_SHOWN_MAX) {
        let _ = writeln!(out, "  because {reason}");
    }
    if let Some(more) = results.reasons.len().checked_sub(REASONS_SHOWN_MAX).filter(|more| *more > 0) {
        let _ = writeln!(out, "  and {more} more reasons in results.json");
    }
}

fn blocks(out: &mut String, results: &Results) {
    let mut number = 0;
    for law in &results.laws {
        if law.violations.is_empty() {
            continue;
        }
        let checks = law.exposure.values().map(|count| count.total).max().unwrap_or(0);
        let minimum = law.floors.iter().map(|floor| floor.floor).max().unwrap_or(0);
        let _ = writeln!(
            out,
            "\n✗ NO-GO {:<28} {} violation(s) / {checks} checks (minimum {minimum})",
            law.law,
            law.violations_total()
        );
        for violation in &law.violations {
            number += 1;
            block(out, results, law, violation, number);
        }
    }
}

fn block(out: &mut String, results: &Results, law: &Verdict, violation: &Violation, number: u32) {
    let times = if violation.count > 1 { format!(" (first of {})", violation.count) } else { String::new() };
    let _ = writeln!(out, "  what   {}{times}", shortened(&violation.what));
    let _ = writeln!(out, "  when   {}", when(violation));
    let lines: Vec<String> = violation.witness.iter().map(u64::to_string).collect();
    let place = if lines.is_empty() {
        "rows read at the end".to_owned()
    } else {
        format!("history lines {}", lines.join(", "))
    };
    let tenants =
        if violation.tenants.is_empty() { String::new() } else { format!(" · {}", violation.tenants.join(", ")) };
    let _ = writeln!(out, "  where  {place}{tenants}");
    let (expected, actual) = (shortened(&violation.expected), shortened(&violation.actual));
    let _ = writeln!(out, "  why    OBSERVED expected {expected}; found {actual}");
    if let Some(fault) = &violation.fault {
        let _ = writeln!(out, "         SUSPECTED {} {} on {}, by time alone", fault.id, fault.kind, fault.target);
    }
    let _ = writeln!(out, "  again  nogo replay {}#V{number}", results.run_id);
    let _ =
        writeln!(out, "  see    report.html#V{number} · {} · {} {}", law.law, violation.shape, violation.fingerprint);
}

fn when(violation: &Violation) -> String {
    let Some(t_ns) = violation.t_ns else {
        return "at the end of the run".to_owned();
    };
    let mut when = format!("+{}", seconds(t_ns));
    if let Some(phase) = &violation.phase {
        let _ = write!(when, " in phase {phase}");
    }
    if let Some(fault) = &violation.fault {
        let state = if fault.still_installed { "still installed" } else { "removed by then" };
        let delay = seconds(fault.delay_ms * 1_000_000);
        let _ = write!(when, ", {delay} after {} {} was installed ({state})", fault.id, fault.kind);
    }
    when
}

fn seconds(ns: u64) -> String {
    format!("{}.{:02} s", ns / 1_000_000_000, ns / 10_000_000 % 100)
}

fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(VALUE_SHOWN_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

fn table(results: &Results) -> String {
    let mut out = String::new();
    for law in &results.laws {
        let mark = match law.answer {
            Answer::Valid => "held    ",
            Answer::Unknown => "unknown ",
            Answer::Violated => "VIOLATED",
        };
        let counts: Vec<String> = law.exposure.iter().map(|(name, count)| format!("{name} {}", count.total)).collect();
        let _ = writeln!(out, "{mark} {:<26} {}", law.law, counts.join(", "));
    }
    for fault in &results.faults {
        let state = serde_json::to_value(fault.reached).ok();
        let state = state.as_ref().and_then(|state| state.as_str()).unwrap_or("?");
        let _ = writeln!(out, "fault    {} {} on {}: {state}", fault.id, fault.kind, fault.target);
    }
    out
}
