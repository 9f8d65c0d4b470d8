//! What the books of all customers say, for comparing two ways to get there.

use sqlx::postgres::PgConnection;

use crate::customers::count;
use crate::provider::Book;

/// Everything the books say, a line for each invoice, tenant and credit note, but for ids and times that a run
/// makes. Customers are told apart by what they were signed up with.
///
/// # Panics
/// If the database refuses it.
pub async fn read(admin: &mut PgConnection) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT concat_ws('|', 'invoice', t.organization, i.kind, i.period_index, i.sequence, i.state, i.number,
                i.tax_minor, i.total_minor, i.issued_at, i.dunning_step, i.give_up_at, i.uncollectible_at,
                i.credited_minor, i.credit_applied_minor,
                (SELECT string_agg(concat_ws(',', l.kind, l.quantity, l.amount_minor, l.tax_minor), ';'
                                   ORDER BY l.line_no)
                 FROM app.invoice_lines l WHERE l.tenant_id = i.tenant_id AND l.invoice_id = i.invoice_id),
                (SELECT string_agg(concat_ws(',', p.purpose, p.state, p.amount_minor), ';' ORDER BY p.purpose)
                 FROM app.payments p WHERE p.tenant_id = i.tenant_id AND p.invoice_id = i.invoice_id),
                (SELECT string_agg(concat_ws(',', e.posting_kind, e.account, e.debit_minor, e.credit_minor), ';'
                                   ORDER BY e.posting_kind, e.account)
                 FROM app.ledger_entries e WHERE e.tenant_id = i.tenant_id AND (e.posting_ref = i.invoice_id
                   OR e.posting_ref IN (SELECT p.payment_id FROM app.payments p WHERE p.invoice_id = i.invoice_id))),
                (SELECT count(*) FROM app.usage_events u WHERE u.invoice_id = i.invoice_id))
         FROM app.invoices i JOIN app.tenants t USING (tenant_id)
         UNION ALL
         SELECT concat_ws('|', 'closing', t.organization, c.period_index, c.ended_plan, c.started_plan,
                c.usage_events, c.closed_at, c.invoice_id IS NULL)
         FROM app.period_closings c JOIN app.tenants t USING (tenant_id)
         UNION ALL
         SELECT concat_ws('|', 'tenant', t.organization, t.plan, t.billing_state, t.past_due_since,
                t.credit_balance_minor, (SELECT count(*) FROM app.mail_outbox m WHERE m.tenant_id = t.tenant_id),
                (SELECT string_agg(concat_ws(',', c.from_plan, c.to_plan, c.state, c.effective_at), ';' ORDER BY c.seq)
                 FROM app.plan_changes c WHERE c.tenant_id = t.tenant_id))
         FROM app.tenants t ORDER BY 1",
    )
    .fetch_all(admin)
    .await
    .expect("read the books")
}

/// Asserts that the ledger balances, that cash is what the provider took, charge by payment, that what is
/// receivable is what issued invoices still owe, and that each counted event was counted once.
///
/// # Panics
/// If one of them does not hold.
pub async fn assert_square(admin: &mut PgConnection, book: &Book) {
    let balance = "SELECT coalesce(sum(debit_minor - credit_minor), 0)::bigint FROM app.ledger_entries";
    assert_eq!(count(admin, balance).await, 0, "debits and credits");
    let cash = format!("{balance} WHERE account = 'cash'");
    assert_eq!(count(admin, &cash).await, book.total_minor(), "cash and the provider's book");
    let payments = "SELECT count(*) FROM app.payments p WHERE state = 'succeeded' OR EXISTS (
                        SELECT 1 FROM app.ledger_entries l WHERE l.tenant_id = p.tenant_id
                        AND l.posting_kind = 'payment_unexpected' AND l.posting_ref = p.payment_id)";
    assert_eq!(count(admin, payments).await, book.count(), "payments and the provider's charges");
    let receivable = format!("{balance} WHERE account = 'accounts_receivable'");
    let owed = "SELECT coalesce(sum(total_minor - credit_applied_minor - credited_minor), 0)::bigint
                FROM app.invoices WHERE state = 'issued'";
    assert_eq!(count(admin, &receivable).await, count(admin, owed).await, "receivable and owed");
    let counted = "SELECT coalesce(sum(usage_events), 0)::bigint FROM app.period_closings";
    let marked = "SELECT count(*) FROM app.usage_events WHERE billed_period_index IS NOT NULL";
    assert_eq!(count(admin, counted).await, count(admin, marked).await, "closings and usage");
    let gaps = "SELECT count(*) FROM app.tenants t WHERE t.next_invoice_number - 1 <>
                (SELECT count(*) FROM app.invoices i WHERE i.tenant_id = t.tenant_id AND i.number IS NOT NULL)";
    assert_eq!(count(admin, gaps).await, 0, "numbers without gaps");
}
