//! The record of a run: one event per line, appended in order, on one monotonic clock.
//!
//! Law of the record: `i` is the line's number from 0 without a gap; `t_ns` never goes back; each
//! `op` has one `invoke` and then at most one of `ok`, `fail`, `info`; an operation without a
//! completion counts as `info`. Everything the run asks of the system through HTTP is recorded,
//! seeding included. Not for rows read at the end: those are in [`crate::final_state`].
//!
//! **Outcomes.** `ok`: a 2xx arrived whole. `fail`: it surely did not happen (4xx, 429 included; a
//! connection refused before a byte was sent; any lost answer to a read). `info`: it may have
//! happened (a write that met a time-out, a reset or a 5xx, 503 included).
//!
//! **Who.** `tenant` is a label (`T0007`), never an id; `session` a label of one login (`T0007/s1`);
//! `process` one logical client that does one thing at a time.
//!
//! **Vocabulary.** Per operation, what `args` and `value` hold (beside `id`, the object's id):
//!
//! | f | args | value of an `ok` |
//! |---|---|---|
//! | signup | plan, currency, zone, tax_rate_ppm | tenant_id, user_id, session (label), expires_in_s |
//! | login, refresh | | tenant_id, user_id, session, expires_in_s |
//! | logout, health | | |
//! | me | | tenant_id, user_id |
//! | scenario.create | key | id, version, etag, content_sha256, input_sha256 |
//! | scenario.read | id | id, version, etag, content_sha256, input_sha256 |
//! | scenario.edit | id, if_version | id, version, etag, content_sha256, input_sha256 |
//! | scenario.list, forecast.list, invoice.list | | items |
//! | forecast.request | key, scenario_id | id, scenario_id, forecast (state) |
//! | forecast.read | id | id, scenario_id, forecast (in full) |
//! | dashboard | | dashboard, usage, items (recent forecasts) |
//! | plan | | plan |
//! | usage | | usage |
//! | invoice.read | id | id, invoice (in full) |
//! | foreign, absent | imitates, id; of foreign also owner, owner_op, twin (the absent one) | as the imitated one |
//! | auth.probe | attack, imitates, twin (honest 2xx on the same route), depends_on | |
//!
//! A forecast request repeated with its key carries the same `key`; the completion says `replayed`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Version of this record's format.
pub const FORMAT_VERSION: u32 = 1;

/// The error of an operation that the client itself gave up on purpose, before an answer.
pub const HUNG_UP: &str = "hung_up";

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "k", rename_all = "snake_case")]
pub enum Event {
    /// First line: which run this is.
    Header(Header),
    /// A phase begins or ends.
    Phase(PhaseEvent),
    /// A request is sent.
    Invoke(Invoke),
    /// It succeeded: a whole 2xx.
    Ok(Completion),
    /// It surely did not happen.
    Fail(Completion),
    /// It may have happened.
    Info(Completion),
    /// A fault changes its state.
    Fault(FaultEvent),
    /// A process of the system starts, is ready or ends.
    Process(ProcessEvent),
    /// A probe of the steady state, or of a fault.
    Probe(ProbeEvent),
    /// Free text for a reader; no law looks at it.
    Note(Note),
}

impl Event {
    /// The line's number, from 0.
    pub fn index(&self) -> u64 {
        match self {
            Self::Header(e) => e.i,
            Self::Phase(e) => e.i,
            Self::Invoke(e) => e.i,
            Self::Ok(e) | Self::Fail(e) | Self::Info(e) => e.i,
            Self::Fault(e) => e.i,
            Self::Process(e) => e.i,
            Self::Probe(e) => e.i,
            Self::Note(e) => e.i,
        }
    }

    /// Nanoseconds since the run's start.
    pub fn time_ns(&self) -> u64 {
        match self {
            Self::Header(e) => e.t_ns,
            Self::Phase(e) => e.t_ns,
            Self::Invoke(e) => e.t_ns,
            Self::Ok(e) | Self::Fail(e) | Self::Info(e) => e.t_ns,
            Self::Fault(e) => e.t_ns,
            Self::Process(e) => e.t_ns,
            Self::Probe(e) => e.t_ns,
            Self::Note(e) => e.t_ns,
        }
    }

