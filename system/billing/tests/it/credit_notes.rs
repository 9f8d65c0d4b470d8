//! Corrections of issued invoices, and what becomes of the money.

use std::sync::atomic::Ordering;

use forecastle_domain::InvoiceId;
use forecastle_store::credit_notes::{self, CreditNote, Credited, LineCredit};
use forecastle_store::periods;
use forecastle_testbed::customers::Customer;

use crate::bed::{Bed, bed};

async fn invoice_of(bed: &mut Bed, period: i32) -> InvoiceId {
    let query = sqlx::query_scalar("SELECT invoice_id FROM app.invoices WHERE period_index = $1").bind(period);
    let id: uuid::Uuid = query.fetch_one(&mut bed.admin).await.unwrap();
    id.into()
}

async fn credit(bed: &Bed, customer: &Customer, invoice: InvoiceId, lines: &[(i32, i64)], key: &str) -> Credited {
    let lines: Vec<_> = lines
        .iter()
        .map(|(line_no, amount_minor)| LineCredit { line_no: *line_no, amount_minor: *amount_minor })
        .collect();
    let mut tx = bed.tx(customer).await;
    periods::lock_tenant(&mut tx).await.unwrap();
    let credited = credit_notes::credit(&mut tx, invoice, &lines, "Complaint", key).await.unwrap();
    tx.commit().await.unwrap();
    credited
}

fn note(credited: Credited) -> CreditNote {
    match credited {
        Credited::Note(note) => note,
        other => panic!("no credit note: {other:?}"),
    }
}

#[tokio::test]
async fn what_is_credited_of_a_paid_invoice_pays_for_the_next_ones() {
    let mut bed = bed().await;
    let customer = bed.customer("STARTER", "USD", "2026-01-01 00:00+00").await;
    bed.bill("2026-01-02T00:00:00Z").await;
    let invoice = invoice_of(&mut bed, 0).await;
    let first = note(credit(&bed, &customer, invoice, &[(1, 1_000)], "a").await);
    assert_eq!(
        (first.number, first.total_minor, first.to_receivable_minor, first.to_balance_minor),
        (1, 1_190, 0, 1_190)
    );
    // The same request again is the same note, whatever it asks for now.
    assert_eq!(note(credit(&bed, &customer, invoice, &[(1, 5)], "a").await), first);
    for wrong in [&[(1, 1_901)][..], &[(1, -1)], &[(2, 1)], &[(1, 1), (1, 1)], &[]] {
        assert_eq!(credit(&bed, &customer, invoice, wrong, "b").await, Credited::OutOfBounds, "{wrong:?}");
    }
    assert_eq!(note(credit(&bed, &customer, invoice, &[(1, 1_900)], "c").await).number, 2);
    assert_eq!(credit(&bed, &customer, invoice, &[(1, 1)], "d").await, Credited::OutOfBounds);
    assert_eq!(bed.count("SELECT credit_balance_minor FROM app.tenants").await, 3_451);
    bed.assert_square().await;

    // The whole of February, and nothing of March.
    let summary = bed.bill("2026-03-02T00:00:00Z").await;
    assert_eq!((summary.issued, summary.charged, summary.mismatched), (2, 1, 0));
    let states = "SELECT concat_ws(' ', period_index, state, credit_applied_minor) FROM app.invoices ORDER BY 1";
    assert_eq!(bed.words(states).await, ["0 paid 0", "1 paid 3451", "2 paid 0"]);
    assert_eq!(bed.count("SELECT credit_balance_minor FROM app.tenants").await, 0);
    bed.assert_square().await;
}

#[tokio::test]
async fn a_credit_that_covers_a_part_leaves_the_rest_to_be_charged() {
    let mut bed = bed().await;
    let customer = bed.customer("PRO", "EUR", "2026-01-01 00:00+00").await;
    bed.bill("2026-01-02T00:00:00Z").await;
    let invoice = invoice_of(&mut bed, 0).await;
    note(credit(&bed, &customer, invoice, &[(1, 200)], "a").await);
    bed.bill_to_each(&["2026-02-02T00:00:00Z"]).await;
    let amounts: Vec<_> = bed.book.charged().into_values().filter_map(|sent| sent["amount_minor"].as_i64()).collect();
    assert_eq!((amounts.iter().max(), amounts.iter().min()), (Some(&10_948), Some(&(10_948 - 238))));
    bed.assert_square().await;
}

