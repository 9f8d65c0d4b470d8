//! A provider whose answers are lost, late, or a refusal: the money is taken once, and known in the end.

use std::sync::atomic::Ordering;
use std::time::Duration;

use forecastle_billing::webhook_event::{ChargeEvent, EventKind};
use forecastle_billing::{BillingTerms, EventOutcome, RunSummary, take_in_event};
use forecastle_store::{payments, periods};

use crate::bed::bed;

#[tokio::test]
async fn a_lost_answer_is_resolved_by_asking_and_charges_once() {
    let mut bed = bed().await;
    bed.customer("PRO", "USD", "2026-01-01 00:00+00").await;
    bed.book.answers_to_lose.store(1, Ordering::SeqCst);
    let summary = bed.bill("2026-01-01T02:00:00Z").await;
    assert_eq!(summary, RunSummary { drafted: 1, issued: 1, charged: 1, ..RunSummary::default() });
    assert_eq!((bed.book.count(), bed.book.posts()), (1, 1));
    bed.assert_square().await;
}

#[tokio::test]
async fn an_answer_that_stays_lost_is_unknown_until_a_later_run_asks() {
    let mut bed = bed().await;
    bed.customer("PRO", "USD", "2026-01-01 00:00+00").await;
    bed.book.answers_to_lose.store(100, Ordering::SeqCst);
    bed.book.look_ups_to_lose.store(100, Ordering::SeqCst);
    let summary = bed.bill("2026-01-01T02:00:00Z").await;
    assert_eq!((summary.unknown, summary.is_complete()), (1, false));
    assert_eq!(bed.count("SELECT count(*) FROM app.payments WHERE state = 'unknown'").await, 1);

    bed.book.look_ups_to_lose.store(0, Ordering::SeqCst);
    let posts = bed.book.posts();
    let summary = bed.bill("2026-01-01T02:00:00Z").await;
    assert_eq!(summary, RunSummary { charged: 1, ..RunSummary::default() });
    assert_eq!((bed.book.count(), bed.book.posts()), (1, posts));
    bed.assert_square().await;
}

#[tokio::test]
async fn an_answer_that_is_never_given_is_asked_for_and_charged_once() {
    let mut bed = bed().await;
    bed.customer("PRO", "USD", "2026-01-01 00:00+00").await;
    bed.book.answers_to_withhold.store(1, Ordering::SeqCst);
    let summary = bed.bill("2026-01-01T02:00:00Z").await;
    assert_eq!((summary.charged, bed.book.count()), (1, 1));
    bed.assert_square().await;
}

#[tokio::test]
async fn a_charge_that_happens_after_the_caller_has_gone_happens_once() {
    let mut bed = bed().await;
    bed.customer("PRO", "EUR", "2026-01-01 00:00+00").await;
    // Later than the time-out and the look-up after it, and twice so: the third request finds the charge.
    bed.book.late_ms.store(600, Ordering::SeqCst);
    bed.book.effects_to_delay.store(2, Ordering::SeqCst);
    bed.bill("2026-01-01T02:00:00Z").await;
    let summary = bed.bill("2026-01-01T02:00:00Z").await;
    assert!(summary.is_complete());
    assert_eq!((bed.book.count(), bed.book.charged().len()), (1, 1));
    bed.assert_square().await;
}

#[tokio::test]
async fn a_provider_that_fails_for_long_takes_nothing_and_is_asked_a_bounded_number_of_times() {
    let mut bed = bed().await;
    bed.customer("STARTER", "GBP", "2026-01-01 00:00+00").await;
    bed.book.requests_to_refuse.store(1_000, Ordering::SeqCst);
    let summary = bed.bill("2026-01-01T02:00:00Z").await;
    assert_eq!((summary.unknown, summary.is_complete()), (1, false));
    assert!(bed.book.posts() <= 3);
    bed.book.requests_to_refuse.store(0, Ordering::SeqCst);
    assert_eq!(bed.bill("2026-01-01T02:00:00Z").await, RunSummary { charged: 1, ..RunSummary::default() });
    bed.assert_square().await;
}

#[tokio::test]
async fn an_unknown_payment_is_settled_under_its_own_key_before_dunning_goes_on() {
    let mut bed = bed().await;
    bed.customer("PRO", "USD", "2026-01-01 00:00+00").await;
    bed.book.answers_to_lose.store(100, Ordering::SeqCst);
    bed.book.look_ups_to_lose.store(1_000, Ordering::SeqCst);
    for as_of in ["2026-01-01T02:00:00Z", "2026-01-03T00:00:00Z", "2026-01-20T00:00:00Z"] {
        assert_eq!(bed.bill(as_of).await.unknown, 1, "{as_of}");
    }
    // The next period is billed meanwhile; its own charge is unknown too.
    assert_eq!(bed.bill("2026-02-01T02:00:00Z").await.unknown, 2);
    let purposes = bed.words("SELECT DISTINCT purpose FROM app.payments").await;
    assert_eq!(purposes, ["invoice"]);
    bed.book.answers_to_lose.store(0, Ordering::SeqCst);
    bed.book.look_ups_to_lose.store(0, Ordering::SeqCst);
    let summary = bed.bill("2026-02-01T02:00:00Z").await;
    assert_eq!(summary, RunSummary { charged: 2, ..RunSummary::default() });
    assert_eq!(bed.book.count(), 2);
    bed.assert_square().await;
}

