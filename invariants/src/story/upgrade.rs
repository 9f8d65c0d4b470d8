//! An upgrade: in force once, prorated by one invoice, charged once.
//!
//! Evidence: the story's requests for a change of plan, the plan that was read afterwards, rows of tenants, upgrades and
//! invoices, the provider's book.

use super::money::judge_paid_once;
use super::told::{asked, asked_for, first_success};
use crate::checker::{Breach, Case, Checker, Finding};
use crate::history::F;

/// What is asked for.
pub const UPGRADE_ROUTE: &str = "POST /v1/plan/changes";
/// The plan that the story's client asks for.
pub const UPGRADE_PLAN: &str = "PRO";

/// The law.
pub struct UpgradeAppliedOnce;

impl Checker for UpgradeAppliedOnce {
    fn law(&self) -> &'static str {
        "story.upgrade"
    }

    fn needs_rows(&self) -> bool {
        true
    }

    fn what(&self) -> &'static str {
        "an upgrade that its client asks for until it is in force is applied, prorated and charged exactly once"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let mut found = Finding::new();
        let requests = asked(case, |op| op.f() == F::Other && op.invoke.route == UPGRADE_ROUTE);
        if let Some(done) = first_success(&requests, "upgrade_never_in_force", &mut found) {
            judge_end(case, done.who(), &mut found);
        }
        found
    }
}

fn judge_end(case: &Case<'_>, label: &str, found: &mut Finding) {
    let state = case.evidence.final_state;
    let Some(tenant) = state.tenants.iter().find(|tenant| tenant.label == label) else {
        return found.unknown(format!("{label} has no row"));
    };
    let mut breach = |shape, words: &str, expected: &str, actual: String| {
        found.breach(Breach::new(shape, format!("{label} {words}"), expected, actual).of(label));
    };
    if tenant.plan != UPGRADE_PLAN {
        breach("plan_not_changed", "was told of its upgrade and has another plan", UPGRADE_PLAN, tenant.plan.clone());
    }
    let shown = asked_for(case, F::Plan).iter().rev().find_map(|op| op.answer()?.plan.as_deref());
    if shown != Some(UPGRADE_PLAN) {
        breach("plan_never_shown", "was not shown its new plan", UPGRADE_PLAN, shown.unwrap_or("nothing").to_owned());
    }
    let mine = state.plan_upgrades.iter().filter(|upgrade| upgrade.tenant_id == tenant.tenant_id);
    let standing: Vec<_> = mine.filter(|upgrade| upgrade.state != "declined").collect();
    let [upgrade] = standing[..] else {
        let states: Vec<&str> = standing.iter().map(|upgrade| upgrade.state.as_str()).collect();
        return breach("not_one_upgrade", "has not one upgrade for one key", "1 that is applied", states.join(", "));
    };
    if upgrade.state != "applied" {
        breach("upgrade_left_waiting", "has an upgrade without its end", "applied", upgrade.state.clone());
    }
    let prorations: Vec<_> = state
        .invoices
        .iter()
        .filter(|row| row.tenant_id == tenant.tenant_id && row.kind == "proration" && row.state != "void")
        .collect();
    let [invoice] = prorations[..] else {
        let count = prorations.len().to_string();
        return breach("not_prorated_once", "was not prorated once", "1 invoice for the proration", count);
    };
    if upgrade.invoice_id.as_deref() != Some(invoice.invoice_id.as_str()) {
        let named = upgrade.invoice_id.clone().unwrap_or_else(|| "none".to_owned());
        breach("upgrade_names_other_invoice", "has an upgrade for another invoice", &invoice.invoice_id, named);
    }
    judge_paid_once(case, invoice, found);
    found.saw_many("ends", 1);
}
