//! Which targets a run may hurt, for how long and how many at once; refuses what lies outside.
//!
//! Not for doing harm. A [`Grant`] can only be made here, and every fault demands one.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{fault::Fault, process::ProcessIdentity};

/// Something a fault touches.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Target {
    /// A proxy of a Toxiproxy server.
    Proxy {
        /// Address of the server's HTTP API.
        api: SocketAddr,
        /// Name of the proxy.
        name: String,
    },
    /// A whole service that listens on an address.
    Service {
        /// Name the run gave it, such as `redis`.
        name: String,
        /// Where its clients connect.
        address: SocketAddr,
    },
    /// A PostgreSQL server, hurt through connections to it.
    Postgres {
        /// Where its clients connect.
        address: SocketAddr,
    },
    /// One process.
    Process {
        /// Name the run gave it, such as `worker-1`.
        name: String,
        /// Pid and start time.
        identity: ProcessIdentity,
    },
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proxy { api, name } => write!(f, "proxy {name} of {api}"),
            Self::Service { name, address } => write!(f, "service {name} at {address}"),
            Self::Postgres { address } => write!(f, "PostgreSQL at {address}"),
            Self::Process { name, identity } => write!(f, "process {name} ({identity})"),
        }
    }
}

/// What a run may hurt.
///
/// Addresses must be loopback ones, whatever is allowed besides. Nothing is allowed at first.
#[derive(Debug, Clone)]
pub struct BlastRadius {
    hold_max: Duration,
    targets_max: usize,
    addresses: BTreeSet<SocketAddr>,
    processes: BTreeSet<ProcessIdentity>,
}

impl BlastRadius {
    /// A radius that allows nothing yet; no fault may be held longer than `hold_max`.
    pub fn new(hold_max: Duration) -> Self {
        Self { hold_max, targets_max: 16, addresses: BTreeSet::new(), processes: BTreeSet::new() }
    }

    /// At most this many targets per fault; 16 unless set.
    #[must_use]
    pub fn targets_max(mut self, targets_max: usize) -> Self {
        self.targets_max = targets_max;
        self
    }

    /// Allows a service, a PostgreSQL server or a proxy's API at this address.
    pub fn allow_address(&mut self, address: SocketAddr) -> &mut Self {
        self.addresses.insert(address);
        self
    }

    /// Allows a process the run started; call again with each new incarnation.
    pub fn allow_process(&mut self, identity: ProcessIdentity) -> &mut Self {
        self.processes.insert(identity);
        self
    }

    /// Grants what the fault says it will touch, for `hold`.
    ///
    /// # Errors
    /// [`OutsideRadius`] names the first thing that lies outside.
    pub fn grant(&self, fault: &dyn Fault, hold: Duration) -> Result<Grant, OutsideRadius> {
        let targets = fault.targets();
        if targets.is_empty() {
            return Err(OutsideRadius::NoTarget { fault: fault.name().to_owned() });
        }
        if targets.len() > self.targets_max {
            return Err(OutsideRadius::TooManyTargets { count: targets.len(), limit: self.targets_max });
        }
        if hold > self.hold_max {
            return Err(OutsideRadius::TooLong { hold_ms: millis(hold), limit_ms: millis(self.hold_max) });
        }
        for target in &targets {
            self.check(target)?;
        }
        Ok(Grant { targets, hold })
    }

    fn check(&self, target: &Target) -> Result<(), OutsideRadius> {
        match target {
            Target::Proxy { api: address, .. } | Target::Service { address, .. } | Target::Postgres { address } => {
                if !is_loopback(address.ip()) {
                    return Err(OutsideRadius::NotLoopback(target.clone()));
                }
                if !self.addresses.contains(address) {
                    return Err(OutsideRadius::NotAllowed(target.clone()));
                }
            }
            Target::Process { identity, .. } => {
                if !self.processes.contains(identity) {
                    return Err(OutsideRadius::NotAllowed(target.clone()));
                }
            }
        }
        Ok(())
    }
}

/// Leave to hurt exactly these targets; made by [`BlastRadius::grant`] only.
#[derive(Debug, Clone)]
pub struct Grant {
    targets: Vec<Target>,
    hold: Duration,
}

impl Grant {
    /// Checks that each of `targets` was granted.
    ///
    /// # Errors
    /// [`OutsideRadius::NotGranted`] with the first that was not, for instance a process that
    /// was restarted between the grant and the blow.
    pub fn covers(&self, targets: &[Target]) -> Result<(), OutsideRadius> {
        match targets.iter().find(|target| !self.targets.contains(target)) {
            Some(target) => Err(OutsideRadius::NotGranted(target.clone())),
            None => Ok(()),
        }
    }

