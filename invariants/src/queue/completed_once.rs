//! No job is completed twice, by a stale worker, beyond its attempts, or out of turn.
//!
//! Evidence: jobs, attempts and what clients were shown. Fences rise with each attempt; only the
//! last one completes; a state that clients saw as terminal stays. First claims come in the order
//! of acceptance: where A was acknowledged before B was sent, A is claimed no later than B, give or
//! take `fifo_tolerance_ms`; jobs that waited under a fault which holds locks are exempt. A lease
//! lost in quiet times, or under a fault that takes nobody's, is a job run twice. Time O(n log n).

use std::collections::BTreeMap;

use crate::checker::{Breach, Case, Checker, Finding};
use crate::final_state::{JobAttemptRow, JobRow};
use crate::history::F;
use crate::timeline::Op;

/// The law.
pub struct CompletedOnce;

impl Checker for CompletedOnce {
    fn law(&self) -> &'static str {
        "queue.completed_once"
    }

    fn needs_rows(&self) -> bool {
        true
    }

    fn what(&self) -> &'static str {
        "a job has at most three attempts, in order of acceptance, and only the last one completes it"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let mut found = Finding::new();
        for job in &case.evidence.final_state.jobs {
            let attempts = case.rows.attempts.get(job.job_id.as_str()).map_or(&[][..], Vec::as_slice);
            judge_job(case, job, attempts, &mut found);
        }
        judge_shown(case, &mut found);
        judge_order(case, &mut found);
        found
    }
}

fn judge_job(case: &Case<'_>, job: &JobRow, attempts: &[&JobAttemptRow], found: &mut Finding) {
    let tenant = case.rows.label(&job.tenant_id);
    let timeline = &case.timeline;
    let mut breach = |shape, what: String, expected: String, actual: String, at: Option<i64>| {
        let mut breach = Breach::new(shape, what, expected, actual).of(tenant);
        breach.t_ns = at.map(|at| timeline.run_clock_ns(at));
        found.breach(breach);
    };
    let max = case.evidence.manifest.settings.attempts_max;
    let tried = job.attempts.max(attempts.len() as u64);
    if tried > max {
        let what = format!("job {} had {tried} attempts", job.job_id);
        breach("too_many_attempts", what, format!("at most {max}"), tried.to_string(), job.finished_us);
    }
    if job.attempts != attempts.len() as u64 || attempts.iter().zip(1..).any(|(attempt, n)| attempt.attempt != n) {
        let what = format!("job {} counts {} attempts and {} are recorded", job.job_id, job.attempts, attempts.len());
        let (counted, recorded) = (job.attempts.to_string(), attempts.len().to_string());
        breach("attempts_miscounted", what, counted, recorded, job.finished_us);
    }
    for pair in attempts.windows(2) {
        if pair[0].fence >= pair[1].fence {
            let what = format!("attempt {} of job {} has no newer fence", pair[1].attempt, job.job_id);
            let (before, after) = (format!("above {}", pair[0].fence), pair[1].fence.to_string());
            breach("fence_went_back", what, before, after, Some(pair[1].claimed_us));
        }
    }
    let won = |attempt: &&&JobAttemptRow| attempt.outcome.as_deref() == Some("succeeded");
    let winners: Vec<&&JobAttemptRow> = attempts.iter().filter(won).collect();
    let due = usize::from(job.state == "succeeded");
    if winners.len() != due {
        let what = format!("job {} is {} and {} attempts completed it", job.job_id, job.state, winners.len());
        let shape = if winners.len() > due { "completed_twice" } else { "completed_by_nobody" };
        breach(shape, what, due.to_string(), winners.len().to_string(), job.finished_us);
    }
    if let (Some(winner), Some(last)) = (winners.last(), attempts.last())
        && winner.attempt != last.attempt
    {
        let what = format!("attempt {} of job {} completed it after a newer one began", winner.attempt, job.job_id);
        breach("stale_attempt_completed", what, last.attempt.to_string(), winner.attempt.to_string(), winner.ended_us);
    }
    for attempt in attempts.iter().filter(|attempt| attempt.outcome.as_deref() == Some("lease_lost")) {
        let from_ns = timeline.run_clock_ns(attempt.claimed_us);
        let to_ns = attempt.ended_us.map_or(timeline.last_ns, |at| timeline.run_clock_ns(at));
        if !case.may_cost_a_lease(from_ns, to_ns) {
            let what = format!(
                "{} lost its lease on job {} and no fault that takes leases was about",
                attempt.worker, job.job_id
            );
            breach("lease_lost_without_a_fault", what, "kept".into(), "lost".into(), attempt.ended_us);
        }
    }
    if let [winner] = winners[..] {
        let from_ns = timeline.run_clock_ns(attempts[0].claimed_us);
        let to_ns = winner.ended_us.map_or(from_ns, |at| timeline.run_clock_ns(at));
        found.saw_between("completions", timeline, from_ns, to_ns, &winner.worker);
    }
}

