//! At most one answer in a hundred is an error, in every phase and in every fault window.
//!
//! An error is an answer that is neither success, nor a client error that the request earned, nor a
//! declared refusal (503 or 429 with Retry-After); a lost answer is one, unless the
//! client left on purpose. Refusals are counted apart.
//! Phases with fewer operations than `error_samples_min` are left out; unknown if all are.

use std::collections::{BTreeMap, BTreeSet};

use crate::checker::{Breach, Case, Checker, Finding};
use crate::history::{F, Phase};
use crate::timeline::Op;

/// The law.
pub struct Errors;

/// What an operation's end is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Worth {
    Success,
    Refusal,
    Earned,
    Error,
}

#[derive(Default)]
struct Share<'a> {
    all: u64,
    errors: Vec<&'a Op<'a>>,
}

impl Checker for Errors {
    fn law(&self) -> &'static str {
        "slo.errors"
    }

    fn what(&self) -> &'static str {
        "at most 1 % of answers are errors, in every phase and fault window"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let mut found = Finding::new();
        let doubtful = doubtful_sessions(case);
        let mut shares: BTreeMap<String, Share<'_>> = BTreeMap::new();
        for op in case.timeline.ops.values().filter(|op| op.invoke.phase >= Phase::Baseline) {
            if op.was_given_up() {
                found.saw("given_up_by_the_client", &case.timeline, op.sent_ns(), op.f().name());
                continue;
            }
            let subject = match worth(op, &doubtful) {
                Worth::Success => "operations",
                Worth::Refusal => "refusals",
                Worth::Earned => "client_errors",
                Worth::Error => "errors",
            };
            if subject != "operations" {
                found.saw(subject, &case.timeline, op.sent_ns(), op.f().name());
            }
            found.saw("operations", &case.timeline, op.sent_ns(), op.f().name());
            let windows = case.timeline.windows.iter().filter(|window| window.contains(op.sent_ns()));
            let cells = windows.map(|window| format!("{} {}", window.id, window.kind));
            for cell in cells.chain([format!("phase {}", op.invoke.phase.name())]) {
                let share = shares.entry(cell).or_default();
                share.all += 1;
                if subject == "errors" {
                    share.errors.push(op);
                }
            }
        }
        let settings = &case.evidence.manifest.settings;
        shares.retain(|_, share| share.all >= settings.error_samples_min);
        if shares.is_empty() {
            found.unknown("no phase has enough operations for a share of errors");
        }
        for (cell, share) in &shares {
            let errors = share.errors.len() as u64;
            if errors * 100 > share.all * settings.errors_percent_max {
                let what = format!("{errors} of {} operations in {cell} ended in errors", share.all);
                let expected = format!("at most {} %", settings.errors_percent_max);
                let actual = format!("{}.{:02} %", errors * 100 / share.all, errors * 10_000 / share.all % 100);
                let mut breach = Breach::new("too_many_errors", what, expected, actual);
                for op in share.errors.iter().take(3) {
                    breach = breach.shown_by(op);
                }
                found.breach(breach);
            }
        }
        found
    }
}

/// Sessions whose 401 may have been earned, with the moment from which on.
fn doubtful_sessions<'a>(case: &Case<'a>) -> BTreeSet<&'a str> {
    let ends = case
        .timeline
        .ops
        .values()
        .filter(|op| matches!(op.f(), F::Logout | F::AuthProbe) || (op.f() == F::Refresh && !op.is_ok()));
    ends.filter_map(|op| op.invoke.session.as_deref()).collect()
}

fn worth(op: &Op<'_>, doubtful: &BTreeSet<&str>) -> Worth {
    let Some(status) = op.status() else {
        return Worth::Error;
    };
    let retry_after = op.end.is_some_and(|end| end.retry_after);
    match status {
        200..300 if op.is_ok() => Worth::Success,
        429 | 503 if retry_after => Worth::Refusal,
        402 | 409 | 412 => Worth::Earned,
        400..500 if matches!(op.f(), F::Foreign | F::Absent | F::AuthProbe) => Worth::Earned,
        401 if op.f() == F::Refresh => Worth::Earned,
        401 if op.invoke.session.as_deref().is_some_and(|session| doubtful.contains(session)) => Worth::Earned,
        // Readiness says 503 without more while a fault is on: that is its answer.
        503 if op.f() == F::Health => Worth::Refusal,
        _ => Worth::Error,
    }
}
