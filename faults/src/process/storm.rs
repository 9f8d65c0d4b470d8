//! A process that is killed, started, and killed again as soon as it works.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    ProcessIdentity,
    control::ProcessControl,
    revival::{ends_within, runs},
    victim::{ProcessLimits, Victim},
};
use crate::{
    blast_radius::Target,
    fault::{HealError, InstallError, Proof, ProofError},
    harm::{Harm, refused},
};

/// Pause between two looks at whether it works.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Kills a process again and again; healing leaves it running.
///
/// After the first blow it hurts only incarnations that it started itself.
pub struct RestartStorm {
    victim: Victim,
    /// How long each incarnation works before it is killed.
    life: Duration,
    kills: Arc<AtomicU32>,
    under_way: Option<(CancellationToken, JoinHandle<Result<ProcessIdentity, String>>)>,
}

impl RestartStorm {
    /// The storm, under `name`, over the process behind `control`; each life lasts `life` from when it works.
    pub fn new(name: &'static str, control: Arc<dyn ProcessControl>, life: Duration, limits: ProcessLimits) -> Self {
        Self { victim: Victim::new(name, control, limits), life, kills: Arc::default(), under_way: None }
    }

    fn kills(&self) -> u32 {
        self.kills.load(Ordering::Relaxed)
    }
}

impl Harm for RestartStorm {
    fn name(&self) -> &str {
        self.victim.fault
    }

    fn targets(&self) -> Vec<Target> {
        self.victim.targets()
    }

    async fn strike(&mut self) -> Result<Proof, InstallError> {
        let identity = self.victim.strike()?;
        let control = Arc::clone(&self.victim.control);
        kill(control.as_ref(), identity, self.victim.limits).await.map_err(refused("kill the process"))?;
        self.kills.fetch_add(1, Ordering::Relaxed);
        let proof = self.victim.proof("process_gone", identity, json!({ "in_proc": identity.alive() }));
        let stop = CancellationToken::new();
        let storm = rage(control, self.life, self.victim.limits, Arc::clone(&self.kills), stop.clone());
        self.under_way = Some((stop, tokio::spawn(storm)));
        Ok(proof)
    }

    async fn look(&mut self) -> Result<Proof, ProofError> {
        let Some(struck) = self.victim.struck.filter(|_| self.under_way.is_some()) else {
            return Err(ProofError::NoHarm("no storm is under way".to_owned()));
        };
        if struck.alive() {
            return Err(ProofError::NoHarm(format!("{struck} runs")));
        }
        let now = self.victim.control.identity();
        let now_runs = now.is_some_and(|now| now.alive());
        Ok(self.victim.proof(
            "process_killed_again",
            struck,
            json!({ "kills": self.kills(), "latest": now, "latest_runs": now_runs }),
        ))
    }

    async fn undo(&mut self) -> Result<Proof, HealError> {
        let Some((stop, storm)) = self.under_way.as_mut() else {
            return self.victim.revival().run().await;
        };
        stop.cancel();
        let ended = storm.await;
        self.under_way = None;
        match ended {
            Ok(Ok(identity)) if identity.alive() => {
                let mut proof = runs(self.victim.control.as_ref(), identity, true);
                proof.detail["kills"] = self.kills().into();
                Ok(proof)
            }
            // The storm lost it: the process is brought back all the same, and what went wrong is in the record.
            Ok(Ok(_)) => self.victim.revival().run().await,
            Ok(Err(reason)) => self.mended(reason).await,
            Err(panic) => self.mended(panic.to_string()).await,
        }
    }
}

impl RestartStorm {
    async fn mended(&self, reason: String) -> Result<Proof, HealError> {
        let mut proof = self.victim.revival().run().await?;
        proof.detail["storm_ended_early"] = reason.into();
        Ok(proof)
    }
}

/// Starts it, lets it work for `life`, kills it, until stopped; it runs when this returns.
async fn rage(
    control: Arc<dyn ProcessControl>,
    life: Duration,
    limits: ProcessLimits,
    kills: Arc<AtomicU32>,
    stop: CancellationToken,
) -> Result<ProcessIdentity, String> {
    loop {
        let identity = control.restart().await.map_err(|error| format!("start it again: {error}"))?;
        let lived = async {
            while control.is_ready().await.is_err() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            tokio::time::sleep(life).await;
        };
        tokio::select! {
            () = stop.cancelled() => return Ok(identity),
            () = lived => {}
        }
        kill(control.as_ref(), identity, limits).await?;
        kills.fetch_add(1, Ordering::Relaxed);
    }
}

async fn kill(control: &dyn ProcessControl, identity: ProcessIdentity, limits: ProcessLimits) -> Result<(), String> {
    control.kill(identity).await.map_err(|error| error.to_string())?;
    if ends_within(identity, limits.land_ms_max).await {
        Ok(())
    } else {
        Err(format!("{identity} runs {} ms after SIGKILL", limits.land_ms_max))
    }
}
