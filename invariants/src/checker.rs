//! How a law is asked, and how its findings become a verdict.
//!
//! A violation is data, not an error. A record that cannot be read, or a checker that panics, gives
//! `unknown` with the reason; so does a floor that was not reached. The order in which a checker
//! reports does not matter: findings are sorted and folded here.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use sha2::{Digest, Sha256};

use crate::evidence::Evidence;
use crate::floors::{Floor, reached};
use crate::rows::Rows;
use crate::timeline::{Op, Timeline, Window};
use crate::verdict::{Answer, Count, FaultActive, Verdict, Violation};

/// Lines that a witness holds at most.
const WITNESS_MAX: usize = 6;

/// Tenants that a folded violation names at most.
const TENANTS_MAX: usize = 8;

/// Evidence with its indexes, made once for all laws.
#[derive(Debug)]
pub struct Case<'a> {
    /// What is judged.
    pub evidence: Evidence<'a>,
    /// The record, indexed.
    pub timeline: Timeline<'a>,
    /// The rows, indexed.
    pub rows: Rows<'a>,
}

impl Case<'_> {
    /// Whether a fault lay between two instants that may cost a worker its lease, and a job its attempts.
    pub(crate) fn may_cost_a_lease(&self, from_ns: u64, to_ns: u64) -> bool {
        let keeping = &self.evidence.manifest.settings.lease_keeping_faults;
        let takes = |kind: &str| !keeping.iter().any(|keeping| keeping == kind);
        self.timeline.windows.iter().any(|window| takes(window.kind) && window.disturbs(from_ns, to_ns))
    }
}

/// A law as code.
pub trait Checker {
    /// Its id: `area.law`.
    fn law(&self) -> &'static str;
    /// The law in a sentence.
    fn what(&self) -> &'static str;
    /// Whether it weighs the record against the rows left behind, so that rows which were never read would look lost.
    fn needs_rows(&self) -> bool {
        false
    }
    /// Reads the evidence; pure.
    fn check(&self, case: &Case<'_>) -> Finding;
}

/// One violation as a checker found it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Breach {
    /// When it showed; none where only rows do.
    pub t_ns: Option<u64>,
    /// Stable name without figures or ids.
    pub shape: &'static str,
    /// In words.
    pub what: String,
    /// What the law asks for.
    pub expected: String,
    /// What was found.
    pub actual: String,
    /// Lines of the record.
    pub witness: Vec<u64>,
    /// Labels of tenants.
    pub tenants: Vec<String>,
}

impl Breach {
    /// A violation that only rows show, as yet.
    pub fn new(
        shape: &'static str,
        what: impl Into<String>,
        expected: impl Into<String>,
        actual: impl Into<String>,
    ) -> Self {
        Self {
            t_ns: None,
            shape,
            what: what.into(),
            expected: expected.into(),
            actual: actual.into(),
            witness: Vec::new(),
            tenants: Vec::new(),
        }
    }

    /// When it showed.
    pub fn at(mut self, t_ns: u64) -> Self {
        self.t_ns = Some(t_ns);
        self
    }

    /// An operation that proves it; the first also says when, if nothing did.
    pub fn shown_by(mut self, op: &Op<'_>) -> Self {
        self.t_ns = self.t_ns.or(Some(op.end.map_or(op.invoke.t_ns, |end| end.t_ns)));
        self.witness.extend(op.lines());
        self
    }

    /// A line that proves it.
    pub fn line(mut self, i: u64) -> Self {
        self.witness.push(i);
        self
    }

    /// A tenant concerned.
    pub fn of(mut self, tenant: impl Into<String>) -> Self {
        self.tenants.push(tenant.into());
        self
    }
}

/// What a checker found: chances, violations, and reasons for not knowing.
#[derive(Debug, Clone, Default)]
pub struct Finding {
    counts: BTreeMap<String, Count>,
    breaches: Vec<Breach>,
    unknown: BTreeSet<String>,
}

impl Finding {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts a chance at an instant: in its phase, in its fault's window, for its subject.
    pub fn saw(&mut self, count: &str, timeline: &Timeline<'_>, t_ns: u64, subject: &str) {
        self.saw_between(count, timeline, t_ns, t_ns, subject);
    }

    /// Counts a chance that lasted: in the phase where it began, and in every fault window that it
    /// touched.
    pub fn saw_between(&mut self, count: &str, timeline: &Timeline<'_>, from_ns: u64, to_ns: u64, subject: &str) {
        let cells = self.counts.entry(count.to_owned()).or_default();
        cells.total += 1;
        if let Some(phase) = timeline.phase_at(from_ns) {
            *cells.phase.entry(phase.name().to_owned()).or_default() += 1;
        }
        let touched = timeline.windows.iter().filter(|window| from_ns <= window.end_ns && window.start_ns <= to_ns);
        let kinds: BTreeSet<&str> = touched.map(|window| window.kind).collect();
        for kind in kinds {
            *cells.fault.entry(kind.to_owned()).or_default() += 1;
        }
        if !subject.is_empty() {
            *cells.operation.entry(subject.to_owned()).or_default() += 1;
        }
    }

    /// Counts chances that have no place in time.
    pub fn saw_many(&mut self, count: &str, number: u64) {
        self.counts.entry(count.to_owned()).or_default().total += number;
    }

