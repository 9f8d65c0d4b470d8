//! Nineteen answers in twenty come within three seconds, counted from when they were meant to be
//! asked for, outside fault windows.
//!
//! A lost answer counts with the time that was waited for it. An operation is outside if no fault
//! was installed, or not yet recovered from, at any moment of it. Unknown with too few samples.

use crate::checker::{Breach, Case, Checker, Finding};
use crate::history::{F, Phase};
use crate::timeline::Op;

/// The law.
pub struct Latency;

impl Checker for Latency {
    fn law(&self) -> &'static str {
        "slo.latency"
    }

    fn what(&self) -> &'static str {
        "p95 is at most 3 s under load, outside fault windows"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let mut found = Finding::new();
        let settings = &case.evidence.manifest.settings;
        let mut samples: Vec<(u64, &Op<'_>)> = Vec::new();
        let loaded = |op: &&Op<'_>| {
            let is_load = matches!(op.invoke.phase, Phase::Baseline | Phase::Load) && op.f() != F::Health;
            is_load && !op.was_given_up()
        };
        for op in case.timeline.ops.values().filter(loaded) {
            let Some(end) = op.end else {
                continue;
            };
            let windows = &case.timeline.windows;
            if !windows.iter().any(|window| window.disturbs(op.invoke.intended_ns.min(op.sent_ns()), end.t_ns)) {
                found.saw("samples", &case.timeline, op.sent_ns(), op.f().name());
                samples.push((end.latency_us, op));
            }
        }
        if (samples.len() as u64) < settings.latency_samples_min {
            found.unknown(format!("{} answers outside fault windows are too few for a p95", samples.len()));
            return found;
        }
        samples.sort_by_key(|(latency_us, op)| (*latency_us, op.invoke.op));
        // Nearest rank: the smallest value with at least 95 % at or below it.
        let (p95_us, op) = samples[(samples.len() * 95).div_ceil(100).saturating_sub(1)];
        if p95_us > settings.latency_p95_ms_max * 1_000 {
            let what = format!("p95 over {} answers is {} ms", samples.len(), p95_us / 1_000);
            let (most, actual) =
                (format!("at most {} ms", settings.latency_p95_ms_max), format!("{} ms", p95_us / 1_000));
            found.breach(Breach::new("p95_too_high", what, most, actual).shown_by(op));
        }
        found
    }
}
