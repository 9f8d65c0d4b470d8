//! What a client does for each kind of operation of the mix.

use std::time::Duration;

use nogo_invariants::history::{Args, F};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::calculations::draw_calculation;
use super::crowds::RETRIES;
use super::driver::{Call, Done};
use super::inputs::{InputShape, draw_input};
use super::load::Shared;
use super::plan::{OperationKind, PlannedOperation};
use super::sessions::signed_in;
use super::tenants::{CURRENCIES, TenantProfile};
use super::world::{KnownScenario, LogicalClient, Tenant};
use crate::client::{ForecastView, Outcome, Request};
use crate::randomness::{chance, pick, uuid};

/// A forecast is left alone this long after its acceptance before it is polled.
const POLL_AFTER: Duration = Duration::from_millis(150);
/// A write whose answer was lost is sent again with its key this often.
const RETRIES_MAX: usize = 2;
/// And this long after.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// What a scenario is to look like.
pub(super) struct ScenarioDraft {
    pub(super) content: Value,
    pub(super) simulated: bool,
}

/// Draws name, notes and input for `profile`. Inputs of the shared pool carry no mark, so that the same input occurs
/// under many tenants; name and notes always do.
pub(super) fn draw_scenario(
    rng: &mut ChaCha8Rng,
    shared: &Shared,
    profile: &TenantProfile,
    simulated: bool,
) -> ScenarioDraft {
    let spec = &shared.spec;
    let from_pool = chance(rng, spec.shared_input_share) && !simulated;
    let out_of_range = chance(rng, spec.out_of_range_share) && !simulated;
    let currency = if chance(rng, 0.2) { *pick(rng, &CURRENCIES) } else { profile.currency.as_str() };
    let input = if from_pool {
        pick(rng, &shared.shared_inputs).clone()
    } else {
        let paths = simulated.then_some(spec.simulated_paths);
        draw_input(rng, InputShape { currency, mark: &profile.line_mark, paths, out_of_range })
    };
    let number: u32 = rng.random_range(0..100_000);
    let content = json!({
        "name": format!("Plan {number} {}", profile.scenario_mark),
        "notes": format!("Assumptions {number}: {}", profile.notes_mark),
        "input": input,
    });
    ScenarioDraft { content, simulated }
}

/// The version inside an ETag like `"3"`.
pub(super) fn version_of(etag: &str) -> Option<u64> {
    etag.trim_start_matches("W/").trim_matches('"').parse().ok()
}

impl Shared {
    /// Does `planned` as `client`; the first request keeps the planned moment, what follows from it does not.
    pub(super) async fn perform(
        &self,
        planned: &PlannedOperation,
        intended_ns: u64,
        tenant: &Tenant,
        client: &mut LogicalClient,
    ) {
        use OperationKind as Kind;
        let mut rng = self.randomness.stream(&format!("workload/operation-{}", planned.index));
        let instance = usize::try_from(planned.index).unwrap_or_default();
        if !self.driver.ensure_session(tenant, client, &self.shelf, instance).await {
            return;
        }
        let gives_up = planned.index.is_multiple_of(2) && self.manners.shows(&self.manners.hang_up);
        let hangs_up = (planned.hangs_up || gives_up).then(|| haste(planned.index / 2));
        let story = Story { shared: self, tenant, instance, intended_ns, hangs_up };
        match planned.kind {
            Kind::ReadForecast => story.read_forecast(client, &mut rng).await,
            Kind::ListForecasts => story.read(client, F::ForecastList, "/v1/forecasts", None).await,
            Kind::ReadScenario => story.read_scenario(client, &mut rng).await,
            Kind::ListScenarios => story.read(client, F::ScenarioList, "/v1/scenarios", None).await,
            Kind::ReadDashboard => story.read(client, F::Dashboard, "/v1/dashboard", None).await,
            Kind::ReadAccount => story.read_account(client, &mut rng).await,
            Kind::CreateScenario => {
                let draft = draw_scenario(&mut rng, self, &tenant.profile, planned.simulated);
                story.create_scenario(client, draft, &mut rng).await;
                None
            }
            Kind::EditScenario => story.edit_scenario(client, &mut rng).await,
            Kind::RequestForecast => {
                story.request_forecast(client, planned.simulated, &mut rng).await;
                None
            }
            Kind::Calculate => story.calculate(client, &mut rng).await,
            Kind::Refresh => self.driver.refresh(tenant, client, &self.shelf, instance, Some(intended_ns)).await,
            Kind::Login => story.log_in_again(client).await,
        };
    }
}

