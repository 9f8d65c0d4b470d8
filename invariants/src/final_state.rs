//! Plain rows read once everything is healed and drained; the harness fills them, laws read them.
//!
//! Order: the reader sorts each list by its key, so that the same state is the same bytes. Times
//! are microseconds since 1970 (`_us`), money is whole minor units, ids are text. Not here: e-mail
//! addresses, names, tokens or any other text of a person.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// All that was read after quiescence.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FinalState {
    /// Whether the rows were read at all; a run that broke off has none, which says nothing about them.
    pub rows_read: bool,
    /// Whether the queue drained and all faults were healed within the limit.
    pub quiesced: bool,
    /// Tenants.
    pub tenants: Vec<TenantRow>,
    /// Users, without what identifies them.
    pub users: Vec<UserRow>,
    /// Sessions.
    pub sessions: Vec<SessionRow>,
    /// Scenarios.
    pub scenarios: Vec<ScenarioRow>,
    /// Forecasts.
    pub forecasts: Vec<ForecastRow>,
    /// Jobs.
    pub jobs: Vec<JobRow>,
    /// Attempts at jobs.
    pub job_attempts: Vec<JobAttemptRow>,
    /// Usage events.
    pub usage_events: Vec<UsageEventRow>,
    /// Quota counters.
    pub quota_periods: Vec<QuotaPeriodRow>,
    /// Idempotency keys.
    pub idempotency_keys: Vec<IdempotencyKeyRow>,
    /// Invoices with their lines.
    pub invoices: Vec<InvoiceRow>,
    /// Payments.
    pub payments: Vec<PaymentRow>,
    /// Ledger entries.
    pub ledger_entries: Vec<LedgerEntryRow>,
    /// Refresh tokens, by what is stored of them.
    pub refresh_tokens: Vec<RefreshTokenRow>,
    /// Upgrades asked for.
    pub plan_upgrades: Vec<PlanUpgradeRow>,
    /// Events of the payment provider that were taken in.
    pub webhook_events: Vec<WebhookEventRow>,
    /// The payment provider's own book: the truth about what was charged.
    pub provider: ProviderBook,
    /// What each sink of the system was told, by its name.
    pub sinks: BTreeMap<String, SinkCounts>,
    /// Runs of the biller, in order.
    pub billing_runs: Vec<BillingRun>,
    /// State of connections after quiescence.
    pub connections: ConnectionHygiene,
    /// Reads that each streaming replica has answered, by its name, as the system itself counts them.
    pub replica_reads: BTreeMap<String, u64>,
    /// What a search of all Redis values found.
    pub redis: Vec<RedisFinding>,
    /// What searches of logs, metrics and other outputs found; one entry per place searched, so
    /// that a place without findings still shows that it was searched.
    pub leaks: Vec<LeakScan>,
}

/// What a sink of error reports or analytics was told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SinkCounts {
    /// Requests that reached it.
    pub requests: u64,
    /// Reports or events in them.
    pub events: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Requests that do not read.
    pub unreadable: u64,
    /// Reports that came again under their id.
    pub repeated: u64,
}

/// A tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TenantRow {
    /// Label in the history; for one whose sign-up was never answered still its own label, found
    /// by the canary in its name.
    pub label: String,
    /// Id.
    pub tenant_id: String,
    /// `FREE`, `STARTER`, `PRO`.
    pub plan: String,
    /// ISO 4217.
    pub currency: String,
    /// IANA zone.
    pub zone: String,
    /// Parts per million.
    pub tax_rate_ppm: u32,
    /// Sign-up.
    pub signed_up_us: i64,
    /// Token of the payment method, as the provider knows it.
    pub payment_token: Option<String>,
    /// Whether the provider declines that token on purpose: then nothing is paid.
    pub payment_declines: bool,
}

/// A user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UserRow {
    /// Tenant's id.
    pub tenant_id: String,
    /// Id.
    pub user_id: String,
    /// Role.
    pub role: String,
}

/// A session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionRow {
    /// Tenant's id.
    pub tenant_id: String,
    /// Id.
    pub session_id: String,
    /// User's id.
    pub user_id: String,
    /// When it was revoked.
    pub revoked_us: Option<i64>,
}

/// A scenario.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScenarioRow {
    /// Tenant's id.
    pub tenant_id: String,
    /// Id.
    pub scenario_id: String,
    /// Version.
    pub version: u64,
    /// Labels of tenants whose canaries the row holds.
    pub owners_found: Vec<String>,
}

