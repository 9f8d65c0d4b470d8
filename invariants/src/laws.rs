//! The laws there are, in the order in which they are reported.

use crate::checker::Checker;
use crate::{auth, billing, forecast, load, privacy, process, queue, slo, store, story, tenancy};

/// Every law. The first five are the no-go laws of the smoke suite; the others stand under them.
pub fn all() -> Vec<Box<dyn Checker>> {
    vec![
        Box::new(forecast::Correctness),
        Box::new(forecast::Determinism),
        Box::new(tenancy::Isolation),
        Box::new(billing::ExactlyOnce),
        Box::new(auth::FailsClosed),
        Box::new(queue::NoLostJobs),
        Box::new(queue::CompletedOnce),
        Box::new(process::NoUnplannedExit),
        Box::new(store::ReadYourWrites),
        Box::new(store::ConnectionsClean),
        Box::new(privacy::NoPii),
        Box::new(slo::Errors),
        Box::new(slo::Latency),
        Box::new(load::FaultsLanded),
        Box::new(load::Offered),
    ]
}

/// The laws of one case of a sweep: what holds in every run and needs no load to show, and the story's own end. None for
/// a name that is no story's.
pub fn of_story(name: &str) -> Option<Vec<Box<dyn Checker>>> {
    // The oracle bills a tenant by one plan; a story that changes it has the books judged by its own law.
    let billing: Option<Box<dyn Checker>> = match name {
        "upgrade" | "refresh" => None,
        _ => Some(Box::new(billing::ExactlyOnce)),
    };
    let own: Box<dyn Checker> = match name {
        "forecast" => Box::new(story::ForecastBilled),
        "billing-run" => Box::new(story::BillingRunSettled),
        "refresh" => Box::new(story::RefreshKeepsOneFamily),
        "upgrade" => Box::new(story::UpgradeAppliedOnce),
        "webhook" => Box::new(story::WebhookTakenInOnce),
        _ => return None,
    };
    let mut laws: Vec<Box<dyn Checker>> = vec![
        own,
        Box::new(forecast::Correctness),
        Box::new(forecast::Determinism),
        Box::new(tenancy::Isolation),
        Box::new(queue::NoLostJobs),
        Box::new(queue::CompletedOnce),
        Box::new(process::NoUnplannedExit),
        Box::new(store::ReadYourWrites),
        Box::new(privacy::NoPii),
        Box::new(load::FaultsLanded),
    ];
    laws.extend(billing);
    Some(laws)
}

/// What the smoke suite's verdict requires: all of them.
pub const SMOKE: &[&str] = &[
    "forecast.correctness",
    "forecast.determinism",
    "tenancy.isolation",
    "billing.exactly_once",
    "auth.fails_closed",
    "queue.no_lost_jobs",
    "queue.completed_once",
    "process.no_unplanned_exit",
    "store.read_your_writes",
    "store.connection_hygiene",
    "privacy.no_pii",
    "slo.errors",
    "slo.latency",
    "faults.landed",
    "load.offered",
];
