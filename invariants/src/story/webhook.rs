//! The provider's word of a charge: taken in once, however often it is sent.
//!
//! Evidence: the story's deliveries, which go on until one is answered with a 2xx as a provider's do; rows of events,
//! payments and invoices; ledger entries; the provider's book. The charge itself was made before the story.

use std::collections::BTreeMap;

use super::money::{judge_paid_once, judge_settled};
use super::told::{asked, first_success};
use crate::checker::{Breach, Case, Checker, Finding};
use crate::history::F;

/// Where it is delivered.
pub const WEBHOOK_ROUTE: &str = "POST /v1/webhooks/payments";

/// The law.
pub struct WebhookTakenInOnce;

impl Checker for WebhookTakenInOnce {
    fn law(&self) -> &'static str {
        "story.webhook"
    }

    fn needs_rows(&self) -> bool {
        true
    }

    fn what(&self) -> &'static str {
        "an event that is delivered until it is acknowledged is taken in once, and its invoice is paid by one charge"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let mut found = Finding::new();
        judge_settled(case, &mut found);
        let deliveries = asked(case, |op| op.f() == F::Other && op.invoke.route == WEBHOOK_ROUTE);
        let Some(done) = first_success(&deliveries, "event_never_acknowledged", &mut found) else {
            return found;
        };
        let (event, invoice) = (done.invoke.args.key.as_deref(), done.invoke.args.id.as_deref());
        let (Some(event), Some(invoice)) = (event, invoice) else {
            found.unknown("the delivery does not say which event it is, and of which invoice");
            return found;
        };
        judge_event(case, event, &mut found);
        match case.rows.invoices.get(invoice) {
            Some(row) => {
                judge_paid_once(case, row, &mut found);
                judge_posted_once(case, invoice, &mut found);
                found.saw_many("ends", 1);
            }
            None => found.unknown(format!("invoice {invoice} has no row")),
        }
        found
    }
}

fn judge_event(case: &Case<'_>, event: &str, found: &mut Finding) {
    let rows = case.evidence.final_state.webhook_events.iter().filter(|row| row.event_id == event);
    let outcomes: Vec<&str> = rows.map(|row| row.outcome.as_str()).collect();
    if outcomes.len() != 1 {
        let what = format!("event {event} was acknowledged and is written down {} times", outcomes.len());
        found.breach(Breach::new("event_not_kept_once", what, "1 row", outcomes.join(", ")));
    } else if outcomes != ["applied"] && outcomes != ["nothing_new"] {
        let what = format!("event {event} tells of a charge of ours and was not applied");
        found.breach(Breach::new("event_not_applied", what, "applied or nothing_new", outcomes.join(", ")));
    }
}

/// One posting for the payment that came in.
fn judge_posted_once(case: &Case<'_>, invoice: &str, found: &mut Finding) {
    let state = case.evidence.final_state;
    let payments = state.payments.iter().filter(|row| row.invoice_id == invoice && row.state == "succeeded");
    for payment in payments {
        let entries = state.ledger_entries.iter().filter(|entry| {
            entry.posting_kind == "payment_received"
                && (entry.posting_ref == payment.payment_id || entry.posting_ref == payment.invoice_id)
        });
        let mut received: BTreeMap<&str, i64> = BTreeMap::new();
        for entry in entries {
            *received.entry(&entry.account).or_default() += entry.debit_minor;
        }
        let total: i64 = received.values().sum();
        if total != payment.amount_minor {
            let what = format!("payment {} is posted for another amount than it has", payment.payment_id);
            let (expected, actual) = (payment.amount_minor.to_string(), total.to_string());
            found.breach(Breach::new("payment_not_posted_once", what, expected, actual));
        }
    }
}
