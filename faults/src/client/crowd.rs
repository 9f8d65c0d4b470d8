//! Clients that misbehave for a while. Whoever owns the load does it; what was done is counted by the clients themselves.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use serde_json::{Value, json};

use crate::{
    blast_radius::Target,
    fault::{BoxFuture, ControlError, HealError, InstallError, Proof, ProofError},
    harm::{Harm, Wait, refused, unhealed},
    process::{AllRestarted, ProcessControl, ProcessLimits},
};

/// In which a crowd that has ended does nothing more.
const STILL: Duration = Duration::from_millis(100);

/// Clients that can be made to misbehave.
pub trait Crowd: Send + Sync {
    /// Begins; returns at once.
    fn begin(&self) -> BoxFuture<'_, Result<(), ControlError>>;

    /// What was done so far, counted as it was done: requests given up, sent twice, connections held, …
    fn done(&self) -> u64;

    /// What was due and was not done, since its clients had no place left for it.
    fn dropped(&self) -> u64 {
        0
    }

    /// Ends; returns when nothing more of it will be sent. Once more changes nothing.
    fn end(&self) -> BoxFuture<'_, Result<(), ControlError>>;
}

/// Lets a crowd loose on servers; healing ends it.
pub struct Crowding {
    name: &'static str,
    crowd: Arc<dyn Crowd>,
    servers: Vec<(String, SocketAddr)>,
    /// So much must have been done before it counts.
    least: u64,
    limit_ms: u64,
    /// What is restarted before the crowd comes.
    restarts: Option<AllRestarted>,
    restarted: Value,
    standing: bool,
}

impl Crowding {
    /// The crowd, under `name`, before the servers called so at these addresses; `limit_ms` bounds each wait.
    pub fn new(
        name: &'static str,
        crowd: Arc<dyn Crowd>,
        servers: Vec<(String, SocketAddr)>,
        least: u64,
        limit_ms: u64,
    ) -> Self {
        Self { name, crowd, servers, least, limit_ms, restarts: None, restarted: Value::Null, standing: false }
    }

    /// Kills the processes behind `controls` first, and lets the crowd loose once all of them are ready again.
    #[must_use]
    pub fn after_a_restart(mut self, controls: Vec<Arc<dyn ProcessControl>>, limits: ProcessLimits) -> Self {
        self.restarts = Some(AllRestarted::new(self.name, controls, limits));
        self
    }

    fn proof(&self, kind: &str) -> Proof {
        let (done, dropped) = (self.crowd.done(), self.crowd.dropped());
        let mut detail = json!({
            "offered_by_clients": done + dropped,
            "done_by_clients": done,
            "dropped_by_clients": dropped,
            "servers": self.servers,
        });
        if !self.restarted.is_null() {
            detail["restarted"] = self.restarted.clone();
        }
        Proof::new(kind, detail)
    }
}

impl Harm for Crowding {
    fn name(&self) -> &str {
        self.name
    }

    fn targets(&self) -> Vec<Target> {
        let target = |(name, address): &(String, SocketAddr)| Target::Service { name: name.clone(), address: *address };
        let restarted = self.restarts.iter().flat_map(AllRestarted::targets);
        self.servers.iter().map(target).chain(restarted).collect()
    }

    async fn strike(&mut self) -> Result<Proof, InstallError> {
        if let Some(restarts) = &mut self.restarts {
            self.restarted = restarts.strike().await?;
        }
        self.standing = true;
        self.crowd.begin().await.map_err(refused("let the clients loose"))?;
        let wait = Wait::of_ms(self.limit_ms);
        while self.crowd.done() < self.least {
            wait.for_landing(self.name, format!("{} of {} done", self.crowd.done(), self.least)).await?;
        }
        Ok(self.proof("clients_misbehave"))
    }

    async fn look(&mut self) -> Result<Proof, ProofError> {
        if self.standing && self.crowd.done() >= self.least {
            Ok(self.proof("clients_misbehave"))
        } else {
            Err(ProofError::NoHarm("the clients behave".to_owned()))
        }
    }

    async fn undo(&mut self) -> Result<Proof, HealError> {
        self.crowd.end().await.map_err(unhealed("call the clients off"))?;
        if let Some(restarts) = &self.restarts {
            restarts.undo().await?;
        }
        let wait = Wait::of_ms(self.limit_ms);
        loop {
            let before = self.crowd.done();
            tokio::time::sleep(STILL).await;
            if self.crowd.done() == before {
                self.standing = false;
                return Ok(self.proof("clients_behave"));
            }
            wait.for_healing(self.name, format!("{before} done, and more to come")).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use super::*;
    use crate::{BlastRadius, Fault as _, OutsideRadius, Struck, Tolerance};

    /// Counts as long as it is loose.
    #[derive(Default)]
    struct Counts {
        loose: AtomicBool,
        count: AtomicU64,
    }

    impl Crowd for Counts {
        fn begin(&self) -> BoxFuture<'_, Result<(), ControlError>> {
            self.loose.store(true, Ordering::Relaxed);
            Box::pin(async { Ok(()) })
        }
        fn done(&self) -> u64 {
            let step = u64::from(self.loose.load(Ordering::Relaxed));
            self.count.fetch_add(step, Ordering::Relaxed) + step
        }
        fn dropped(&self) -> u64 {
            7
        }
        fn end(&self) -> BoxFuture<'_, Result<(), ControlError>> {
            self.loose.store(false, Ordering::Relaxed);
            Box::pin(async { Ok(()) })
        }
    }

    #[tokio::test]
    async fn a_crowd_counts_only_once_it_did_enough_and_heals_to_a_stand_still() {
        let address: SocketAddr = "127.0.0.1:9".parse().expect("address");
        let crowd = Arc::new(Counts::default());
        let servers = vec![("api-1".to_owned(), address)];
        let tolerance = Tolerance { goodput_ratio_min: 0.0, outage_ms_max: 0, recover_ms_max: 0 };
        let crowding = Crowding::new("crowd", Arc::clone(&crowd) as Arc<dyn Crowd>, servers, 5, 2_000);
        let mut fault = Struck::new(crowding, tolerance);
        let mut radius = BlastRadius::new(Duration::from_secs(5));
        let refusal = radius.grant(&fault, Duration::ZERO).expect_err("outside");
        assert!(matches!(refusal, OutsideRadius::NotAllowed(_)));
        radius.allow_address(address);
        let grant = radius.grant(&fault, Duration::ZERO).expect("inside");
        fault.install(&grant).await.expect("install");
        assert!(crowd.count.load(Ordering::Relaxed) >= 5);
        fault.control_proof().await.expect("while it stands");
        let proof = fault.heal().await.expect("heal");
        let counted = |name: &str| proof.detail[name].as_u64().expect(name);
        assert_eq!(counted("dropped_by_clients"), 7);
        assert_eq!(counted("offered_by_clients"), counted("done_by_clients") + 7);
        let healed = crowd.count.load(Ordering::Relaxed);
        fault.heal().await.expect("heal once more");
        assert_eq!(crowd.count.load(Ordering::Relaxed), healed, "more was done after the healing");
        fault.control_proof().await.expect_err("healed");
    }
}
