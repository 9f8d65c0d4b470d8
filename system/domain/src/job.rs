//! The life of a forecast job, and how long to wait before trying one again.
//!
//! Not for leases or fencing: those need the clock and the database's own order.

use crate::text_enum::text_enum;

/// Attempts a job gets, counted when it is claimed, so that a crash counts too.
pub const JOB_ATTEMPTS_MAX: u32 = 3;

text_enum! {
    /// Where a job stands. The last three are terminal and absorb.
    JobState {
        /// Accepted, and waiting for a worker or for its next attempt.
        Queued = "queued",
        /// Claimed under a lease.
        Running = "running",
        /// Result stored, usage counted.
        Succeeded = "succeeded",
        /// Ended for good without a result.
        Failed = "failed",
        /// Withdrawn by its tenant before it ended.
        Cancelled = "cancelled",
    }
}

impl JobState {
    /// No transition leaves this state.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// Whether a job may move from `self` to `next`.
    ///
    /// Running → queued is a retry or a lost lease; queued → failed is a deadline that passed
    /// between attempts. Only a running job can succeed.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        match (self, next) {
            (Self::Queued, Self::Running | Self::Failed | Self::Cancelled)
            | (Self::Running, Self::Queued | Self::Succeeded | Self::Failed | Self::Cancelled) => true,
            (Self::Queued | Self::Running | Self::Succeeded | Self::Failed | Self::Cancelled, _) => false,
        }
    }
}

/// Wait before the attempt that follows attempt number `attempt` (1 is the first), milliseconds.
///
/// `base_ms` doubles with each attempt, up to `cap_ms`; of that, half is fixed and the other half
/// is scaled by `jitter_unit`, a draw from [0, 1] (clamped; not a number counts as 1). So the wait
/// lies in [`backoff_floor_ms`, twice that], and never exceeds `cap_ms`.
#[must_use]
pub fn backoff_ms(attempt: u32, base_ms: u64, cap_ms: u64, jitter_unit: f64) -> u64 {
    let full = full_wait_ms(attempt, base_ms, cap_ms);
    let floor = backoff_floor_ms(attempt, base_ms, cap_ms);
    let jitter_unit = if jitter_unit.is_nan() { 1.0 } else { jitter_unit.clamp(0.0, 1.0) };
    // Waits are far below 2^53 ms; a float that rounds up is cut back to the full wait.
    let spread = ((full - floor) as f64 * jitter_unit) as u64;
    (floor + spread).min(full)
}

/// The shortest wait that [`backoff_ms`] gives for these arguments, milliseconds.
#[must_use]
pub fn backoff_floor_ms(attempt: u32, base_ms: u64, cap_ms: u64) -> u64 {
    full_wait_ms(attempt, base_ms, cap_ms) / 2
}

fn full_wait_ms(attempt: u32, base_ms: u64, cap_ms: u64) -> u64 {
    let doublings = attempt.saturating_sub(1).min(63);
    base_ms.saturating_mul(1 << doublings).min(cap_ms)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn terminal_states_absorb() {
        for from in JobState::ALL {
            let leaves = JobState::ALL.iter().any(|to| from.may_become(*to));
            assert_eq!(leaves, !from.is_terminal(), "{from}");
        }
    }

    #[test]
    fn only_a_running_job_succeeds_and_none_becomes_itself() {
        for from in JobState::ALL {
            assert_eq!(from.may_become(JobState::Succeeded), *from == JobState::Running);
            assert!(!from.may_become(*from));
        }
        assert!(JobState::Running.may_become(JobState::Queued));
        assert!(JobState::Queued.may_become(JobState::Cancelled));
    }

    #[test]
    fn waits_double_up_to_the_cap() {
        let longest = |attempt| backoff_ms(attempt, 1_000, 5_000, 1.0);
        assert_eq!([1, 2, 3, 4, 99].map(longest), [1_000, 2_000, 4_000, 5_000, 5_000]);
        assert_eq!(backoff_ms(2, 1_000, 5_000, 0.0), 1_000);
        assert_eq!(backoff_ms(0, 1_000, 5_000, f64::NAN), 1_000);
    }

    proptest! {
        #[test]
        fn every_wait_lies_between_floor_and_cap(
            attempt in 0_u32..200, base in 0_u64..100_000, cap in 0_u64..3_600_000, jitter in -1.0_f64..2.0,
        ) {
            let wait = backoff_ms(attempt, base, cap, jitter);
            prop_assert!(wait <= cap);
            prop_assert!(wait >= backoff_floor_ms(attempt, base, cap));
        }
    }
}
