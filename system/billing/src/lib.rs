//! Metering, invoices, charges and the billing run.
//!
//! A run brings tenants to a time: draft, issue, charge, dun, give up; `BILLING.md` has the rules. It may be run twice, by two processes at once,
//! and be killed anywhere; the books end up the same, because every step is a row that can exist once
//! and every change of state names where it starts. Not for prices and rounding: those are the domain's.

mod boundary;
mod cached;
mod charge;
mod patience;
mod pay;
mod plan_change;
mod provider;
mod run;
mod tenant_books;
mod upcoming;
mod webhook;
pub mod webhook_event;
pub mod webhook_signature;

pub use forecastle_domain::BillingTerms;
pub use patience::Patience;
pub use pay::{PayOutcome, PayStart, begin_pay, finish_pay, pay_declined};
pub use plan_change::{
    ChangeError, ChangeRefusal, ChangeRequest, Requested, Withdrawn, open_charge, request_change, settle_charge,
    withdraw_change,
};
pub use provider::{BadProviderAddress, Provider};
pub use run::{BillingRun, RunSummary};
pub use upcoming::{Upcoming, upcoming_invoice};
pub use webhook::{EventOutcome, take_in_event};
pub use webhook_signature::{BadWebhookSecrets, Forged, SignedHeaders, WebhookSecrets};
