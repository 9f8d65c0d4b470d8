//! Each forecast that succeeded is counted once, each period invoiced once, each invoice charged
//! once; nothing is missed, and the books agree with the provider's own and with what it told.
//!
//! Evidence: last rows, the provider's book, the biller's runs, and requests for bounds: at least
//! what was acknowledged, at most what was attempted. What is *missing* is judged only where a
//! biller's run came to its end; doubles are judged always. Time O(n log n).

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{charges, events, invoices, ledger, quota, requests, usage};
use crate::checker::{Case, Checker, Finding};
use crate::final_state::{InvoiceRow, TenantRow};
use crate::model::{self, ExpectedInvoice, TenantFacts};

/// The law.
pub struct ExactlyOnce;

impl Checker for ExactlyOnce {
    fn law(&self) -> &'static str {
        "billing.exactly_once"
    }

    fn needs_rows(&self) -> bool {
        true
    }

    fn what(&self) -> &'static str {
        "every success is counted, invoiced and charged exactly once, for the amount the oracle computes"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let mut found = Finding::new();
        requests::judge(case, &mut found);
        quota::judge(case, &mut found);
        usage::judge(case, &mut found);
        let books = Books::of(case, &mut found);
        invoices::judge(case, &books, &mut found);
        charges::judge(case, &books, &mut found);
        events::judge(case, &mut found);
        ledger::judge(case, &mut found);
        found
    }
}

/// What each tenant ought to have been billed by the time that the biller brought it to.
pub(super) struct Books<'a> {
    /// Whether a run to that time came to its end, so that what is missing is missed.
    pub is_complete: bool,
    /// Tenants with what is expected of them, by id.
    pub tenants: BTreeMap<&'a str, (&'a TenantRow, Vec<ExpectedInvoice>)>,
    /// Invoices by tenant's id, void ones left out.
    pub invoices: BTreeMap<&'a str, Vec<&'a InvoiceRow>>,
}

/// Exit code of a biller that is through but left a payment unsettled.
const EXIT_UNSETTLED: i32 = 5;

impl<'a> Books<'a> {
    fn of(case: &Case<'a>, found: &mut Finding) -> Self {
        let state = case.evidence.final_state;
        let as_of_us = state.billing_runs.iter().map(|run| run.as_of_us).max().unwrap_or(i64::MIN);
        let is_complete = state
            .billing_runs
            .iter()
            .any(|run| run.as_of_us == as_of_us && matches!(run.exit_code, Some(0 | EXIT_UNSETTLED)));
        let mut books = Self { is_complete, tenants: BTreeMap::new(), invoices: BTreeMap::new() };
        if !is_complete {
            found.unknown("no run of the biller came to its end");
        }
        for invoice in state.invoices.iter().filter(|invoice| invoice.state != "void") {
            books.invoices.entry(&invoice.tenant_id).or_default().push(invoice);
        }
        let Ok(as_of) = Timestamp::from_microsecond(as_of_us) else {
            return books;
        };
        for tenant in &state.tenants {
            match expected(case, tenant, as_of) {
                Ok(expected) => {
                    books.tenants.insert(&tenant.tenant_id, (tenant, expected));
                }
                Err(reason) => found.unknown(format!("nothing can be expected of {}: {reason}", tenant.label)),
            }
        }
        books
    }
}

fn expected(case: &Case<'_>, tenant: &TenantRow, as_of: Timestamp) -> Result<Vec<ExpectedInvoice>, String> {
    let plan = model::Plan::named(&tenant.plan).ok_or_else(|| format!("no plan {:?}", tenant.plan))?;
    let signup = Timestamp::from_microsecond(tenant.signed_up_us).map_err(|e| e.to_string())?;
    let state = case.evidence.final_state;
    let mut events = Vec::new();
    // One event per forecast that succeeded: a double must not raise what is expected.
    for row in state.forecasts.iter().filter(|row| row.tenant_id == tenant.tenant_id && row.state == "succeeded") {
        let stamp = case.rows.usage.get(row.forecast_id.as_str()).map(|events| events[0].occurred_us);
        let stamp = stamp.or(row.finished_us).unwrap_or(row.requested_us);
        let at = Timestamp::from_microsecond(stamp).map_err(|e| e.to_string())?;
        events.push(model::UsageEvent { at, committed_at: None });
    }
    let facts = TenantFacts {
        zone: tenant.zone.clone(),
        signup,
        currency: tenant.currency.clone(),
        tax_rate_ppm: tenant.tax_rate_ppm,
        plans: vec![(signup, plan)],
        usage: events,
    };
    model::expected_invoices(&facts, as_of).map_err(|reason| reason.to_string())
}
