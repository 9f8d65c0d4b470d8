//! The durations of billing: the same flags for whoever writes an invoice's dates down, biller and API.

use chrono::TimeDelta;
use clap::Args;
use forecastle_billing::BillingTerms;

/// Longest duration, s: a year.
const SECONDS_MAX: i64 = 31_536_000;

/// To be given the same values wherever they are given: an event of the provider, a payment that a customer asks
/// for and the run each date what follows a decline.
#[derive(Args)]
pub(crate) struct BillingTermsArgs {
    /// From a period's start to the issue of its invoice, s; at most a day. Usage that commits meanwhile joins it.
    #[arg(long, env = "FORECASTLE_ISSUE_AFTER_S", default_value_t = 3_600,
          value_parser = clap::value_parser!(i64).range(0..=86_400))]
    issue_after_s: i64,
    /// From the issue to the three further charges of one that was declined, s, ascending.
    #[arg(long, env = "FORECASTLE_RETRY_AFTER_S", value_parser = ascending_seconds, default_value = "86400,259200,604800")]
    retry_after_s: RetrySeconds,
    /// From the last of them, which makes the tenant past due, to giving the invoice up, s.
    #[arg(long, env = "FORECASTLE_GIVE_UP_AFTER_S", default_value_t = 604_800,
          value_parser = clap::value_parser!(i64).range(1..=SECONDS_MAX))]
    give_up_after_s: i64,
}

impl BillingTermsArgs {
    pub(crate) fn terms(&self) -> BillingTerms {
        BillingTerms {
            issue_after: TimeDelta::seconds(self.issue_after_s),
            retry_after: self.retry_after_s.0.map(TimeDelta::seconds),
            give_up_after: TimeDelta::seconds(self.give_up_after_s),
        }
    }
}

/// The three waits of dunning, s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RetrySeconds([i64; 3]);

fn ascending_seconds(text: &str) -> Result<RetrySeconds, String> {
    let numbers: Result<Vec<i64>, _> = text.split(',').map(|part| part.trim().parse()).collect();
    let waits: [i64; 3] = numbers
        .ok()
        .and_then(|numbers| numbers.try_into().ok())
        .ok_or("three whole numbers of seconds with commas between are wanted")?;
    let is_ascending = 0 < waits[0] && waits[0] < waits[1] && waits[1] < waits[2] && waits[2] <= SECONDS_MAX;
    is_ascending.then_some(RetrySeconds(waits)).ok_or_else(|| format!("they must ascend, from 1 to {SECONDS_MAX}"))
}
