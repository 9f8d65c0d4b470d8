//! Generators, client stories and probes: what is asked of the system, by whom, when.

mod answers;
mod auth_probes;
mod bait;
mod calculations;
mod crowds;
mod driver;
mod foreign_attempts;
mod forged_tokens;
mod inputs;
mod load;
mod openapi;
mod plan;
mod seeding;
mod sessions;
mod spec;
mod stories;
mod tenants;
mod world;

pub use crowds::{CrowdKind, LoadCrowd};
pub use driver::{Call, Done, Driver};
pub use forged_tokens::{Forger, Forgery};
pub use inputs::{InputShape, draw_input};
pub use load::{Load, LoadSummary, RunningLoad};
pub use openapi::{ProtectedOperation, protected_operations};
pub use plan::{OperationKind, Plan, PlannedOperation};
pub use spec::LoadSpec;
pub use tenants::{CURRENCIES, TenantProfile, client_address, draw_tenants};
pub use world::{KnownScenario, LogicalClient, PendingForecast, RevokedToken, Tenant, TokenShelf};