    /// Gives the line its number; for the writer.
    pub fn set_index(&mut self, i: u64) {
        match self {
            Self::Header(e) => e.i = i,
            Self::Phase(e) => e.i = i,
            Self::Invoke(e) => e.i = i,
            Self::Ok(e) | Self::Fail(e) | Self::Info(e) => e.i = i,
            Self::Fault(e) => e.i = i,
            Self::Process(e) => e.i = i,
            Self::Probe(e) => e.i = i,
            Self::Note(e) => e.i = i,
        }
    }
}

/// Which run this is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Line number, 0.
    pub i: u64,
    /// Nanoseconds since the run's start.
    pub t_ns: u64,
    /// [`FORMAT_VERSION`].
    pub format: u32,
    /// Identity of the run.
    pub run_id: String,
    /// Root seed, as printed.
    pub seed: String,
    /// Name of the suite.
    pub suite: String,
    /// `docker` or `process`.
    pub engine: String,
    /// Wall clock at `t_ns` = 0, microseconds since 1970; relates rows' times to this record.
    pub started_unix_us: i64,
}

/// Phases in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Servers and proxies come up.
    Provision,
    /// Tenants sign up, data are planted.
    Seed,
    /// Probes find the system within tolerances.
    Steady,
    /// Load without a fault.
    Baseline,
    /// Load with the fault windows.
    Load,
    /// Everything is healed.
    Heal,
    /// Queues drain, within a limit.
    Quiesce,
    /// Last reads, billing, probes.
    Final,
}

impl Phase {
    /// All, in order.
    pub const ALL: [Self; 8] =
        [Self::Provision, Self::Seed, Self::Steady, Self::Baseline, Self::Load, Self::Heal, Self::Quiesce, Self::Final];

    /// As it is written in the record.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Provision => "provision",
            Self::Seed => "seed",
            Self::Steady => "steady",
            Self::Baseline => "baseline",
            Self::Load => "load",
            Self::Heal => "heal",
            Self::Quiesce => "quiesce",
            Self::Final => "final",
        }
    }
}

/// Begin or end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Edge {
    /// It begins.
    Start,
    /// It is over.
    End,
}

/// A phase begins or ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhaseEvent {
    /// Line number.
    pub i: u64,
    /// Nanoseconds since the run's start.
    pub t_ns: u64,
    /// Which.
    pub phase: Phase,
    /// Begin or end.
    pub edge: Edge,
    /// Operations offered per second in this phase; 0 where there is no open-loop load.
    #[serde(default)]
    pub offered_per_s: u64,
}

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum F {
    /// POST /v1/signup.
    #[serde(rename = "signup")]
    Signup,
    /// POST /v1/login.
    #[serde(rename = "login")]
    Login,
    /// POST /v1/token/refresh.
    #[serde(rename = "refresh")]
    Refresh,
    /// POST /v1/logout.
    #[serde(rename = "logout")]
    Logout,
    /// GET /v1/me.
    #[serde(rename = "me")]
    Me,
    /// POST /v1/scenarios.
    #[serde(rename = "scenario.create")]
    ScenarioCreate,
    /// GET /v1/scenarios/{id}.
    #[serde(rename = "scenario.read")]
    ScenarioRead,
    /// GET /v1/scenarios.
    #[serde(rename = "scenario.list")]
    ScenarioList,
    /// PUT /v1/scenarios/{id}.
    #[serde(rename = "scenario.edit")]
    ScenarioEdit,
    /// POST /v1/forecasts.
    #[serde(rename = "forecast.request")]
    ForecastRequest,
    /// GET /v1/forecasts/{id}.
    #[serde(rename = "forecast.read")]
    ForecastRead,
    /// GET /v1/forecasts.
    #[serde(rename = "forecast.list")]
    ForecastList,
    /// GET /v1/dashboard.
    #[serde(rename = "dashboard")]
    Dashboard,
    /// GET /v1/plan.
    #[serde(rename = "plan")]
    Plan,
    /// GET /v1/usage.
    #[serde(rename = "usage")]
    Usage,
    /// GET /v1/invoices.
    #[serde(rename = "invoice.list")]
    InvoiceList,
    /// GET /v1/invoices/{id}.
    #[serde(rename = "invoice.read")]
    InvoiceRead,
    /// POST /v1/calculators/{name}.
    #[serde(rename = "calculate")]
    Calculate,
    /// Any further operation of the OpenAPI document that needs a session; the route says which.
    #[serde(rename = "other")]
    Other,
    /// An honest session asks for another tenant's object (`imitates` says how).
    #[serde(rename = "foreign")]
    Foreign,
    /// The same request for an id that nobody has.
    #[serde(rename = "absent")]
    Absent,
    /// A request that must be refused for who sends it.
    #[serde(rename = "auth.probe")]
    AuthProbe,
    /// GET /livez, /readyz, /metrics and other open routes.
    #[serde(rename = "health")]
    Health,
}

