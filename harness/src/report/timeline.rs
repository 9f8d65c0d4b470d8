//! The history, second by second: what was offered, what came back, how slow, and which windows lie over it.
//!
//! Only numbers are made here; [`super::chart`] draws them.

use nogo_invariants::history::Edge;
use nogo_invariants::history::{Event, FaultState, Phase};

const NS_PER_S: u64 = 1_000_000_000;

/// One second of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Second {
    /// Requests meant to be sent in it.
    pub offered: u64,
    /// Completions with a 2xx.
    pub ok: u64,
    /// 429 and 503 that say when to come back.
    pub refused: u64,
    /// 4xx that the request earned.
    pub client_errors: u64,
    /// Everything else: 5xx, time-outs, resets.
    pub errors: u64,
    latencies_us: Vec<u64>,
}

impl Second {
    /// A percentile (0 to 100) of the latencies of answers that came in this second, milliseconds.
    pub fn latency_ms(&self, percent: usize) -> Option<f64> {
        if self.latencies_us.is_empty() {
            return None;
        }
        let rank = (self.latencies_us.len() * percent).div_ceil(100).max(1) - 1;
        Some(self.latencies_us[rank.min(self.latencies_us.len() - 1)] as f64 / 1_000.0)
    }
}

/// A named stretch of time.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// What is written on it.
    pub name: String,
    /// When it was asked for, seconds since the run's start.
    pub requested_s: f64,
    /// Begin, seconds since the run's start; for a fault the moment it was in place.
    pub from_s: Option<f64>,
    /// End, seconds since the run's start; for a fault the moment it was undone.
    pub to_s: Option<f64>,
    /// For a fault: when the system was seen to be well again.
    pub recovered_s: Option<f64>,
    /// For a fault: whether its effect was observed.
    pub observed: bool,
}

/// A run as a picture needs it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Timeline {
    /// Index 0 is the first second of the run.
    pub seconds: Vec<Second>,
    /// Phases in order.
    pub phases: Vec<Window>,
    /// Faults in order of their planning.
    pub faults: Vec<Window>,
}

impl Timeline {
    /// Sorts a history into seconds.
    pub fn of(history: &[Event]) -> Timeline {
        let mut timeline = Timeline::default();
        for event in history {
            match event {
                Event::Invoke(invoke) => timeline.second(invoke.intended_ns).offered += 1,
                Event::Ok(done) => {
                    let second = timeline.second(done.t_ns);
                    second.ok += 1;
                    second.latencies_us.push(done.latency_us);
                }
                Event::Fail(done) => {
                    let refused = matches!(done.status, Some(429 | 503)) && done.retry_after;
                    let earned = done.status.is_some_and(|status| (400..500).contains(&status));
                    let second = timeline.second(done.t_ns);
                    match (refused, earned) {
                        (true, _) => second.refused += 1,
                        (false, true) => second.client_errors += 1,
                        (false, false) => second.errors += 1,
                    }
                    if done.status.is_some() {
                        second.latencies_us.push(done.latency_us);
                    }
                }
                Event::Info(done) => {
                    let refused = matches!(done.status, Some(429 | 503)) && done.retry_after;
                    let second = timeline.second(done.t_ns);
                    if refused {
                        second.refused += 1;
                    } else {
                        second.errors += 1;
                    }
                }
                Event::Phase(phase) => timeline.phase(phase.phase, phase.edge, phase.t_ns),
                Event::Fault(fault) => timeline.fault(&fault.id, &fault.kind, &fault.target, fault.state, fault.t_ns),
                _ => {}
            }
        }
        for second in &mut timeline.seconds {
            second.latencies_us.sort_unstable();
        }
        timeline
    }

    fn second(&mut self, t_ns: u64) -> &mut Second {
        // A record that claims days would not be drawable; a day bounds it.
        let index = usize::try_from(t_ns / NS_PER_S).unwrap_or(usize::MAX).min(86_400);
        if self.seconds.len() <= index {
            self.seconds.resize_with(index + 1, Second::default);
        }
        &mut self.seconds[index]
    }

    fn phase(&mut self, phase: Phase, edge: Edge, t_ns: u64) {
        let at = seconds_of(t_ns);
        match edge {
            Edge::Start => self.phases.push(Window::new(phase.name(), at, Some(at))),
            Edge::End => {
                if let Some(window) = self.phases.iter_mut().rev().find(|window| window.name == phase.name()) {
                    window.to_s = Some(at);
                }
            }
        }
    }

    fn fault(&mut self, id: &str, kind: &str, target: &str, state: FaultState, t_ns: u64) {
        let name = format!("{id} {kind} {target}");
        let at = seconds_of(t_ns);
        let known = self.faults.iter().position(|window| window.name == name);
        let index = known.unwrap_or_else(|| {
            self.faults.push(Window::new(&name, at, None));
            self.faults.len() - 1
        });
        let window = &mut self.faults[index];
        match state {
            FaultState::Planned | FaultState::Failed => {}
            FaultState::Requested => window.requested_s = at,
            FaultState::Installed => window.from_s = Some(at),
            FaultState::Observed => window.observed = true,
            FaultState::Removed => window.to_s = Some(at),
            FaultState::Recovered => window.recovered_s = Some(at),
        }
    }
}

impl Window {
    fn new(name: &str, requested_s: f64, from_s: Option<f64>) -> Window {
        Window { name: name.to_owned(), requested_s, from_s, to_s: None, recovered_s: None, observed: false }
    }
}

/// Nanoseconds of the run's clock as seconds.
pub fn seconds_of(t_ns: u64) -> f64 {
    t_ns as f64 / NS_PER_S as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use nogo_invariants::history::{Completion, FaultEvent};

    fn done(t_ns: u64, status: u16, retry_after: bool, latency_us: u64) -> Completion {
        Completion { t_ns, status: Some(status), retry_after, latency_us, ..Completion::default() }
    }

    #[test]
    fn answers_are_sorted_by_what_they_mean() {
        let history = [
            Event::Ok(done(0, 200, false, 2_000)),
            Event::Fail(done(NS_PER_S - 1, 503, true, 9_000)),
            Event::Fail(done(NS_PER_S, 404, false, 1_000)),
            Event::Info(done(NS_PER_S, 500, false, 1_000)),
        ];
        let timeline = Timeline::of(&history);
        assert_eq!((timeline.seconds[0].ok, timeline.seconds[0].refused), (1, 1));
        assert_eq!((timeline.seconds[1].client_errors, timeline.seconds[1].errors), (1, 1));
        assert_eq!(timeline.seconds[0].latency_ms(50), Some(2.0));
        assert_eq!(timeline.seconds[0].latency_ms(95), Some(9.0));
    }

    #[test]
    fn a_fault_that_was_never_in_place_has_no_window() {
        let event = |state| {
            Event::Fault(FaultEvent {
                i: 0,
                t_ns: 5 * NS_PER_S,
                id: "F1".to_owned(),
                kind: "placebo".to_owned(),
                target: "redis".to_owned(),
                state,
                proofs: Vec::new(),
                goodput_floor_percent: None,
                reads_floor_percent: None,
                refusal_wait_ms_min: None,
                outage_ms_max: None,
                recover_ms_max: None,
                detail: None,
            })
        };
        let timeline = Timeline::of(&[event(FaultState::Planned), event(FaultState::Requested)]);
        assert_eq!(timeline.faults[0].requested_s, 5.0);
        assert_eq!(timeline.faults[0].from_s, None);
        assert!(!timeline.faults[0].observed);
    }
}
