//! No canary of a person or tenant turns up in logs, metrics, what sinks were told or on open routes.
//!
//! Evidence: searches of all outputs, each with the bytes that were searched, and scans of answers
//! of open routes. Unknown where nothing was searched. Values are never shown, only kinds.

use crate::checker::{Breach, Case, Checker, Finding};
use crate::history::F;

/// The law.
pub struct NoPii;

impl Checker for NoPii {
    fn law(&self) -> &'static str {
        "privacy.no_pii"
    }

    fn what(&self) -> &'static str {
        "logs, metrics, sinks and open routes hold nothing that a person or tenant wrote"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let mut found = Finding::new();
        for scan in &case.evidence.final_state.leaks {
            found.saw_many("bytes", scan.bytes);
            found.saw_many("places", 1);
            for (kind, times) in &scan.found {
                let what = format!("{} holds canaries of kind {kind}", scan.place);
                let breach = Breach::new("canary_in_output", what, "0", times.to_string());
                found.breach(scan.owners_found.iter().fold(breach, |breach, owner| breach.of(owner)));
            }
        }
        for op in case.timeline.ops.values().filter(|op| op.f() == F::Health) {
            let Some(scan) = op.end.and_then(|end| end.scan.as_ref()) else {
                continue;
            };
            found.saw_many("bytes", scan.bytes);
            if !scan.owners_found.is_empty() {
                let what = format!("{} answers anybody with canaries", op.invoke.route);
                let breach = Breach::new("canary_on_open_route", what, "none", scan.fields.join(", ")).shown_by(op);
                found.breach(scan.owners_found.iter().fold(breach, |breach, owner| breach.of(owner)));
            }
        }
        found
    }
}
