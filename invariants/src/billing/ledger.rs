//! Every posting balances; every issued invoice and every payment was posted once, for its amount.

use std::collections::BTreeMap;

use crate::checker::{Breach, Case, Finding};

/// Debits and credits of a posting.
#[derive(Default)]
struct Posting<'a> {
    debit: i64,
    credit: i64,
    currencies: Vec<&'a str>,
    is_used: bool,
}

/// Tenant's id, kind, reference.
type Key<'a> = (&'a str, &'a str, &'a str);

pub(super) fn judge(case: &Case<'_>, found: &mut Finding) {
    let state = case.evidence.final_state;
    let mut postings: BTreeMap<Key<'_>, Posting<'_>> = BTreeMap::new();
    for entry in &state.ledger_entries {
        let key = (entry.tenant_id.as_str(), entry.posting_kind.as_str(), entry.posting_ref.as_str());
        let posting = postings.entry(key).or_default();
        posting.debit += entry.debit_minor;
        posting.credit += entry.credit_minor;
        if !posting.currencies.contains(&entry.currency.as_str()) {
            posting.currencies.push(&entry.currency);
        }
    }
    for ((tenant, kind, _), posting) in &mut postings {
        // Only a card that never pays gives cause for a correction in a run; what it corrects has a posting of its own.
        let has_cause = case.rows.tenants.get(*tenant).is_some_and(|row| row.payment_declines);
        posting.is_used = has_cause && is_correction(kind);
    }
    for ((tenant, kind, reference), posting) in &postings {
        found.saw_many("postings", 1);
        if posting.debit != posting.credit || posting.currencies.len() != 1 {
            let what = format!("posting {kind} {reference} does not balance");
            let actual = format!("debit {} credit {} in {:?}", posting.debit, posting.credit, posting.currencies);
            let expected = "debits equal to credits in one currency";
            found.breach(Breach::new("ledger_unbalanced", what, expected, actual).of(case.rows.label(tenant)));
        }
    }
    for invoice in state.invoices.iter().filter(|invoice| invoice.state != "draft") {
        let owed = (invoice.total_minor, invoice.currency.as_str());
        let is_mine = |key: &Key<'_>| {
            key.0 == invoice.tenant_id && !is_payment(key.1) && !is_correction(key.1) && key.2 == invoice.invoice_id
        };
        posted_once(case, &mut postings, is_mine, ("invoice", &invoice.invoice_id, owed), &invoice.tenant_id, found);
    }
    for payment in state.payments.iter().filter(|payment| payment.state == "succeeded") {
        let owed = (payment.amount_minor, payment.currency.as_str());
        let is_mine = |key: &Key<'_>| {
            key.0 == payment.tenant_id
                && is_payment(key.1)
                && (key.2 == payment.payment_id || key.2 == payment.invoice_id)
        };
        posted_once(case, &mut postings, is_mine, ("payment", &payment.payment_id, owed), &payment.tenant_id, found);
    }
    for ((tenant, kind, reference), _) in postings.iter().filter(|(_, posting)| !posting.is_used) {
        let what = format!("posting {kind} {reference} is of nothing that was issued or paid");
        let breach = Breach::new("posting_of_nothing", what, "an issued invoice or a payment that succeeded", *kind);
        found.breach(breach.of(case.rows.label(tenant)));
    }
}

fn is_payment(kind: &str) -> bool {
    kind.starts_with("payment") && !is_correction(kind)
}

/// Postings beside those of issue and payment, under the same references.
fn is_correction(kind: &str) -> bool {
    matches!(kind, "credit_note" | "credit_applied" | "written_off" | "payment_refunded" | "payment_unexpected")
}

fn posted_once(
    case: &Case<'_>,
    postings: &mut BTreeMap<Key<'_>, Posting<'_>>,
    is_mine: impl Fn(&Key<'_>) -> bool,
    (thing, id, (amount, currency)): (&str, &str, (i64, &str)),
    tenant_id: &str,
    found: &mut Finding,
) {
    let mine: Vec<Key<'_>> = postings.keys().filter(|key| is_mine(key)).copied().collect();
    let mut debits = Vec::new();
    for key in &mine {
        if let Some(posting) = postings.get_mut(key) {
            posting.is_used = true;
            debits.push(format!("{} {}", posting.debit, posting.currencies.join("/")));
        }
    }
    let owed = format!("{amount} {currency}");
    if debits != [owed.clone()] {
        let shape = if mine.is_empty() { "posting_missed" } else { "posting_differs" };
        let what = format!("{thing} {id} is in the ledger with {debits:?}");
        let label = case.rows.tenants.get(tenant_id).map_or("?", |row| row.label.as_str());
        found.breach(Breach::new(shape, what, format!("one posting of {owed}"), debits.join(", ")).of(label));
    }
}
