//! What the harness reads of the API's answers. Written from the contract, not from the system's code.

use serde::Deserialize;
use serde_json::Value;

/// Answer of sign-up, login and refresh.
#[derive(Debug, Clone, Deserialize)]
pub struct SessionAnswer {
    /// The tenant's id.
    pub tenant_id: String,
    /// The user's id.
    pub user_id: String,
    /// The session's id.
    pub session_id: String,
    /// JWT.
    pub access_token: String,
    /// Opaque.
    pub refresh_token: String,
    /// Life of the access token in seconds.
    pub expires_in: u64,
}

/// One scenario. `input` travels as it is.
#[derive(Debug, Clone, Deserialize)]
pub struct ScenarioView {
    /// The scenario's id.
    pub id: String,
    /// Counts edits from 1.
    pub version: i64,
    /// The model's input.
    #[serde(default)]
    pub input: Value,
}

/// One forecast, as far as a client must look into it.
#[derive(Debug, Clone, Deserialize)]
pub struct ForecastView {
    /// The forecast's id.
    pub id: String,
    /// The scenario it was made from.
    pub scenario_id: String,
    /// queued, running, succeeded, failed or cancelled.
    pub state: String,
}

impl ForecastView {
    /// No later read will differ.
    pub fn is_terminal(&self) -> bool {
        matches!(self.state.as_str(), "succeeded" | "failed" | "cancelled")
    }
}
