//! Every fault that was asked for bit, was undone, and left enough of the load alive.
//!
//! A fault counts as landed with a control proof and an effect proof, both seen while it was
//! installed, and as recovered with a proof of that. Anything less makes the run inconclusive. The
//! goodput floor and the longest outage that a fault declares are laws, and so is the time to recover: refusing
//! everybody is no way to pass, and neither is staying down when what was broken is whole again.

use std::collections::BTreeSet;

use crate::checker::{Breach, Case, Checker, Finding};
use crate::history::{F, FaultEvent, FaultState, Phase, Proof, ProofKind};
use crate::timeline::{Op, Window};

/// Operations in a window below which its goodput says nothing.
const GOODPUT_SAMPLES_MIN: u64 = 20;
/// Refusals from whose waits the middle one is taken: the first, since whoever comes once all places are taken by those
/// who wait is rightly turned away at once.
const FIRST_REFUSALS: usize = 20;

/// The law.
pub struct FaultsLanded;

impl Checker for FaultsLanded {
    fn law(&self) -> &'static str {
        "faults.landed"
    }

    fn what(&self) -> &'static str {
        "every requested fault was observed by control and by effect, recovered in time, left its goodput floor, and stopped nothing for too long"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let mut found = Finding::new();
        let mut landed = BTreeSet::new();
        for (id, events) in &case.timeline.faults {
            let kind = events[0].kind.as_str();
            match landing(events) {
                Ok(at_ns) => {
                    landed.insert(kind);
                    found.saw("landed", &case.timeline, at_ns, kind);
                    judge_recovery(case, id, events, &mut found);
                }
                Err(reason) => found.unknown(format!("{id} {kind}: {reason}")),
            }
        }
        for kind in &case.evidence.manifest.faults_requested {
            found.saw_many("requested", 1);
            if !landed.contains(kind.as_str()) {
                found.unknown(format!("{kind} was requested and did not land"));
            }
        }
        for window in &case.timeline.windows {
            // What a fault tolerates, it tolerates alone: two at once suspend liveness, and never safety.
            if case.timeline.windows.iter().any(|other| window.overlaps(other)) {
                found.saw("liveness_suspended", &case.timeline, window.start_ns, window.kind);
                continue;
            }
            judge_goodput(case, window, &mut found);
            judge_reads(case, window, &mut found);
            judge_refusals(case, window, &mut found);
            judge_outage(case, window, &mut found);
        }
        found
    }
}

/// When the fault was seen to bite, or what is missing.
fn landing(events: &[&FaultEvent]) -> Result<u64, String> {
    let first = |state| events.iter().find(|event| event.state == state).copied();
    if let Some(failed) = first(FaultState::Failed) {
        return Err(format!("failed: {}", failed.detail.as_deref().unwrap_or("no reason given")));
    }
    let installed = first(FaultState::Installed).ok_or("was never installed")?;
    let removed = first(FaultState::Removed).ok_or("was never removed")?;
    let holds = |event: &FaultEvent, kind| event.proofs.iter().any(|proof| proof.kind == kind && shows(proof));
    let within = |event: &&&FaultEvent| {
        event.state == FaultState::Observed && (installed.t_ns..=removed.t_ns).contains(&event.t_ns)
    };
    let observed: Vec<&&FaultEvent> = events.iter().filter(within).collect();
    let mut bitten_ns = Vec::new();
    for (kind, name) in [(ProofKind::Control, "control"), (ProofKind::Effect, "effect")] {
        let proof = observed.iter().find(|event| holds(event, kind));
        bitten_ns.push(proof.ok_or(format!("has no {name} proof from within its window"))?.t_ns);
    }
    Ok(bitten_ns.into_iter().max().unwrap_or(installed.t_ns))
}

fn shows(proof: &Proof) -> bool {
    proof.holds && !proof.source.is_empty()
}

