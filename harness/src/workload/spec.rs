//! What the load is made of: counts, rates and shares, each with its unit. Plain data; stored in the manifest.

use serde::{Deserialize, Serialize};

/// The whole load as data. Shares are 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadSpec {
    /// Tenants signed up, 60/30/10 FREE/STARTER/PRO.
    pub tenants: usize,
    /// Logical clients of an ordinary tenant.
    pub clients_per_tenant: usize,
    /// Logical clients of a hot tenant, which gets an outsized share of the calculations.
    pub clients_per_hot_tenant: usize,
    /// STARTER tenants that run far over their included forecasts.
    pub hot_tenants: usize,
    /// Operations started per second, whatever the answers do.
    pub operations_per_s: u32,
    /// Foreign attempts per second, beside the mix.
    pub foreign_attempts_per_s: u32,
    /// Auth probes per second, beside the mix.
    pub auth_probes_per_s: u32,
    /// Operations under way at once; what is due beyond that is dropped and recorded as skipped.
    pub in_flight_max: usize,
    /// Time-out of one request.
    pub request_timeout_ms: u64,
    /// Of the POSTs: sent again with the same key after the answer.
    pub repeat_share: f64,
    /// Of the POSTs: sent to another instance with the same key at the same time.
    pub concurrent_repeat_share: f64,
    /// Of the operations: the client hangs up before the answer.
    pub hang_up_share: f64,
    /// Of the scenarios created: the input comes from a pool shared by all tenants.
    pub shared_input_share: f64,
    /// Inputs in that pool.
    pub shared_inputs: usize,
    /// Of the forecasts: run on a scenario with `simulated_paths` paths.
    pub simulated_share: f64,
    /// Paths of a simulated scenario.
    pub simulated_paths: u32,
    /// Of the scenarios: inputs that must end amount_out_of_range.
    pub out_of_range_share: f64,
    /// How far a fault sets clocks ahead that stamp tokens, seconds: for so long an expired token is not surely one.
    #[serde(default)]
    pub clocks_apart_s: u64,
    /// After this a revoked session must be refused everywhere.
    pub revocation_bound_ms: u64,
}

impl Default for LoadSpec {
    fn default() -> Self {
        Self {
            tenants: 60,
            clients_per_tenant: 2,
            clients_per_hot_tenant: 6,
            hot_tenants: 3,
            operations_per_s: 150,
            foreign_attempts_per_s: 40,
            auth_probes_per_s: 40,
            in_flight_max: 400,
            request_timeout_ms: 10_000,
            repeat_share: 0.04,
            concurrent_repeat_share: 0.03,
            // Whoever hangs up tells nothing of the answer, so that few do.
            hang_up_share: 0.003,
            shared_input_share: 0.25,
            shared_inputs: 12,
            simulated_share: 0.02,
            simulated_paths: 1_000,
            out_of_range_share: 0.01,
            clocks_apart_s: 0,
            revocation_bound_ms: 1_000,
        }
    }
}