    /// How long the fault may be held.
    pub fn hold(&self) -> Duration {
        self.hold
    }
}

/// What lies outside the radius.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutsideRadius {
    /// An address that is not on this machine.
    #[error("{0} is not on a loopback address")]
    NotLoopback(Target),
    /// A target the run does not own.
    #[error("{0} is not owned by this run")]
    NotAllowed(Target),
    /// A target that changed after the grant.
    #[error("{0} was not granted")]
    NotGranted(Target),
    /// A fault held for too long.
    #[error("held for {hold_ms} ms, at most {limit_ms} ms are allowed")]
    TooLong {
        /// Asked for, milliseconds.
        hold_ms: u64,
        /// Allowed, milliseconds.
        limit_ms: u64,
    },
    /// More targets than one fault may touch.
    #[error("{count} targets, at most {limit} are allowed")]
    TooManyTargets {
        /// Asked for.
        count: usize,
        /// Allowed.
        limit: usize,
    },
    /// A fault with nothing to hurt, for instance a process that is not running.
    #[error("{fault} has no target")]
    NoTarget {
        /// Name of the fault.
        fault: String,
    },
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{BoxFuture, HealError, InstallError, Proof, ProofError, Tolerance};

    struct Declares(Vec<Target>);

    impl Fault for Declares {
        fn name(&self) -> &str {
            "declares"
        }
        fn targets(&self) -> Vec<Target> {
            self.0.clone()
        }
        fn tolerance(&self) -> Tolerance {
            Tolerance { goodput_ratio_min: 0.0, outage_ms_max: 0, recover_ms_max: 0 }
        }
        fn install<'a>(&'a mut self, _grant: &'a Grant) -> BoxFuture<'a, Result<Proof, InstallError>> {
            unreachable!("only its declaration is read here")
        }
        fn control_proof(&mut self) -> BoxFuture<'_, Result<Proof, ProofError>> {
            unreachable!("only its declaration is read here")
        }
        fn heal(&mut self) -> BoxFuture<'_, Result<Proof, HealError>> {
            unreachable!("only its declaration is read here")
        }
    }

    fn postgres(address: &str) -> Target {
        Target::Postgres { address: address.parse().expect("address") }
    }

    fn radius() -> BlastRadius {
        let mut radius = BlastRadius::new(Duration::from_secs(10));
        radius.allow_address("127.0.0.1:5432".parse().expect("address"));
        radius
    }

    #[test]
    fn grants_an_owned_loopback_address() {
        let fault = Declares(vec![postgres("127.0.0.1:5432")]);
        let grant = radius().grant(&fault, Duration::from_secs(5)).expect("inside");
        assert_eq!(grant.covers(&fault.targets()), Ok(()));
        assert!(grant.covers(&[postgres("127.0.0.1:5433")]).is_err());
    }

    #[test]
    fn refuses_an_address_off_this_machine_even_when_allowed() {
        let mut radius = radius();
        radius.allow_address("192.0.2.1:5432".parse().expect("address"));
        let refusal = radius.grant(&Declares(vec![postgres("192.0.2.1:5432")]), Duration::ZERO).expect_err("outside");
        assert!(matches!(refusal, OutsideRadius::NotLoopback(_)));
    }

    #[test]
    fn refuses_a_process_with_the_same_pid_and_another_start() {
        let mut radius = radius();
        let identity = ProcessIdentity { pid: 42, start_ticks: 1 };
        radius.allow_process(identity);
        let recycled =
            Target::Process { name: "worker-1".into(), identity: ProcessIdentity { start_ticks: 2, ..identity } };
        assert!(matches!(radius.grant(&Declares(vec![recycled]), Duration::ZERO), Err(OutsideRadius::NotAllowed(_))));
    }

    #[test]
    fn refuses_to_hold_longer_than_the_cap() {
        let fault = Declares(vec![postgres("127.0.0.1:5432")]);
        assert!(radius().grant(&fault, Duration::from_secs(10)).is_ok());
        assert_eq!(
            radius().grant(&fault, Duration::from_millis(10_001)).err(),
            Some(OutsideRadius::TooLong { hold_ms: 10_001, limit_ms: 10_000 })
        );
    }

    #[test]
    fn refuses_a_fault_without_a_target() {
        assert!(matches!(radius().grant(&Declares(vec![]), Duration::ZERO), Err(OutsideRadius::NoTarget { .. })));
    }
}
