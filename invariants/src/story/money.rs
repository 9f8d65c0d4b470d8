//! That an invoice was paid, by exactly one charge in the provider's book.

use crate::checker::{Breach, Case, Finding};
use crate::final_state::{FinalState, InvoiceRow};

/// Charges of an invoice in the provider's own book.
pub(super) fn charges_of(state: &FinalState, invoice: &str) -> usize {
    state.provider.charges.iter().filter(|charge| charge.reference == invoice).count()
}

/// The invoice is paid, by one payment and one charge of its own amount.
pub(super) fn judge_paid_once(case: &Case<'_>, invoice: &InvoiceRow, found: &mut Finding) {
    let state = case.evidence.final_state;
    let label = case.rows.label(&invoice.tenant_id);
    let mut breach = |shape, words: &str, expected: &str, actual: String| {
        let what = format!("invoice {} of {label} {words}", invoice.invoice_id);
        found.breach(Breach::new(shape, what, expected, actual).of(label));
    };
    let charges: Vec<_> =
        state.provider.charges.iter().filter(|charge| charge.reference == invoice.invoice_id).collect();
    if charges.len() != 1 {
        let shape = if charges.is_empty() { "never_charged" } else { "charged_more_than_once" };
        breach(shape, "was not charged once", "1 charge in the provider's book", charges.len().to_string());
    }
    if let Some(charge) = charges.first()
        && (charge.amount_minor, &charge.currency) != (invoice.total_minor, &invoice.currency)
    {
        let owed = format!("{} {}", invoice.total_minor, invoice.currency);
        breach("charged_another_amount", "was charged", &owed, format!("{} {}", charge.amount_minor, charge.currency));
    }
    if invoice.state != "paid" {
        breach("not_paid_in_the_end", "is not paid once everything is settled", "paid", invoice.state.clone());
    }
    let succeeded = state.payments.iter().filter(|payment| payment.invoice_id == invoice.invoice_id);
    let succeeded = succeeded.filter(|payment| payment.state == "succeeded").count();
    if succeeded != 1 {
        breach("not_one_payment", "has not one payment that came in", "1", succeeded.to_string());
    }
}

/// The last run of the biller has settled everything.
pub(super) fn judge_settled(case: &Case<'_>, found: &mut Finding) {
    let runs = &case.evidence.final_state.billing_runs;
    match runs.last() {
        None => found.unknown("the biller never ran"),
        Some(run) if run.exit_code == Some(0) => found.saw_many("billing_runs", runs.len() as u64),
        Some(run) => {
            let what = format!("the biller's run number {} left something unsettled", runs.len());
            let actual = run.exit_code.map_or("ended by a signal".to_owned(), |code| format!("exit code {code}"));
            found.breach(Breach::new("books_never_settled", what, "exit code 0", actual));
        }
    }
}
