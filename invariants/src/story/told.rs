//! What the client of a story asked and was told.

use crate::checker::{Breach, Case, Finding};
use crate::history::{F, Phase};
use crate::timeline::Op;

/// The story's requests of a kind, in the order of sending.
pub(super) fn asked<'a>(case: &'a Case<'_>, is_it: impl Fn(&Op<'_>) -> bool) -> Vec<&'a Op<'a>> {
    let ops = case.timeline.ops.values().filter(|op| op.invoke.phase == Phase::Load && is_it(op));
    let mut ops: Vec<&Op<'_>> = ops.collect();
    ops.sort_by_key(|op| (op.sent_ns(), op.invoke.op));
    ops
}

/// Those of one kind.
pub(super) fn asked_for<'a>(case: &'a Case<'_>, f: F) -> Vec<&'a Op<'a>> {
    asked(case, |op| op.f() == f)
}

/// The first request that got what it asked for; without one, that is a breach, and nothing asked is nothing known. A 202
/// to a change of plan says that it must be asked for again.
pub(super) fn first_success<'a>(ops: &[&'a Op<'a>], shape: &'static str, found: &mut Finding) -> Option<&'a Op<'a>> {
    let Some(last) = ops.last() else {
        found.unknown("the story was never begun");
        return None;
    };
    let is_through = |op: &Op<'_>| op.is_ok() && (op.f() != F::Other || op.status() != Some(202));
    let success = ops.iter().find(|op| is_through(op));
    if success.is_none() {
        let mut answers: Vec<(String, u64)> = Vec::new();
        for op in ops {
            let answer = match (op.status(), op.end.and_then(|end| end.error.as_deref())) {
                (Some(status), _) => status.to_string(),
                (None, error) => error.unwrap_or("no answer").to_owned(),
            };
            match answers.last_mut() {
                Some((last, times)) if *last == answer => *times += 1,
                _ => answers.push((answer, 1)),
            }
        }
        let in_words = |(answer, times): &(String, u64)| match times {
            1 => answer.clone(),
            times => format!("{answer} {times} times"),
        };
        let answers: Vec<String> = answers.iter().map(in_words).collect();
        let what = format!("{} asked {} times for {} and never got it", last.who(), ops.len(), last.invoke.route);
        let breach = Breach::new(shape, what, "a 2xx once the fault is over", answers.join(", "));
        found.breach(breach.shown_by(last).of(last.who()));
    }
    success.copied()
}
