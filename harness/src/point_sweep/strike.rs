//! What is done at the point once a request has come there, each step with its time and its proofs in the record.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nogo_faults::{Release, RuleRecord, WireEventKind};
use nogo_invariants::history::{FaultEvent, FaultState, Proof, ProofKind};
use tokio::sync::watch;
use tokio::time::Instant;

use super::plan::{PointFault, RULE, SweepPoint};
use super::scene::{APIS, LOOK_EVERY, Scene};
use crate::environment::process_tree::{continue_process, stop_process};

/// The one fault of a case.
const FAULT_ID: &str = "F1";
/// How long after the story's end its last points may come: a process may write what it keeps behind its last answer.
pub(super) const TRAILING: Duration = Duration::from_secs(1);
/// Longest time after the story for a point that comes by itself.
const RECUR_LIMIT: Duration = Duration::from_secs(4);
/// Longest time that the others may take to move on while a process stands still.
const MOVE_ON_LIMIT: Duration = Duration::from_secs(5);
/// Longest time for what a woken process had asked to be answered.
const LATE_ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Longest time for a service that was started anew to be ready, and for nothing to be held any more.
const RECOVER_LIMIT: Duration = Duration::from_secs(10);

/// The fault of one case.
pub(super) struct Strike<'a> {
    scene: &'a Scene,
    point: &'a SweepPoint,
    fault: PointFault,
}

/// What stands still, and since when.
struct Stopped {
    name: String,
    since: Instant,
}

impl<'a> Strike<'a> {
    /// Writes the rule down and arms it: requests count from now on.
    ///
    /// # Errors
    /// If the book refuses the rule.
    pub(super) fn arm(scene: &'a Scene, point: &'a SweepPoint, fault: PointFault) -> Result<Self> {
        let strike = Self { scene, point, fault };
        let rule = point.rule(fault);
        scene.book.plan(&rule).context("write the rule down")?;
        strike.tell(FaultState::Planned, Vec::new(), None);
        scene.book.forget_points();
        scene.book.install(RULE).context("install the rule")?;
        strike.tell(FaultState::Installed, Vec::new(), None);
        Ok(strike)
    }

    /// Waits until the request has come, does the harm and undoes it. `steps` counts what the story has done; `is_over`
    /// turns true with its end. Whether the harm came about.
    ///
    /// # Errors
    /// If a process cannot be killed, stopped, woken or started again.
    pub(super) async fn carry_out(
        &self,
        steps: watch::Receiver<u64>,
        mut is_over: watch::Receiver<bool>,
    ) -> Result<bool> {
        let story = async {
            // An error would be an end without a word.
            let _ = is_over.wait_for(|over| *over).await;
            tokio::time::sleep(if self.point.recurs { RECUR_LIMIT } else { TRAILING }).await;
        };
        let landed = tokio::select! {
            record = self.scene.book.wait_for(RULE, Duration::MAX, |record| record.observed > 0) => record.ok(),
            () = story => None,
        };
        let Some(record) = landed else {
            self.scene.book.remove(RULE)?;
            self.tell(FaultState::Removed, Vec::new(), Some("the point was never reached".to_owned()));
            return Ok(false);
        };
        let struck = self.struck().context("find out whose request it was")?;
        match self.fault {
            PointFault::LostBefore | PointFault::LostAfter => {
                self.observed(&record, &format!("connection of {struck} closed"), true);
                self.let_go(Release::Cut).await?;
            }
            PointFault::Kill => {
                self.scene.kill(&struck).await?;
                self.observed(&record, &format!("{struck} is gone"), true);
                self.let_go(Release::Cut).await?;
                if !struck.starts_with("biller") {
                    self.scene.start(&struck).await?;
                }
            }
            PointFault::Stop => self.stop_and_wake(&struck, &record, steps, is_over).await?,
        }
        Ok(true)
    }

    /// Stops the process, lets another take over, and wakes it when its lease is over and the story has moved on.
    async fn stop_and_wake(
        &self,
        name: &str,
        record: &RuleRecord,
        mut steps: watch::Receiver<u64>,
        mut is_over: watch::Receiver<bool>,
    ) -> Result<()> {
        let identity = self.scene.identity(name).with_context(|| format!("find {name}, to stop it"))?;
        tokio::task::spawn_blocking(move || stop_process(identity)).await?.with_context(|| format!("stop {name}"))?;
        let stopped = Stopped { name: name.to_owned(), since: Instant::now() };
        self.observed(record, &format!("{name} stands still, its request is held"), true);
        let waited = self.wait_past_lease(&stopped, &mut steps, &mut is_over).await;
        // Whatever went wrong meanwhile, nothing is left standing.
        self.scene.book.release(RULE, Release::Pass)?;
        let woken = tokio::task::spawn_blocking(move || continue_process(identity)).await?;
        waited?;
        woken.with_context(|| format!("wake {name}"))?;
        let still_s = stopped.since.elapsed().as_secs_f64();
        self.scene.recorder.note(&format!("{name} wakes after {still_s:.2} s and asks what it had been about to ask"));
        self.late_answer().await;
        self.let_go(Release::Pass).await
    }

