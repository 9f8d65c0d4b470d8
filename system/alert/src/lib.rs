//! Watches the other processes from outside, by `/metrics` and `/readyz`, and tells people by webhook
//! when a rule holds for long enough; critical alerts that nobody acknowledges go to a second webhook.
//!
//! Law: watching never waits for telling. Each alert is told once when it fires and once when it is
//! over, however often it is evaluated; a webhook that is gone is tried until it is back, and then told how things
//! stand.

mod deliver;
mod exposition;
mod lifecycle;
mod outbox;
mod rules;
mod scrape;
mod signal;
mod watch;

pub use deliver::Webhooks;
pub use lifecycle::Alert;
pub use rules::{BUILT_IN, BadRules, Rules, Severity};
pub use scrape::{BadTarget, Target};
pub use watch::{Watch, WatchConfig, WatchError, watch};
