//! Metering, invoices, charges and the billing run.
//!
//! A run brings tenants to a time: draft, issue, charge, dun, give up; `BILLING.md` has the rules. It may be run twice, by two processes at once,
//! and be killed anywhere; the books end up the same, because every step is a row that can exist once
//! and every change of state names where it starts. Not for prices and rounding: those are the domain's.

mod boundary;
mod charge;
mod provider;
mod run;
mod tenant_books;
mod webhook;
pub mod webhook_event;
pub mod webhook_signature;

pub use forecastle_domain::BillingTerms;
pub use provider::{BadProviderAddress, Provider};
pub use run::{BillingRun, RunSummary};
pub use webhook::{EventOutcome, take_in_event};
pub use webhook_signature::{BadWebhookSecrets, Forged, SignedHeaders, WebhookSecrets};
