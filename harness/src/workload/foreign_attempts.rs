//! Attempts on other tenants' objects, each beside its owner's success and a request for what nobody has.
//!
//! A round: the owner reads its object; another tenant asks for the same id in each way there is; after each attempt it
//! asks in the same way for an id that was never given. The two refusals must be equal to the byte.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nogo_invariants::history::{Args, F};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::load::Shared;
use super::sessions::signed_in;
use super::stories::{draw_scenario, forget_refused_session};
use super::tenants::client_address;
use super::world::{LogicalClient, Tenant};
use crate::client::Request;
use crate::randomness::uuid;

/// Tenants that take part, spread over the plans.
const TENANTS_MAX: usize = 14;

/// Sends foreign attempts at a rate of its own.
#[derive(Debug)]
pub(super) struct ForeignProber {
    shared: Arc<Shared>,
    tenants: Arc<Vec<Tenant>>,
    players: Vec<Player>,
    attempts: AtomicU64,
    rounds: AtomicU64,
}

/// A tenant with a client that is used for nothing else.
#[derive(Debug)]
struct Player {
    tenant: usize,
    client: Mutex<LogicalClient>,
}

/// An object and the ways to ask for it.
struct Target {
    id: String,
    read: (F, &'static str),
    ways: &'static [Way],
}

#[derive(Debug, Clone, Copy)]
enum Way {
    Read(F, &'static str),
    EditScenario,
    ForecastOnScenario,
}

impl ForeignProber {
    /// Concurrent senders.
    pub(super) const WORKERS: usize = 4;

    pub(super) fn new(shared: Arc<Shared>, tenants: Arc<Vec<Tenant>>) -> Self {
        // A stride that is prime to ten visits every plan.
        let count = tenants.len().min(TENANTS_MAX);
        let mut chosen: Vec<usize> = (0..tenants.len() * 7).step_by(7).map(|n| n % tenants.len().max(1)).collect();
        let mut seen = std::collections::BTreeSet::new();
        chosen.retain(|tenant| seen.insert(*tenant));
        let players = chosen
            .into_iter()
            .take(count)
            .map(|tenant| Player {
                tenant,
                client: Mutex::new(LogicalClient {
                    process: format!("foreign-{}", tenants[tenant].profile.label),
                    address: client_address(1, tenant),
                    session: None,
                }),
            })
            .collect();
        Self { shared, tenants, players, attempts: AtomicU64::new(0), rounds: AtomicU64::new(0) }
    }

    /// Attempts sent so far.
    pub(super) fn attempts(&self) -> u64 {
        self.attempts.load(Ordering::Relaxed)
    }

    /// Sends until stopped, worker `number` of [`Self::WORKERS`].
    pub(super) async fn run(&self, number: usize, stop: &CancellationToken) {
        let per_worker = f64::from(self.shared.spec.foreign_attempts_per_s) / Self::WORKERS as f64;
        if per_worker <= 0.0 {
            return;
        }
        let mut due = Instant::now() + Duration::from_secs_f64(number as f64 / Self::WORKERS as f64 / per_worker);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(due) => {}
            }
            let sent = self.round().await;
            // A round that could not be made still takes its turn, so that a hurt system is not pressed harder.
            due = (due + Duration::from_secs_f64(sent.max(1) as f64 / per_worker)).max(Instant::now());
        }
    }

    /// Makes `count` rounds as fast as they go, one after another.
    pub(super) async fn rounds(&self, count: usize) {
        for _ in 0..count {
            self.round().await;
        }
    }

    /// One round; gives the number of attempts sent.
    async fn round(&self) -> u64 {
        if self.players.len() < 2 {
            return 0;
        }
        let number = self.rounds.fetch_add(1, Ordering::Relaxed);
        let mut rng = self.shared.randomness.stream(&format!("workload/foreign-{number}"));
        let owner = rng.random_range(0..self.players.len());
        let attacker = (owner + rng.random_range(1..self.players.len())) % self.players.len();
        let Some(target) = self.choose_target(&self.tenants[self.players[owner].tenant], &mut rng) else { return 0 };
        let Some(owner_op) = self.owner_reads(&self.players[owner], &target, &mut rng).await else { return 0 };
        let mut sent = 0;
        for way in target.ways {
            sent +=
                self.attempt(&self.players[owner], &self.players[attacker], &target, *way, owner_op, &mut rng).await;
        }
        sent
    }

