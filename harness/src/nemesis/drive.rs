//! Goes through a schedule: request, install, prove, hold, heal, see it recovered; each with its time in the history.
//!
//! Windows may overlap. A step that begins after another's end also waits until that one is seen to be over, so that what
//! is planned apart stays apart. A step that cannot land is recorded as failed and the run goes on to the next: the law
//! `faults.landed` then makes the run inconclusive. A fault that does not heal ends the schedule, for it would spoil what
//! follows.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use nogo_faults::catalogue::{Family, FaultRow};
use nogo_faults::{FaultId, OpenFaults, Schedule, Step, catalogue};
use nogo_invariants::history::{F, FaultEvent, FaultState, Proof, ProofKind};
use sqlx::PgPool;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::effect::EffectProbe;
use super::planting::{Planted, Site, held, plant};
use crate::environment::topology::Topology;
use crate::experiment::Limits;
use crate::provider::ProviderBook;
use crate::recorder::Recorder;
use crate::run::books::{self, Share};
use crate::workload::Load;

/// Between two looks of a probe.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Applies the faults of one run.
pub struct Nemesis {
    /// The system.
    pub topology: Arc<Topology>,
    /// The load, for baits.
    pub load: Arc<Load>,
    /// The history.
    pub recorder: Recorder,
    /// Read-only connections past every proxy.
    pub reader: PgPool,
    /// What the payment provider knows.
    pub provider: Arc<ProviderBook>,
    /// The ledger of open faults.
    pub open: OpenFaults,
    /// Waits.
    pub limits: Limits,
}

/// What was really done.
#[derive(Debug, Clone, Default)]
pub struct Realised {
    /// The steps that were begun, each as a replay runs it again, in the order of their starts.
    pub steps: Vec<Step>,
    /// Why the schedule ended early.
    pub broke_off: Option<String>,
}

struct Named<'a> {
    id: String,
    kind: &'a str,
    target: &'a str,
}

impl Nemesis {
    /// Records every step as planned; call before the load begins.
    pub fn announce(&self, schedule: &Schedule) {
        for (index, step) in schedule.steps.iter().enumerate() {
            let tolerance = catalogue::find(&step.fault).map(|row| row.tolerance_at(&step.target));
            let mut event = event(&named(index, step), FaultState::Planned, Vec::new(), None);
            event.goodput_floor_percent = tolerance.map(|bound| (bound.goodput_ratio_min * 100.0).round() as u64);
            let service = catalogue::find(&step.fault).and_then(FaultRow::service);
            event.reads_floor_percent = service.map(|promised| promised.reads_percent_min);
            event.refusal_wait_ms_min = service.map(|promised| promised.refusal_wait_ms_min);
            event.outage_ms_max = tolerance.map(|bound| bound.outage_ms_max);
            event.recover_ms_max = tolerance.map(|bound| bound.recover_ms_max);
            self.recorder.fault(event);
        }
    }

    /// Goes through `schedule`, whose times count from `load_began`, until it is done or `stop` is cancelled.
    pub async fn drive(&self, schedule: &Schedule, load_began: Instant, stop: &CancellationToken) -> Realised {
        let due = async |index: usize, over: &[CancellationToken], halt: &CancellationToken| {
            self.is_due(index, schedule, load_began, over, halt).await
        };
        let step = async |index: usize, came_ms: u64, halt: &CancellationToken| {
            self.step(index, came_ms, schedule, halt).await
        };
        go_through(schedule, stop, due, step).await
    }

