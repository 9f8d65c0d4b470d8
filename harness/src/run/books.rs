//! Runs the biller: once before the load, and at the end over a closed month, twice at once and again.
//!
//! The provider withholds some answers after it charged, so that a payment may stand unknown after a pass; the biller says
//! so by its exit code, and is run again as an operator would.
//!
//! Nothing falls due while a load lasts. Where the provider takes part in it, the tenants' first charges are therefore
//! shared out: a few are made before the load, and each window in which the provider is hurt has some of its own. A share
//! is a time: a biller brings those to it who had signed up by then.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use jiff::{SignedDuration, Timestamp};
use nogo_faults::catalogue::{self, Family};
use nogo_invariants::final_state::BillingRun;
use nogo_invariants::history::{ProcessChange, ProcessEvent};
use sqlx::PgPool;

use crate::environment::supervisor::Finished;
use crate::environment::topology::{BILLERS, Topology};
use crate::recorder::Recorder;

/// One pass over all tenants of a suite.
pub const PASS_LIMIT: Duration = Duration::from_secs(60);
/// Passes until every payment is settled.
const PASSES_MAX: usize = 5;
/// Every period that holds today has ended by then, and the next one has not.
const MONTH: SignedDuration = SignedDuration::from_hours(33 * 24);
/// Exit code of a pass that left a payment unknown or failed.
const RUN_AGAIN: i32 = 5;
/// Exit code of a pass that the database did not answer.
pub(super) const NOT_READY: i32 = 6;

/// First charges made before the load: probes find paid invoices, and no window makes the very first.
const MADE_BEFORE: usize = 4;
/// When those signed up who have something to pay at once, microseconds since 1970: an invoice is issued an hour after its
/// period begins, and the first begins with the day on which its tenant signed up, there where the tenant is.
const FIRST_PAYERS: &str = "SELECT (extract(epoch FROM signed_up_at) * 1000000)::bigint FROM app.tenants
    WHERE plan <> 'FREE' AND (signed_up_at AT TIME ZONE time_zone)::time >= '01:00' ORDER BY signed_up_at";
/// Those of them who had signed up by then and were never asked for anything.
const STILL_TO_PAY: &str = "SELECT tenant_id::text FROM app.tenants t
    WHERE plan <> 'FREE' AND (signed_up_at AT TIME ZONE time_zone)::time >= '01:00'
          AND signed_up_at <= 'epoch'::timestamptz + $1 * interval '1 microsecond'
          AND NOT EXISTS (SELECT 1 FROM app.payments p WHERE p.tenant_id = t.tenant_id) ORDER BY tenant_id";

/// Whether a window with that fault on that victim has a biller at work, and so charges of its own.
#[must_use]
pub fn has_a_biller(fault: &str, target: &str) -> bool {
    let of_provider = catalogue::find(fault).is_some_and(|row| catalogue::family_of(row) == Family::Provider);
    of_provider || target.starts_with("biller")
}

/// One of the windows that the first charges are shared out among.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Which one, from 1; 0 are those made before the load.
    pub number: usize,
    /// How many windows there are.
    pub of: usize,
}

impl Share {
    /// What is made before the load.
    pub const BEFORE: Self = Self { number: 0, of: 1 };

    /// Places of its charges among `all`, `most` of them at most.
    fn places(self, all: usize, most: usize) -> Range<usize> {
        let before = MADE_BEFORE.min(all);
        if self.number == 0 {
            return 0..before;
        }
        let upto = |number: usize| before + (all - before) * number / self.of.max(1);
        let from = upto(self.number - 1);
        from..upto(self.number).min(from.saturating_add(most))
    }
}

/// To when a biller goes in order to make the first charges of a share, as many as `wanted` allows.
///
/// # Errors
/// If the tenants cannot be read, or there are too few for so many windows.
pub async fn time_of(share: Share, wanted: RangeInclusive<usize>, reader: &PgPool) -> Result<Timestamp> {
    let payers: Vec<i64> = sqlx::query_scalar(FIRST_PAYERS).fetch_all(reader).await.context("read who pays first")?;
    let places = share.places(payers.len(), *wanted.end());
    ensure!(
        wanted.contains(&places.len()),
        "{} first charges are too few for {} windows: {} are wanted beside the {MADE_BEFORE} made before",
        payers.len(),
        share.of,
        wanted.start()
    );
    Timestamp::from_microsecond(payers[places.end - 1]).context("read when a tenant signed up")
}

