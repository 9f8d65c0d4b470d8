//! The timeline as one inline SVG: phases, faults, load, latency, violations, on a shared axis of seconds.
//!
//! A fault is drawn hollow from request to proof, solid while it was in place, hatched until the system was well again.

use maud::{Markup, html};

use super::timeline::{Timeline, Window};

const WIDTH: f64 = 1060.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
const LANE: f64 = 20.0;
const PLOT: f64 = 120.0;
const GAP: f64 = 30.0;

/// A violation's place on the axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Pin {
    /// Seconds since the run's start.
    pub at_s: f64,
    /// Anchor of its block in the page, with the `#`.
    pub anchor: String,
    /// What is said of it.
    pub title: String,
}

struct Axis {
    from_s: f64,
    per_s: f64,
    to_s: f64,
}

impl Axis {
    fn x(&self, at_s: f64) -> f64 {
        LEFT + (at_s.clamp(self.from_s, self.to_s) - self.from_s) * self.per_s
    }
}

/// Draws the timeline, from the steady state on; what came before is set-up.
pub fn timeline_svg(timeline: &Timeline, pins: &[Pin], budget_ms: f64) -> Markup {
    let from_s = timeline
        .phases
        .iter()
        .find(|phase| phase.name == "steady" || phase.name == "baseline")
        .and_then(|phase| phase.from_s)
        .unwrap_or(0.0)
        .floor();
    let to_s = (timeline.seconds.len() as f64).max(from_s + 1.0);
    let axis = Axis { from_s, to_s, per_s: (WIDTH - LEFT - RIGHT) / (to_s - from_s) };
    let faults_top = LANE + 8.0;
    let load_top = faults_top + LANE * timeline.faults.len().max(1) as f64 + GAP;
    let latency_top = load_top + PLOT + GAP;
    let height = latency_top + PLOT + 40.0;
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {height}")) role="img" aria-label="Timeline of the run" {
            defs {
                pattern id="hatch" width="6" height="6" patternTransform="rotate(45)" patternUnits="userSpaceOnUse" {
                    line class="hatch" x1="0" y1="0" x2="0" y2="6" {}
                }
            }
            (phase_lane(timeline, &axis))
            (fault_lanes(timeline, &axis, faults_top))
            (load_plot(timeline, &axis, load_top))
            (latency_plot(timeline, &axis, latency_top, budget_ms))
            @for pin in pins {
                a href=(pin.anchor) {
                    line class="pin" x1=(n(axis.x(pin.at_s))) x2=(n(axis.x(pin.at_s))) y1="0" y2=(n(latency_top + PLOT)) {}
                    circle class="pin" cx=(n(axis.x(pin.at_s))) cy=(n(load_top - 6.0)) r="4" { title { (pin.title) } }
                }
            }
            (second_ticks(&axis, latency_top + PLOT))
        }
    }
}

fn phase_lane(timeline: &Timeline, axis: &Axis) -> Markup {
    html! {
        @for phase in &timeline.phases {
            @if let (Some(from), to) = (phase.from_s, phase.to_s.unwrap_or(axis.to_s)) {
                @if to > axis.from_s {
                    @let width = (axis.x(to) - axis.x(from) - 1.0).max(1.0);
                    rect class="phase" x=(n(axis.x(from))) y="2" width=(n(width)) height=(n(LANE - 4.0)) {
                        title { (phase.name) ", " (format!("{:.1} s to {:.1} s", from, to)) }
                    }
                    @if width > 44.0 {
                        text class="on-phase" x=(n(axis.x(from) + 4.0)) y="14" { (phase.name) }
                    }
                }
            }
        }
        text class="label" x=(n(LEFT - 6.0)) y="14" { "phase" }
    }
}

fn fault_lanes(timeline: &Timeline, axis: &Axis, top: f64) -> Markup {
    html! {
        text class="label" x=(n(LEFT - 6.0)) y=(n(top + 13.0)) { "faults" }
        @for (lane, fault) in timeline.faults.iter().enumerate() {
            (fault_lane(fault, axis, top + lane as f64 * LANE))
        }
    }
}

fn fault_lane(fault: &Window, axis: &Axis, top: f64) -> Markup {
    let landed = fault.from_s.unwrap_or(axis.to_s);
    let removed = fault.to_s.unwrap_or(axis.to_s);
    let recovered = fault.recovered_s.unwrap_or(axis.to_s);
    let bar = |class: &str, from: f64, to: f64| {
        html! {
            rect class=(class) x=(n(axis.x(from))) y=(n(top + 2.0)) width=(n((axis.x(to) - axis.x(from)).max(1.0)))
                height=(n(LANE - 5.0)) {}
        }
    };
    html! {
        g {
            title { (fault.name) }
            (bar("asked", fault.requested_s, landed))
            @if fault.from_s.is_some() {
                (bar(if fault.observed { "landed" } else { "asked" }, landed, removed))
                @if fault.to_s.is_some() { (bar("healing", removed, recovered)) }
            }
            text class="on-fault" x=(n(axis.x(fault.requested_s) + 4.0)) y=(n(top + 13.0)) { (fault.name) }
        }
    }
}