/// What was hurt is well again within the time that the fault declares, counted from when it was undone. A fault that
/// declares none, one that stood beside another, and a run that was cut short say nothing.
fn judge_recovery(case: &Case<'_>, id: &str, events: &[&FaultEvent], found: &mut Finding) {
    let first = events[0];
    let recovered = events.iter().find(|event| event.state == FaultState::Recovered);
    if let Some(recovered) = recovered {
        if !recovered.proofs.iter().any(|proof| proof.kind == ProofKind::Recovery && shows(proof)) {
            found.unknown(format!("{id} {}: has no proof of recovery", first.kind));
        }
        return;
    }
    let window = case.timeline.windows.iter().find(|window| window.id == id);
    let alone = window.filter(|window| !case.timeline.windows.iter().any(|other| window.overlaps(other)));
    let bound_ms = events.iter().find_map(|event| event.recover_ms_max);
    let (Some(window), Some(bound_ms), false) = (alone, bound_ms, case.evidence.manifest.partial) else {
        found.unknown(format!("{id} {}: was never seen to be over", first.kind));
        return;
    };
    let what =
        format!("{id} {} was undone at {}, and what it hurt did not become well again", first.kind, first.target);
    let breach = Breach::new("not_recovered_in_time", what, format!("well within {bound_ms} ms"), "not well");
    found.breach(breach.at(window.end_ns).line(first.i));
}

/// Operations of the load that were meant to be answered: not those that a client gave up, nor the probes.
fn load_of<'a>(case: &'a Case<'_>) -> impl Iterator<Item = &'a Op<'a>> {
    case.timeline.ops.values().filter(|op| {
        op.invoke.phase == Phase::Load
            && !matches!(op.f(), F::AuthProbe | F::Foreign | F::Absent | F::Health)
            && !op.was_given_up()
    })
}

/// Operations that were due in the window, as many as the plan of the load offers at any time, and those
/// of them that succeeded within the time that an answer may take. By when they were due, and not by when they were
/// sent: clients who wait ask for less, so that a system which lets everybody wait would seem to serve everybody.
fn due_and_good(case: &Case<'_>, window: &Window<'_>) -> (u64, u64) {
    let (mut all, mut good) = (0u64, 0u64);
    for op in load_of(case).filter(|op| window.contains(op.invoke.intended_ns)) {
        all += 1;
        good += u64::from(op.is_ok() && op.ended_ns() <= op.invoke.intended_ns + in_time_ns(case));
    }
    (all, good)
}

/// How long an answer may take.
fn in_time_ns(case: &Case<'_>) -> u64 {
    case.evidence.manifest.settings.latency_p95_ms_max * 1_000_000
}

fn judge_goodput(case: &Case<'_>, window: &Window<'_>, found: &mut Finding) {
    let events = &case.timeline.faults[window.id];
    let Some(floor) = events.iter().find_map(|event| event.goodput_floor_percent) else {
        return;
    };
    let (all, good) = due_and_good(case, window);
    if all < GOODPUT_SAMPLES_MIN {
        found.unknown(format!("{} {}: {all} operations in its window are too few", window.id, window.kind));
        return;
    }
    found.saw("goodput_judged", &case.timeline, window.start_ns, window.kind);
    if good * 100 < all * floor {
        let what = format!("under {} {} only {good} of {all} operations succeeded in time", window.id, window.kind);
        let actual = format!("{} %", good * 100 / all);
        let breach = Breach::new("goodput_below_its_floor", what, format!("at least {floor} %"), actual);
        found.breach(breach.at(window.end_ns).line(events[0].i));
    }
}

/// Reads go on where the fault promises it, by caches and by what nobody holds. By when they were sent: a client whose
/// write waits has yet to send its read, and that is the goodput's to judge.
fn judge_reads(case: &Case<'_>, window: &Window<'_>, found: &mut Finding) {
    let events = &case.timeline.faults[window.id];
    let Some(floor) = events.iter().find_map(|event| event.reads_floor_percent) else {
        return;
    };
    let (mut all, mut good) = (0u64, 0u64);
    for op in load_of(case).filter(|op| op.f().is_read() && window.contains(op.sent_ns())) {
        all += 1;
        good += u64::from(op.is_ok() && op.ended_ns() <= op.sent_ns() + in_time_ns(case));
    }
    if all < GOODPUT_SAMPLES_MIN {
        found.unknown(format!("{} {}: {all} reads in its window are too few", window.id, window.kind));
        return;
    }
    found.saw("reads_judged", &case.timeline, window.start_ns, window.kind);
    if good * 100 < all * floor {
        let what = format!("under {} {} only {good} of {all} reads succeeded in time", window.id, window.kind);
        let actual = format!("{} %", good * 100 / all);
        let breach = Breach::new("reads_below_their_floor", what, format!("at least {floor} %"), actual);
        found.breach(breach.at(window.end_ns).line(events[0].i));
    }
}