/// Ids of those whose first charges a biller makes on its way to `as_of`.
///
/// # Errors
/// If the tenants cannot be read.
pub async fn still_to_pay(as_of: Timestamp, reader: &PgPool) -> Result<Vec<String>> {
    let asked = sqlx::query_scalar(STILL_TO_PAY).bind(as_of.as_microsecond()).fetch_all(reader).await;
    asked.context("read who is still to pay")
}

/// One pass to `as_of`.
///
/// # Errors
/// When the biller cannot be run at all or exceeds its limit.
pub async fn bill_once(topology: &Topology, recorder: &Recorder, as_of: Timestamp) -> Result<BillingRun> {
    pass(topology, recorder, BILLERS[0], as_of, false).await
}

/// As [`bill_once`], while a fault stands that may keep the database from answering: a biller then says so and ends.
///
/// # Errors
/// When the biller cannot be run at all or exceeds its limit.
pub async fn bill_under_fault(topology: &Topology, recorder: &Recorder, as_of: Timestamp) -> Result<BillingRun> {
    pass(topology, recorder, BILLERS[0], as_of, true).await
}

/// Brings every tenant past the end of its period: two billers at once, passes until all is settled, and one more that
/// must change nothing.
///
/// # Errors
/// When a pass cannot be run. Payments that stay unsettled after the last pass are recorded, for the billing law to judge.
pub async fn close_the_month(topology: &Topology, recorder: &Recorder) -> Result<Vec<BillingRun>> {
    let as_of = Timestamp::now().checked_add(MONTH).context("compute the end of the month")?;
    let (one, two) = tokio::join!(
        pass(topology, recorder, BILLERS[0], as_of, false),
        pass(topology, recorder, BILLERS[1], as_of, false)
    );
    let mut runs = vec![one?, two?];
    for _ in 0..PASSES_MAX {
        let again = pass(topology, recorder, BILLERS[0], as_of, false).await?;
        let settled = again.exit_code == Some(0);
        runs.push(again);
        if settled {
            return Ok(runs);
        }
    }
    recorder.probe("books settled", false, &format!("payments unsettled after {} passes", runs.len()));
    Ok(runs)
}

async fn pass(
    topology: &Topology,
    recorder: &Recorder,
    biller: &str,
    as_of: Timestamp,
    is_hurt: bool,
) -> Result<BillingRun> {
    let finished = topology.begin_bill(biller, &as_of.to_string())?.finish(PASS_LIMIT).await?;
    record(recorder, biller, as_of, &finished, is_hurt && finished.code == Some(NOT_READY));
    if finished.code.is_none() && finished.elapsed >= PASS_LIMIT {
        bail!("{biller} did not end within {} s", PASS_LIMIT.as_secs());
    }
    Ok(BillingRun { as_of_us: as_of.as_microsecond(), exit_code: finished.code, killed_on_purpose: false })
}

/// Writes a pass that has ended into the history. `is_wanted`: whether the run brought its end about, or its reason.
pub(super) fn record(recorder: &Recorder, biller: &str, as_of: Timestamp, finished: &Finished, is_wanted: bool) {
    recorder.process(ProcessEvent {
        i: 0,
        t_ns: 0,
        name: biller.to_owned(),
        event: if finished.code.is_some() { ProcessChange::Exited } else { ProcessChange::Killed },
        planned: is_wanted || matches!(finished.code, Some(0 | RUN_AGAIN)),
        code: finished.code,
        signal: finished.signal,
    });
    let said = finished.stdout.lines().last().unwrap_or_default();
    recorder.note(&format!("{biller} to {as_of}: {said}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_first_charge_belongs_to_one_share_and_later_ones_to_later_tenants() {
        for (all, of) in [(24, 1), (18, 4), (23, 6), (8, 1)] {
            let mut next = 0;
            let shares = (0..=of).map(|number| Share { number, of });
            for share in shares {
                let places = share.places(all, usize::MAX);
                assert_eq!(places.start, next, "{share:?} of {all}");
                next = places.end;
            }
            assert_eq!(next, all);
        }
        assert_eq!(Share { number: 1, of: 1 }.places(24, 5), 4..9);
        assert_eq!(Share { number: 2, of: 2 }.places(4, 5), 4..4, "nothing is left");
        assert_eq!(Share::BEFORE.places(24, usize::MAX), 0..4);
    }
}