#[tokio::test]
async fn another_card_is_charged_only_under_another_key() {
    let mut bed = bed().await;
    let customer = bed.customer("PRO", "USD", "2026-01-01 00:00+00").await;
    bed.book.requests_to_refuse.store(100, Ordering::SeqCst);
    assert_eq!(bed.bill("2026-01-01T02:00:00Z").await.unknown, 1);
    bed.does("UPDATE app.tenants SET payment_token = 'tok-new'").await;
    bed.book.requests_to_refuse.store(0, Ordering::SeqCst);
    bed.book.declining.store(true, Ordering::SeqCst);
    assert_eq!(bed.bill("2026-01-01T02:00:00Z").await.failed, 1);
    bed.book.declining.store(false, Ordering::SeqCst);
    assert_eq!(bed.bill("2026-01-03T00:00:00Z").await.charged, 1);
    let tokens = bed.words("SELECT payment_token FROM app.payments ORDER BY purpose DESC").await;
    assert_eq!(tokens, [format!("tok-{}", customer.tenant), "tok-new".to_owned()]);
    let sent: Vec<_> = bed.book.charged().into_values().map(|sent| sent["payment_token"].clone()).collect();
    assert_eq!(sent, ["tok-new"]);
    bed.assert_square().await;
}

#[tokio::test]
async fn a_token_that_the_provider_refuses_to_read_is_a_decline_and_a_new_one_pays() {
    let mut bed = bed().await;
    bed.customer("PRO", "USD", "2026-01-01 00:00+00").await;
    bed.does("UPDATE app.tenants SET payment_token = 'tok_malformed'").await;
    // While nobody can be asked whether an earlier request has taken the money, it is not known.
    bed.book.look_ups_to_lose.store(1_000, Ordering::SeqCst);
    assert_eq!(bed.bill("2026-01-01T02:00:00Z").await.unknown, 1);
    bed.book.look_ups_to_lose.store(0, Ordering::SeqCst);
    let summary = bed.bill("2026-01-01T02:00:00Z").await;
    assert_eq!((summary.failed, summary.unknown), (1, 0));
    assert_eq!(bed.words("SELECT state FROM app.payments").await, ["failed"]);
    bed.does("UPDATE app.tenants SET payment_token = 'tok-new'").await;
    assert_eq!(bed.bill("2026-01-03T00:00:00Z").await.charged, 1);
    assert_eq!(bed.words("SELECT state FROM app.invoices").await, ["paid"]);
    bed.assert_square().await;
}

#[tokio::test]
async fn a_silent_provider_costs_a_run_its_patience_and_not_every_tenants() {
    let mut bed = bed().await;
    for _ in 0..12 {
        bed.customer("STARTER", "USD", "2026-01-01 00:00+00").await;
    }
    bed.run.silence_max = Duration::from_secs(1);
    bed.book.answers_to_withhold.store(1_000, Ordering::SeqCst);
    bed.book.look_ups_to_lose.store(1_000, Ordering::SeqCst);
    let summary = bed.bill("2026-01-01T02:00:00Z").await;
    assert_eq!((summary.issued, summary.unknown, summary.incomplete), (12, 12, 0));
    // Four at once, 400 ms each: those under way when it ends are let go.
    let posts = bed.book.posts();
    assert!((1..=8).contains(&posts), "{posts} requests");
    bed.book.answers_to_withhold.store(0, Ordering::SeqCst);
    bed.book.look_ups_to_lose.store(0, Ordering::SeqCst);
    assert_eq!(bed.bill("2026-01-01T02:00:00Z").await, RunSummary { charged: 12, ..RunSummary::default() });
    bed.assert_square().await;
}

#[tokio::test]
async fn money_for_a_payment_that_counts_as_declined_is_credited_once_by_whoever_hears_of_it_first() {
    for event_first in [false, true] {
        let mut bed = bed().await;
        let customer = bed.customer("PRO", "USD", "2026-01-01 00:00+00").await;
        bed.book.hold_answers();
        let run = bed.run.clone();
        let running = tokio::spawn(async move { run.to("2026-01-01T02:00:00Z".parse().unwrap()).await });
        bed.book.until_asked(1).await;
        // Meanwhile somebody else is told no.
        let terms = BillingTerms::default();
        let mut tx = bed.tx(&customer).await;
        periods::lock_tenant(&mut tx).await.unwrap();
        let payment = payments::open(&mut tx).await.unwrap().remove(0);
        assert!(payments::record_decline(&mut tx, &payment, &terms).await.unwrap());
        tx.commit().await.unwrap();
        let charge = bed.book.charges().remove(0);
        let event = ChargeEvent {
            event_id: "evt_1".to_owned(),
            sent_at: "2026-01-01T02:00:00Z".parse().unwrap(),
            kind: EventKind::Succeeded,
            charge_id: charge["id"].as_str().unwrap().to_owned(),
            amount_minor: payment.amount_minor,
            currency: "USD".to_owned(),
            key: payment.idempotency_key.clone(),
            refunded_minor: 0,
            tenant: customer.tenant.into(),
            invoice: payment.invoice_id,
        };
        let db = bed.run.db.clone();
        let told = async || take_in_event(&db, &event, &terms).await.unwrap();
        if event_first {
            assert_eq!(told().await, EventOutcome::Applied);
        }
        bed.book.release_answers();
        let summary = running.await.unwrap().unwrap();
        assert_eq!(
            summary,
            RunSummary { drafted: 1, issued: 1, ..RunSummary::default() },
            "event first: {event_first}"
        );
        if !event_first {
            assert_eq!(told().await, EventOutcome::NothingNew);
        }
        let credit = "SELECT credit_balance_minor FROM app.tenants";
        assert_eq!(bed.count(credit).await, payment.amount_minor);
        assert_eq!(bed.words("SELECT state FROM app.payments").await, ["failed"]);
        assert_eq!(bed.bill("2026-01-01T02:00:00Z").await, RunSummary::default(), "the books fit");
        bed.assert_square().await;
    }
}
