//! What the clients know of the system: ids and versions they were told, sessions they hold, tokens they kept.
//!
//! Knowledge comes from answers only. Lists are bounded; a full one forgets its oldest entry or takes no more.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::tenants::TenantProfile;
use crate::client::{Session, Tokens};

/// Scenarios remembered per tenant.
const SCENARIOS_MAX: usize = 400;
/// Old access tokens kept for probes, of each kind.
const OLD_TOKENS_MAX: usize = 200;

/// A scenario as a client last saw it.
#[derive(Debug, Clone)]
pub struct KnownScenario {
    /// The scenario's id.
    pub id: String,
    /// The last ETag seen.
    pub etag: String,
    /// Its input, as it was sent.
    pub input: Value,
    /// It has simulated paths.
    pub simulated: bool,
}

/// A forecast whose end has not been read yet.
#[derive(Debug, Clone)]
pub struct PendingForecast {
    /// The forecast's id.
    pub id: String,
    /// When the 202 came.
    pub accepted: Instant,
}

/// One tenant that exists in the system, and what its clients share.
#[derive(Debug)]
pub struct Tenant {
    /// Who it is.
    pub profile: TenantProfile,
    /// The id the system gave it.
    pub tenant_id: String,
    /// Its owner's id.
    pub user_id: String,
    /// Logical clients; one operation at a time each.
    pub clients: Vec<tokio::sync::Mutex<LogicalClient>>,
    sessions: AtomicU64,
    knowledge: Mutex<Knowledge>,
}

#[derive(Debug, Default)]
struct Knowledge {
    scenarios: Vec<KnownScenario>,
    pending: VecDeque<PendingForecast>,
    finished: Vec<String>,
    invoices: Vec<String>,
}

/// One logical client: a process of the history.
#[derive(Debug)]
pub struct LogicalClient {
    /// Its name in the history, e.g. `client-07-1`.
    pub process: String,
    /// The address it claims.
    pub address: String,
    /// Its session; none after a login that failed or a family that was killed.
    pub session: Option<Session>,
}

impl Tenant {
    /// A tenant whose sign-up was acknowledged.
    pub fn new(profile: TenantProfile, tenant_id: String, user_id: String, clients: Vec<LogicalClient>) -> Self {
        let clients = clients.into_iter().map(tokio::sync::Mutex::new).collect();
        Self { profile, tenant_id, user_id, clients, sessions: AtomicU64::new(1), knowledge: Mutex::default() }
    }

    /// The label of the next session, e.g. `T0007/s2`; `s1` is the one that sign-up opened.
    pub fn next_session_label(&self) -> String {
        let number = self.sessions.fetch_add(1, Ordering::Relaxed) + 1;
        format!("{}/s{number}", self.profile.label)
    }

    fn knowledge<T>(&self, use_it: impl FnOnce(&mut Knowledge) -> T) -> T {
        use_it(&mut self.knowledge.lock().expect("tenant knowledge lock"))
    }

    /// Remembers a scenario that was created.
    pub fn learn_scenario(&self, scenario: KnownScenario) {
        self.knowledge(|known| {
            if known.scenarios.len() < SCENARIOS_MAX {
                known.scenarios.push(scenario);
            }
        });
    }

    /// Remembers a newer version, and the input it now has.
    pub fn learn_version(&self, id: &str, etag: &str, input: Option<Value>) {
        self.knowledge(|known| {
            if let Some(scenario) = known.scenarios.iter_mut().find(|scenario| scenario.id == id) {
                scenario.etag = etag.to_owned();
                if let Some(input) = input {
                    scenario.input = input;
                }
            }
        });
    }

    /// How many scenarios are known.
    pub fn scenario_count(&self) -> usize {
        self.knowledge(|known| known.scenarios.len())
    }

    /// The scenario at `draw` (reduced to the list's length), simulated or not as asked; any one where there is no such.
    pub fn scenario(&self, draw: usize, simulated: Option<bool>) -> Option<KnownScenario> {
        self.knowledge(|known| {
            let fitting: Vec<&KnownScenario> = known
                .scenarios
                .iter()
                .filter(|scenario| simulated.is_none_or(|wanted| wanted == scenario.simulated))
                .collect();
            match fitting.len() {
                0 if known.scenarios.is_empty() => None,
                0 => Some(known.scenarios[draw % known.scenarios.len()].clone()),
                count => Some(fitting[draw % count].clone()),
            }
        })
    }

    /// A forecast was accepted and is to be read until it ends.
    pub fn await_forecast(&self, id: &str) {
        self.knowledge(|known| {
            let is_new = !known.finished.iter().any(|done| done == id) && !known.pending.iter().any(|p| p.id == id);
            if is_new {
                known.pending.push_back(PendingForecast { id: id.to_owned(), accepted: Instant::now() });
            }
        });
    }

