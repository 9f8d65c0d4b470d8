//! No process of the system ends unless the run wanted it, and one that is asked to, ends cleanly.

use std::collections::BTreeSet;

use crate::checker::{Breach, Case, Checker, Finding};
use crate::history::ProcessChange;

/// Signal that asks a process to end.
const SIGTERM: i32 = 15;

/// The law.
pub struct NoUnplannedExit;

impl Checker for NoUnplannedExit {
    fn law(&self) -> &'static str {
        "process.no_unplanned_exit"
    }

    fn what(&self) -> &'static str {
        "no process ends unless the run ended it, and one that is asked to end drains and exits 0"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let mut found = Finding::new();
        let mut ready = BTreeSet::new();
        for event in &case.timeline.processes {
            match event.event {
                ProcessChange::Started => {}
                ProcessChange::Ready => {
                    if ready.insert(event.name.as_str()) {
                        found.saw("processes", &case.timeline, event.t_ns, &event.name);
                    }
                }
                ProcessChange::Exited | ProcessChange::Killed => {
                    // A one-shot command says by its exit code how it went; a service drains to 0.
                    let is_service = ready.contains(event.name.as_str());
                    let unclean =
                        is_service && (event.code.is_some_and(|code| code != 0) || event.signal == Some(SIGTERM));
                    if event.planned && !unclean {
                        continue;
                    }
                    let shape = if event.planned { "drain_was_not_clean" } else { "ended_unplanned" };
                    let how = match (event.code, event.signal) {
                        (Some(code), _) => format!("exit code {code}"),
                        (None, Some(signal)) => format!("signal {signal}"),
                        (None, None) => "no exit code".to_owned(),
                    };
                    let expected = if event.planned { "exit code 0" } else { "running" };
                    let what = format!("{} ended with {how}", event.name);
                    found.breach(Breach::new(shape, what, expected, how).at(event.t_ns).line(event.i));
                }
            }
        }
        found
    }
}