impl F {
    /// As it is written in the record.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Signup => "signup",
            Self::Login => "login",
            Self::Refresh => "refresh",
            Self::Logout => "logout",
            Self::Me => "me",
            Self::ScenarioCreate => "scenario.create",
            Self::ScenarioRead => "scenario.read",
            Self::ScenarioList => "scenario.list",
            Self::ScenarioEdit => "scenario.edit",
            Self::ForecastRequest => "forecast.request",
            Self::ForecastRead => "forecast.read",
            Self::ForecastList => "forecast.list",
            Self::Dashboard => "dashboard",
            Self::Plan => "plan",
            Self::Usage => "usage",
            Self::InvoiceList => "invoice.list",
            Self::InvoiceRead => "invoice.read",
            Self::Calculate => "calculate",
            Self::Other => "other",
            Self::Foreign => "foreign",
            Self::Absent => "absent",
            Self::AuthProbe => "auth.probe",
            Self::Health => "health",
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        serde_json::from_value(Value::String(name.to_owned())).ok()
    }

    /// Whether it may change something, so that a lost answer is `info`.
    pub const fn is_write(self) -> bool {
        matches!(
            self,
            Self::Signup
                | Self::Login
                | Self::Refresh
                | Self::Logout
                | Self::ScenarioCreate
                | Self::ScenarioEdit
                | Self::ForecastRequest
                | Self::Other
        )
    }

    /// Whether it only reads what belongs to the session's tenant.
    pub const fn is_read(self) -> bool {
        self.is_authenticated() && !self.is_write()
    }

    /// Whether it is answered to a session, about that session's tenant only.
    pub const fn is_authenticated(self) -> bool {
        !matches!(
            self,
            Self::Signup | Self::Login | Self::Refresh | Self::Foreign | Self::Absent | Self::AuthProbe | Self::Health
        )
    }
}

/// A request is sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Invoke {
    /// Line number.
    pub i: u64,
    /// Nanoseconds since the run's start; the moment of sending.
    pub t_ns: u64,
    /// Number of the operation, unique in the run.
    pub op: u64,
    /// The logical client.
    pub process: String,
    /// What it asks for.
    pub f: F,
    /// Method and path template as the OpenAPI document has them: `GET /v1/scenarios/{id}`.
    pub route: String,
    /// Label of the tenant that asks; absent where nobody is signed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Label of the session whose token is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Operation (sign-up, login, refresh) whose answer gave the token that is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_op: Option<u64>,
    /// API instance that it is sent to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Phase at the moment of sending.
    pub phase: Phase,
    /// When the open-loop plan wanted it sent; latency counts from here.
    pub intended_ns: u64,
    /// What the vocabulary lists for `f`.
    #[serde(default)]
    pub args: Args,
}

/// Arguments; which are there is listed in the module's vocabulary.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Args {
    /// Object asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Scenario of a forecast request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scenario_id: Option<String>,
    /// Idempotency-Key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Version named by If-Match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub if_version: Option<u64>,
    /// Honest operation that a foreign, absent or probing request looks like.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub imitates: Option<F>,
    /// Label of the tenant whose object is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The other half of a pair: of a foreign attempt the `absent` one, of a probe the honest one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub twin: Option<u64>,
    /// Of a foreign attempt: the owner's own request that got this object with a 2xx.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner_op: Option<u64>,
    /// How a probe cheats: `none`, `garbage`, `alg_none`, `wrong_key`, `expired`, `revoked`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attack: Option<String>,
    /// Operation that makes the attack one (the logout of a revoked token): only where it is `ok`
    /// and over for `settings.revocation_bound_ms` must the probe be refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depends_on: Option<u64>,
    /// Which calculator, as its route names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calculator: Option<String>,
    /// What it is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// Plan at sign-up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// Currency at sign-up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// IANA zone at sign-up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Tax rate at sign-up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tax_rate_ppm: Option<u32>,
}

