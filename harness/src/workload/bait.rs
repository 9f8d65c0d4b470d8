//! Long forecasts on demand: a fault that strikes in the middle of a job needs a job with a middle.

use nogo_invariants::history::F;
use serde_json::{Value, json};

use super::inputs::{InputShape, draw_input};
use super::load::Load;
use super::stories::ScenarioDraft;

/// Spread of such a forecast's paths, for prices and additions alike.
const SIGMA: &str = "0.05";

impl Load {
    /// Requests `count` forecasts of so many simulated paths and months for one paying tenant; gives the ids of those accepted.
    ///
    /// They are ordinary forecasts: recorded, billed, and read to their end like all others.
    pub async fn submit_long_forecasts(&self, count: usize, paths: u32, months: u32) -> Vec<String> {
        let Some(tenant) = self.tenants().iter().find(|tenant| tenant.profile.plan == "PRO") else {
            return Vec::new();
        };
        let mut client = tenant.clients[0].lock().await;
        if !self.ensure_session_of(tenant, &mut client).await {
            return Vec::new();
        }
        let mut rng = self.stream_of(&format!("faults/bait-{}", tenant.accepted_forecasts()));
        let profile = &tenant.profile;
        let shape = InputShape {
            currency: &profile.currency,
            mark: &profile.line_mark,
            paths: Some(paths),
            out_of_range: false,
        };
        let mut input = draw_input(&mut rng, shape);
        input["horizon_months"] = Value::from(months);
        // Both zero would by-pass the simulation and end in milliseconds.
        input["uncertainty"]["price_sigma_monthly"] = Value::from(SIGMA);
        input["uncertainty"]["adds_sigma_monthly"] = Value::from(SIGMA);
        let content = json!({
            "name": format!("Long run {}", profile.scenario_mark),
            "notes": format!("For {} {}", F::ForecastRequest.name(), profile.notes_mark),
            "input": input,
        });
        let story = self.quiet_story(tenant, 0);
        let draft = ScenarioDraft { content, simulated: true };
        let Some(scenario) = story.create_scenario(&mut client, draft, &mut rng).await else {
            return Vec::new();
        };
        let mut accepted = Vec::new();
        for _ in 0..count {
            accepted.extend(story.request_forecast_on(&mut client, &scenario.id, &mut rng).await);
        }
        accepted
    }
}
