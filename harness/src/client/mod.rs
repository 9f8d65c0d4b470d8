//! The black-box HTTP client: own wire types, no edge to the system's crates.

mod outcome;
mod session;
mod transport;
mod wire;

pub use outcome::{Outcome, Refusal, classify};
pub use session::{Session, Tokens};
pub use transport::{Answer, Api, Exchange, LostReason, Request};
pub use wire::{ForecastView, ScenarioView, SessionAnswer};
