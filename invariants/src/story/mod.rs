//! Stories with one end: whatever is lost, killed or stopped on the way, each comes to it exactly once.
//!
//! For runs in which one client does one thing, and a fault hits one point of it. The story's requests are those of the
//! phase `load`, in which the client asks again where it got no answer, and the biller is run again until it has settled
//! everything. Beside the laws that hold in every run these say what the client was promised.

mod billing_run;
mod forecast;
mod money;
mod refresh;
mod told;
mod upgrade;
mod webhook;

pub use billing_run::BillingRunSettled;
pub use forecast::ForecastBilled;
pub use refresh::RefreshKeepsOneFamily;
pub use upgrade::{UPGRADE_PLAN, UPGRADE_ROUTE, UpgradeAppliedOnce};
pub use webhook::{WEBHOOK_ROUTE, WebhookTakenInOnce};