    /// Waits for a step's time, for what was planned to be over by then, and for its condition; gives the time at which all
    /// that had come, milliseconds. None where it is not to be done at all: the schedule was stopped, or the condition never
    /// came.
    async fn is_due(
        &self,
        index: usize,
        schedule: &Schedule,
        load_began: Instant,
        over: &[CancellationToken],
        halt: &CancellationToken,
    ) -> Option<u64> {
        let step = &schedule.steps[index];
        let earlier = schedule.steps[..index].iter().zip(over);
        let before: Vec<_> =
            earlier.filter(|(earlier, _)| earlier.end_ms() <= step.at_ms).map(|(_, over)| over).collect();
        let due = async {
            tokio::time::sleep_until(load_began + Duration::from_millis(step.at_ms)).await;
            for over in before {
                over.cancelled().await;
            }
        };
        tokio::select! {
            () = halt.cancelled() => return None,
            () = due => {}
        }
        let Some(condition) = &step.when else {
            return Some(millis(load_began.elapsed()));
        };
        let Some(kind) = F::of_name(&condition.operation) else {
            self.failed(&named(index, step), &format!("no kind of operation is called '{}'", condition.operation));
            return None;
        };
        // Later than this its window would reach past the end of the load.
        let latest = load_began + Duration::from_millis(schedule.load_ms.saturating_sub(step.duration_ms));
        tokio::select! {
            () = halt.cancelled() => None,
            () = self.recorder.wait_until_sent(kind, condition.kth) => Some(millis(load_began.elapsed())),
            () = tokio::time::sleep_until(latest) => {
                let never = format!("{} number {} was not sent in time", condition.operation, condition.kth);
                self.failed(&named(index, step), &never);
                None
            }
        }
    }

    /// One step, whose time came `came_ms` after the start of the load. An error means that a fault still stands.
    async fn step(
        &self,
        index: usize,
        came_ms: u64,
        schedule: &Schedule,
        stop: &CancellationToken,
    ) -> Result<Step, String> {
        let step = &schedule.steps[index];
        let named = named(index, step);
        let realised = step.realised(came_ms, schedule.load_ms);
        self.recorder.fault(event(&named, FaultState::Requested, Vec::new(), None));
        let site = Site {
            step,
            number: index + 1,
            topology: &self.topology,
            load: &self.load,
            reader: &self.reader,
            recorder: &self.recorder,
            provider: &self.provider,
            share: share_of(index, schedule),
        };
        let Planted { row, fault, radius, mut probe } = match plant(&site).await {
            Ok(planted) => planted,
            Err(error) => {
                self.failed(&named, &format!("{error:#}"));
                return Ok(realised);
            }
        };
        let (id, control) = match self.open.install(&radius, held(step.duration_ms, &self.limits), fault).await {
            Ok(installed) => installed,
            Err(error) => {
                self.failed(&named, &error.to_string());
                return Ok(realised);
            }
        };
        let installed_at = Instant::now();
        let control = Proof {
            kind: ProofKind::Control,
            source: control.kind.clone(),
            what: control.detail.to_string(),
            holds: true,
        };
        self.recorder.fault(event(&named, FaultState::Installed, vec![control], None));
        let until_ms = match catalogue::family_of(row) {
            // Nobody but the probe makes these requests: its biller is waited for, however busy the machine is.
            Family::Provider => step.duration_ms + self.limits.effect_ms / 4 * 3,
            // A request that is named may come at any time of the window.
            _ if row.is_of_rules() => step.duration_ms,
            _ => self.limits.effect_ms,
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.observe(&named, id, probe.as_mut(), until_ms) => {}
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep_until(installed_at + Duration::from_millis(step.duration_ms)) => {}
        }
        let healed = self.open.heal(id, Duration::from_millis(self.limits.heal_ms)).await;
        match healed {
            Ok(proof) => {
                let detail = proof.map(|proof| format!("{}: {}", proof.kind, proof.detail));
                self.recorder.fault(event(&named, FaultState::Removed, Vec::new(), detail));
            }
            Err(error) => {
                let reason = format!("{} was not healed: {error}", named.id);
                self.failed(&named, &reason);
                return Err(reason);
            }
        }
        self.recover(&named, probe.as_mut(), Duration::from_millis(row.tolerance_at(named.target).recover_ms_max))
            .await;
        Ok(realised)
    }

