//! What the provider told was taken in as it was told: it tells of its own charges only, and of each as it was made.

use crate::checker::{Breach, Case, Finding};

pub(super) fn judge(case: &Case<'_>, found: &mut Finding) {
    for event in &case.evidence.final_state.webhook_events {
        found.saw_many("events", 1);
        if !matches!(event.outcome.as_str(), "applied" | "nothing_new") {
            let what = format!("event {} was taken in, and the provider never told that", event.event_id);
            let breach = Breach::new("event_nobody_sent", what, "applied or nothing_new", &event.outcome);
            found.breach(breach.of(case.rows.label(&event.tenant_id)));
        }
    }
}
