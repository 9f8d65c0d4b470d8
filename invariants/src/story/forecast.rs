//! A forecast from its request to its bill: acknowledged, done, counted, billed and charged, each once.
//!
//! Evidence: the story's requests under one key, the forecast's row, its usage event, the invoice of the next period and
//! the provider's book. Unknown if nothing was asked or no biller ran.

use super::money::{judge_paid_once, judge_settled};
use super::told::{asked_for, first_success};
use crate::checker::{Breach, Case, Checker, Finding};
use crate::history::F;

/// The law.
pub struct ForecastBilled;

impl Checker for ForecastBilled {
    fn law(&self) -> &'static str {
        "story.forecast"
    }

    fn needs_rows(&self) -> bool {
        true
    }

    fn what(&self) -> &'static str {
        "a forecast that its client asks for until it is acknowledged succeeds, and is billed and charged exactly once"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let mut found = Finding::new();
        judge_settled(case, &mut found);
        let requests = asked_for(case, F::ForecastRequest);
        let acknowledged = first_success(&requests, "request_never_acknowledged", &mut found);
        if let Some(id) = acknowledged.and_then(|op| op.answer()?.id.as_deref()) {
            judge_end(case, id, &mut found);
        }
        found
    }
}

fn judge_end(case: &Case<'_>, id: &str, found: &mut Finding) {
    let Some(row) = case.rows.forecasts.get(id) else {
        let what = format!("forecast {id} was acknowledged and is gone");
        return found.breach(Breach::new("acknowledged_forecast_gone", what, "a row", "none"));
    };
    let label = case.rows.label(&row.tenant_id);
    let mut breach = |shape, words: &str, expected: &str, actual: &str| {
        let what = format!("forecast {id} of {label} {words}");
        found.breach(Breach::new(shape, what, expected, actual).of(label));
    };
    if row.state != "succeeded" {
        let code = row.error_code.as_deref().unwrap_or("no code");
        return breach("did_not_succeed", "did not succeed in time", "succeeded", &format!("{}, {code}", row.state));
    }
    let reads = asked_for(case, F::ForecastRead);
    let shows_success = |op: &&&crate::timeline::Op<'_>| {
        op.answer().and_then(|answer| answer.forecast.as_ref()).is_some_and(|forecast| forecast.state == "succeeded")
    };
    if !reads.iter().any(|op| shows_success(&op)) {
        breach("end_never_shown", "was never shown to its client as done", "a read of it as succeeded", "none");
    }
    let events = case.rows.usage.get(id).map_or(&[][..], Vec::as_slice);
    let [event] = events else {
        return breach("not_counted_once", "was not counted once", "1 usage event", &events.len().to_string());
    };
    let invoice = event.invoice_id.as_deref().and_then(|invoice| case.rows.invoices.get(invoice));
    let Some(invoice) = invoice else {
        return breach("never_billed", "is on no invoice", "the invoice of the next period", "none");
    };
    judge_paid_once(case, invoice, found);
    found.saw_many("ends", 1);
}
