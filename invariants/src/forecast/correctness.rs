//! Every amount of every forecast, and every calculator's answer, is the one that exact arithmetic gives.
//!
//! Evidence: rows and answers in full; the expectation comes from [`crate::model`], never from the
//! system. A forecast that failed because an amount was out of range is held against the oracle
//! too; one that ran out of attempts is the queue's matter. Time: one oracle run per distinct input.

use std::collections::BTreeMap;

use super::contents::{Content, answers, content_sha256, id_of, succeeded};
use crate::checker::{Breach, Case, Checker, Finding};
use crate::history::F;
use crate::model::{AMOUNT_OUT_OF_RANGE, Comparison, canonical_json, check_calculator, compare, compare_failure};

/// The law.
pub struct Correctness;

impl Checker for Correctness {
    fn law(&self) -> &'static str {
        "forecast.correctness"
    }

    fn what(&self) -> &'static str {
        "every amount of a forecast, and every calculator's answer, equals the independent oracle's, rounded once"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let mut found = Finding::new();
        let contents = succeeded(case);
        let mut judged = Judged::default();
        for content in contents.values() {
            judged.judge(case, content, None, &mut found);
        }
        for (op, answer) in answers(case) {
            let Some(stored) = id_of(op).and_then(|id| contents.get(id)) else {
                continue;
            };
            if let (Some(input), Some(result)) = (&answer.input, &answer.result) {
                let shown = Content { input, result, from_ns: op.sent_ns(), to_ns: op.ended_ns(), ..*stored };
                judged.judge(case, &shown, Some(op.lines()), &mut found);
            }
        }
        judge_calculators(case, &mut found);
        judge_failures(case, &mut found);
        judge_snapshots(case, &mut found);
        found
    }
}

/// Comparisons by content, so that one content is computed once and one forecast counted once.
#[derive(Default)]
struct Judged {
    by_content: BTreeMap<String, Option<Comparison>>,
    forecasts: BTreeMap<String, String>,
}

impl Judged {
    fn judge(&mut self, case: &Case<'_>, content: &Content<'_>, lines: Option<Vec<u64>>, found: &mut Finding) {
        // Without a canonical form it is still compared, under a key of its own.
        let digest = content_sha256(content.input, content.result).unwrap_or_else(|_| content.id.to_owned());
        if self.forecasts.get(content.id) == Some(&digest) {
            return;
        }
        let comparison = self.by_content.entry(digest.clone()).or_insert_with(|| {
            compare(content.input, content.result)
                .map_err(|reason| found.unknown(format!("the oracle has no opinion: {reason}")))
                .ok()
        });
        let Some(comparison) = comparison else {
            return;
        };
        if self.forecasts.insert(content.id.to_owned(), digest).is_none() {
            found.saw_between("forecasts", &case.timeline, content.from_ns, content.to_ns, "");
            found.saw_many("amounts", comparison.amounts_compared);
        }
        if !comparison.holds() {
            let (pointer, expected, actual) = comparison
                .mismatches
                .first()
                .map_or((String::new(), "amounts".to_owned(), "none".to_owned()), |first| {
                    (first.pointer.clone(), first.expected.clone(), first.actual.clone())
                });
            let what = format!(
                "forecast {} is wrong in {} place(s), first at {pointer}",
                content.id, comparison.mismatches_total
            );
            let mut breach = Breach::new("amount_differs_from_the_oracle", what, expected, actual);
            breach.witness.extend(lines.into_iter().flatten());
            found.breach(breach.at(content.to_ns).of(content.tenant));
        }
    }
}