/// A forecast.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ForecastRow {
    /// Tenant's id.
    pub tenant_id: String,
    /// Id.
    pub forecast_id: String,
    /// Scenario's id.
    pub scenario_id: String,
    /// Version copied.
    pub scenario_version: u64,
    /// User who asked.
    pub requested_by: String,
    /// `queued`, `running`, `succeeded`, `failed`, `cancelled`.
    pub state: String,
    /// Engine.
    pub engine_version: Option<String>,
    /// Input in full.
    pub input: Option<Value>,
    /// Result in full.
    pub result: Option<Value>,
    /// Hash as stored.
    pub result_hash: Option<String>,
    /// Stable code of a failure.
    pub error_code: Option<String>,
    /// `held`, `consumed`, `released`.
    pub quota_state: String,
    /// Period whose quota it took.
    pub quota_period: i64,
    /// When it was asked for.
    pub requested_us: i64,
    /// When its first attempt began.
    pub started_us: Option<i64>,
    /// When it ended.
    pub finished_us: Option<i64>,
    /// Labels of tenants whose canaries the row holds.
    pub owners_found: Vec<String>,
}

/// A job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobRow {
    /// Tenant's id.
    pub tenant_id: String,
    /// Id.
    pub job_id: String,
    /// The forecast.
    pub subject_id: String,
    /// `queued`, `running`, `succeeded`, `failed`, `cancelled`, `dead`.
    pub state: String,
    /// Attempts counted at claim.
    pub attempts: u64,
    /// Last fencing token given.
    pub fence: i64,
    /// Order of acceptance.
    pub seq: i64,
    /// When it was accepted.
    pub enqueued_us: i64,
    /// When it ended.
    pub finished_us: Option<i64>,
    /// Stable code of the last error.
    pub last_error_code: Option<String>,
}

/// One attempt at a job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobAttemptRow {
    /// Tenant's id.
    pub tenant_id: String,
    /// Job's id.
    pub job_id: String,
    /// From 1.
    pub attempt: u64,
    /// Its fencing token.
    pub fence: i64,
    /// Instance name of the worker.
    pub worker: String,
    /// When it was claimed.
    pub claimed_us: i64,
    /// When it ended.
    pub ended_us: Option<i64>,
    /// `succeeded`, `retry`, `failed`, `lease_lost`; none where nobody wrote it.
    pub outcome: Option<String>,
}

/// A usage event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UsageEventRow {
    /// Tenant's id.
    pub tenant_id: String,
    /// Id.
    pub usage_event_id: String,
    /// The forecast that it counts.
    pub forecast_id: String,
    /// The stamp that decides its period.
    pub occurred_us: i64,
    /// Invoice that charged its period.
    pub invoice_id: Option<String>,
}

/// A quota counter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct QuotaPeriodRow {
    /// Tenant's id.
    pub tenant_id: String,
    /// Period.
    pub period_index: i64,
    /// Places taken.
    pub taken: i64,
}

/// An idempotency key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IdempotencyKeyRow {
    /// Tenant's id.
    pub tenant_id: String,
    /// User's id.
    pub user_id: String,
    /// The key.
    pub key: String,
    /// State as stored.
    pub state: String,
    /// Status that would be replayed.
    pub status: Option<u16>,
    /// `id` in the stored answer.
    pub resource_id: Option<String>,
}

/// An invoice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InvoiceRow {
    /// Tenant's id.
    pub tenant_id: String,
    /// Id.
    pub invoice_id: String,
    /// Period that starts.
    pub period_index: i64,
    /// `subscription`.
    pub kind: String,
    /// Start of the period.
    pub period_start_us: i64,
    /// End of the period.
    pub period_end_us: i64,
    /// ISO 4217.
    pub currency: String,
    /// `draft`, `issued`, `paid`, `void`, `uncollectible`.
    pub state: String,
    /// Number in the tenant's series, from 1, given at issue.
    pub number: Option<i64>,
    /// Tax.
    pub tax_minor: i64,
    /// Total with tax.
    pub total_minor: i64,
    /// Lines by line number.
    pub lines: Vec<InvoiceLineRow>,
}

/// A line of an invoice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InvoiceLineRow {
    /// From 1, or as stored.
    pub line_no: i64,
    /// `base` or `usage`.
    pub kind: String,
    /// How many.
    pub quantity: i64,
    /// Price of one.
    pub unit_price_minor: i64,
    /// Before tax.
    pub amount_minor: i64,
    /// Tax.
    pub tax_minor: i64,
}

