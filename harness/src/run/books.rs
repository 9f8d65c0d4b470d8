//! Runs the biller: once before the load, and at the end over a closed month, twice at once and again.
//!
//! The provider withholds some answers after it charged, so that a payment may stand unknown after a pass; the biller says
//! so by its exit code, and is run again as an operator would.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use jiff::{SignedDuration, Timestamp};
use nogo_invariants::final_state::BillingRun;
use nogo_invariants::history::{ProcessChange, ProcessEvent};

use crate::environment::topology::{BILLERS, Topology};
use crate::recorder::Recorder;

/// One pass over all tenants of a suite.
const PASS_LIMIT: Duration = Duration::from_secs(60);
/// Passes until every payment is settled.
const PASSES_MAX: usize = 5;
/// Every period that holds today has ended by then, and the next one has not.
const MONTH: SignedDuration = SignedDuration::from_hours(33 * 24);
/// Exit code of a pass that left a payment unknown or failed.
const RUN_AGAIN: i32 = 5;

/// One pass to `as_of`.
///
/// # Errors
/// When the biller cannot be run at all or exceeds its limit.
pub async fn bill_once(topology: &Topology, recorder: &Recorder, as_of: Timestamp) -> Result<BillingRun> {
    pass(topology, recorder, BILLERS[0], as_of).await
}

/// Brings every tenant past the end of its period: two billers at once, passes until all is settled, and one more that
/// must change nothing.
///
/// # Errors
/// When a pass cannot be run. Payments that stay unsettled after the last pass are recorded, for the billing law to judge.
pub async fn close_the_month(topology: &Topology, recorder: &Recorder) -> Result<Vec<BillingRun>> {
    let as_of = Timestamp::now().checked_add(MONTH).context("compute the end of the month")?;
    let (one, two) =
        tokio::join!(pass(topology, recorder, BILLERS[0], as_of), pass(topology, recorder, BILLERS[1], as_of));
    let mut runs = vec![one?, two?];
    for _ in 0..PASSES_MAX {
        let again = pass(topology, recorder, BILLERS[0], as_of).await?;
        let settled = again.exit_code == Some(0);
        runs.push(again);
        if settled {
            return Ok(runs);
        }
    }
    recorder.probe("books settled", false, &format!("payments unsettled after {} passes", runs.len()));
    Ok(runs)
}

async fn pass(topology: &Topology, recorder: &Recorder, biller: &str, as_of: Timestamp) -> Result<BillingRun> {
    let finished = topology.bill(biller, &as_of.to_string(), PASS_LIMIT).await?;
    let settled = matches!(finished.code, Some(0 | RUN_AGAIN));
    recorder.process(ProcessEvent {
        i: 0,
        t_ns: 0,
        name: biller.to_owned(),
        event: if finished.code.is_some() { ProcessChange::Exited } else { ProcessChange::Killed },
        planned: settled,
        code: finished.code,
        signal: None,
    });
    let said = finished.stdout.lines().last().unwrap_or_default();
    recorder.note(&format!("{biller} to {as_of}: {said}"));
    if finished.code.is_none() && finished.elapsed >= PASS_LIMIT {
        bail!("{biller} did not end within {} s", PASS_LIMIT.as_secs());
    }
    Ok(BillingRun { as_of_us: as_of.as_microsecond(), exit_code: finished.code, killed_on_purpose: false })
}
