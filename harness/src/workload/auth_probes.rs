//! Requests that must be refused for who sends them: every protected operation of the OpenAPI document times every attack.
//!
//! Each operation is first done honestly; a probe is worth something only beside a 2xx on the same route. Where the
//! honest request fails (a fault is on), the probes go out all the same, paired with the last 2xx there was.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use nogo_invariants::history::{Args, F};
use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::driver::{Call, Done};
use super::forged_tokens::{Forger, Forgery};
use super::load::Shared;
use super::openapi::{ProtectedOperation, protected_operations};
use super::sessions::signed_in;
use super::stories::{draw_scenario, forget_refused_session, version_of};
use super::tenants::client_address;
use super::world::{LogicalClient, Tenant};
use crate::client::{Request, Tokens};
use crate::randomness::uuid;

/// Sends auth probes at a rate of its own.
#[derive(Debug)]
pub(super) struct AuthProber {
    shared: Arc<Shared>,
    tenants: Arc<Vec<Tenant>>,
    operations: Vec<ProtectedOperation>,
    forger: Forger,
    hosts: Vec<Mutex<Host>>,
    /// The present tokens of each host with its tenant, for the others to try on what is not theirs.
    tokens: std::sync::Mutex<BTreeMap<usize, Tokens>>,
    probes: AtomicU64,
}

/// An honest client and what it owns, which the probes ask for.
#[derive(Debug)]
struct Host {
    tenant: usize,
    client: LogicalClient,
    next_operation: usize,
    rounds: u64,
    scenario: Option<(String, String)>,
    forecast: Option<String>,
    invoice: Option<String>,
    /// Operation numbers of the last honest 2xx, by operation name.
    honest: BTreeMap<String, u64>,
}

/// How a probe cheats.
enum Attack {
    NoToken,
    Forged(Forgery),
    Expired(String),
    Revoked(String, u64),
    ForeignToken(String, u64),
}

impl AuthProber {
    /// Concurrent senders, each with a host of its own.
    pub(super) const WORKERS: usize = 2;

    /// Reads the OpenAPI document and the JWKS from the running system.
    pub(super) async fn prepare(shared: Arc<Shared>, tenants: Arc<Vec<Tenant>>) -> anyhow::Result<Self> {
        let document = fetch(&shared, "/openapi.json").await?;
        let operations = protected_operations(&document)?;
        let jwks = fetch(&shared, "/.well-known/jwks.json").await?;
        let mut key_seed = [0_u8; 32];
        shared.randomness.stream("workload/forger").fill_bytes(&mut key_seed);
        let mut unlimited: Vec<usize> =
            tenants.iter().filter(|tenant| tenant.profile.plan == "PRO").map(|tenant| tenant.profile.index).collect();
        if unlimited.is_empty() {
            unlimited = tenants.iter().map(|tenant| tenant.profile.index).take(1).collect();
        }
        anyhow::ensure!(!unlimited.is_empty(), "probes need a tenant");
        let hosts = (0..Self::WORKERS)
            .map(|number| {
                let client = LogicalClient {
                    process: format!("auth-host-{number}"),
                    address: client_address(2, number),
                    session: None,
                };
                Mutex::new(Host {
                    tenant: unlimited[number % unlimited.len()],
                    client,
                    // The hosts begin at opposite ends, so that a short window meets all operations.
                    next_operation: number * operations.len() / Self::WORKERS,
                    rounds: 0,
                    scenario: None,
                    forecast: None,
                    invoice: None,
                    honest: BTreeMap::new(),
                })
            })
            .collect();
        let forger = Forger::new(key_seed, jwks);
        Ok(Self {
            shared,
            tenants,
            operations,
            forger,
            hosts,
            tokens: std::sync::Mutex::default(),
            probes: AtomicU64::new(0),
        })
    }

    /// Probes sent so far.
    pub(super) fn probes(&self) -> u64 {
        self.probes.load(Ordering::Relaxed)
    }