fn judge_calculators(case: &Case<'_>, found: &mut Finding) {
    for op in case.timeline.ops.values().filter(|op| op.f() == F::Calculate) {
        let args = &op.invoke.args;
        let (Some(name), Some(input)) = (args.calculator.as_deref(), &args.input) else {
            continue;
        };
        let Some(answer) = op.answer().and_then(|answer| answer.calculation.as_ref()) else {
            continue;
        };
        let finding = match check_calculator(name, input, answer) {
            Ok(finding) => finding,
            Err(reason) => {
                found.unknown(format!("the oracle has no opinion of {name}: {reason}"));
                continue;
            }
        };
        found.saw("calculations", &case.timeline, op.sent_ns(), name);
        found.saw_many("calculated_numbers", finding.numbers);
        if let Some(wrong) = finding.mismatch {
            let what = format!("{name} is wrong at {}", wrong.pointer);
            let breach = Breach::new("calculator_differs_from_the_oracle", what, wrong.expected, wrong.actual);
            found.breach(breach.shown_by(op).of(op.who()));
        }
    }
}

fn judge_failures(case: &Case<'_>, found: &mut Finding) {
    let rows = case.evidence.final_state.forecasts.iter();
    for row in rows.filter(|row| row.state == "failed" && row.error_code.as_deref() == Some(AMOUNT_OUT_OF_RANGE)) {
        let Some(input) = &row.input else {
            continue;
        };
        // Undecided where draws decide; then the forecast is simply not counted.
        let Ok(comparison) = compare_failure(input, AMOUNT_OUT_OF_RANGE) else {
            continue;
        };
        let at_ns = row.finished_us.map_or(0, |at| case.timeline.run_clock_ns(at));
        found.saw("failures", &case.timeline, at_ns, "");
        if let Some(first) = comparison.mismatches.first() {
            let what = format!("forecast {} failed although all its amounts are in range", row.forecast_id);
            let breach = Breach::new("failed_though_in_range", what, &first.expected, &first.actual);
            found.breach(breach.at(at_ns).of(case.rows.label(&row.tenant_id)));
        }
    }
}

/// A forecast is computed from the scenario's version that it names, and from none older than what
/// its tenant had been acknowledged before asking.
fn judge_snapshots(case: &Case<'_>, found: &mut Finding) {
    let mut inputs: BTreeMap<(&str, u64), &str> = BTreeMap::new();
    let mut written: BTreeMap<&str, Vec<(u64, u64)>> = BTreeMap::new();
    for op in case.timeline.ops.values() {
        let is_write = matches!(op.f(), F::ScenarioCreate | F::ScenarioEdit);
        if let Some(answer) = op.answer().filter(|_| is_write)
            && let (Some(id), Some(version)) = (answer.id.as_deref(), answer.version)
        {
            written.entry(id).or_default().push((op.ended_ns(), version));
            if let Some(digest) = answer.input_sha256.as_deref() {
                inputs.insert((id, version), digest);
            }
        }
    }
    for op in case.timeline.ops.values().filter(|op| op.f() == F::ForecastRequest && op.is_ok()) {
        let replayed = op.end.is_some_and(|end| end.replayed);
        let id = op.answer().and_then(|answer| answer.id.as_deref());
        let Some(row) = id.and_then(|id| case.rows.forecasts.get(id)).filter(|_| !replayed) else {
            continue;
        };
        let scenario = row.scenario_id.as_str();
        let acked = written.get(scenario).into_iter().flatten().filter(|(at, _)| *at < op.sent_ns());
        if let Some(newest) = acked.map(|(_, version)| *version).max().filter(|newest| *newest > row.scenario_version) {
            let what =
                format!("forecast {} was computed from a version older than the acknowledged one", row.forecast_id);
            let breach = Breach::new(
                "older_version_was_computed",
                what,
                format!("version {newest} or later"),
                format!("version {}", row.scenario_version),
            );
            found.breach(breach.shown_by(op).of(op.who()));
        }
        let (Some(expected), Some(input)) = (inputs.get(&(scenario, row.scenario_version)), &row.input) else {
            continue;
        };
        let Ok(actual) = canonical_json(input).map(|text| sha256(&text)) else {
            continue;
        };
        if actual != **expected {
            let what = format!("forecast {} was computed from another input than its scenario's", row.forecast_id);
            let breach = Breach::new("other_input_was_computed", what, *expected, actual);
            found.breach(breach.shown_by(op).of(op.who()));
        }
    }
}

fn sha256(text: &str) -> String {
    use sha2::{Digest, Sha256};
    hex::encode(Sha256::digest(text.as_bytes()))
}
