//! The same input gives the same bytes: over workers, attempts, instances and repetitions.
//!
//! Evidence: rows and answers of forecasts that succeeded. The hash is recomputed from the recorded
//! input and result, so that a hash that is merely repeated proves nothing. Unknown if no forecast
//! succeeded. Time O(n log n) in bytes.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use super::contents::{Content, answers, content_sha256, id_of, succeeded};
use crate::checker::{Breach, Case, Checker, Finding};
use crate::model::{canonical_json, result_hash};

/// The law.
pub struct Determinism;

impl Checker for Determinism {
    fn law(&self) -> &'static str {
        "forecast.determinism"
    }

    fn what(&self) -> &'static str {
        "the same input hashes to the same bytes, whichever worker, attempt or instance answers"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let mut found = Finding::new();
        let contents = succeeded(case);
        for content in contents.values() {
            recompute(case, content, &mut found);
        }
        compare_repetitions(case, &contents, &mut found);
        compare_answers(case, &contents, &mut found);
        found
    }
}

fn recompute(case: &Case<'_>, content: &Content<'_>, found: &mut Finding) {
    match result_hash(content.engine_version, content.input, content.result) {
        Ok(hash) => {
            found.saw_between("hashes", &case.timeline, content.from_ns, content.to_ns, "");
            if hash != content.result_hash {
                let what = format!("forecast {} states a hash that is not that of its content", content.id);
                let breach = Breach::new("hash_is_not_of_the_content", what, hash, content.result_hash);
                found.breach(breach.at(content.to_ns).of(content.tenant));
            }
        }
        Err(reason) if canonical_json(content.input).is_ok() => {
            let what = format!("forecast {} has a result without a canonical form", content.id);
            let breach =
                Breach::new("result_has_no_canonical_form", what, "whole numbers and texts", reason.to_string());
            found.breach(breach.at(content.to_ns).of(content.tenant));
        }
        Err(reason) => found.unknown(format!("an input has no canonical form: {reason}")),
    }
}

/// Forecasts of one input by one engine: one hash, and one text of the result.
fn compare_repetitions(case: &Case<'_>, contents: &BTreeMap<&str, Content<'_>>, found: &mut Finding) {
    let mut groups: BTreeMap<[u8; 32], Vec<&Content<'_>>> = BTreeMap::new();
    for content in contents.values() {
        if let Ok(input) = canonical_json(content.input) {
            let key = Sha256::digest(format!("{}\n{input}", content.engine_version).as_bytes());
            groups.entry(key.into()).or_default().push(content);
        }
    }
    for group in groups.values_mut() {
        group.sort_by_key(|content| (content.to_ns, content.id));
        let first = group[0];
        let mut workers = BTreeSet::new();
        for content in group.iter() {
            workers.extend(worker_of(case, content.id));
        }
        if workers.len() > 1 {
            found.saw_many("across_workers", 1);
        }
        for other in &group[1..] {
            found.saw_between("repetitions", &case.timeline, other.from_ns, other.to_ns, "");
            let same_text = canonical_json(first.result).ok() == canonical_json(other.result).ok();
            if first.result_hash != other.result_hash || !same_text {
                let what = format!(
                    "forecasts {} (worker {}) and {} (worker {}) of one input differ",
                    first.id,
                    worker_of(case, first.id).unwrap_or("?"),
                    other.id,
                    worker_of(case, other.id).unwrap_or("?"),
                );
                let breach = Breach::new("same_input_other_result", what, first.result_hash, other.result_hash);
                found.breach(breach.at(other.to_ns).of(first.tenant).of(other.tenant));
            }
        }
    }
}

/// What clients were shown of one forecast: always the same, and what the row holds.
fn compare_answers(case: &Case<'_>, contents: &BTreeMap<&str, Content<'_>>, found: &mut Finding) {
    let mut digests: BTreeMap<&str, String> = BTreeMap::new();
    for (op, answer) in answers(case) {
        let Some(content) = id_of(op).and_then(|id| contents.get(id)) else {
            continue;
        };
        let stated = answer.content_sha256.clone();
        let in_full = || content_sha256(answer.input.as_ref()?, answer.result.as_ref()?).ok();
        let shown = in_full().or(stated);
        if !digests.contains_key(content.id) {
            let Ok(digest) = content_sha256(content.input, content.result) else {
                continue;
            };
            digests.insert(content.id, digest);
        }
        let expected = &digests[content.id];
        found.saw("answers", &case.timeline, op.ended_ns(), op.f().name());
        let hash_differs = answer.result_hash.as_deref().is_some_and(|hash| hash != content.result_hash);
        let content_differs = shown.as_ref().is_some_and(|shown| shown != expected);
        if hash_differs || content_differs {
            let what = format!("{} was shown another forecast {} than the one stored", op.who(), content.id);
            let actual = shown.filter(|_| content_differs).or(answer.result_hash.clone()).unwrap_or_default();
            let expected = if content_differs { expected.as_str() } else { content.result_hash };
            let breach = Breach::new("answer_differs_from_the_stored", what, expected, actual);
            found.breach(breach.shown_by(op).of(op.who()));
        }
    }
}

fn worker_of<'a>(case: &'a Case<'_>, forecast_id: &str) -> Option<&'a str> {
    let job = case.rows.jobs.get(forecast_id)?.first()?;
    let attempts = case.rows.attempts.get(job.job_id.as_str())?;
    attempts
        .iter()
        .find(|attempt| attempt.outcome.as_deref() == Some("succeeded"))
        .map(|attempt| attempt.worker.as_str())
}