fn load_plot(timeline: &Timeline, axis: &Axis, top: f64) -> Markup {
    let highest = timeline.seconds.iter().map(|second| second.offered.max(second.ok)).max().unwrap_or(1).max(1) as f64;
    let y = |value: u64| top + PLOT - PLOT * (value as f64 / highest).min(1.0);
    let line = |pick: &dyn Fn(&super::timeline::Second) -> u64| {
        timeline
            .seconds
            .iter()
            .enumerate()
            .filter(|(index, _)| *index as f64 >= axis.from_s)
            .map(|(index, second)| format!("{},{}", n(axis.x(index as f64 + 0.5)), n(y(pick(second)))))
            .collect::<Vec<_>>()
            .join(" ")
    };
    html! {
        (frame(top, &format!("{highest:.0} /s"), "load"))
        polyline class="offered" points=(line(&|second| second.offered)) {}
        polyline class="ok" points=(line(&|second| second.ok)) {}
        polyline class="refused" points=(line(&|second| second.refused)) {}
        polyline class="client" points=(line(&|second| second.client_errors)) {}
        polyline class="errors" points=(line(&|second| second.errors)) {}
        (legend(top, &[("offered", "offered"), ("ok", "2xx"), ("refused", "refused, with Retry-After"),
            ("client", "4xx earned"), ("errors", "errors")]))
    }
}

fn latency_plot(timeline: &Timeline, axis: &Axis, top: f64, budget_ms: f64) -> Markup {
    let highest = timeline.seconds.iter().filter_map(|second| second.latency_ms(99)).fold(budget_ms * 1.15, f64::max);
    // Logarithmic from 1 ms, so that both a cache's answer and a time-out are seen.
    let scale = highest.max(10.0).ln();
    let y = |ms: f64| top + PLOT - PLOT * (ms.max(1.0).ln() / scale).clamp(0.0, 1.0);
    let line = |percent: usize| {
        timeline
            .seconds
            .iter()
            .enumerate()
            .filter(|(index, _)| *index as f64 >= axis.from_s)
            .filter_map(|(index, second)| {
                second.latency_ms(percent).map(|ms| format!("{},{}", n(axis.x(index as f64 + 0.5)), n(y(ms))))
            })
            .collect::<Vec<_>>()
            .join(" ")
    };
    html! {
        (frame(top, &format!("{highest:.0} ms"), "latency"))
        @for decade in [10.0, 100.0, 1_000.0, 10_000.0] {
            @if decade < highest / 2.0 {
                line class="grid" x1=(n(LEFT)) x2=(n(WIDTH - RIGHT)) y1=(n(y(decade))) y2=(n(y(decade))) {}
                text class="tick" x=(n(LEFT - 6.0)) y=(n(y(decade) + 3.0)) { (format!("{decade:.0} ms")) }
            }
        }
        line class="budget" x1=(n(LEFT)) x2=(n(WIDTH - RIGHT)) y1=(n(y(budget_ms))) y2=(n(y(budget_ms))) {
            title { (format!("budget: p95 at most {budget_ms:.0} ms outside fault windows")) }
        }
        polyline class="p50" points=(line(50)) {}
        polyline class="p95" points=(line(95)) {}
        polyline class="p99" points=(line(99)) {}
        (legend(top, &[("p50", "p50"), ("p95", "p95"), ("p99", "p99"), ("budget", "budget for p95")]))
    }
}

fn frame(top: f64, highest: &str, name: &str) -> Markup {
    html! {
        line class="axis" x1=(n(LEFT)) x2=(n(LEFT)) y1=(n(top)) y2=(n(top + PLOT)) {}
        line class="axis" x1=(n(LEFT)) x2=(n(WIDTH - RIGHT)) y1=(n(top + PLOT)) y2=(n(top + PLOT)) {}
        text class="tick" x=(n(LEFT - 6.0)) y=(n(top + 8.0)) { (highest) }
        text class="label" x=(n(LEFT - 6.0)) y=(n(top + PLOT)) { (name) }
    }
}

fn legend(top: f64, entries: &[(&str, &str)]) -> Markup {
    html! {
        @for (index, (class, name)) in entries.iter().enumerate() {
            @let x = LEFT + 10.0 + index as f64 * 170.0;
            line class=(class) x1=(n(x)) x2=(n(x + 18.0)) y1=(n(top - 8.0)) y2=(n(top - 8.0)) {}
            text class="legend" x=(n(x + 24.0)) y=(n(top - 4.0)) { (name) }
        }
    }
}

fn second_ticks(axis: &Axis, bottom: f64) -> Markup {
    let every = [1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3_600.0]
        .into_iter()
        .find(|step| (axis.to_s - axis.from_s) / step <= 16.0)
        .unwrap_or(7_200.0);
    let first = (axis.from_s / every).ceil() * every;
    let count = ((axis.to_s - first) / every).floor().max(0.0) as usize;
    html! {
        @for index in 0..=count {
            @let at = first + index as f64 * every;
            line class="axis" x1=(n(axis.x(at))) x2=(n(axis.x(at))) y1=(n(bottom)) y2=(n(bottom + 4.0)) {}
            text class="tick-x" x=(n(axis.x(at))) y=(n(bottom + 18.0)) { (format!("{at:.0} s")) }
        }
    }
}

/// A coordinate with one decimal.
fn n(value: f64) -> String {
    format!("{value:.1}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_record_draws_an_empty_frame_without_numbers_that_are_none() {
        let drawn = timeline_svg(&Timeline::default(), &[], 3_000.0).into_string();
        assert!(drawn.starts_with("<svg"));
        assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
    }
}
