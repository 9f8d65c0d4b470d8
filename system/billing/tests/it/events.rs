//! The provider's events about money that should not have been taken.

use chrono::Utc;
use forecastle_billing::webhook_event::{ChargeEvent, EventKind};
use forecastle_billing::{EventOutcome, take_in_event};
use forecastle_testbed::customers::Customer;
use std::sync::atomic::Ordering;

use crate::bed::{Bed, bed};

const CREDIT: &str = "SELECT credit_balance_minor FROM app.tenants";
const CASH: &str =
    "SELECT coalesce(sum(debit_minor - credit_minor), 0)::bigint FROM app.ledger_entries WHERE account = 'cash'";

struct Declined {
    bed: Bed,
    customer: Customer,
    key: String,
    invoice: String,
    amount_minor: i64,
    sent: u32,
}

/// A customer whose first charge was declined; the next one is a day later.
async fn declined() -> Declined {
    let mut bed = bed().await;
    let customer = bed.customer("STARTER", "EUR", "2026-01-01 00:00+00").await;
    bed.book.declines_left.store(1, Ordering::SeqCst);
    assert_eq!(bed.bill("2026-01-01T02:00:00Z").await.failed, 1);
    let key = bed.words("SELECT idempotency_key FROM app.payments").await.remove(0);
    let invoice = bed.words("SELECT invoice_id::text FROM app.payments").await.remove(0);
    let amount_minor = bed.count("SELECT amount_minor FROM app.payments").await;
    Declined { bed, customer, key, invoice, amount_minor, sent: 0 }
}

impl Declined {
    async fn event(&mut self, kind: EventKind, charge_id: &str, refunded_minor: i64) -> EventOutcome {
        self.sent += 1;
        let event = ChargeEvent {
            event_id: format!("evt_{}", self.sent),
            sent_at: Utc::now(),
            kind,
            charge_id: charge_id.to_owned(),
            amount_minor: self.amount_minor,
            currency: "EUR".to_owned(),
            key: self.key.clone(),
            refunded_minor,
            tenant: self.customer.tenant.into(),
            invoice: self.invoice.parse().unwrap(),
        };
        take_in_event(&self.bed.run.db, &event, &self.bed.run.terms).await.unwrap()
    }

    async fn assert_content(&mut self) {
        let summary = self.bed.bill("2026-01-01T03:00:00Z").await;
        assert_eq!((summary.mismatched, summary.healed, summary.is_complete()), (0, 0, true), "{summary:?}");
        assert_eq!(self.bed.words("SELECT state FROM app.payments").await, ["failed"]);
    }
}

#[tokio::test]
async fn money_taken_after_a_decline_and_given_back_leaves_the_customers_credit() {
    let mut declined = declined().await;
    let all = declined.amount_minor;
    assert_eq!(declined.event(EventKind::Succeeded, "ch_late", 0).await, EventOutcome::Applied);
    assert_eq!(declined.bed.count(CREDIT).await, all);
    assert_eq!(declined.event(EventKind::Refunded, "ch_other", 1_000).await, EventOutcome::Mismatch);
    assert_eq!(declined.event(EventKind::Refunded, "ch_late", 1_000).await, EventOutcome::Applied);
    assert_eq!(declined.event(EventKind::Refunded, "ch_late", 1_000).await, EventOutcome::NothingNew);
    assert_eq!((declined.bed.count(CREDIT).await, declined.bed.count(CASH).await), (all - 1_000, all - 1_000));
    declined.assert_content().await;
    assert_eq!(declined.event(EventKind::Refunded, "ch_late", all).await, EventOutcome::Applied);
    assert_eq!((declined.bed.count(CREDIT).await, declined.bed.count(CASH).await), (0, 0));
    declined.assert_content().await;
}

#[tokio::test]
async fn a_refund_that_comes_before_the_money_it_gives_back_is_both() {
    let mut declined = declined().await;
    let all = declined.amount_minor;
    assert_eq!(declined.event(EventKind::Refunded, "ch_late", all).await, EventOutcome::Applied);
    assert_eq!(declined.event(EventKind::Succeeded, "ch_late", 0).await, EventOutcome::NothingNew);
    assert_eq!((declined.bed.count(CREDIT).await, declined.bed.count(CASH).await), (0, 0));
    let postings = "SELECT DISTINCT posting_kind FROM app.ledger_entries WHERE account = 'cash' ORDER BY 1";
    assert_eq!(declined.bed.words(postings).await, ["payment_refunded", "payment_unexpected"]);
    declined.assert_content().await;
}
