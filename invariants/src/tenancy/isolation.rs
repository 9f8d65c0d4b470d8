//! Nothing of one tenant reaches another: no byte of an answer, no row, no cached value.
//!
//! Two counts that are never added up: *scans* (a whole 2xx of an authenticated resource, searched
//! while at least two tenants held data) and *foreign attempts* (refused, and the owner got the
//! object in the same phase). Positive control: owners see their own canaries. Time O(n log n).

use crate::checker::{Breach, Case, Checker, Finding};
use crate::history::F;
use crate::timeline::Op;

/// The law.
pub struct Isolation;

impl Checker for Isolation {
    fn law(&self) -> &'static str {
        "tenancy.isolation"
    }

    fn what(&self) -> &'static str {
        "no answer, row or cached value of one tenant holds anything of another's"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let mut found = Finding::new();
        for op in case.timeline.ops.values() {
            judge_scan(case, op, &mut found);
            judge_ids(case, op, &mut found);
            if op.f() == F::Foreign {
                judge_attempt(case, op, &mut found);
            }
        }
        judge_rows(case, &mut found);
        judge_cache(case, &mut found);
        found
    }
}

/// Open routes answer about nobody: a canary there is the privacy law's matter.
fn judge_scan(case: &Case<'_>, op: &Op<'_>, found: &mut Finding) {
    let Some(scan) = op.end.and_then(|end| end.scan.as_ref()).filter(|_| op.f() != F::Health) else {
        return;
    };
    // A calculator works on nothing stored, so its answers would only swell the count; what they hold is looked at below.
    let could_leak = op.f().is_authenticated() && op.f() != F::Calculate;
    if could_leak && op.is_ok() && scan.tenants_with_data >= 2 {
        found.saw("scans", &case.timeline, op.ended_ns(), op.f().name());
        if scan.owners_found.iter().any(|owner| op.tenant() == Some(owner.as_str())) {
            found.saw("own_canary_seen", &case.timeline, op.ended_ns(), op.f().name());
        }
    }
    if scan.unverified > 0 {
        found.saw("unattributed_marks", &case.timeline, op.ended_ns(), op.f().name());
    }
    for owner in scan.owners_found.iter().filter(|owner| op.tenant() != Some(owner.as_str())) {
        let what = format!("{} got data of {owner} from {}", op.who(), op.invoke.route);
        let breach = Breach::new(
            "answer_holds_foreign_data",
            what,
            format!("only what belongs to {}", op.who()),
            format!("canary of {owner} ({})", scan.fields.join(", ")),
        );
        found.breach(breach.shown_by(op).of(op.who()).of(owner));
    }
}

/// Ids in an answer belong to the tenant that asked.
fn judge_ids(case: &Case<'_>, op: &Op<'_>, found: &mut Finding) {
    let (Some(answer), Some(tenant)) = (op.answer(), op.tenant()) else {
        return;
    };
    let Some(tenant_id) = case.rows.tenant_ids.get(tenant).filter(|_| op.f() != F::Foreign) else {
        return;
    };
    let listed = answer.items.iter().map(|item| item.id.as_str());
    let named = answer.id.as_deref().into_iter().chain(answer.scenario_id.as_deref());
    for id in listed.chain(named) {
        if let Some(owner) = case.rows.owners.get(id).filter(|owner| **owner != *tenant_id) {
            let owner = case.rows.label(owner);
            let what = format!("{tenant} was shown {id}, which is {owner}'s, by {}", op.invoke.route);
            let breach = Breach::new("answer_names_foreign_object", what, format!("an object of {tenant}"), owner);
            found.breach(breach.shown_by(op).of(tenant).of(owner));
        }
    }
    if let Some(shown) = answer.tenant_id.as_deref().filter(|shown| shown != tenant_id) {
        let what = format!("{tenant} was told to be tenant {shown}");
        let breach = Breach::new("answer_names_foreign_tenant", what, *tenant_id, shown);
        found.breach(breach.shown_by(op).of(tenant).of(case.rows.label(shown)));
    }
}

