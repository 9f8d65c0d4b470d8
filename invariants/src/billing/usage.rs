//! One usage event for each forecast that succeeded, none for any other, stamped when it ended.

use crate::checker::{Breach, Case, Finding};
use crate::final_state::ForecastRow;

pub(super) fn judge(case: &Case<'_>, found: &mut Finding) {
    let state = case.evidence.final_state;
    for row in &state.forecasts {
        judge_forecast(case, row, found);
    }
    for event in &state.usage_events {
        if !case.rows.forecasts.contains_key(event.forecast_id.as_str()) {
            let what = format!("usage event {} counts a forecast that does not exist", event.usage_event_id);
            let breach = Breach::new("usage_of_nothing", what, "a forecast that succeeded", &event.forecast_id);
            found.breach(breach.of(case.rows.label(&event.tenant_id)));
        }
    }
}

fn judge_forecast(case: &Case<'_>, row: &ForecastRow, found: &mut Finding) {
    let events = case.rows.usage.get(row.forecast_id.as_str()).map_or(&[][..], Vec::as_slice);
    let tenant = case.rows.label(&row.tenant_id);
    let ended_ns = row.finished_us.map(|at| case.timeline.run_clock_ns(at));
    let shape = match (row.state.as_str(), events.len()) {
        ("succeeded", 1) => {
            let from_ns = case.timeline.run_clock_ns(row.requested_us);
            found.saw_between("forecasts_billed", &case.timeline, from_ns, ended_ns.unwrap_or(from_ns), "");
            None
        }
        ("succeeded", 0) => Some("usage_missed"),
        ("succeeded", _) => Some("usage_counted_twice"),
        (_, 0) => None,
        _ => Some("usage_without_success"),
    };
    if let Some(shape) = shape {
        let what = format!("forecast {} {} and has {} usage event(s)", row.forecast_id, row.state, events.len());
        let expected = if row.state == "succeeded" { "1" } else { "0" };
        let mut breach = Breach::new(shape, what, expected, events.len().to_string()).of(tenant);
        breach.t_ns = ended_ns;
        found.breach(breach);
    }
    let slack_us = case.evidence.manifest.settings.clock_slack_ms as i64 * 1_000;
    if let (Some(finished), [event]) = (row.finished_us, events)
        && event.occurred_us.abs_diff(finished) > slack_us.unsigned_abs()
    {
        let what = format!("the usage of forecast {} is stamped at another time than its end", row.forecast_id);
        let breach = Breach::new("usage_stamped_elsewhere", what, finished.to_string(), event.occurred_us.to_string());
        found.breach(breach.of(tenant));
    }
}
