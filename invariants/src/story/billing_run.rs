//! A billing run over a closed month: every invoice that is due is drawn up, and those with an amount are paid, once.
//!
//! Evidence: the biller's runs, invoices, payments, the provider's book. What each invoice must say is the law
//! `billing.exactly_once`; this one asks that the run came to its end, whatever became of the biller.

use super::money::{charges_of, judge_paid_once, judge_settled};
use crate::checker::{Breach, Case, Checker, Finding};

/// The law.
pub struct BillingRunSettled;

impl Checker for BillingRunSettled {
    fn law(&self) -> &'static str {
        "story.billing_run"
    }

    fn needs_rows(&self) -> bool {
        true
    }

    fn what(&self) -> &'static str {
        "a billing run that is repeated until it is through leaves every invoice issued, paid and charged exactly once"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let mut found = Finding::new();
        judge_settled(case, &mut found);
        let state = case.evidence.final_state;
        let as_of_us = state.billing_runs.iter().map(|run| run.as_of_us).max().unwrap_or(i64::MIN);
        for invoice in state.invoices.iter().filter(|invoice| invoice.state != "void") {
            let label = case.rows.label(&invoice.tenant_id);
            if invoice.state == "draft" {
                // The invoice of the period that has just begun may wait for late usage.
                let has_waited = invoice.period_start_us + ISSUED_AFTER_US_MAX <= as_of_us;
                if has_waited {
                    let what = format!("invoice {} of {label} was due and is a draft", invoice.invoice_id);
                    found.breach(Breach::new("never_issued", what, "issued", "draft").of(label));
                }
                continue;
            }
            if invoice.total_minor > 0 {
                judge_paid_once(case, invoice, &mut found);
                found.saw_many("ends", 1);
            } else if charges_of(state, &invoice.invoice_id) > 0 {
                let what = format!("invoice {} of {label} is of nothing and was charged", invoice.invoice_id);
                found.breach(Breach::new("charged_for_nothing", what, "no charge", "a charge").of(label));
            }
        }
        found
    }
}

/// A day: no biller is told to wait longer before it issues.
const ISSUED_AFTER_US_MAX: i64 = 86_400_000_000;
