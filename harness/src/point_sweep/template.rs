//! What every case begins with: two customers, a scenario each, and whatever has happened before the story.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nogo_faults::{Action, HttpPattern, Occurrence, Pattern, Place, Rule};
use nogo_invariants::final_state::BillingRun;
use nogo_invariants::history::{Args, Event, F, FORMAT_VERSION, Header, Phase};
use serde_json::json;

use super::actor::Actor;
use super::plan::Story;
use super::play::{Props, wait_for_forecast};
use super::scene::Scene;
use super::stage::{HERO, Stage, TEMPLATE};
use crate::client::Request;
use crate::randomness::uuid;
use crate::workload::{InputShape, draw_input};

/// One request before the story.
const REQUEST_LIMIT: Duration = Duration::from_secs(15);
/// One forecast before the story.
const FORECAST_LIMIT: Duration = Duration::from_secs(30);
/// The rule that keeps the provider's answers from the biller, where a story begins with a charge nobody knows of.
const SILENCE: &str = "provider-unheard";

/// What a case starts from.
#[derive(Debug, Clone)]
pub(super) struct Template {
    /// For the story.
    pub props: Props,
    /// The record so far.
    pub before: Vec<Event>,
    /// Runs of the biller so far.
    pub billing_runs: Vec<BillingRun>,
}

/// Fills the template's database through the system itself, and leaves nobody connected to it.
///
/// # Errors
/// If the system refuses something or does not end in order.
pub(super) async fn prepare(stage: &Arc<Stage>, header: Header, folder: &Path) -> Result<Template> {
    let first = Event::Header(Header { i: 0, t_ns: 0, format: FORMAT_VERSION, ..header });
    let scene = Scene::open(stage, TEMPLATE, folder, vec![first], Vec::new()).await?;
    scene.recorder.enter_phase(Phase::Seed, 0);
    let planted = plant(&scene).await;
    let billing_runs = scene.billing_runs();
    let (recorder, book) = scene.close(true).await?;
    let recording = tokio::task::spawn_blocking(move || recorder.finish()).await??;
    let (hero, scenario_id) = planted.context("prepare the template")?;
    let props = Props { hero, scenario_id, charges: book.charges };
    Ok(Template { props, before: recording.events, billing_runs })
}

async fn plant(scene: &Scene) -> Result<(Actor, String)> {
    scene.start("api-1").await?;
    let mut planted = None;
    for (index, profile) in scene.stage.profiles.iter().enumerate() {
        let mut actor = Actor::new(profile.clone());
        let done = scene.ask_until(&actor.signup(), REQUEST_LIMIT, |done| done.success().is_some()).await;
        actor.signed_in(&done, None);
        if actor.session.is_none() {
            bail!("sign-up ended with status {:?}", done.status());
        }
        scene.driver.tenant_has_data();
        let scenario_id = create_scenario(scene, &actor).await?;
        if scene.stage.story == Story::BillingRun {
            forecast(scene, &actor, &scenario_id).await?;
        }
        if index == HERO {
            planted = Some((actor, scenario_id));
        }
    }
    match scene.stage.story {
        Story::Forecast | Story::Upgrade => first_bill(scene, 0).await?,
        Story::Webhook => {
            silence_the_provider(scene)?;
            // The charge is made and not heard of, and that is what the story begins with.
            first_bill(scene, LEFT_UNKNOWN).await?;
        }
        Story::BillingRun | Story::Refresh => {}
    }
    planted.context("find the story's user among the tenants")
}

/// Exit code of a biller that does not know of a payment.
const LEFT_UNKNOWN: i32 = 5;

async fn first_bill(scene: &Scene, exit_code: i32) -> Result<()> {
    let run = scene.bill("biller-1", jiff::Timestamp::now()).await?;
    if run.exit_code != Some(exit_code) {
        bail!("the first bills ended with {:?}, not {exit_code}", run.exit_code);
    }
    Ok(())
}

fn silence_the_provider(scene: &Scene) -> Result<()> {
    let rule = Rule {
        name: SILENCE.to_owned(),
        role: Some("biller".to_owned()),
        pattern: Pattern::Http(HttpPattern::default()),
        k: Occurrence::EVERY,
        place: Place::BeforeClient,
        action: Action::Cut,
    };
    scene.book.plan(&rule)?;
    Ok(scene.book.install(SILENCE)?)
}

async fn create_scenario(scene: &Scene, actor: &Actor) -> Result<String> {
    let profile = &actor.profile;
    let mut rng = scene.stage.randomness.stream(&format!("sweep/scenario-{}", profile.index));
    let shape = InputShape { currency: &profile.currency, mark: &profile.line_mark, paths: None, out_of_range: false };
    let content = json!({
        "name": format!("Plan {}", profile.scenario_mark),
        "notes": format!("Assumptions: {}", profile.notes_mark),
        "input": draw_input(&mut rng, shape),
    });
    let key = uuid(&mut rng).to_string();
    let mut request = Request::new("POST", "/v1/scenarios").with_body(content);
    request.idempotency_key = Some(key.clone());
    let call = actor.call(F::ScenarioCreate, request, Args { key: Some(key), ..Args::default() });
    let done = scene.ask_until(&call, REQUEST_LIMIT, |done| done.success().is_some()).await;
    let id = done.success().and_then(|answer| answer.json()["id"].as_str().map(str::to_owned));
    id.with_context(|| format!("a scenario was refused with {:?}", done.status()))
}

async fn forecast(scene: &Scene, actor: &Actor, scenario_id: &str) -> Result<()> {
    if !scene.runs("worker-1") {
        scene.start("worker-1").await?;
    }
    let mut rng = scene.stage.randomness.stream(&format!("sweep/forecast-{}", actor.profile.index));
    let key = uuid(&mut rng).to_string();
    let mut request = Request::new("POST", "/v1/forecasts").with_body(json!({"scenario_id": scenario_id}));
    request.idempotency_key = Some(key.clone());
    let args = Args { key: Some(key), scenario_id: Some(scenario_id.to_owned()), ..Args::default() };
    let call = actor.call(F::ForecastRequest, request, args);
    let done = scene.ask_until(&call, REQUEST_LIMIT, |done| done.success().is_some()).await;
    let id = done.success().and_then(|answer| answer.json()["id"].as_str().map(str::to_owned));
    let id = id.with_context(|| format!("a forecast was refused with {:?}", done.status()))?;
    if !wait_for_forecast(scene, &id, FORECAST_LIMIT).await? {
        bail!("forecast {id} has not ended within {} s", FORECAST_LIMIT.as_secs());
    }
    Ok(())
}
