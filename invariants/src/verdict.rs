//! What a law says of a run, and what all of them say together.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Three answers; a pass needs evidence. Ordered by how bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It held, with enough chances to fail.
    Valid,
    /// Too little was seen, or nothing can be said.
    Unknown,
    /// It did not hold; there is a witness.
    Violated,
}

impl Answer {
    /// As it is printed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Unknown => "unknown",
            Self::Violated => "violated",
        }
    }
}

/// Chances that a law had to fail, counted whole and by cell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Count {
    /// All.
    pub total: u64,
    /// By phase.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub phase: BTreeMap<String, u64>,
    /// By kind of fault whose window they lie in.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub fault: BTreeMap<String, u64>,
    /// By operation, route or other subject.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub operation: BTreeMap<String, u64>,
}

/// A floor and what was reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloorReached {
    /// Which count.
    pub count: String,
    /// Which cell: `total`, or `fault/<kind>`.
    pub cell: String,
    /// Least that says something.
    pub floor: u64,
    /// What was seen.
    pub seen: u64,
}

/// The fault that was active, or had been last, when a violation showed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultActive {
    /// `F1`, …
    pub id: String,
    /// Kind of fault.
    pub kind: String,
    /// What it hurt.
    pub target: String,
    /// From installing it to the violation, milliseconds.
    pub delay_ms: u64,
    /// Whether it was still installed then.
    pub still_installed: bool,
}

/// Violations of one shape, folded: the first of them, and how many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// Twelve hex digits over law and shape; the same in every run.
    pub fingerprint: String,
    /// Stable name of what went wrong, without figures or ids.
    pub shape: String,
    /// How many were found.
    pub count: u64,
    /// The first, in words.
    pub what: String,
    /// What the law asks for.
    pub expected: String,
    /// What was found.
    pub actual: String,
    /// Lines of the record that prove it, up to six; empty where only rows do.
    pub witness: Vec<u64>,
    /// When it showed, nanoseconds since the run's start; none where only rows do.
    pub t_ns: Option<u64>,
    /// Phase in which it showed.
    pub phase: Option<String>,
    /// Fault behind it, by time alone.
    pub fault: Option<FaultActive>,
    /// Labels of the tenants concerned, over all of this shape, up to eight.
    pub tenants: Vec<String>,
}

/// What one law says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Its id: `billing.exactly_once`.
    pub law: String,
    /// Itself, in words.
    pub what: String,
    /// Its answer.
    pub answer: Answer,
    /// Why it is unknown, where it is; each in a sentence.
    pub reasons: Vec<String>,
    /// Chances that it had to fail.
    pub exposure: BTreeMap<String, Count>,
    /// Floors that apply and what was reached.
    pub floors: Vec<FloorReached>,
    /// What it found, by shape.
    pub violations: Vec<Violation>,
}

impl Verdict {
    /// A verdict that says nothing, for a reason.
    pub fn unknown(law: &str, what: &str, reason: String) -> Self {
        Self {
            law: law.to_owned(),
            what: what.to_owned(),
            answer: Answer::Unknown,
            reasons: vec![reason],
            exposure: BTreeMap::new(),
            floors: Vec::new(),
            violations: Vec::new(),
        }
    }

    /// Violations of all shapes.
    pub fn violations_total(&self) -> u64 {
        self.violations.iter().map(|violation| violation.count).sum()
    }
}

/// What all laws say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Launch {
    /// Every required law held.
    #[serde(rename = "GO")]
    Go,
    /// Only a budget was missed.
    #[serde(rename = "CONDITIONAL GO")]
    ConditionalGo,
    /// A no-go law was violated.
    #[serde(rename = "NO-GO")]
    NoGo,
    /// Something required was not shown.
    #[serde(rename = "INSUFFICIENT EVIDENCE")]
    InsufficientEvidence,
    /// A checker itself broke.
    #[serde(rename = "HARNESS BROKE")]
    HarnessBroke,
}

impl Launch {
    /// As it is printed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Go => "GO",
            Self::ConditionalGo => "CONDITIONAL GO",
            Self::NoGo => "NO-GO",
            Self::InsufficientEvidence => "INSUFFICIENT EVIDENCE",
            Self::HarnessBroke => "HARNESS BROKE",
        }
    }

    /// 0, 4, 1, 3 or 70.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Go => 0,
            Self::ConditionalGo => 4,
            Self::NoGo => 1,
            Self::InsufficientEvidence => 3,
            Self::HarnessBroke => 70,
        }
    }
}

/// What is merged into one answer, beside the laws.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Circumstances {
    /// Budgets missed (not laws), each in a sentence.
    pub budgets_missed: Vec<String>,
    /// Reasons for which the run as a whole is inconclusive: cut short, a dirty tree in an audit.
    pub inconclusive: Vec<String>,
    /// The harness broke, in a sentence.
    pub harness_broke: Option<String>,
}

/// Merges the laws that a suite requires; a law of `required` without a verdict was not shown.
/// Precedence: harness broke, violated, not shown, budget missed.
pub fn merge(required: &[&str], verdicts: &[Verdict], around: &Circumstances) -> Launch {
    if around.harness_broke.is_some() {
        return Launch::HarnessBroke;
    }
    if verdicts.iter().any(|verdict| verdict.answer == Answer::Violated) {
        return Launch::NoGo;
    }
    let is_shown = |law: &&str| verdicts.iter().any(|verdict| verdict.law == **law && verdict.answer == Answer::Valid);
    let unknown = verdicts.iter().any(|verdict| verdict.answer == Answer::Unknown);
    if required.is_empty() || unknown || !required.iter().all(is_shown) || !around.inconclusive.is_empty() {
        return Launch::InsufficientEvidence;
    }
    if !around.budgets_missed.is_empty() {
        return Launch::ConditionalGo;
    }
    Launch::Go
}