/// How long a client waits that gives up, by a number that goes up: no longer than a quick machine takes to answer,
/// so that it leaves in the middle of the request, and not always at the same point of it.
fn haste(number: u64) -> Duration {
    Duration::from_millis(1 + number % 2)
}

/// One operation under way.
pub(super) struct Story<'a> {
    pub(super) shared: &'a Shared,
    pub(super) tenant: &'a Tenant,
    pub(super) instance: usize,
    pub(super) intended_ns: u64,
    /// After how long the client is gone, where it does not wait.
    pub(super) hangs_up: Option<Duration>,
}

impl Story<'_> {
    fn call(&self, client: &LogicalClient, f: F, request: Request, args: Args) -> Call {
        let mut call = signed_in(f, self.tenant, client, self.instance, request);
        call.args = args;
        call.intended_ns = Some(self.intended_ns);
        call.counts = true;
        if let Some(after) = self.hangs_up {
            call.request.hangs_up = true;
            call.request.timeout = after;
        }
        call
    }

    /// A read of `route`, with `id` filled in where there is one.
    pub(super) async fn read(&self, client: &mut LogicalClient, f: F, route: &str, id: Option<&str>) -> Option<Done> {
        let mut request = Request::new("GET", route);
        if let Some(id) = id {
            request = request.with_id(id);
        }
        let args = Args { id: id.map(str::to_owned), ..Args::default() };
        let manners = &self.shared.manners;
        for attempt in 0..RETRIES {
            if !manners.shows(&manners.retry) {
                break;
            }
            let hasty = Story { hangs_up: Some(haste(attempt)), ..*self };
            let done = self.shared.driver.call(hasty.call(client, f, request.clone(), args.clone())).await;
            if done.exchange.answer().is_some() {
                break;
            }
        }
        let done = self.shared.driver.call(self.call(client, f, request, args)).await;
        forget_refused_session(client, &done);
        Some(done)
    }

    async fn calculate(&self, client: &mut LogicalClient, rng: &mut ChaCha8Rng) -> Option<Done> {
        let (name, input) = draw_calculation(rng);
        let request = Request::new("POST", &format!("/v1/calculators/{name}")).with_body(input.clone());
        let args = Args { calculator: Some(name.to_owned()), input: Some(input), ..Args::default() };
        let done = self.shared.driver.call(self.call(client, F::Calculate, request, args)).await;
        forget_refused_session(client, &done);
        Some(done)
    }

    async fn read_scenario(&self, client: &mut LogicalClient, rng: &mut ChaCha8Rng) -> Option<Done> {
        let Some(known) = self.tenant.scenario(rng.random_range(0..1_000_000), None) else {
            return self.read(client, F::ScenarioList, "/v1/scenarios", None).await;
        };
        let done = self.read(client, F::ScenarioRead, "/v1/scenarios/{id}", Some(&known.id)).await?;
        if let Some(answer) = done.success()
            && let Some(etag) = answer.header("etag")
        {
            let input = answer.json()["input"].clone();
            self.tenant.learn_version(&known.id, etag, (!input.is_null()).then_some(input));
        }
        Some(done)
    }

    /// Reads the forecast that has waited longest, so that every accepted one is read to its end.
    pub(super) async fn read_forecast(&self, client: &mut LogicalClient, rng: &mut ChaCha8Rng) -> Option<Done> {
        let id = match self.tenant.next_pending(POLL_AFTER) {
            Some(pending) => pending.id,
            None => match self.tenant.any_forecast(rng.random_range(0..1_000_000)) {
                Some(id) => id,
                None => return self.read(client, F::ForecastList, "/v1/forecasts", None).await,
            },
        };
        self.poll_forecast(client, &id).await
    }

    /// Reads one forecast and takes note if it has ended.
    pub(super) async fn poll_forecast(&self, client: &mut LogicalClient, id: &str) -> Option<Done> {
        let done = self.read(client, F::ForecastRead, "/v1/forecasts/{id}", Some(id)).await?;
        let view = done.success().and_then(|answer| serde_json::from_slice::<ForecastView>(&answer.body).ok());
        if view.is_some_and(|view| view.is_terminal()) {
            self.tenant.finish_forecast(id);
        }
        Some(done)
    }

    async fn read_account(&self, client: &mut LogicalClient, rng: &mut ChaCha8Rng) -> Option<Done> {
        match rng.random_range(0..5) {
            0 => self.read(client, F::Me, "/v1/me", None).await,
            1 => self.read(client, F::Plan, "/v1/plan", None).await,
            2 => self.read(client, F::Usage, "/v1/usage", None).await,
            3 => match self.tenant.any_invoice(rng.random_range(0..1_000)) {
                Some(id) => self.read(client, F::InvoiceRead, "/v1/invoices/{id}", Some(&id)).await,
                None => self.list_invoices(client).await,
            },
            _ => self.list_invoices(client).await,
        }
    }

    /// Lists invoices and remembers their ids.
    pub(super) async fn list_invoices(&self, client: &mut LogicalClient) -> Option<Done> {
        let done = self.read(client, F::InvoiceList, "/v1/invoices", None).await?;
        if let Some(answer) = done.success() {
            let body = answer.json();
            let items = body["items"].as_array().map(Vec::as_slice).unwrap_or_default();
            let ids = items.iter().filter_map(|item| item["id"].as_str().map(str::to_owned)).collect();
            self.tenant.learn_invoices(ids);
        }
        Some(done)
    }

    /// Creates a scenario and remembers it; None where no attempt was acknowledged.
    pub(super) async fn create_scenario(
        &self,
        client: &mut LogicalClient,
        draft: ScenarioDraft,
        rng: &mut ChaCha8Rng,
    ) -> Option<KnownScenario> {
        let key = uuid(rng).to_string();
        let mut request = Request::new("POST", "/v1/scenarios").with_body(draft.content.clone());
        request.idempotency_key = Some(key.clone());
        let args = Args { key: Some(key), ..Args::default() };
        let done = self.post(client, F::ScenarioCreate, request, args, rng).await;
        let answer = done.success()?;
        let body = answer.json();
        let known = KnownScenario {
            id: body["id"].as_str()?.to_owned(),
            etag: answer.header("etag").unwrap_or("\"1\"").to_owned(),
            input: draft.content["input"].clone(),
            simulated: draft.simulated,
        };
        self.tenant.learn_scenario(known.clone());
        Some(known)
    }

    async fn edit_scenario(&self, client: &mut LogicalClient, rng: &mut ChaCha8Rng) -> Option<Done> {
        let Some(known) = self.tenant.scenario(rng.random_range(0..1_000_000), None) else {
            let draft = draw_scenario(rng, self.shared, &self.tenant.profile, false);
            self.create_scenario(client, draft, rng).await;
            return None;
        };
        let mut content = draw_scenario(rng, self.shared, &self.tenant.profile, false).content;
        if known.simulated || chance(rng, 0.5) {
            content["input"] = known.input.clone();
        }
        let mut request = Request::new("PUT", "/v1/scenarios/{id}").with_id(&known.id).with_body(content.clone());
        request.if_match = Some(known.etag.clone());
        let args = Args { id: Some(known.id.clone()), if_version: version_of(&known.etag), ..Args::default() };
        let done = self.shared.driver.call(self.call(client, F::ScenarioEdit, request, args)).await;
        forget_refused_session(client, &done);
        match done.success().and_then(|answer| answer.header("etag")) {
            Some(etag) => self.tenant.learn_version(&known.id, etag, Some(content["input"].clone())),
            // Another client was faster, or this one's own edit went through unseen: read what holds now.
            None if done.status() == Some(412) || done.outcome == Outcome::Info => {
                let follow_up = Story { intended_ns: self.now_ns(), hangs_up: None, ..*self };
                let read = follow_up.read(client, F::ScenarioRead, "/v1/scenarios/{id}", Some(&known.id)).await?;
                if let Some(answer) = read.success()
                    && let Some(etag) = answer.header("etag")
                {
                    self.tenant.learn_version(&known.id, etag, Some(answer.json()["input"].clone()));
                }
            }
            None => {}
        }
        Some(done)
    }

    /// Requests a forecast on one of the tenant's scenarios and queues it for reading; None where none was accepted.
    pub(super) async fn request_forecast(
        &self,
        client: &mut LogicalClient,
        simulated: bool,
        rng: &mut ChaCha8Rng,
    ) -> Option<String> {
        let draw = rng.random_range(0..1_000_000);
        let mut known = self.tenant.scenario(draw, Some(simulated));
        let fits = known.as_ref().is_some_and(|known| known.simulated == simulated);
        if !fits && (known.is_none() || self.tenant.profile.scenario_limit() != Some(3)) {
            // The first simulated forecast of a tenant brings its scenario along.
            let draft = draw_scenario(rng, self.shared, &self.tenant.profile, simulated);
            known = self.create_scenario(client, draft, rng).await.or(known);
        }
        self.request_forecast_on(client, &known?.id, rng).await
    }

    /// Requests a forecast on the scenario `scenario_id`.
    pub(super) async fn request_forecast_on(
        &self,
        client: &mut LogicalClient,
        scenario_id: &str,
        rng: &mut ChaCha8Rng,
    ) -> Option<String> {
        let key = uuid(rng).to_string();
        let mut request = Request::new("POST", "/v1/forecasts").with_body(json!({"scenario_id": scenario_id}));
        request.idempotency_key = Some(key.clone());
        let args = Args { key: Some(key), scenario_id: Some(scenario_id.to_owned()), ..Args::default() };
        let done = self.post(client, F::ForecastRequest, request, args, rng).await;
        let id = done.success()?.json()["id"].as_str()?.to_owned();
        self.tenant.await_forecast(&id);
        Some(id)
    }

    /// A POST with a key: sometimes sent twice, after another or to two instances at once; sent again where its answer
    /// was lost. Gives the first success, else the last answer.
    async fn post(&self, client: &mut LogicalClient, f: F, request: Request, args: Args, rng: &mut ChaCha8Rng) -> Done {
        let spec = &self.shared.spec;
        let manners = &self.shared.manners;
        let concurrently = chance(rng, spec.concurrent_repeat_share) || manners.shows(&manners.duplicate);
        let again = chance(rng, spec.repeat_share);
        let first = self.call(client, f, request, args);
        let mut repeat = first.clone();
        repeat.instance += 1;
        repeat.counts = false;
        repeat.intended_ns = None;
        repeat.request.hangs_up = false;
        let mut done = if concurrently && self.shared.driver.instances() > 1 {
            // A process does one thing at a time, so the second sender is a process of its own.
            let mut other = repeat.clone();
            other.process = format!("{}-twin", other.process);
            let (one, two) = tokio::join!(self.shared.driver.call(first), self.shared.driver.call(other));
            if one.success().is_some() || two.success().is_none() { one } else { two }
        } else {
            self.shared.driver.call(first).await
        };
        if again && done.success().is_some() {
            self.shared.driver.call(repeat.clone()).await;
        }
        for _ in 0..RETRIES_MAX {
            // 409 says that the first sending is still under way.
            if done.outcome != Outcome::Info && done.status() != Some(409) {
                break;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
            repeat.instance += 1;
            done = self.shared.driver.call(repeat.clone()).await;
        }
        forget_refused_session(client, &done);
        done
    }

    /// A new session by password; the old one is logged out, so that its token becomes a revoked one.
    pub(super) async fn log_in_again(&self, client: &mut LogicalClient) -> Option<Done> {
        let old = client.session.clone();
        let driver = &self.shared.driver;
        let done = driver.login(self.tenant, client, self.instance, Some(self.intended_ns)).await;
        if let (Some(_), Some(old)) = (done.success(), old) {
            driver.logout(self.tenant, client, &old, &self.shared.shelf, self.instance + 1).await;
        }
        Some(done)
    }

    fn now_ns(&self) -> u64 {
        self.shared.driver.recorder().clock().now_ns()
    }
}

/// A token that an honest request was refused with is not used again.
pub(super) fn forget_refused_session(client: &mut LogicalClient, done: &Done) {
    if done.status() == Some(401) {
        client.session = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entity_tag_holds_its_version() {
        assert_eq!(version_of("\"3\""), Some(3));
        assert_eq!(version_of("W/\"12\""), Some(12));
        assert_eq!(version_of("x"), None);
    }
}