    /// The oldest forecast that was accepted at least `age` ago, moved to the end of the queue.
    pub fn next_pending(&self, age: Duration) -> Option<PendingForecast> {
        self.knowledge(|known| {
            let ripe = known.pending.iter().position(|forecast| forecast.accepted.elapsed() >= age)?;
            let forecast = known.pending.remove(ripe)?;
            known.pending.push_back(forecast.clone());
            Some(forecast)
        })
    }

    /// Everything whose end has not been read.
    pub fn pending(&self) -> Vec<PendingForecast> {
        self.knowledge(|known| known.pending.iter().cloned().collect())
    }

    /// The forecast's end was read.
    pub fn finish_forecast(&self, id: &str) {
        self.knowledge(|known| {
            known.pending.retain(|forecast| forecast.id != id);
            if !known.finished.iter().any(|done| done == id) {
                known.finished.push(id.to_owned());
            }
        });
    }

    /// A forecast of this tenant that has ended, or one that is pending.
    pub fn any_forecast(&self, draw: usize) -> Option<String> {
        self.knowledge(|known| match known.finished.len() {
            0 => known.pending.front().map(|forecast| forecast.id.clone()),
            count => Some(known.finished[draw % count].clone()),
        })
    }

    /// Remembers invoices a list named.
    pub fn learn_invoices(&self, ids: Vec<String>) {
        self.knowledge(|known| {
            for id in ids {
                if !known.invoices.contains(&id) {
                    known.invoices.push(id);
                }
            }
        });
    }

    /// All invoices that lists named.
    pub fn invoices(&self) -> Vec<String> {
        self.knowledge(|known| known.invoices.clone())
    }

    /// Forecasts that were accepted, as far as clients were told.
    pub fn accepted_forecasts(&self) -> usize {
        self.knowledge(|known| known.finished.len() + known.pending.len())
    }

    /// An invoice of this tenant, where one is known.
    pub fn any_invoice(&self, draw: usize) -> Option<String> {
        self.knowledge(|known| match known.invoices.len() {
            0 => None,
            count => Some(known.invoices[draw % count].clone()),
        })
    }
}

/// An access token whose session is over.
#[derive(Debug, Clone)]
pub struct RevokedToken {
    /// JWT.
    pub access: String,
    /// The acknowledged log-out.
    pub logout_op: u64,
    /// When that acknowledgement came.
    pub revoked: Instant,
    /// When it would have expired.
    pub expires: Instant,
}

/// Old access tokens, for probes that must be refused.
#[derive(Debug, Default)]
pub struct TokenShelf {
    clocks_apart: Duration,
    retired: Mutex<VecDeque<Tokens>>,
    revoked: Mutex<VecDeque<RevokedToken>>,
}

impl TokenShelf {
    /// An empty shelf, where clocks of the system may be so far ahead.
    pub fn new(clocks_apart: Duration) -> Self {
        Self { clocks_apart, ..Self::default() }
    }

    /// A token that a refresh replaced; valid until it expires.
    pub fn retire(&self, tokens: Tokens) {
        push_bounded(&self.retired, tokens);
    }

    /// A token whose session's log-out, the operation `logout_op`, was acknowledged just now.
    pub fn revoke(&self, tokens: &Tokens, logout_op: u64) {
        let expires = tokens.received + tokens.lives;
        let token = RevokedToken { access: tokens.access.clone(), logout_op, revoked: Instant::now(), expires };
        push_bounded(&self.revoked, token);
    }

    /// One that surely has expired.
    pub fn expired(&self, draw: usize) -> Option<String> {
        let retired = self.retired.lock().expect("token shelf lock");
        let expired: Vec<&Tokens> =
            retired.iter().filter(|tokens| tokens.is_surely_expired(self.clocks_apart)).collect();
        if expired.is_empty() { None } else { Some(expired[draw % expired.len()].access.clone()) }
    }

    /// One whose session was revoked at least `bound` ago and that would still be good otherwise.
    pub fn revoked(&self, draw: usize, bound: Duration) -> Option<RevokedToken> {
        let revoked = self.revoked.lock().expect("token shelf lock");
        let due: Vec<&RevokedToken> =
            revoked.iter().filter(|token| token.revoked.elapsed() >= bound && token.expires > Instant::now()).collect();
        if due.is_empty() { None } else { Some(due[draw % due.len()].clone()) }
    }
}

fn push_bounded<T>(list: &Mutex<VecDeque<T>>, item: T) {
    let mut list = list.lock().expect("token shelf lock");
    if list.len() == OLD_TOKENS_MAX {
        list.pop_front();
    }
    list.push_back(item);
}
