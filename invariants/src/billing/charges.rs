//! Each issued invoice was charged once, in the provider's own book, and our payments say the same.

use std::collections::BTreeMap;

use super::exactly_once::Books;
use crate::checker::{Breach, Case, Finding};
use crate::final_state::{Charge, InvoiceRow, PaymentRow, TenantRow};

pub(super) fn judge(case: &Case<'_>, books: &Books<'_>, found: &mut Finding) {
    let state = case.evidence.final_state;
    let mut charges: BTreeMap<&str, Vec<&Charge>> = BTreeMap::new();
    for charge in &state.provider.charges {
        charges.entry(&charge.reference).or_default().push(charge);
    }
    let mut payments: BTreeMap<&str, Vec<&PaymentRow>> = BTreeMap::new();
    for payment in &state.payments {
        payments.entry(&payment.invoice_id).or_default().push(payment);
    }
    for invoice in &state.invoices {
        let Some(tenant) = case.rows.tenants.get(invoice.tenant_id.as_str()) else {
            continue;
        };
        let charges = charges.remove(invoice.invoice_id.as_str()).unwrap_or_default();
        let payments = payments.remove(invoice.invoice_id.as_str()).unwrap_or_default();
        let side = Side { tenant, invoice, charges: &charges, payments: &payments };
        side.judge(books, found);
    }
    for (reference, charges) in charges {
        let what = format!("the provider took {} for {reference}, which is no invoice", charges[0].amount_minor);
        let breach = Breach::new("charge_of_nothing", what, "no charge", charges.len().to_string());
        found.breach(breach.at(charges[0].charged_t_ns));
    }
    for (invoice, payments) in payments {
        let what = format!("payment {} settles {invoice}, which is no invoice", payments[0].payment_id);
        found.breach(Breach::new("payment_of_nothing", what, "no payment", &payments[0].state));
    }
}

/// An invoice, and what was paid for it according to the provider and to us.
struct Side<'a> {
    tenant: &'a TenantRow,
    invoice: &'a InvoiceRow,
    charges: &'a [&'a Charge],
    payments: &'a [&'a PaymentRow],
}

impl Side<'_> {
    fn judge(&self, books: &Books<'_>, found: &mut Finding) {
        let is_owed = matches!(self.invoice.state.as_str(), "issued" | "paid") && !self.tenant.payment_declines;
        match self.charges {
            [] if is_owed && books.is_complete => {
                self.breach("charge_missed", "was never charged", "1 charge", "none", found);
            }
            [] => {}
            [charge] => self.judge_charge(charge, found),
            many => {
                let charged = format!("{} charges: {}", many.len(), keys(many));
                let shape = "charged_twice";
                let what =
                    format!("{}'s invoice {} was charged {} times", self.tenant.label, self.number(), many.len());
                let breach = Breach::new(shape, what, "1 charge", charged).at(many[1].charged_t_ns);
                found.breach(breach.of(&self.tenant.label));
            }
        }
        self.judge_payments(found);
    }

    fn judge_charge(&self, charge: &Charge, found: &mut Finding) {
        found.saw_many("charges", 1);
        let owed = (self.invoice.total_minor, self.invoice.currency.as_str());
        let taken = (charge.amount_minor, charge.currency.as_str());
        if owed != taken {
            let (owed, taken) = (format!("{} {}", owed.0, owed.1), format!("{} {}", taken.0, taken.1));
            self.breach("charge_amount_differs", "was charged another amount", &owed, &taken, found);
        }
        if self.tenant.payment_token.as_ref().is_some_and(|token| *token != charge.payment_token) {
            self.breach("charge_on_other_card", "was charged to another payment method", "its own", "another", found);
        }
        if self.invoice.state == "draft" {
            self.breach("draft_was_charged", "was charged as a draft", "issued", "draft", found);
        } else if self.invoice.state != "paid" {
            self.breach("charged_but_not_paid", "was charged and is not paid", "paid", &self.invoice.state, found);
        }
    }

    fn judge_payments(&self, found: &mut Finding) {
        let succeeded: Vec<&&PaymentRow> =
            self.payments.iter().filter(|payment| payment.state == "succeeded").collect();
        // A card that never pays is tried again, each time under a key of its own; any other card has one try.
        let is_declined = |payment: &PaymentRow| self.tenant.payment_declines && payment.state == "failed";
        let tries = self.payments.iter().filter(|payment| !is_declined(payment)).count();
        if tries > 1 {
            self.breach("payment_doubled", "has more than one payment", "1", &tries.to_string(), found);
        }
        if self.charges.is_empty() && (!succeeded.is_empty() || self.invoice.state == "paid") {
            self.breach("paid_without_charge", "counts as paid", "a charge in the provider's book", "none", found);
        }
        let [charge] = self.charges else {
            return;
        };
        let [payment] = succeeded[..] else {
            let states: Vec<&str> = self.payments.iter().map(|payment| payment.state.as_str()).collect();
            self.breach("charge_not_recorded", "was charged", "1 payment that succeeded", &states.join(", "), found);
            return;
        };
        if payment.provider_charge_id.as_deref() != Some(charge.charge_id.as_str()) {
            let stated = payment.provider_charge_id.as_deref().unwrap_or("none");
            self.breach("payment_names_other_charge", "was charged", &charge.charge_id, stated, found);
        }
        if payment.idempotency_key != charge.idempotency_key {
            let shape = "payment_names_other_key";
            self.breach(
                shape,
                "was charged under another key",
                &payment.idempotency_key,
                &charge.idempotency_key,
                found,
            );
        }
        if (payment.amount_minor, &payment.currency) != (self.invoice.total_minor, &self.invoice.currency) {
            let owed = format!("{} {}", self.invoice.total_minor, self.invoice.currency);
            let stated = format!("{} {}", payment.amount_minor, payment.currency);
            self.breach("payment_amount_differs", "has a payment of another amount", &owed, &stated, found);
        }
    }

    fn number(&self) -> String {
        format!("for period {}", self.invoice.period_index)
    }

    fn breach(&self, shape: &'static str, words: &str, expected: &str, actual: &str, found: &mut Finding) {
        let what = format!("{}'s invoice {} {words}", self.tenant.label, self.number());
        let mut breach = Breach::new(shape, what, expected, actual).of(&self.tenant.label);
        breach.t_ns = self.charges.first().map(|charge| charge.charged_t_ns);
        found.breach(breach);
    }
}

fn keys(charges: &[&Charge]) -> String {
    let mut keys: Vec<&str> = charges.iter().map(|charge| charge.idempotency_key.as_str()).collect();
    keys.dedup();
    keys.join(", ")
}
