//! The quota of a period: never above the cap, never refused below it, each place given back once.

use std::collections::BTreeMap;

use crate::checker::{Breach, Case, Finding};
use crate::final_state::{ForecastRow, TenantRow};
use crate::history::F;
use crate::model::quota::EndedWithoutSuccess;
use crate::model::{Plan, QuotaAnswer, QuotaFinding, QuotaRequest, judge_quota};
use crate::timeline::Op;

/// How long before its stamp an end cannot have been, nanoseconds: the clocks are one host's.
const END_EARLY_NS: u64 = 1_000_000_000;

pub(super) fn judge(case: &Case<'_>, found: &mut Finding) {
    let mut requests: BTreeMap<&str, Vec<&Op<'_>>> = BTreeMap::new();
    for op in case.timeline.ops.values().filter(|op| op.f() == F::ForecastRequest) {
        requests.entry(op.who()).or_default().push(op);
    }
    let mut rows: BTreeMap<&str, Vec<&ForecastRow>> = BTreeMap::new();
    for row in &case.evidence.final_state.forecasts {
        rows.entry(&row.tenant_id).or_default().push(row);
    }
    for tenant in &case.evidence.final_state.tenants {
        let Some(plan) = Plan::named(&tenant.plan) else {
            continue;
        };
        let rows = rows.get(tenant.tenant_id.as_str()).map_or(&[][..], Vec::as_slice);
        judge_rows(case, tenant, plan, rows, found);
        let asked = requests.get(tenant.label.as_str()).map_or(&[][..], Vec::as_slice);
        // Over two periods the clients' times do not say which one a request fell into.
        if rows.windows(2).all(|pair| pair[0].quota_period == pair[1].quota_period) {
            judge_requests(case, tenant, plan, asked, found);
        }
    }
}

fn judge_rows(case: &Case<'_>, tenant: &TenantRow, plan: Plan, rows: &[&ForecastRow], found: &mut Finding) {
    let mut taken: BTreeMap<i64, u64> = BTreeMap::new();
    for row in rows {
        let place = u64::from(matches!(row.quota_state.as_str(), "held" | "consumed"));
        *taken.entry(row.quota_period).or_default() += place;
        let expected = match row.state.as_str() {
            "succeeded" => "consumed",
            "failed" | "cancelled" => "released",
            _ => "held",
        };
        if row.quota_state != expected {
            let what = format!("forecast {} {} and its place is {}", row.forecast_id, row.state, row.quota_state);
            let breach = Breach::new("place_and_forecast_disagree", what, expected, &row.quota_state);
            found.breach(breach.of(&tenant.label));
        }
    }
    for (period, taken) in taken {
        if let Some(cap) = plan.hard_cap().filter(|cap| taken > *cap) {
            let what = format!("{} holds {taken} places in period {period}", tenant.label);
            let breach = Breach::new("cap_exceeded", what, format!("at most {cap}"), taken.to_string());
            found.breach(breach.of(&tenant.label));
        }
        let counters = &case.evidence.final_state.quota_periods;
        let counter = counters.iter().find(|row| row.tenant_id == tenant.tenant_id && row.period_index == period);
        if let Some(counter) = counter.filter(|counter| counter.taken != taken as i64) {
            let what = format!("the counter of {} for period {period} is not what its forecasts hold", tenant.label);
            let breach = Breach::new("counter_differs_from_places", what, taken.to_string(), counter.taken.to_string());
            found.breach(breach.of(&tenant.label));
        }
    }
}

fn judge_requests(case: &Case<'_>, tenant: &TenantRow, plan: Plan, ops: &[&Op<'_>], found: &mut Finding) {
    let mut asked: Vec<(&Op<'_>, QuotaRequest)> = Vec::new();
    let mut by_key: BTreeMap<&str, Vec<&Op<'_>>> = BTreeMap::new();
    for op in ops {
        if op.status() == Some(402) {
            let (sent_ns, answered_ns) = (op.sent_ns(), op.ended_ns());
            let answer = QuotaAnswer::Refused;
            let request = QuotaRequest { sent_ns, answered_ns, answer, ended_without_success: None, succeeded: false };
            asked.push((op, request));
        } else if op.outcome != crate::timeline::Outcome::Fail {
            by_key.entry(op.invoke.args.key.as_deref().unwrap_or_default()).or_default().push(op);
        }
    }
    for (key, same) in by_key {
        asked.push((same[0], one_request(case, tenant, key, &same)));
    }
    let requests: Vec<QuotaRequest> = asked.iter().map(|(_, request)| *request).collect();
    for (op, _) in &asked {
        found.saw("quota_requests", &case.timeline, op.sent_ns(), &tenant.plan);
    }
    for finding in judge_quota(plan.hard_cap(), &requests) {
        let cap = plan.hard_cap().map_or("no cap".to_owned(), |cap| format!("a cap of {cap}"));
        let breach = match finding {
            QuotaFinding::HeldBeyondCap { at_ns, held, .. } => {
                let what = format!("{} was admitted {held} times at once under {cap}", tenant.label);
                Breach::new("admitted_beyond_the_cap", what, cap, held.to_string()).at(at_ns)
            }
            QuotaFinding::SucceededBeyondCap { succeeded, .. } => {
                let what = format!("{} had {succeeded} forecasts succeed under {cap}", tenant.label);
                Breach::new("succeeded_beyond_the_cap", what, cap, succeeded.to_string())
            }
            QuotaFinding::RefusedWithPlacesFree { request, held_at_most, .. } => {
                let what =
                    format!("{} was refused under {cap} with {held_at_most} place(s) held at most", tenant.label);
                Breach::new("refused_with_places_free", what, "202", "402").shown_by(asked[request].0)
            }
        };
        found.breach(breach.of(&tenant.label));
    }
}

/// All operations with one key, as the one request that they are.
fn one_request(case: &Case<'_>, tenant: &TenantRow, key: &str, same: &[&Op<'_>]) -> QuotaRequest {
    let sent_ns = same.iter().map(|op| op.sent_ns()).min().unwrap_or(0);
    let admitted = same.iter().filter(|op| op.is_ok()).min_by_key(|op| op.ended_ns());
    let stored = || {
        let keys = case.evidence.final_state.idempotency_keys.iter();
        let mut keys = keys.filter(|row| row.tenant_id == tenant.tenant_id && row.key == key);
        keys.find_map(|row| row.resource_id.as_deref())
    };
    let id = admitted.and_then(|op| op.answer()?.id.as_deref()).or_else(stored);
    let row = id.and_then(|id| case.rows.forecasts.get(id));
    let answered_ns =
        admitted.map_or_else(|| same.iter().map(|op| op.ended_ns()).max().unwrap_or(u64::MAX), |op| op.ended_ns());
    let slack_ns = case.evidence.manifest.settings.clock_slack_ms * 1_000_000;
    let ended_without_success = row
        .filter(|row| matches!(row.state.as_str(), "failed" | "cancelled"))
        .and_then(|row| row.finished_us)
        .map(|at| case.timeline.run_clock_ns(at))
        .map(|at| EndedWithoutSuccess { earliest_ns: at.saturating_sub(END_EARLY_NS), latest_ns: at + slack_ns });
    QuotaRequest {
        sent_ns,
        answered_ns,
        answer: if admitted.is_some() { QuotaAnswer::Admitted } else { QuotaAnswer::Info },
        ended_without_success,
        succeeded: row.is_some_and(|row| row.state == "succeeded"),
    }
}
