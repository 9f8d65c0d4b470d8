//! Every acknowledged forecast reaches exactly one terminal state.
//!
//! Evidence: acknowledged requests and last rows, healed and drained first. A lost answer (`info`)
//! may or may not have left a row. A forecast may end as failed where a fault touched it (three
//! crashes are final); one that ran out of attempts in quiet times is a violation. Unknown where a
//! fault never recovered, or a forecast is younger than the bound. Time O(n log n).

use crate::checker::{Breach, Case, Checker, Finding};
use crate::final_state::{ForecastRow, JobRow};
use crate::history::{F, FaultState};

/// Codes of a job that ended for good without a word about its input.
const GAVE_UP: [&str; 2] = ["attempts_exhausted", "deadline_exceeded"];

/// The law.
pub struct NoLostJobs;

impl Checker for NoLostJobs {
    fn law(&self) -> &'static str {
        "queue.no_lost_jobs"
    }

    fn needs_rows(&self) -> bool {
        true
    }

    fn what(&self) -> &'static str {
        "every acknowledged forecast reaches one terminal state, and fails only for its input or a fault"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let mut found = Finding::new();
        judge_acknowledged(case, &mut found);
        for row in &case.evidence.final_state.forecasts {
            judge_end(case, row, &mut found);
        }
        found
    }
}

fn judge_acknowledged(case: &Case<'_>, found: &mut Finding) {
    for op in case.timeline.ops.values().filter(|op| op.f() == F::ForecastRequest) {
        let Some(id) = op.answer().and_then(|answer| answer.id.as_deref()) else {
            continue;
        };
        let row = case.rows.forecasts.get(id);
        let ended = row.and_then(|row| row.finished_us).map_or(op.ended_ns(), |at| case.timeline.run_clock_ns(at));
        found.saw_between("acknowledged", &case.timeline, op.sent_ns(), ended, "");
        if row.is_none() {
            let what = format!("{}'s forecast {id} was acknowledged and is gone", op.who());
            let breach = Breach::new("acknowledged_forecast_lost", what, "a row in a terminal state", "no row");
            found.breach(breach.shown_by(op).of(op.who()));
        }
    }
}

fn judge_end(case: &Case<'_>, row: &ForecastRow, found: &mut Finding) {
    let tenant = case.rows.label(&row.tenant_id);
    let jobs = case.rows.jobs.get(row.forecast_id.as_str()).map_or(&[][..], Vec::as_slice);
    let requested_ns = case.timeline.run_clock_ns(row.requested_us);
    if jobs.len() != 1 && !case.evidence.final_state.jobs.is_empty() {
        let what = format!("forecast {} has {} jobs", row.forecast_id, jobs.len());
        let breach = Breach::new("forecast_without_its_job", what, "1", jobs.len().to_string());
        found.breach(breach.at(requested_ns).of(tenant));
    }
    if let [job] = jobs
        && !agree(job, row)
    {
        let what = format!("forecast {} is {} and its job {}", row.forecast_id, row.state, job.state);
        found.breach(Breach::new("job_and_forecast_disagree", what, &row.state, &job.state).of(tenant));
    }
    match row.state.as_str() {
        "succeeded" | "cancelled" => {}
        "failed" => judge_failure(case, row, tenant, requested_ns, found),
        state => judge_unfinished(case, row, tenant, requested_ns, state, found),
    }
}

fn agree(job: &JobRow, forecast: &ForecastRow) -> bool {
    match job.state.as_str() {
        "dead" => forecast.state == "failed",
        state => state == forecast.state,
    }
}

fn judge_failure(case: &Case<'_>, row: &ForecastRow, tenant: &str, requested_ns: u64, found: &mut Finding) {
    let code = row.error_code.as_deref().unwrap_or("none");
    let ended_ns = row.finished_us.map_or(case.timeline.last_ns, |at| case.timeline.run_clock_ns(at));
    let disturbed = case.may_cost_a_lease(requested_ns, ended_ns);
    let is_of_input = code == crate::model::AMOUNT_OUT_OF_RANGE;
    if is_of_input || (disturbed && GAVE_UP.contains(&code)) {
        found.saw("failed", &case.timeline, ended_ns, code);
        return;
    }
    let what = format!("forecast {} failed with {code} and no fault had touched it", row.forecast_id);
    let breach = Breach::new("failed_without_a_fault", what, "succeeded", format!("failed: {code}"));
    found.breach(breach.at(ended_ns).of(tenant));
}

fn judge_unfinished(
    case: &Case<'_>,
    row: &ForecastRow,
    tenant: &str,
    requested_ns: u64,
    state: &str,
    found: &mut Finding,
) {
    let timeline = &case.timeline;
    let all_recovered = timeline
        .faults
        .values()
        .filter(|events| events.iter().any(|event| event.state == FaultState::Installed))
        .all(|events| events.iter().any(|event| event.state == FaultState::Recovered));
    let bound_ms = case.evidence.manifest.settings.terminal_bound_ms;
    let calm_ns = timeline.windows.iter().map(|window| window.recovered_ns).max().unwrap_or(0).max(requested_ns);
    let waited_ms = timeline.last_ns.saturating_sub(calm_ns) / 1_000_000;
    if all_recovered && !case.evidence.manifest.partial && waited_ms >= bound_ms {
        let what = format!("forecast {} is still {state} {waited_ms} ms after all was healed", row.forecast_id);
        let breach = Breach::new("forecast_never_ended", what, format!("ended within {bound_ms} ms"), state);
        found.breach(breach.at(timeline.last_ns).of(tenant));
    } else {
        found.unknown("a forecast has not ended, and was not given the time for it");
    }
}