    fn choose_target(&self, owner: &Tenant, rng: &mut ChaCha8Rng) -> Option<Target> {
        let draw = rng.random_range(0..1_000_000);
        let invoice = || {
            let read = (F::InvoiceRead, "/v1/invoices/{id}");
            let id = owner.any_invoice(draw)?;
            Some(Target { id, read, ways: &[Way::Read(F::InvoiceRead, "/v1/invoices/{id}")] })
        };
        let forecast = || {
            let read = (F::ForecastRead, "/v1/forecasts/{id}");
            let id = owner.any_forecast(draw)?;
            Some(Target { id, read, ways: &[Way::Read(F::ForecastRead, "/v1/forecasts/{id}")] })
        };
        let scenario = || {
            let read = (F::ScenarioRead, "/v1/scenarios/{id}");
            let ways = &[Way::Read(F::ScenarioRead, "/v1/scenarios/{id}"), Way::EditScenario, Way::ForecastOnScenario];
            Some(Target { id: owner.scenario(draw, None)?.id, read, ways })
        };
        match rng.random_range(0..10) {
            0..2 => invoice().or_else(scenario),
            2..6 => forecast().or_else(scenario),
            _ => scenario(),
        }
    }

    /// The positive control: the owner gets it.
    async fn owner_reads(&self, owner: &Player, target: &Target, rng: &mut ChaCha8Rng) -> Option<u64> {
        let tenant = &self.tenants[owner.tenant];
        let mut client = owner.client.lock().await;
        let instance = rng.random_range(0..64);
        if !self.shared.driver.ensure_session(tenant, &mut client, &self.shared.shelf, instance).await {
            return None;
        }
        let (f, route) = target.read;
        let request = Request::new("GET", route).with_id(&target.id);
        let mut call = signed_in(f, tenant, &client, instance, request);
        call.args.id = Some(target.id.clone());
        let done = self.shared.driver.call(call).await;
        forget_refused_session(&mut client, &done);
        done.success().map(|_| done.op)
    }

    /// One attempt and its absent twin; 1 if both were sent.
    async fn attempt(
        &self,
        owner: &Player,
        attacker: &Player,
        target: &Target,
        way: Way,
        owner_op: u64,
        rng: &mut ChaCha8Rng,
    ) -> u64 {
        let driver = &self.shared.driver;
        let tenant = &self.tenants[attacker.tenant];
        let instance = rng.random_range(0..64);
        let mut client = attacker.client.lock().await;
        if !driver.ensure_session(tenant, &mut client, &self.shared.shelf, instance).await {
            return 0;
        }
        let (foreign_op, absent_op) = (driver.recorder().next_op(), driver.recorder().next_op());
        let owner_label = &self.tenants[owner.tenant].profile.label;
        let absent_id = uuid(rng).to_string();
        let content = draw_scenario(rng, &self.shared, &tenant.profile, false).content;
        let asks = [(F::Foreign, foreign_op, target.id.as_str()), (F::Absent, absent_op, absent_id.as_str())];
        for (f, op, id) in asks {
            let (imitates, mut request) = imitation(way, id, &content);
            request.idempotency_key = matches!(way, Way::ForecastOnScenario).then(|| uuid(rng).to_string());
            let mut call = signed_in(f, tenant, &client, instance, request);
            call.op = Some(op);
            call.args = Args {
                id: Some(id.to_owned()),
                imitates: Some(imitates),
                twin: (f == F::Foreign).then_some(absent_op),
                owner: (f == F::Foreign).then(|| owner_label.clone()),
                owner_op: (f == F::Foreign).then_some(owner_op),
                ..Args::default()
            };
            let done = driver.call(call).await;
            forget_refused_session(&mut client, &done);
        }
        self.attempts.fetch_add(1, Ordering::Relaxed);
        1
    }
}

fn imitation(way: Way, id: &str, content: &serde_json::Value) -> (F, Request) {
    match way {
        Way::Read(f, route) => (f, Request::new("GET", route).with_id(id)),
        Way::EditScenario => {
            let mut request = Request::new("PUT", "/v1/scenarios/{id}").with_id(id).with_body(content.clone());
            request.if_match = Some("\"1\"".to_owned());
            (F::ScenarioEdit, request)
        }
        Way::ForecastOnScenario => {
            (F::ForecastRequest, Request::new("POST", "/v1/forecasts").with_body(json!({"scenario_id": id})))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_request_differs_from_the_foreign_one_by_its_id_only() {
        let content = json!({"name": "n"});
        for way in [Way::EditScenario, Way::Read(F::ScenarioRead, "/v1/scenarios/{id}")] {
            let (foreign_f, foreign) = imitation(way, "one", &content);
            let (absent_f, absent) = imitation(way, "two", &content);
            assert_eq!(foreign_f, absent_f);
            assert_eq!(foreign.path.replace("one", "two"), absent.path);
            assert_eq!((foreign.body, foreign.if_match), (absent.body, absent.if_match));
        }
    }
}