/// What came back.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// Line number.
    pub i: u64,
    /// Nanoseconds since the run's start.
    pub t_ns: u64,
    /// Number of the operation.
    pub op: u64,
    /// HTTP status; absent where no answer came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Without an answer: why. [`HUNG_UP`] where the client left on purpose, which is nobody's error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// API instance that took it, where the one it was meant for took no connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_by: Option<String>,
    /// Microseconds from the intended moment to the answer's last byte.
    pub latency_us: u64,
    /// Whether a valid Retry-After came with it.
    #[serde(default)]
    pub retry_after: bool,
    /// Whether `idempotency-replayed: true` came with it.
    #[serde(default)]
    pub replayed: bool,
    /// Stable code of a problem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// SHA-256, lower-case hex, of the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_sha256: Option<String>,
    /// SHA-256 of the headers that must not tell a foreign id from an absent one (all, sorted, but
    /// for Date, x-request-id and the rate-limit ones).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers_sha256: Option<String>,
    /// What the vocabulary lists for `f`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Answer>,
    /// Whose canaries the answer holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scan: Option<Scan>,
}

/// Parsed answer; which fields are there is listed in the module's vocabulary.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Answer {
    /// Object's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Tenant's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<String>,
    /// User's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// Label of the session that was opened or carried on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Life of the access token, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in_s: Option<u64>,
    /// Version of a scenario.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// ETag as it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// SHA-256, lower-case hex, of the canonical JSON of `{name, notes, input}` received.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_sha256: Option<String>,
    /// SHA-256 of the canonical JSON of the scenario's `input` alone, as received.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_sha256: Option<String>,
    /// Scenario of a forecast.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scenario_id: Option<String>,
    /// A forecast.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forecast: Option<ForecastAnswer>,
    /// A calculator's answer in full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calculation: Option<Value>,
    /// An invoice as it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invoice: Option<InvoiceAnswer>,
    /// Objects of a list.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<Item>,
    /// A dashboard's counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dashboard: Option<DashboardAnswer>,
    /// The current period's usage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<UsageAnswer>,
    /// The plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
}

/// A forecast as the client got it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ForecastAnswer {
    /// `queued`, `running`, `succeeded`, `failed`, `cancelled`.
    pub state: String,
    /// Version of the scenario that was copied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scenario_version: Option<u64>,
    /// Attempts so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u64>,
    /// Engine that computed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine_version: Option<String>,
    /// Hash that the system states.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result_hash: Option<String>,
    /// Stable code of a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    /// SHA-256 of the canonical JSON of `{input, result}` received; there whenever a result is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_sha256: Option<String>,
    /// The input in full; may be left out where a line before has the same id and content digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// The result in full; left out as `input` is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
}

/// An invoice as the client got it; money in minor units.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct InvoiceAnswer {
    /// `draft`, `issued`, `paid`, …
    pub state: String,
    /// Number, once issued.
    pub number: Option<i64>,
    /// Period.
    pub period_index: i64,
    /// ISO 4217.
    pub currency: String,
    /// Tax.
    pub tax_minor: i64,
    /// Total with tax.
    pub total_minor: i64,
    /// Lines: kind, quantity, unit price, amount, tax.
    pub lines: Vec<InvoiceLineAnswer>,
}

/// A line of an invoice as the client got it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InvoiceLineAnswer {
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

/// An object in a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Item {
    /// Its id.
    pub id: String,
    /// State of a forecast or invoice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Version of a scenario.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
}

/// A dashboard's counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DashboardAnswer {
    /// Scenarios of the tenant.
    pub scenarios: u64,
    /// Forecasts by state.
    pub forecasts: BTreeMap<String, u64>,
}

