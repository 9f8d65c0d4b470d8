//! A run's outcome without its figures and ids, so that two runs of one build compare equal.
//!
//! Kept: the answer, each law's answer, which floors were reached, shapes of violations with their
//! words (ids as ordinals by first use, numbers as `N`), kinds of fault and how far they came.
//! Dropped: counts, times, seeds, hashes. Integrity needs no count here: a single violation is a
//! shape, and a shape is enough to differ.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::history::FaultState;
use crate::results::Results;

/// What is compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Projection {
    /// The answer.
    pub verdict: &'static str,
    /// Its exit code.
    pub exit_code: u8,
    /// What it covers.
    pub scope: String,
    /// Laws in their order.
    pub laws: Vec<LawProjection>,
    /// Kinds of fault, with the furthest state of the one that came least far.
    pub faults: BTreeMap<String, FaultState>,
}

/// What is compared of a law.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LawProjection {
    /// The law.
    pub law: String,
    /// Its answer.
    pub answer: &'static str,
    /// Why it is unknown, numbers as `N`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// Floors by `count in cell`: `reached`, `short` or `none`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub exposure: BTreeMap<String, &'static str>,
    /// Violations by shape.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<ShapeProjection>,
}

/// What is compared of a violation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShapeProjection {
    /// Its shape.
    pub shape: String,
    /// In words.
    pub what: String,
    /// What the law asks for.
    pub expected: String,
    /// What was found.
    pub actual: String,
    /// Whether lines of the record prove it, or only rows.
    pub witness: &'static str,
}

/// Projects an outcome.
pub fn project(results: &Results) -> Projection {
    let mut names = Names::default();
    let laws = results
        .laws
        .iter()
        .map(|law| LawProjection {
            law: law.law.clone(),
            answer: law.answer.name(),
            reasons: law.reasons.iter().map(|reason| names.plain(reason)).collect(),
            exposure: law
                .floors
                .iter()
                .map(|floor| {
                    let class = match floor.seen {
                        0 => "none",
                        seen if seen < floor.floor => "short",
                        _ => "reached",
                    };
                    (format!("{} in {}", floor.count, floor.cell), class)
                })
                .collect(),
            violations: law
                .violations
                .iter()
                .map(|violation| ShapeProjection {
                    shape: violation.shape.clone(),
                    what: names.plain(&violation.what),
                    expected: names.plain(&violation.expected),
                    actual: names.plain(&violation.actual),
                    witness: if violation.witness.is_empty() { "rows" } else { "lines" },
                })
                .collect(),
        })
        .collect();
    let mut faults: BTreeMap<String, FaultState> = BTreeMap::new();
    for fault in &results.faults {
        let state = faults.entry(fault.kind.clone()).or_insert(fault.reached);
        *state = (*state).min(fault.reached);
    }
    Projection {
        verdict: results.verdict.name(),
        exit_code: results.exit_code,
        scope: results.scope.clone(),
        laws,
        faults,
    }
}

/// Ids by first use.
#[derive(Default)]
struct Names {
    tenants: BTreeMap<String, usize>,
    ids: BTreeMap<String, usize>,
}

impl Names {
    /// Words with ids as ordinals and numbers as `N`.
    fn plain(&mut self, text: &str) -> String {
        let mut out = String::new();
        let mut word = String::new();
        for c in text.chars().chain([' ']) {
            if c.is_alphanumeric() || c == '-' || c == '_' {
                word.push(c);
                continue;
            }
            out.push_str(&self.word(&word));
            word.clear();
            out.push(c);
        }
        out.pop();
        out
    }

    fn word(&mut self, word: &str) -> String {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let hex = word.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        if word.strip_prefix('T').is_some_and(|rest| rest.len() >= 4 && digits(rest)) {
            return format!("T{}", ordinal(&mut self.tenants, word));
        }
        if word.len() == 64 && hex {
            return "HASH".to_owned();
        }
        if word.len() == 36 && hex && word.matches('-').count() == 4 {
            return format!("ID{}", ordinal(&mut self.ids, word));
        }
        if digits(word.trim_start_matches('-')) {
            return "N".to_owned();
        }
        word.to_owned()
    }
}

fn ordinal(known: &mut BTreeMap<String, usize>, name: &str) -> usize {
    let next = known.len() + 1;
    *known.entry(name.to_owned()).or_insert(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_keep_their_relations_and_lose_their_values() {
        let mut names = Names::default();
        let (a, b) = ("0193b0a0-0000-7000-8000-00000000000a", "0193b0a0-0000-7000-8000-00000000000b");
        let text = format!("T0007 saw {a}, not {b}; T0003 and T0007 share {a}.");
        assert_eq!(names.plain(&text), "T1 saw ID1, not ID2; T2 and T1 share ID1.");
    }

    #[test]
    fn numbers_and_hashes_are_hidden_and_words_are_not() {
        let mut names = Names::default();
        let hash = "ab".repeat(32);
        assert_eq!(names.plain(&format!("3 of 10, -5 at api-1: {hash} p95")), "N of N, N at api-1: HASH p95");
    }
}
