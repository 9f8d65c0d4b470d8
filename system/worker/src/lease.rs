//! Why a running computation should stop and how far it is, as seen by the computation and its heartbeat.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use tokio::sync::Mutex;

const GO_ON: u8 = 0;
const LOST: u8 = 1;
const DRAINED: u8 = 2;

/// Why a computation was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopReason {
    /// The lease is somebody else's, or may be by now; or the job was cancelled.
    LeaseLost,
    /// The job's deadline passed.
    DeadlineExceeded,
    /// The process is going away.
    Drained,
}

/// Shared by the computation, its heartbeat and the drain.
#[derive(Debug)]
pub(crate) struct LeaseState {
    stopped: AtomicU8,
    deadline: Instant,
    percent: AtomicU8,
    /// `false` once the computation has ended; held by whoever writes a percentage meanwhile.
    telling: Mutex<bool>,
}

impl LeaseState {
    pub(crate) fn until(deadline: Instant) -> Self {
        Self { stopped: AtomicU8::new(GO_ON), deadline, percent: AtomicU8::new(0), telling: Mutex::new(true) }
    }

    /// Losing the lease outweighs a drain.
    pub(crate) fn lose(&self) {
        self.stopped.store(LOST, Ordering::Release);
    }

    pub(crate) fn drain(&self) {
        let _ = self.stopped.compare_exchange(GO_ON, DRAINED, Ordering::AcqRel, Ordering::Acquire);
    }

    /// When the job may only fail.
    pub(crate) const fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.stopped.load(Ordering::Acquire) == LOST
    }

    /// Asked often from inside the computation.
    pub(crate) fn should_stop(&self) -> Option<StopReason> {
        match self.stopped.load(Ordering::Acquire) {
            LOST => Some(StopReason::LeaseLost),
            _ if Instant::now() >= self.deadline => Some(StopReason::DeadlineExceeded),
            DRAINED => Some(StopReason::Drained),
            _ => None,
        }
    }

    /// Told often from inside the computation.
    pub(crate) fn set_percent(&self, percent: u8) {
        self.percent.store(percent, Ordering::Relaxed);
    }

    pub(crate) fn percent(&self) -> u8 {
        self.percent.load(Ordering::Relaxed)
    }

    /// Whoever writes a percentage holds this, and writes only if it says `true`.
    pub(crate) const fn telling(&self) -> &Mutex<bool> {
        &self.telling
    }

    /// No percentage is written after this returns: the job's end comes after every sign of progress.
    pub(crate) async fn stop_telling(&self) {
        *self.telling.lock().await = false;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_lost_lease_is_never_mistaken_for_a_drain() {
        let lease = LeaseState::until(Instant::now() + Duration::from_secs(60));
        assert_eq!(lease.should_stop(), None);
        lease.drain();
        assert_eq!(lease.should_stop(), Some(StopReason::Drained));
        lease.lose();
        lease.drain();
        assert_eq!(lease.should_stop(), Some(StopReason::LeaseLost));
    }

    #[test]
    fn a_deadline_that_passed_stops() {
        let lease = LeaseState::until(Instant::now());
        assert_eq!(lease.should_stop(), Some(StopReason::DeadlineExceeded));
    }
}
