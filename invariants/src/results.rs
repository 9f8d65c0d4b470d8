//! The machine-readable outcome of a run: `results.json`. Same evidence, same bytes.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::evidence::Evidence;
use crate::history::{Event, FaultState};
use crate::verdict::{Answer, Circumstances, Launch, Verdict, merge};

/// Version of the structure.
pub const RESULTS_SCHEMA: u32 = 1;

/// The outcome of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// [`RESULTS_SCHEMA`].
    pub schema: u32,
    /// The answer.
    pub verdict: Launch,
    /// Its exit code.
    pub exit_code: u8,
    /// What the answer covers: the suite, and `no faults` where none was injected.
    pub scope: String,
    /// Engine that ran, part of the answer.
    pub engine: String,
    /// Identity of the run.
    pub run_id: String,
    /// Root seed.
    pub seed: String,
    /// Commit that was built.
    pub commit: String,
    /// Whether the tree had changes beside the commit.
    pub dirty: bool,
    /// SHA-256 of the lock file.
    pub lock_sha256: String,
    /// SHA-256 of the history.
    pub history_sha256: String,
    /// Images or binaries by role.
    pub images: BTreeMap<String, String>,
    /// Why the answer is not GO, each in a sentence; also what an empty pass would mean.
    pub reasons: Vec<String>,
    /// Faults, in order of their ids.
    pub faults: Vec<FaultSummary>,
    /// Every law's verdict, in the order of [`crate::laws::all`].
    pub laws: Vec<Verdict>,
    /// Laws against faults.
    pub matrix: Vec<MatrixRow>,
}

/// A fault and how far it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultSummary {
    /// `F1`, …
    pub id: String,
    /// Kind.
    pub kind: String,
    /// Target.
    pub target: String,
    /// Last state that was reached, in the order of the states; `failed` beats all.
    pub reached: FaultState,
    /// Installed, nanoseconds since the run's start.
    pub installed_ns: Option<u64>,
    /// Removed.
    pub removed_ns: Option<u64>,
    /// Recovered.
    pub recovered_ns: Option<u64>,
}

/// A law's row of the matrix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatrixRow {
    /// The law.
    pub law: String,
    /// By kind of fault.
    pub cells: BTreeMap<String, MatrixCell>,
}

/// A law under a kind of fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatrixCell {
    /// Chances to fail within its windows: the law's count that has most there.
    pub checks: u64,
    /// Kinds of violation that showed within its windows.
    pub violations: u64,
    /// `held`, `violated`, `not exercised`.
    pub status: String,
}

impl Results {
    /// Puts together what a run came to. `required`: laws that the suite demands.
    pub fn of(evidence: &Evidence<'_>, laws: Vec<Verdict>, required: &[&str], around: &Circumstances) -> Self {
        let manifest = evidence.manifest;
        let mut around = around.clone();
        if manifest.partial {
            around.inconclusive.push("the run was cut short".to_owned());
        }
        let verdict = merge(required, &laws, &around);
        let faults = faults(evidence.history);
        let matrix = matrix(&laws, &faults);
        let scope = if faults.is_empty() { format!("{}, no faults", manifest.suite) } else { manifest.suite.clone() };
        Self {
            schema: RESULTS_SCHEMA,
            verdict,
            exit_code: verdict.exit_code(),
            scope,
            engine: manifest.engine.clone(),
            run_id: manifest.run_id.clone(),
            seed: manifest.seed.clone(),
            commit: manifest.commit.clone(),
            dirty: manifest.dirty,
            lock_sha256: manifest.lock_sha256.clone(),
            history_sha256: manifest.history_sha256.clone(),
            images: manifest.images.clone(),
            reasons: reasons(&laws, required, &around),
            faults,
            laws,
            matrix,
        }
    }

    /// Indented JSON with a newline at its end; stable bytes.
    ///
    /// # Errors
    /// None in practice: all keys are text.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self).map(|text| text + "\n")
    }
}

fn reasons(laws: &[Verdict], required: &[&str], around: &Circumstances) -> Vec<String> {
    let mut reasons: Vec<String> = around.harness_broke.iter().cloned().collect();
    for law in laws {
        match law.answer {
            Answer::Valid => {}
            Answer::Violated => reasons.push(format!("{}: {} violation(s)", law.law, law.violations_total())),
            Answer::Unknown => reasons.extend(law.reasons.iter().map(|reason| format!("{}: {reason}", law.law))),
        }
    }
    for law in required.iter().filter(|law| !laws.iter().any(|verdict| verdict.law == **law)) {
        reasons.push(format!("{law}: was not judged"));
    }
    reasons.extend(around.inconclusive.iter().cloned());
    reasons.extend(around.budgets_missed.iter().cloned());
    reasons
}

fn faults(history: &[Event]) -> Vec<FaultSummary> {
    let mut faults: BTreeMap<&str, FaultSummary> = BTreeMap::new();
    for event in history {
        let Event::Fault(event) = event else {
            continue;
        };
        let summary = faults.entry(&event.id).or_insert_with(|| FaultSummary {
            id: event.id.clone(),
            kind: event.kind.clone(),
            target: event.target.clone(),
            reached: event.state,
            installed_ns: None,
            removed_ns: None,
            recovered_ns: None,
        });
        summary.reached = summary.reached.max(event.state);
        match event.state {
            FaultState::Installed => summary.installed_ns = summary.installed_ns.or(Some(event.t_ns)),
            FaultState::Removed => summary.removed_ns = summary.removed_ns.or(Some(event.t_ns)),
            FaultState::Recovered => summary.recovered_ns = summary.recovered_ns.or(Some(event.t_ns)),
            _ => {}
        }
    }
    faults.into_values().collect()
}

fn matrix(laws: &[Verdict], faults: &[FaultSummary]) -> Vec<MatrixRow> {
    let kinds: BTreeSet<&str> = faults.iter().map(|fault| fault.kind.as_str()).collect();
    let cell = |law: &Verdict, kind: &str| {
        let checks = law.exposure.values().filter_map(|count| count.fault.get(kind)).max().copied().unwrap_or(0);
        let is_here = |fault: &crate::verdict::FaultActive| fault.kind == kind && fault.still_installed;
        let violations = law.violations.iter().filter(|v| v.fault.as_ref().is_some_and(is_here)).count() as u64;
        let status = match (violations, checks) {
            (0, 0) => "not exercised",
            (0, _) => "held",
            _ => "violated",
        };
        MatrixCell { checks, violations, status: status.to_owned() }
    };
    laws.iter()
        .map(|law| MatrixRow {
            law: law.law.clone(),
            cells: kinds.iter().map(|kind| ((*kind).to_owned(), cell(law, kind))).collect(),
        })
        .collect()
}
