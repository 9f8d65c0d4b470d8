//! There was load, and about as much of it as was offered. A run without load says nothing.

use crate::checker::{Case, Checker, Finding};
use crate::history::Phase;

/// Least share of the offered operations that must have been sent, per cent.
const SENT_PERCENT_MIN: u64 = 50;

/// The law.
pub struct Offered;

impl Checker for Offered {
    fn law(&self) -> &'static str {
        "load.offered"
    }

    fn what(&self) -> &'static str {
        "load was really sent, at no less than half the offered rate"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let mut found = Finding::new();
        let timeline = &case.timeline;
        if case.evidence.manifest.partial {
            found.unknown("the run was cut short");
        }
        for op in timeline.ops.values().filter(|op| matches!(op.invoke.phase, Phase::Baseline | Phase::Load)) {
            found.saw("operations", timeline, op.sent_ns(), op.f().name());
        }
        for phase in [Phase::Baseline, Phase::Load] {
            let sent = timeline.ops.values().filter(|op| op.invoke.phase == phase).count() as u64;
            let Some((start, end)) = timeline.phases.get(&phase) else {
                continue;
            };
            let rate = timeline.offered.get(&phase).copied().unwrap_or(0);
            let offered = rate.saturating_mul((end - start) / 1_000_000) / 1_000;
            if sent * 100 < offered * SENT_PERCENT_MIN {
                found.unknown(format!("{}: {sent} operations were sent of {offered} offered", phase.name()));
            }
        }
        if timeline.ops.is_empty() {
            found.unknown("nothing was asked of the system");
        }
        found
    }
}