/// A payment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PaymentRow {
    /// Tenant's id.
    pub tenant_id: String,
    /// Id.
    pub payment_id: String,
    /// Invoice that it settles.
    pub invoice_id: String,
    /// `invoice`.
    pub purpose: String,
    /// Key sent to the provider.
    pub idempotency_key: String,
    /// Amount.
    pub amount_minor: i64,
    /// ISO 4217.
    pub currency: String,
    /// `intended`, `unknown`, `succeeded`, `failed`.
    pub state: String,
    /// The provider's id of the charge.
    pub provider_charge_id: Option<String>,
}

/// A ledger entry; exactly one of the two amounts is not zero.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LedgerEntryRow {
    /// Tenant's id.
    pub tenant_id: String,
    /// Id.
    pub entry_id: String,
    /// What kind of posting it belongs to.
    pub posting_kind: String,
    /// What the posting is about: an invoice's or a payment's id.
    pub posting_ref: String,
    /// Account.
    pub account: String,
    /// ISO 4217.
    pub currency: String,
    /// Debit.
    pub debit_minor: i64,
    /// Credit.
    pub credit_minor: i64,
}

/// A refresh token. What is stored of it is a digest, and what stands here is that.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RefreshTokenRow {
    /// Tenant's id.
    pub tenant_id: String,
    /// Digest of the token, hexadecimal.
    pub token: String,
    /// Digest of the token it was exchanged for.
    pub parent: Option<String>,
    /// The session that its family belongs to.
    pub session_id: String,
    /// When it was exchanged.
    pub rotated_us: Option<i64>,
}

/// An upgrade of a plan.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlanUpgradeRow {
    /// Tenant's id.
    pub tenant_id: String,
    /// Id.
    pub change_id: String,
    /// Plan before.
    pub from_plan: String,
    /// Plan asked for.
    pub to_plan: String,
    /// `awaiting_payment`, `applied`, `declined`, `lapsed`.
    pub state: String,
    /// The invoice of its proration.
    pub invoice_id: Option<String>,
}

/// An event of the payment provider, as it was taken in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WebhookEventRow {
    /// Tenant's id.
    pub tenant_id: String,
    /// The provider's id of it.
    pub event_id: String,
    /// `charge.succeeded`, `charge.failed`, `charge.refunded`.
    pub kind: String,
    /// What came of it.
    pub outcome: String,
}

/// The payment provider's own book.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProviderBook {
    /// Money taken, in order.
    pub charges: Vec<Charge>,
    /// Requests for a charge seen, repetitions included.
    pub requests_seen: u64,
    /// Of them, those answered from the book because the key was known.
    pub duplicates_answered: u64,
    /// Answers withheld on purpose after the charge was made.
    pub answers_lost: u64,
}

/// Money taken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Charge {
    /// The provider's id.
    pub charge_id: String,
    /// Idempotency key.
    pub idempotency_key: String,
    /// Amount.
    pub amount_minor: i64,
    /// ISO 4217.
    pub currency: String,
    /// What the system named as reference: the invoice's id.
    pub reference: String,
    /// Token charged.
    pub payment_token: String,
    /// When, nanoseconds of the run's clock.
    pub charged_t_ns: u64,
}

/// A run of the biller.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BillingRun {
    /// Time that it brought every tenant to.
    pub as_of_us: i64,
    /// Exit code; none where a signal ended it.
    pub exit_code: Option<i32>,
    /// Whether the run ended it on purpose.
    pub killed_on_purpose: bool,
}

/// State of connections after quiescence.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConnectionHygiene {
    /// Whether it was read at all.
    pub sampled: bool,
    /// Connections of the system found in the server's list.
    pub connections: u64,
    /// Idle in an open transaction for longer than `idle_limit_s`.
    pub idle_in_transaction: u64,
    /// That limit, seconds.
    pub idle_limit_s: u64,
    /// Connections checked out of a pool, by process, where its metrics say: the least of at least
    /// five samples spread over three seconds, so that a poll is not taken for a leak.
    pub in_use: BTreeMap<String, u64>,
}

/// What a search of Redis found for one kind of key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RedisFinding {
    /// Kind of key: `scenario`, `forecast`, `session`, …
    pub key_kind: String,
    /// Label of the tenant in the key's prefix; none where there is no known one.
    pub tenant: Option<String>,
    /// Labels of tenants whose canaries the value holds.
    pub owners_found: Vec<String>,
    /// Keys like this.
    pub keys: u64,
}

/// A search of one output for canaries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LeakScan {
    /// Where: `log:api-1`, `metrics:worker-2`, …
    pub place: String,
    /// Bytes searched.
    pub bytes: u64,
    /// Canaries found, by kind of field (`email`, `name`, `password`, `token`, …).
    pub found: BTreeMap<String, u64>,
    /// Labels of their owners.
    pub owners_found: Vec<String>,
}