    async fn wait_past_lease(
        &self,
        stopped: &Stopped,
        steps: &mut watch::Receiver<u64>,
        is_over: &mut watch::Receiver<bool>,
    ) -> Result<()> {
        let before = *steps.borrow_and_update();
        let substitute = format!("{}2", stopped.name.trim_end_matches('1'));
        let lease = Duration::from_millis(self.scene.stage.settings.lease_ms);
        // Half a lease more: the server counts it from its own clock.
        let woken_at = stopped.since + lease + lease / 2;
        if stopped.name.starts_with("biller") {
            self.scene.bill(&substitute, self.scene.as_of).await?;
            tokio::time::sleep_until(woken_at).await;
            return Ok(());
        }
        self.scene.start(&substitute).await?;
        tokio::time::sleep_until(woken_at).await;
        tokio::select! {
            _ = steps.wait_for(|now| *now > before) => {}
            _ = is_over.wait_for(|over| *over) => {}
            // A story may need the very process that stands still; then it is woken now.
            () = tokio::time::sleep(MOVE_ON_LIMIT) => self.scene.recorder.note("nobody has moved on meanwhile"),
        }
        Ok(())
    }

    /// Waits until the server has answered what was held, so that nothing changes behind the last reads.
    async fn late_answer(&self) {
        let Some((connection, operation)) = self.acted() else { return };
        let outcome = || {
            let (points, _) = self.scene.book.points();
            let late =
                points.into_iter().rev().find(|point| point.connection == connection && point.operation == operation);
            late.and_then(|point| point.outcome)
        };
        let deadline = Instant::now() + LATE_ANSWER_LIMIT;
        while outcome().is_none() && Instant::now() < deadline {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let word = outcome().map_or("no answer".to_owned(), |outcome| outcome.to_string());
        self.scene.recorder.note(&format!("what it had been about to ask ended: {word}"));
    }

    /// Removes the rule and waits until it holds nothing.
    async fn let_go(&self, release: Release) -> Result<()> {
        self.scene.book.release(RULE, release)?;
        self.scene.book.remove(RULE)?;
        let deadline = Instant::now() + RECOVER_LIMIT;
        while self.scene.book.held(RULE) > 0 {
            if Instant::now() > deadline {
                bail!("the rule still holds {} request(s)", self.scene.book.held(RULE));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.tell(FaultState::Removed, Vec::new(), None);
        Ok(())
    }

    /// Says that the case is healed: nothing is held, and what serves answers. After the story's end.
    ///
    /// # Errors
    /// If a service does not come back.
    pub(super) async fn recovered(&self) -> Result<()> {
        let mut back = Vec::new();
        for name in self.scene.ended_services() {
            self.scene.start(&name).await.with_context(|| format!("start {name} again"))?;
            back.push(name);
        }
        let serving = APIS.iter().filter(|name| self.scene.runs(name)).count();
        let what = format!("{serving} API(s) run, {} requests held", self.scene.book.held(RULE));
        let proof = proof(ProofKind::Recovery, "processes and rule book", what, self.scene.book.held(RULE) == 0);
        self.tell(FaultState::Recovered, vec![proof], None);
        Ok(())
    }

    /// Whose request the rule chose.
    fn struck(&self) -> Option<String> {
        let (events, _) = self.scene.book.events();
        events.into_iter().find(|event| event.kind == WireEventKind::Acted)?.origin.map(|origin| origin.process)
    }

    /// Connection and label of the request that the rule chose.
    fn acted(&self) -> Option<(u64, String)> {
        let (events, _) = self.scene.book.events();
        let event = events.into_iter().find(|event| event.kind == WireEventKind::Acted)?;
        Some((event.connection?, event.operation?))
    }

    fn observed(&self, record: &RuleRecord, effect: &str, holds: bool) {
        // The request was seen on the wire, and the server's own word on it where its answer was kept back.
        let must_be_applied = matches!(self.fault, PointFault::LostAfter | PointFault::Kill);
        let control = format!(
            "match {} of {}, {} answered with success by its server",
            record.matched, self.point.operation, record.applied
        );
        let is_applied = !must_be_applied || record.applied > 0;
        let proofs = vec![
            proof(ProofKind::Control, "the server's messages on the wire", control, record.acted > 0 && is_applied),
            proof(ProofKind::Effect, "the connection and its process", effect.to_owned(), holds && record.observed > 0),
        ];
        self.tell(FaultState::Observed, proofs, None);
    }

    fn tell(&self, state: FaultState, proofs: Vec<Proof>, detail: Option<String>) {
        self.scene.recorder.fault(FaultEvent {
            i: 0,
            t_ns: 0,
            id: FAULT_ID.to_owned(),
            kind: self.fault.kind().to_owned(),
            target: self.point.name.clone(),
            state,
            proofs,
            goodput_floor_percent: None,
            reads_floor_percent: None,
            refusal_wait_ms_min: None,
            outage_ms_max: None,
            recover_ms_max: None,
            detail,
        });
    }
}

fn proof(kind: ProofKind, source: &str, what: String, holds: bool) -> Proof {
    Proof { kind, source: source.to_owned(), what, holds }
}