    /// Sends until stopped, worker `number` of [`Self::WORKERS`].
    pub(super) async fn run(&self, number: usize, stop: &CancellationToken) {
        let per_worker = f64::from(self.shared.spec.auth_probes_per_s) / Self::WORKERS as f64;
        if per_worker <= 0.0 {
            return;
        }
        let mut pace = Pace { due: Instant::now(), gap: Duration::from_secs_f64(1.0 / per_worker) };
        let mut host = self.hosts[number].lock().await;
        while !stop.is_cancelled() {
            self.probe_next_operation(&mut host, number, Some((&mut pace, stop))).await;
        }
    }

    /// Every protected operation once, honest and attacked, as fast as it goes.
    pub(super) async fn full_round(&self) {
        for (number, host) in self.hosts.iter().enumerate() {
            let mut host = host.lock().await;
            for _ in 0..self.operations.len().div_ceil(Self::WORKERS) {
                self.probe_next_operation(&mut host, number, None).await;
            }
        }
    }

    async fn probe_next_operation(
        &self,
        host: &mut Host,
        number: usize,
        mut pace: Option<(&mut Pace, &CancellationToken)>,
    ) {
        let operation = self.take_operation(host, pace.is_some());
        host.rounds += 1;
        let mut rng = self.shared.randomness.stream(&format!("workload/auth-{number}-{}", host.rounds));
        self.do_honestly(host, operation, &mut rng).await;
        self.show_token(host);
        let Some(good) = host.client.session.clone() else {
            // Without any session there is nothing to forge from; do not spin.
            tokio::time::sleep(Duration::from_millis(250)).await;
            return;
        };
        for attack in self.attacks(host, operation, &mut rng) {
            if let Some((pace, stop)) = &mut pace {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = pace.wait() => {}
                }
            }
            self.probe(host, operation, attack, &good.tokens.access, &mut rng).await;
        }
    }

    /// The host's next operation. While load runs, only those with an honest twin: the others' probes show
    /// nothing but a system that lets them in, and the full rounds see to that.
    fn take_operation(&self, host: &mut Host, paired_only: bool) -> &ProtectedOperation {
        let count = self.operations.len();
        let from = host.next_operation;
        let wanted = |offset: &usize| !paired_only || has_twin(&self.operations[(from + offset) % count]);
        let number = (from + (0..count).find(wanted).unwrap_or(0)) % count;
        host.next_operation = (number + 1) % count;
        &self.operations[number]
    }

    /// Does `operation` as its rightful owner and remembers a 2xx as the twin of the probes that follow.
    async fn do_honestly(&self, host: &mut Host, operation: &ProtectedOperation, rng: &mut ChaCha8Rng) {
        let tenant = &self.tenants[host.tenant];
        let driver = &self.shared.driver;
        let instance = rng.random_range(0..64);
        if !driver.ensure_session(tenant, &mut host.client, &self.shared.shelf, instance).await {
            return;
        }
        if !has_twin(operation) {
            return;
        }
        let done = if operation_kind(operation) == F::Logout {
            // The host's own session goes; it needs a new one afterwards, which is part of what a log-out is.
            let Some(session) = host.client.session.take() else { return };
            driver.logout(tenant, &host.client, &session, &self.shared.shelf, instance).await
        } else {
            let Some((f, request, args)) = self.request(host, operation, rng) else { return };
            let mut call = signed_in(f, tenant, &host.client, instance, request);
            call.args = args;
            driver.call(call).await
        };
        forget_refused_session(&mut host.client, &done);
        if done.success().is_some() {
            host.honest.insert(operation.name(), done.op);
            host.learn(operation, &done, tenant);
        }
        if host.client.session.is_none() {
            driver.ensure_session(tenant, &mut host.client, &self.shared.shelf, instance).await;
        }
    }

    fn attacks(&self, host: &Host, operation: &ProtectedOperation, rng: &mut ChaCha8Rng) -> Vec<Attack> {
        let draw = rng.random_range(0..1_000_000);
        let bound = Duration::from_millis(self.shared.spec.revocation_bound_ms);
        let mut attacks = vec![Attack::NoToken];
        attacks.extend(Forgery::ALL.into_iter().map(Attack::Forged));
        attacks.extend(self.shared.shelf.expired(draw).map(Attack::Expired));
        attacks.extend(self.shared.shelf.revoked(draw, bound).map(|old| Attack::Revoked(old.access, old.logout_op)));
        if operation.route.contains("{id}") {
            attacks.extend(self.other_hosts_token(host));
        }
        attacks
    }

    /// Lets the other hosts know the present token of `host`, or that there is none.
    fn show_token(&self, host: &Host) {
        let mut tokens = self.tokens.lock().expect("tokens lock");
        match &host.client.session {
            Some(session) => tokens.insert(host.tenant, session.tokens.clone()),
            None => tokens.remove(&host.tenant),
        };
    }

    /// A good token of another tenant.
    fn other_hosts_token(&self, host: &Host) -> Option<Attack> {
        let tokens = self.tokens.lock().expect("tokens lock");
        let (_, other) =
            tokens.iter().find(|(tenant, tokens)| **tenant != host.tenant && !tokens.is_due(Duration::from_secs(1)))?;
        Some(Attack::ForeignToken(other.access.clone(), other.token_op))
    }

    async fn probe(
        &self,
        host: &Host,
        operation: &ProtectedOperation,
        attack: Attack,
        good: &str,
        rng: &mut ChaCha8Rng,
    ) {
        let Some((imitates, mut request, args)) = self.request(host, operation, rng) else { return };
        let victim = &self.tenants[(host.tenant + 1) % self.tenants.len()].tenant_id;
        let (name, bearer, depends_on, token_op) = match attack {
            Attack::NoToken => ("none", None, None, None),
            Attack::Forged(forgery) => match self.forger.forge(forgery, good, victim) {
                Some(bearer) => (forgery.name(), Some(bearer), None, None),
                None => return,
            },
            Attack::Expired(bearer) => ("expired", Some(bearer), None, None),
            Attack::Revoked(bearer, logout) => ("revoked", Some(bearer), Some(logout), None),
            Attack::ForeignToken(bearer, token_op) => ("foreign", Some(bearer), None, Some(token_op)),
        };
        let sent = self.probes.fetch_add(1, Ordering::Relaxed);
        request.bearer = bearer;
        request.forwarded_for = client_address(3, usize::try_from(sent).unwrap_or_default());
        let mut call = Call::new(F::AuthProbe, &format!("{}-probe", host.client.process), request);
        call.instance = rng.random_range(0..64);
        call.token_op = token_op;
        call.args = Args {
            attack: Some(name.to_owned()),
            imitates: Some(imitates),
            twin: host.honest.get(&operation.name()).copied(),
            depends_on,
            id: args.id,
            ..Args::default()
        };
        self.shared.driver.call(call).await;
    }

    /// The request of `operation` on what the host owns; none while it owns no such thing.
    fn request(&self, host: &Host, operation: &ProtectedOperation, rng: &mut ChaCha8Rng) -> Option<(F, Request, Args)> {
        let f = operation_kind(operation);
        let profile = &self.tenants[host.tenant].profile;
        let mut request = Request::new(operation.method, &operation.route);
        let mut args = Args::default();
        match f {
            F::ScenarioCreate | F::ScenarioEdit => {
                request.body = Some(draw_scenario(rng, &self.shared, profile, false).content);
            }
            F::ForecastRequest => {
                let (id, _) = host.scenario.as_ref()?;
                args.scenario_id = Some(id.clone());
                request.body = Some(json!({"scenario_id": id}));
            }
            F::Other if operation.method != "GET" => request.body = Some(json!({})),
            _ => {}
        }
        if matches!(f, F::ScenarioCreate | F::ForecastRequest | F::Other) {
            let key = uuid(rng).to_string();
            args.key = Some(key.clone());
            request.idempotency_key = Some(key);
        }
        let id = match f {
            F::ScenarioRead | F::ScenarioEdit => {
                let (id, etag) = host.scenario.as_ref()?;
                if f == F::ScenarioEdit {
                    args.if_version = version_of(etag);
                    request.if_match = Some(etag.clone());
                }
                Some(id.clone())
            }
            F::ForecastRead => Some(host.forecast.clone()?),
            F::InvoiceRead => Some(host.invoice.clone()?),
            // Nobody's: what changes things is only ever sent by those who must be refused.
            F::Other => Some(uuid(rng).to_string()),
            _ => None,
        };
        if let Some(id) = id.filter(|_| operation.route.contains('{')) {
            request = request.with_id(&id);
            args.id = Some(id);
        }
        Some((f, request, args))
    }
}

