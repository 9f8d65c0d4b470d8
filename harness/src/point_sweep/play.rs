//! The stories themselves: what their client and their operator do, step by step, each until it is through or its limit
//! is over. Whether the end is the right one is for the laws to say.

use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use nogo_invariants::history::{Args, F};
use nogo_invariants::story::{UPGRADE_PLAN, UPGRADE_ROUTE, WEBHOOK_ROUTE};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::actor::Actor;
use super::plan::Story;
use super::scene::{LOOK_EVERY, Scene};
use crate::client::Request;
use crate::provider::{Charge, charge_succeeded};
use crate::randomness::uuid;
use crate::workload::Done;

/// Longest time for one request to be through, however often it is repeated.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Longest time for an acknowledged forecast to end: more than three leases.
const FORECAST_LIMIT: Duration = Duration::from_secs(10);
/// Longest time until everything is settled, the biller run as often as that takes.
const BOOKS_LIMIT: Duration = Duration::from_secs(15);
/// Between two runs of the biller, where one has left something.
const PASS_PAUSE: Duration = Duration::from_millis(300);

/// What the template left for the stories.
#[derive(Debug, Clone)]
pub(super) struct Props {
    /// The story's user.
    pub hero: Actor,
    /// A scenario of theirs.
    pub scenario_id: String,
    /// What the provider had charged.
    pub charges: Vec<Charge>,
}

/// A story under way; steps that are through are counted.
pub(super) struct Play<'a> {
    scene: &'a Scene,
    props: Props,
    steps: watch::Sender<u64>,
}

impl<'a> Play<'a> {
    pub(super) fn new(scene: &'a Scene, props: Props) -> Self {
        Self { scene, props, steps: watch::Sender::new(0) }
    }

    /// Steps that are through.
    pub(super) fn steps(&self) -> watch::Receiver<u64> {
        self.steps.subscribe()
    }

    /// Plays it to its end, or as far as it gets.
    ///
    /// # Errors
    /// If a process cannot be run or the database not be read.
    pub(super) async fn perform(mut self, story: Story) -> Result<()> {
        match story {
            Story::Forecast => self.forecast().await,
            Story::BillingRun => self.settle().await,
            Story::Refresh => self.refresh().await,
            Story::Upgrade => self.upgrade().await,
            Story::Webhook => self.webhook().await,
        }
    }

    async fn forecast(&mut self) -> Result<()> {
        let body = json!({"scenario_id": self.props.scenario_id});
        let done = self.post(F::ForecastRequest, "/v1/forecasts", body, Some(&self.props.scenario_id), 202).await;
        let Some(id) = done.success().and_then(|answer| answer.json()["id"].as_str().map(str::to_owned)) else {
            return Ok(());
        };
        if !wait_for_forecast(self.scene, &id, FORECAST_LIMIT).await? {
            self.scene.recorder.note(&format!("forecast {id} has not ended within {} s", FORECAST_LIMIT.as_secs()));
            return Ok(());
        }
        self.step();
        let args = Args { id: Some(id.clone()), ..Args::default() };
        let request = Request::new("GET", "/v1/forecasts/{id}").with_id(&id);
        self.ask(F::ForecastRead, request, args, 200).await;
        self.settle().await
    }

    async fn refresh(&mut self) -> Result<()> {
        if let Some(call) = self.props.hero.refresh() {
            let done = self.scene.ask_until(&call, ANSWER_LIMIT, |done| done.success().is_some()).await;
            let label = call.opens_session.clone();
            self.props.hero.signed_in(&done, label);
            if done.success().is_none() {
                let call = self.props.hero.login();
                let done = self.scene.ask_until(&call, ANSWER_LIMIT, |done| done.success().is_some()).await;
                self.props.hero.logged_in(&done);
            }
            self.step();
        }
        self.ask(F::Me, Request::new("GET", "/v1/me"), Args::default(), 200).await;
        Ok(())
    }

    async fn upgrade(&mut self) -> Result<()> {
        let route = UPGRADE_ROUTE.trim_start_matches("POST ");
        let done = self.post(F::Other, route, json!({"plan": UPGRADE_PLAN}), None, 201).await;
        if done.status() == Some(201) {
            self.ask(F::Plan, Request::new("GET", "/v1/plan"), Args::default(), 200).await;
        }
        Ok(())
    }

    /// The provider delivers its event until it is acknowledged; then the biller finds nothing left to collect.
    async fn webhook(&mut self) -> Result<()> {
        let charge = self.props.charges.last().cloned().context("find the charge that the event is about")?;
        let event_id = "evt_sweep_1";
        let body = charge_succeeded(&charge);
        let sent_s = Timestamp::now().as_second();
        let signature = self.scene.stage.webhook_secret.sign(event_id, sent_s, &serde_json::to_vec(&body)?)?;
        let mut request = Request::new("POST", WEBHOOK_ROUTE.trim_start_matches("POST ")).with_body(body);
        request.headers = vec![
            ("webhook-id", event_id.to_owned()),
            ("webhook-timestamp", sent_s.to_string()),
            ("webhook-signature", signature),
        ];
        let args = Args { key: Some(event_id.to_owned()), id: Some(charge.reference), ..Args::default() };
        let mut call = self.props.hero.call(F::Other, request, args);
        (call.session, call.token_op, call.request.bearer) = (None, None, None);
        self.scene.ask_until(&call, ANSWER_LIMIT, |done| done.success().is_some()).await;
        self.step();
        self.settle().await
    }

    /// Runs the biller until it says that everything is settled.
    async fn settle(&self) -> Result<()> {
        let deadline = Instant::now() + BOOKS_LIMIT;
        loop {
            let run = self.scene.bill("biller-1", self.scene.as_of).await?;
            self.step();
            if run.exit_code == Some(0) || Instant::now() >= deadline {
                return Ok(());
            }
            tokio::time::sleep(PASS_PAUSE).await;
        }
    }

    /// A POST under one key, until it is answered with `status`.
    async fn post(&self, f: F, route: &str, body: Value, scenario_id: Option<&str>, status: u16) -> Done {
        let key = uuid(&mut self.scene.stage.randomness.stream("sweep/key")).to_string();
        let mut request = Request::new("POST", route).with_body(body);
        request.idempotency_key = Some(key.clone());
        let args = Args { key: Some(key), scenario_id: scenario_id.map(str::to_owned), ..Args::default() };
        self.ask(f, request, args, status).await
    }

    async fn ask(&self, f: F, request: Request, args: Args, status: u16) -> Done {
        let call = self.props.hero.call(f, request, args);
        let done = self.scene.ask_until(&call, ANSWER_LIMIT, |done| done.status() == Some(status)).await;
        self.step();
        done
    }

    fn step(&self) {
        self.steps.send_modify(|steps| *steps += 1);
    }
}

/// Whether the forecast has ended within the limit, as its row says.
///
/// # Errors
/// When the row cannot be read.
pub(super) async fn wait_for_forecast(scene: &Scene, id: &str, limit: Duration) -> Result<bool> {
    let deadline = Instant::now() + limit;
    loop {
        let statement =
            "SELECT state IN ('succeeded', 'failed', 'cancelled') FROM app.forecasts WHERE forecast_id = $1::uuid";
        let ended: Option<bool> =
            sqlx::query_scalar(statement).bind(id).fetch_optional(&scene.reader).await.context("read the forecast")?;
        if ended == Some(true) || Instant::now() >= deadline {
            return Ok(ended == Some(true));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