/// A forecast that a client saw ended stays as it ended.
fn judge_shown(case: &Case<'_>, found: &mut Finding) {
    let mut reads: Vec<(&str, &Op<'_>, &str)> = Vec::new();
    for op in case.timeline.ops.values().filter(|op| op.f() == F::ForecastRead) {
        if let Some(answer) = op.answer()
            && let (Some(id), Some(forecast)) = (answer.id.as_deref(), &answer.forecast)
        {
            reads.push((id, op, forecast.state.as_str()));
        }
    }
    reads.sort_by_key(|(_, op, _)| (op.ended_ns(), op.invoke.op));
    let mut ended: BTreeMap<&str, (&Op<'_>, &str)> = BTreeMap::new();
    for (id, op, state) in &reads {
        if matches!(*state, "succeeded" | "failed" | "cancelled") {
            ended.entry(id).or_insert((op, state));
        }
    }
    for (id, op, state) in &reads {
        let Some((first, terminal)) = ended.get(id).filter(|(first, _)| first.ended_ns() < op.sent_ns()) else {
            continue;
        };
        found.saw("reads_after_end", &case.timeline, op.ended_ns(), "");
        if state != terminal {
            let what = format!("{} saw forecast {id} {terminal}, and later {state}", op.who());
            let breach = Breach::new("ended_forecast_changed", what, *terminal, *state);
            found.breach(breach.at(op.ended_ns()).shown_by(first).shown_by(op).of(op.who()));
        }
    }
}

/// A job's way in: when its request was sent and acknowledged, and when it was first claimed.
struct Entry<'a> {
    op: &'a Op<'a>,
    claimed_us: i64,
}

fn judge_order(case: &Case<'_>, found: &mut Finding) {
    let tolerance_us = case.evidence.manifest.settings.fifo_tolerance_ms as i64 * 1_000;
    let mut entries: BTreeMap<&str, Entry<'_>> = BTreeMap::new();
    for op in case.timeline.ops.values().filter(|op| op.f() == F::ForecastRequest) {
        let Some(id) = op.answer().and_then(|answer| answer.id.as_deref()) else {
            continue;
        };
        // A replay acknowledges what was accepted before it was sent.
        if op.end.is_some_and(|end| end.replayed) {
            continue;
        }
        let job = case.rows.jobs.get(id).and_then(|jobs| jobs.first());
        let first = job.and_then(|job| case.rows.attempts.get(job.job_id.as_str())?.first().copied());
        if let Some(first) = first.filter(|first| first.attempt == 1) {
            entries.entry(id).or_insert(Entry { op, claimed_us: first.claimed_us });
        }
    }
    let by_sent = {
        let mut sorted: Vec<&Entry<'_>> = entries.values().collect();
        sorted.sort_by_key(|entry| (entry.op.sent_ns(), entry.op.invoke.op));
        sorted
    };
    let mut by_acknowledged: Vec<&Entry<'_>> =
        entries.values().filter(|entry| !waited_under_locks(case, entry)).collect();
    by_acknowledged.sort_by_key(|entry| (entry.op.ended_ns(), entry.op.invoke.op));
    // Of all that were acknowledged before B was sent, the one claimed last.
    let mut latest: Option<&Entry<'_>> = None;
    let mut next = by_acknowledged.into_iter().peekable();
    for later in by_sent {
        while let Some(earlier) = next.next_if(|entry| entry.op.ended_ns() < later.op.sent_ns()) {
            if latest.is_none_or(|latest| latest.claimed_us < earlier.claimed_us) {
                latest = Some(earlier);
            }
        }
        let Some(earlier) = latest else {
            continue;
        };
        found.saw("ordered_pairs", &case.timeline, later.op.sent_ns(), "");
        let ahead_us = earlier.claimed_us - later.claimed_us;
        if ahead_us > tolerance_us {
            let what =
                format!("a forecast of {} was claimed before an older one of {}", later.op.who(), earlier.op.who());
            let breach = Breach::new(
                "claimed_out_of_turn",
                what,
                "the one acknowledged first is claimed first",
                format!("claimed {} ms later", ahead_us / 1_000),
            );
            let at = case.timeline.run_clock_ns(later.claimed_us);
            found.breach(breach.at(at).shown_by(earlier.op).shown_by(later.op).of(earlier.op.who()).of(later.op.who()));
        }
    }
}

fn waited_under_locks(case: &Case<'_>, entry: &Entry<'_>) -> bool {
    let kinds = &case.evidence.manifest.settings.lock_holding_faults;
    let claimed_ns = case.timeline.run_clock_ns(entry.claimed_us);
    let mut windows = case.timeline.windows.iter().filter(|window| kinds.iter().any(|kind| kind == window.kind));
    windows.any(|window| window.disturbs(entry.op.sent_ns(), claimed_ns))
}