impl Host {
    fn learn(&mut self, operation: &ProtectedOperation, done: &Done, tenant: &Tenant) {
        let Some(answer) = done.success() else { return };
        let body = answer.json();
        let id = body["id"].as_str().map(str::to_owned);
        match operation_kind(operation) {
            F::ScenarioCreate | F::ScenarioRead | F::ScenarioEdit => {
                if let (Some(id), Some(etag)) = (id, answer.header("etag")) {
                    self.scenario = Some((id, etag.to_owned()));
                }
            }
            F::ForecastRequest => {
                if let Some(id) = id {
                    tenant.await_forecast(&id);
                    self.forecast = Some(id);
                }
            }
            F::InvoiceList => {
                self.invoice = body["items"][0]["id"].as_str().map(str::to_owned).or(self.invoice.take());
            }
            _ => {}
        }
    }
}

#[derive(Debug)]
struct Pace {
    due: Instant,
    gap: Duration,
}

impl Pace {
    /// Until the next probe is due; what was missed is not made up for.
    async fn wait(&mut self) {
        tokio::time::sleep_until(self.due).await;
        self.due = (self.due + self.gap).max(Instant::now());
    }
}

/// What a protected operation is in the history's words; [`F::Other`] for one that no story of the load sends.
fn operation_kind(operation: &ProtectedOperation) -> F {
    match (operation.method, operation.route.as_str()) {
        ("POST", "/v1/logout") => F::Logout,
        ("GET", "/v1/me") => F::Me,
        ("POST", "/v1/scenarios") => F::ScenarioCreate,
        ("GET", "/v1/scenarios") => F::ScenarioList,
        ("GET", "/v1/scenarios/{id}") => F::ScenarioRead,
        ("PUT", "/v1/scenarios/{id}") => F::ScenarioEdit,
        ("POST", "/v1/forecasts") => F::ForecastRequest,
        ("GET", "/v1/forecasts") => F::ForecastList,
        ("GET", "/v1/forecasts/{id}") => F::ForecastRead,
        ("GET", "/v1/dashboard") => F::Dashboard,
        ("GET", "/v1/plan") => F::Plan,
        ("GET", "/v1/usage") => F::Usage,
        ("GET", "/v1/invoices") => F::InvoiceList,
        ("GET", "/v1/invoices/{id}") => F::InvoiceRead,
        _ => F::Other,
    }
}

/// Whether the prober knows how to do it honestly, so that a refused probe is worth something.
fn has_twin(operation: &ProtectedOperation) -> bool {
    operation_kind(operation) != F::Other || operation.is_plain_read
}

async fn fetch(shared: &Shared, route: &str) -> anyhow::Result<serde_json::Value> {
    let call = Call::new(F::Health, "auth-setup", Request::new("GET", route));
    let done = shared.driver.call(call).await;
    let answer = done.success().with_context(|| format!("read {route}"))?;
    serde_json::from_slice(&answer.body).with_context(|| format!("read {route} as json"))
}