#[tokio::test]
async fn an_unpaid_invoice_credited_in_full_is_void_and_dunned_no_more() {
    let mut bed = bed().await;
    let customer = bed.customer("STARTER", "KWD", "2026-01-01 00:00+00").await;
    bed.book.declining.store(true, Ordering::SeqCst);
    bed.bill("2026-01-09T00:00:00Z").await;
    assert_eq!(bed.words("SELECT billing_state FROM app.tenants").await, ["past_due"]);
    let invoice = invoice_of(&mut bed, 0).await;
    let part = note(credit(&bed, &customer, invoice, &[(1, 8_000)], "a").await);
    assert_eq!((part.to_receivable_minor, part.to_balance_minor), (9_520, 0));
    bed.assert_square().await;
    note(credit(&bed, &customer, invoice, &[(1, 900)], "b").await);
    assert_eq!(bed.words("SELECT state FROM app.invoices").await, ["void"]);
    assert_eq!(bed.words("SELECT billing_state FROM app.tenants").await, ["current"]);
    assert_eq!(bed.bill("2026-01-20T00:00:00Z").await, forecastle_billing::RunSummary::default());
    assert_eq!(credit(&bed, &customer, invoice, &[(1, 1)], "c").await, Credited::NotCreditable);
    bed.assert_square().await;
}

#[tokio::test]
async fn the_next_try_charges_what_a_credit_left() {
    let mut bed = bed().await;
    let customer = bed.customer("STARTER", "USD", "2026-01-01 00:00+00").await;
    bed.book.declines_left.store(1, Ordering::SeqCst);
    bed.bill("2026-01-01T02:00:00Z").await;
    let invoice = invoice_of(&mut bed, 0).await;
    note(credit(&bed, &customer, invoice, &[(1, 900)], "a").await);
    bed.bill_to_each(&["2026-01-02T02:00:00Z"]).await;
    assert_eq!(bed.book.total_minor(), 2_000 + 380);
    assert_eq!(bed.words("SELECT state FROM app.invoices").await, ["paid"]);
    bed.assert_square().await;
}

#[tokio::test]
async fn nothing_is_credited_while_it_is_unknown_whether_it_was_paid() {
    let mut bed = bed().await;
    let customer = bed.customer("STARTER", "GBP", "2026-01-01 00:00+00").await;
    bed.book.requests_to_refuse.store(100, Ordering::SeqCst);
    assert_eq!(bed.bill("2026-01-01T02:00:00Z").await.unknown, 1);
    let invoice = invoice_of(&mut bed, 0).await;
    assert_eq!(credit(&bed, &customer, invoice, &[(1, 100)], "a").await, Credited::ChargeOpen);
    assert_eq!(bed.count("SELECT count(*) FROM app.credit_notes").await, 0);
}

#[tokio::test]
async fn the_database_itself_refuses_more_than_a_line_has_left() {
    let mut bed = bed().await;
    let customer = bed.customer("STARTER", "USD", "2026-01-01 00:00+00").await;
    bed.bill("2026-01-02T00:00:00Z").await;
    let invoice = invoice_of(&mut bed, 0).await;
    note(credit(&bed, &customer, invoice, &[(1, 2_000)], "a").await);
    // Every table in turn says something that the others do not.
    for statement in [
        "INSERT INTO app.credit_note_lines SELECT tenant_id, credit_note_id, 2, invoice_id, 1, 901, 0
         FROM app.credit_note_lines",
        "INSERT INTO app.credit_notes SELECT tenant_id, gen_random_uuid(), invoice_id, 2, 'x', reason, currency, 0, 5, 0, 5,
         issued_at FROM app.credit_notes",
    ] {
        let refused = sqlx::query(statement).execute(&mut bed.admin).await.unwrap_err();
        let code = refused.as_database_error().and_then(|error| error.code().map(|code| code.into_owned()));
        assert!(matches!(code.as_deref(), Some("23514" | "23505")), "{refused}");
    }
}