/// Who lacks room waits for it before being refused, where the fault promises it.
fn judge_refusals(case: &Case<'_>, window: &Window<'_>, found: &mut Finding) {
    let events = &case.timeline.faults[window.id];
    let Some(wait_ms_min) = events.iter().find_map(|event| event.refusal_wait_ms_min) else {
        return;
    };
    let refused = load_of(case).filter(|op| op.status() == Some(503) && window.contains(op.sent_ns()));
    let mut refused: Vec<_> = refused.collect();
    refused.sort_unstable_by_key(|op| op.ended_ns());
    refused.truncate(FIRST_REFUSALS);
    let mut waits_ms: Vec<u64> = refused.iter().map(|op| (op.ended_ns() - op.sent_ns()) / 1_000_000).collect();
    waits_ms.sort_unstable();
    let Some(&middle_ms) = waits_ms.get(waits_ms.len() / 2) else {
        return;
    };
    found.saw_many("refusals_judged", waits_ms.len() as u64);
    if middle_ms < wait_ms_min {
        let (id, kind, count) = (window.id, window.kind, waits_ms.len());
        let what = format!("under {id} {kind} the first {count} that were refused had hardly waited for room");
        let breach = Breach::new(
            "refused_without_waiting",
            what,
            format!("at least {wait_ms_min} ms, in the middle"),
            format!("{middle_ms} ms"),
        );
        found.breach(breach.at(refused[0].ended_ns()).line(events[0].i));
    }
}

/// The longest stretch, from within the window on, in which no answer came that was a success. One that lasts when the
/// window ends goes on to the first success after it: a bound beyond the window's length is there to be missed too.
fn judge_outage(case: &Case<'_>, window: &Window<'_>, found: &mut Finding) {
    let events = &case.timeline.faults[window.id];
    let Some(outage_ms_max) = events.iter().find_map(|event| event.outage_ms_max) else {
        return;
    };
    // Without load there is no outage to see; too few operations are reported with the goodput.
    let offered = load_of(case).filter(|op| window.contains(op.sent_ns())).count() as u64;
    if offered < GOODPUT_SAMPLES_MIN {
        return;
    }
    let good = load_of(case).filter(|op| op.is_ok() && op.ended_ns() >= window.start_ns);
    let mut ends: Vec<u64> = good.map(|op| op.ended_ns()).collect();
    ends.sort_unstable();
    let within = ends.partition_point(|end_ns| *end_ns <= window.end_ns);
    // Where no success came any more, it lasted at least as long as anything was asked for.
    let asked_ns = load_of(case).map(|op| op.sent_ns()).max().unwrap_or_default().max(window.end_ns);
    let over_ns = ends.get(within).copied().unwrap_or(asked_ns);
    ends.truncate(within);
    ends.push(over_ns);
    let (mut last_ns, mut longest) = (window.start_ns, (0, window.start_ns));
    for end_ns in ends {
        longest = longest.max((end_ns - last_ns, last_ns));
        last_ns = end_ns;
    }
    found.saw("outages_judged", &case.timeline, window.start_ns, window.kind);
    let (outage_ms, from_ns) = (longest.0 / 1_000_000, longest.1);
    if outage_ms > outage_ms_max {
        let what = format!("under {} {} nothing succeeded for {outage_ms} ms", window.id, window.kind);
        let breach =
            Breach::new("outage_too_long", what, format!("at most {outage_ms_max} ms"), format!("{outage_ms} ms"));
        found.breach(breach.at(from_ns).line(events[0].i));
    }
}