    /// Looks until the effect shows and the target itself still shows the harm.
    async fn observe(&self, named: &Named<'_>, id: FaultId, probe: &mut dyn EffectProbe, limit_ms: u64) {
        let deadline = Instant::now() + Duration::from_millis(limit_ms);
        loop {
            let effect = probe.effect().await;
            if effect.holds {
                let control = match self.open.control_proof(id).await {
                    Ok(proof) => Proof {
                        kind: ProofKind::Control,
                        source: proof.kind,
                        what: proof.detail.to_string(),
                        holds: true,
                    },
                    Err(error) => Proof {
                        kind: ProofKind::Control,
                        source: "control proof".to_owned(),
                        what: error.to_string(),
                        holds: false,
                    },
                };
                self.recorder.fault(event(named, FaultState::Observed, vec![control, effect], None));
                return;
            }
            if Instant::now() >= deadline {
                self.recorder.note(&format!("{}: no effect within {limit_ms} ms: {}", named.id, effect.what));
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Looks until the path is well. Its time counts from when nothing else stands, for the path may suffer from that.
    async fn recover(&self, named: &Named<'_>, probe: &mut dyn EffectProbe, limit: Duration) {
        let mut deadline = Instant::now() + limit;
        loop {
            let recovery = probe.recovery().await;
            if !self.open.open().is_empty() {
                deadline = Instant::now() + limit;
            }
            if recovery.holds {
                self.recorder.fault(event(named, FaultState::Recovered, vec![recovery], None));
                return;
            }
            if Instant::now() >= deadline {
                self.recorder.note(&format!(
                    "{}: not recovered within {} ms: {}",
                    named.id,
                    limit.as_millis(),
                    recovery.what
                ));
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn failed(&self, named: &Named<'_>, reason: &str) {
        self.recorder.fault(event(named, FaultState::Failed, Vec::new(), Some(reason.to_owned())));
    }
}

/// Does each step once it is due, all of them side by side, until all are done or `stop` is cancelled. One that ends with an
/// error leaves a fault standing: then none is begun any more, and those under way end early.
async fn go_through(
    schedule: &Schedule,
    stop: &CancellationToken,
    due: impl AsyncFn(usize, &[CancellationToken], &CancellationToken) -> Option<u64>,
    step: impl AsyncFn(usize, u64, &CancellationToken) -> Result<Step, String>,
) -> Realised {
    let halt = stop.child_token();
    let over: Vec<CancellationToken> = schedule.steps.iter().map(|_| CancellationToken::new()).collect();
    let mut under_way: FuturesUnordered<_> = (0..schedule.steps.len())
        .map(|index| {
            let (over, halt, due, step) = (&over, &halt, &due, &step);
            async move {
                let done = match due(index, over, halt).await {
                    Some(came_ms) => step(index, came_ms, halt).await.map(Some),
                    None => Ok(None),
                };
                over[index].cancel();
                (index, done)
            }
        })
        .collect();
    let (mut steps, mut broke_off) = (Vec::new(), None);
    while let Some((index, done)) = under_way.next().await {
        match done {
            Ok(step) => steps.extend(step.map(|step| (step.at_ms, index, step))),
            Err(reason) => {
                broke_off.get_or_insert(reason);
                halt.cancel();
            }
        }
    }
    // Those that begin together stay in their order, whichever was done first.
    steps.sort_by_key(|(at_ms, index, _)| (*at_ms, *index));
    Realised { steps: steps.into_iter().map(|(.., step)| step).collect(), broke_off }
}

/// Which of the windows with a biller at work the step is.
fn share_of(index: usize, schedule: &Schedule) -> Share {
    let count = |steps: &[Step]| steps.iter().filter(|step| books::has_a_biller(&step.fault, &step.target)).count();
    Share { number: count(&schedule.steps[..=index]), of: count(&schedule.steps) }
}

fn named(index: usize, step: &Step) -> Named<'_> {
    let kind = catalogue::find(&step.fault).map_or(step.fault.as_str(), |row| row.kind);
    Named { id: format!("F{}", index + 1), kind, target: &step.target }
}

fn event(named: &Named<'_>, state: FaultState, proofs: Vec<Proof>, detail: Option<String>) -> FaultEvent {
    FaultEvent {
        i: 0,
        t_ns: 0,
        id: named.id.clone(),
        kind: named.kind.to_owned(),
        target: named.target.to_owned(),
        state,
        proofs,
        goodput_floor_percent: None,
        reads_floor_percent: None,
        refusal_wait_ms_min: None,
        outage_ms_max: None,
        recover_ms_max: None,
        detail,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn schedule(starts_ms: &[u64]) -> Schedule {
        let step = |at_ms: &u64| Step {
            fault: "placebo".to_owned(),
            target: "redis".to_owned(),
            at_ms: *at_ms,
            when: None,
            duration_ms: 10,
            params: Default::default(),
        };
        Schedule { load_ms: 1_000, steps: starts_ms.iter().map(step).collect() }
    }

    /// Due at once, but for those that nothing but the halt ends.
    async fn due(index: usize, waits_from: usize, halt: &CancellationToken) -> Option<u64> {
        if index < waits_from {
            return Some(0);
        }
        halt.cancelled().await;
        None
    }

    #[tokio::test]
    async fn a_fault_that_is_not_healed_ends_the_schedule() {
        let schedule = schedule(&[10, 20, 30]);
        let begun = Mutex::new(Vec::new());
        let realised = go_through(
            &schedule,
            &CancellationToken::new(),
            async |index: usize, _: &[CancellationToken], halt: &CancellationToken| due(index, 2, halt).await,
            async |index: usize, _: u64, halt: &CancellationToken| {
                begun.lock().unwrap().push(index);
                match index {
                    0 => {
                        halt.cancelled().await;
                        Ok(schedule.steps[0].clone())
                    }
                    _ => Err("F2 was not healed".to_owned()),
                }
            },
        )
        .await;
        assert_eq!(realised.broke_off.as_deref(), Some("F2 was not healed"));
        assert_eq!(*begun.lock().unwrap(), [0, 1], "the third is never begun");
        assert_eq!(realised.steps, schedule.steps[..1], "the first, under way beside it, came to its end");
    }

    #[tokio::test]
    async fn a_schedule_that_is_stopped_lets_what_stands_come_to_its_end_and_begins_nothing_more() {
        let schedule = schedule(&[10, 20]);
        let stop = CancellationToken::new();
        let stopping = stop.clone();
        let realised = go_through(
            &schedule,
            &stop,
            async |index: usize, _: &[CancellationToken], halt: &CancellationToken| due(index, 1, halt).await,
            async |index: usize, _: u64, halt: &CancellationToken| {
                stopping.cancel();
                halt.cancelled().await;
                Ok(schedule.steps[index].clone())
            },
        )
        .await;
        assert_eq!((realised.steps, realised.broke_off), (schedule.steps[..1].to_vec(), None));
    }

    #[tokio::test]
    async fn steps_that_begin_together_stay_in_their_order() {
        let schedule = schedule(&[10, 10, 10]);
        let realised = go_through(
            &schedule,
            &CancellationToken::new(),
            async |_: usize, _: &[CancellationToken], _: &CancellationToken| Some(0),
            async |index: usize, _: u64, _: &CancellationToken| {
                tokio::time::sleep(Duration::from_millis(30 - 10 * index as u64)).await;
                Ok(Step { duration_ms: 10 + index as u64, ..schedule.steps[index].clone() })
            },
        )
        .await;
        let lengths: Vec<u64> = realised.steps.iter().map(|step| step.duration_ms).collect();
        assert_eq!(lengths, [10, 11, 12]);
    }
}