fn judge_attempt(case: &Case<'_>, op: &Op<'_>, found: &mut Finding) {
    let args = &op.invoke.args;
    let owner = args.owner.as_deref().unwrap_or("?");
    if op.said_yes() {
        let what = format!("{} asked for {owner}'s object and got it", op.who());
        let status = op.status().unwrap_or_default().to_string();
        let breach = Breach::new("foreign_object_served", what, "404", status);
        found.breach(breach.shown_by(op).of(op.who()).of(owner));
        return;
    }
    let Some(status) = op.status().filter(|status| is_about_the_object(*status)) else {
        return;
    };
    let control = args.owner_op.and_then(|number| case.timeline.ops.get(&number));
    let is_paired = control.is_some_and(|control| {
        control.is_ok()
            && control.tenant() == args.owner.as_deref()
            && control.tenant() != op.tenant()
            && control.invoke.phase == op.invoke.phase
    });
    if is_paired && matches!(status, 403 | 404) {
        let subject = args.imitates.map_or("", F::name);
        found.saw("foreign_attempts", &case.timeline, op.ended_ns(), subject);
    }
    let twin = args.twin.and_then(|number| case.timeline.ops.get(&number));
    let Some(twin) = twin.filter(|twin| twin.f() == F::Absent && twin.status().is_some_and(is_about_the_object)) else {
        return;
    };
    found.saw("compared_with_absent", &case.timeline, op.ended_ns(), "");
    let (Some(mine), Some(theirs)) = (op.end, twin.end) else {
        return;
    };
    let both_differ = |a: &Option<String>, b: &Option<String>| matches!((a, b), (Some(a), Some(b)) if a != b);
    if mine.status != theirs.status
        || both_differ(&mine.body_sha256, &theirs.body_sha256)
        || both_differ(&mine.headers_sha256, &theirs.headers_sha256)
    {
        let what = format!("{} can tell {owner}'s object from one that does not exist", op.who());
        let shown = |end: &crate::history::Completion| {
            format!("{} body {}", end.status.unwrap_or(0), end.body_sha256.as_deref().unwrap_or("?"))
        };
        let breach = Breach::new("foreign_told_from_absent", what, shown(theirs), shown(mine));
        found.breach(breach.shown_by(op).shown_by(twin).of(op.who()).of(owner));
    }
}

/// Whether a refusal speaks of the object asked for. Those for a token (401), a plan's limit (402), a duplicate still under
/// way (409) and a rate (429) speak of who asks, and may differ between two requests of the same sender.
fn is_about_the_object(status: u16) -> bool {
    (400..500).contains(&status) && !matches!(status, 401 | 402 | 408 | 409 | 425 | 429)
}

/// Rows refer to rows of their own tenant, and hold no other's text.
fn judge_rows(case: &Case<'_>, found: &mut Finding) {
    let state = case.evidence.final_state;
    let rows = &case.rows;
    let users = state.users.iter().map(|row| (row.user_id.as_str(), row.tenant_id.as_str()));
    let users: std::collections::BTreeMap<&str, &str> = users.collect();
    let mut refers = |table: &str, tenant_id: &str, id: &str, owner: Option<&&str>| {
        found.saw_many("references", 1);
        if let Some(owner) = owner.filter(|owner| **owner != tenant_id) {
            let (from, to) = (rows.tenants.get(tenant_id), rows.tenants.get(*owner));
            let label = |row: Option<&&crate::final_state::TenantRow>| row.map_or("?".to_owned(), |r| r.label.clone());
            let what = format!("a {table} row of {} refers to {id} of {}", label(from), label(to));
            let breach = Breach::new("row_refers_across_tenants", what, label(from), label(to));
            found.breach(breach.of(label(from)).of(label(to)));
        }
    };
    for row in &state.forecasts {
        refers("forecasts", &row.tenant_id, &row.scenario_id, rows.owners.get(row.scenario_id.as_str()));
        refers("forecasts", &row.tenant_id, &row.requested_by, users.get(row.requested_by.as_str()));
    }
    for row in &state.jobs {
        refers("jobs", &row.tenant_id, &row.subject_id, rows.owners.get(row.subject_id.as_str()));
    }
    for row in &state.usage_events {
        refers("usage_events", &row.tenant_id, &row.forecast_id, rows.owners.get(row.forecast_id.as_str()));
        if let Some(invoice) = row.invoice_id.as_deref() {
            refers("usage_events", &row.tenant_id, invoice, rows.owners.get(invoice));
        }
    }
    for row in &state.payments {
        refers("payments", &row.tenant_id, &row.invoice_id, rows.owners.get(row.invoice_id.as_str()));
    }
    for row in &state.sessions {
        refers("sessions", &row.tenant_id, &row.user_id, users.get(row.user_id.as_str()));
    }
    let scenarios = state.scenarios.iter().map(|row| (&row.tenant_id, &row.scenario_id, &row.owners_found));
    let forecasts = state.forecasts.iter().map(|row| (&row.tenant_id, &row.forecast_id, &row.owners_found));
    for (tenant_id, id, owners) in scenarios.chain(forecasts) {
        let tenant = rows.label(tenant_id);
        for owner in owners.iter().filter(|owner| *owner != tenant) {
            let what = format!("row {id} of {tenant} holds data of {owner}");
            found.breach(Breach::new("row_holds_foreign_data", what, tenant, owner).of(tenant).of(owner));
        }
    }
}

fn judge_cache(case: &Case<'_>, found: &mut Finding) {
    for entry in &case.evidence.final_state.redis {
        found.saw_many("cached_values", entry.keys);
        let Some(tenant) = entry.tenant.as_deref() else {
            continue;
        };
        for owner in entry.owners_found.iter().filter(|owner| *owner != tenant) {
            let what = format!("a cached {} of {tenant} holds data of {owner}", entry.key_kind);
            found.breach(Breach::new("cache_holds_foreign_data", what, tenant, owner).of(tenant).of(owner));
        }
    }
}
