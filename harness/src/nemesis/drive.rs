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
use crate::run::books::Share;
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
    /// Steps with the times at which they were in place.
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
        let mut realised = Realised::default();
        let halt = stop.child_token();
        let over: Vec<CancellationToken> = schedule.steps.iter().map(|_| CancellationToken::new()).collect();
        let mut under_way: FuturesUnordered<_> = (0..schedule.steps.len())
            .map(|index| {
                let (over, halt) = (&over, &halt);
                async move {
                    let done = match self.is_due(index, schedule, load_began, over, halt).await {
                        true => self.step(index, schedule, load_began, halt).await.map(Some),
                        false => Ok(None),
                    };
                    over[index].cancel();
                    done
                }
            })
            .collect();
        while let Some(done) = under_way.next().await {
            match done {
                Ok(step) => realised.steps.extend(step),
                Err(reason) => {
                    realised.broke_off.get_or_insert(reason);
                    halt.cancel();
                }
            }
        }
        realised.steps.sort_by_key(|step| step.at_ms);
        realised
    }

    /// Waits for a step's time, for what was planned to be over by then, and for its condition. False where it is not to
    /// be done at all: the schedule was stopped, or the condition never came.
    async fn is_due(
        &self,
        index: usize,
        schedule: &Schedule,
        load_began: Instant,
        over: &[CancellationToken],
        halt: &CancellationToken,
    ) -> bool {
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
            () = halt.cancelled() => return false,
            () = due => {}
        }
        let Some(condition) = &step.when else {
            return true;
        };
        let Some(kind) = F::of_name(&condition.operation) else {
            self.failed(&named(index, step), &format!("no kind of operation is called '{}'", condition.operation));
            return false;
        };
        // Later than this its window would reach past the end of the load.
        let latest = load_began + Duration::from_millis(schedule.load_ms.saturating_sub(step.duration_ms));
        tokio::select! {
            () = halt.cancelled() => false,
            () = self.recorder.wait_until_sent(kind, condition.kth) => true,
            () = tokio::time::sleep_until(latest) => {
                let never = format!("{} number {} was not sent in time", condition.operation, condition.kth);
                self.failed(&named(index, step), &never);
                false
            }
        }
    }

    /// One step. An error means that a fault still stands.
    async fn step(
        &self,
        index: usize,
        schedule: &Schedule,
        load_began: Instant,
        stop: &CancellationToken,
    ) -> Result<Step, String> {
        let step = &schedule.steps[index];
        let named = named(index, step);
        let mut realised = Step { when: None, ..step.clone() };
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
        realised.at_ms = millis(installed_at - load_began);
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
        realised.duration_ms = millis(installed_at.elapsed());
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

/// Which of the windows that hurt the provider the step is.
fn share_of(index: usize, schedule: &Schedule) -> Share {
    let of_provider =
        |step: &&Step| catalogue::find(&step.fault).is_some_and(|row| catalogue::family_of(row) == Family::Provider);
    let count = |steps: &[Step]| steps.iter().filter(of_provider).count();
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