    /// Takes note of a violation.
    pub fn breach(&mut self, breach: Breach) {
        self.breaches.push(breach);
    }

    /// Takes note of a reason for which nothing can be said.
    pub fn unknown(&mut self, reason: impl Into<String>) {
        self.unknown.insert(reason.into());
    }

    /// Whether no violation was noted.
    pub fn is_clean(&self) -> bool {
        self.breaches.is_empty()
    }
}

/// Asks every checker. Time: the sum of theirs, and O(n log n) for the indexes.
pub fn judge(evidence: Evidence<'_>, checkers: &[Box<dyn Checker>], floors: &[Floor]) -> Vec<Verdict> {
    let timeline = match Timeline::read(evidence.history) {
        Ok(timeline) => timeline,
        Err(malformed) => {
            let reason = format!("the record cannot be judged: {malformed}");
            return checkers.iter().map(|c| Verdict::unknown(c.law(), c.what(), reason.clone())).collect();
        }
    };
    let case = Case { evidence, timeline, rows: Rows::of(evidence.final_state) };
    checkers.iter().map(|checker| ask(checker.as_ref(), &case, floors)).collect()
}

fn ask(checker: &dyn Checker, case: &Case<'_>, floors: &[Floor]) -> Verdict {
    if checker.needs_rows() && !case.evidence.final_state.rows_read {
        return Verdict::unknown(checker.law(), checker.what(), "the rows left behind were never read".to_owned());
    }
    match catch_unwind(AssertUnwindSafe(|| checker.check(case))) {
        Ok(finding) => conclude(checker, finding, case, floors),
        Err(_) => Verdict::unknown(checker.law(), checker.what(), "the checker panicked".to_owned()),
    }
}

fn conclude(checker: &dyn Checker, finding: Finding, case: &Case<'_>, floors: &[Floor]) -> Verdict {
    let floors = reached(floors, checker.law(), &finding.counts, &case.timeline);
    let mut reasons: Vec<String> = finding.unknown.into_iter().collect();
    for row in floors.iter().filter(|row| row.seen < row.floor) {
        reasons.push(format!("{} in {}: {} seen, at least {} needed", row.count, row.cell, row.seen, row.floor));
    }
    let violations = fold(checker.law(), finding.breaches, &case.timeline);
    let answer = match (violations.is_empty(), reasons.is_empty()) {
        (false, _) => Answer::Violated,
        (true, false) => Answer::Unknown,
        (true, true) => Answer::Valid,
    };
    Verdict {
        law: checker.law().to_owned(),
        what: checker.what().to_owned(),
        answer,
        reasons,
        exposure: finding.counts,
        floors,
        violations,
    }
}

/// One entry per shape, the earliest (then the smallest) breach standing for all of it.
fn fold(law: &str, mut breaches: Vec<Breach>, timeline: &Timeline<'_>) -> Vec<Violation> {
    breaches.sort_by(|a, b| {
        let key = |breach: &Breach| (breach.t_ns.unwrap_or(u64::MAX), breach.witness.len());
        key(a).cmp(&key(b)).then_with(|| a.cmp(b))
    });
    let mut shapes: Vec<(&'static str, Vec<Breach>)> = Vec::new();
    for breach in breaches {
        match shapes.iter_mut().find(|(shape, _)| *shape == breach.shape) {
            Some((_, same)) => same.push(breach),
            None => shapes.push((breach.shape, vec![breach])),
        }
    }
    shapes
        .into_iter()
        .map(|(shape, same)| {
            let tenants: BTreeSet<&String> = same.iter().flat_map(|breach| &breach.tenants).collect();
            let tenants = tenants.into_iter().take(TENANTS_MAX).cloned().collect();
            let first = &same[0];
            let mut witness = first.witness.clone();
            witness.sort_unstable();
            witness.dedup();
            witness.truncate(WITNESS_MAX);
            Violation {
                fingerprint: fingerprint(law, shape),
                shape: shape.to_owned(),
                count: same.len() as u64,
                what: first.what.clone(),
                expected: first.expected.clone(),
                actual: first.actual.clone(),
                witness,
                t_ns: first.t_ns,
                phase: first.t_ns.and_then(|t| timeline.phase_at(t)).map(|phase| phase.name().to_owned()),
                fault: first.t_ns.and_then(|t| fault_behind(timeline, t)),
                tenants,
            }
        })
        .collect()
}

fn fingerprint(law: &str, shape: &str) -> String {
    hex::encode(Sha256::digest(format!("{law}\n{shape}").as_bytes()))[..12].to_owned()
}

/// The fault that is installed at an instant, else the last that was before it.
fn fault_behind(timeline: &Timeline<'_>, t_ns: u64) -> Option<FaultActive> {
    let last_before = || timeline.windows.iter().rfind(|window| window.start_ns <= t_ns);
    let window: &Window<'_> = timeline.window_at(t_ns).or_else(last_before)?;
    Some(FaultActive {
        id: window.id.to_owned(),
        kind: window.kind.to_owned(),
        target: window.target.to_owned(),
        delay_ms: t_ns.saturating_sub(window.start_ns) / 1_000_000,
        still_installed: window.contains(t_ns),
    })
}