/// The current period's usage.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UsageAnswer {
    /// Period.
    pub period_index: i64,
    /// Forecasts that succeeded in it.
    pub forecasts_succeeded: u64,
    /// Places taken.
    pub quota_taken: u64,
    /// Places that the base pays for.
    pub included_forecasts: u64,
}

/// Whose canaries an answer holds; every byte of headers and body was searched.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scan {
    /// Bytes searched.
    pub bytes: u64,
    /// Labels of the tenants whose canaries occur, sorted, each once.
    pub owners_found: Vec<String>,
    /// Fields of those canaries, sorted, each once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// Things that look like a canary but belong to nobody in this run.
    #[serde(skip_serializing_if = "is_zero")]
    pub unverified: u64,
    /// Tenants that held data in the system when the request was sent.
    pub tenants_with_data: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Where a fault stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultState {
    /// In the schedule, written before the load begins.
    Planned,
    /// The injector was told to act.
    Requested,
    /// The injector says that it acted; the fault window opens.
    Installed,
    /// Seen from elsewhere: `proofs` says by what.
    Observed,
    /// The injector says that it undid it; the fault window closes.
    Removed,
    /// Seen to be over: `proofs` says by what.
    Recovered,
    /// It could not be injected or healed; `detail` says why.
    Failed,
}

/// A fault changes its state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaultEvent {
    /// Line number.
    pub i: u64,
    /// Nanoseconds since the run's start.
    pub t_ns: u64,
    /// `F1`, `F2`, … unique in the run.
    pub id: String,
    /// `pool_exhaustion`, `redis_loss`, `worker_crash`, …
    pub kind: String,
    /// What it hurts: a process, a server or a link.
    pub target: String,
    /// Where it stands now.
    pub state: FaultState,
    /// With `observed` and `recovered`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proofs: Vec<Proof>,
    /// With `planned`: least share of operations sent in the window that must succeed, per cent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goodput_floor_percent: Option<u64>,
    /// With `planned`: least share of the reads sent in the window that must succeed, per cent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reads_floor_percent: Option<u64>,
    /// With `planned`: how long the first that are refused for want of room have waited at least, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal_wait_ms_min: Option<u64>,
    /// With `planned`: longest stretch of the window in which nothing need succeed, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outage_ms_max: Option<u64>,
    /// With `planned`: longest time from its removal until all is well again, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recover_ms_max: Option<u64>,
    /// For a reader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What a proof shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProofKind {
    /// The thing itself is in the hurt state: the process is gone, the pool is at its limit.
    Control,
    /// Something on the same path fails or slows, or a counter rose.
    Effect,
    /// A probe on the path is back within tolerance.
    Recovery,
}

/// An observation that does not come from the injector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    /// What it shows.
    pub kind: ProofKind,
    /// Where it was read: `pg_stat_activity`, `waitpid`, `GET /readyz`, …
    pub source: String,
    /// What was seen, in words with figures.
    pub what: String,
    /// Whether that proves it.
    pub holds: bool,
}

/// What happened to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessChange {
    /// It was started.
    Started,
    /// It said that it is ready.
    Ready,
    /// It ended by itself, or on SIGTERM.
    Exited,
    /// A signal ended it.
    Killed,
}

/// A process of the system starts, is ready or ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProcessEvent {
    /// Line number.
    pub i: u64,
    /// Nanoseconds since the run's start.
    pub t_ns: u64,
    /// `api-1`, `worker-2`, `biller-1`, …
    pub name: String,
    /// What happened.
    pub event: ProcessChange,
    /// Whether the run wanted it: a fault's kill, a stop, the end of a one-shot command.
    pub planned: bool,
    /// Exit code, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// Signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
}

/// A probe of the steady state, or of a fault.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbeEvent {
    /// Line number.
    pub i: u64,
    /// Nanoseconds since the run's start.
    pub t_ns: u64,
    /// What is probed.
    pub name: String,
    /// Whether it was within tolerance.
    pub ok: bool,
    /// Measured value with its unit, for a reader.
    #[serde(default)]
    pub detail: String,
}

/// Free text for a reader.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Note {
    /// Line number.
    pub i: u64,
    /// Nanoseconds since the run's start.
    pub t_ns: u64,
    /// The text.
    pub text: String,
}
