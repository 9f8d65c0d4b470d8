//! Pure rules of Forecastle: identities, money, plans, billing periods, invoices, job states, roles, credentials, mails.
//!
//! Nothing here reads a clock, draws a random number or talks to anyone: callers pass instants and
//! draws in, and get the same answer for the same arguments.

pub mod audit;
pub mod credentials;
pub mod dunning;
pub mod flag;
pub mod ids;
pub mod invoice;
pub mod job;
pub mod launch_phase;
pub mod mail;
pub mod money;
pub mod payment_token;
pub mod period;
pub mod plan;
pub mod plan_history;
pub mod proration;
pub mod role;
mod text_enum;

pub use audit::{AuditAction, AuditObject};
pub use credentials::{CredentialError, Email, Password};
pub use dunning::{AfterDecline, BillingTerms, ChargePurpose, SCHEDULED_CHARGES};
pub use flag::{Entitlements, Flag};
pub use ids::{ForecastId, InvoiceId, PaymentId, ScenarioId, SessionId, TenantId, UsageEventId, UserId};
pub use invoice::{
    EndedPeriod, InvoiceDraft, InvoiceKind, InvoiceLine, InvoiceState, LineKind, SubscriptionCharge,
    subscription_invoice,
};
pub use job::{JOB_ATTEMPTS_MAX, JobState, backoff_floor_ms, backoff_ms};
pub use launch_phase::LaunchPhase;
pub use mail::{DunningNotice, Mail, TokenPurpose};
pub use money::{Currency, Money, MoneyError, round_half_away};
pub use payment_token::{PaymentToken, PaymentTokenError};
pub use period::{BillingCalendar, Period, UnknownZone, parse_zone};
pub use plan::Plan;
pub use plan_history::{AppliedChange, BillingState, PlanChangeKind, PlanHistory};
pub use proration::{ProrationCharge, proration_invoice, remaining_seconds};
pub use role::{Right, Role};
pub use text_enum::UnknownName;
