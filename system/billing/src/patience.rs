//! How long a provider that gives no clear answer is waited for. Two kinds: a request that somebody waits for has
//! an end, and a run bears so much silence in a row, since tenants behind a silent charge have work too.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Payments that must be met with silence, one after the other, before a run gives the provider up: else a single one
/// that is never answered would keep all behind it back, in every run anew.
const SILENT_PAYMENTS_MIN: u32 = 4;

/// What is left of the time for asking the provider. Shared by all who ask on one account.
pub struct Patience {
    kind: Kind,
}

enum Kind {
    Until(Instant),
    Silence { longest: Duration, lasted: Mutex<Duration> },
}

impl Patience {
    /// Ends `longest` from now, whatever the provider says until then.
    #[must_use]
    pub fn of_request(longest: Duration) -> Self {
        Self { kind: Kind::Until(Instant::now() + longest) }
    }

    /// Ends once questions without a clear answer have taken `longest` in all, none answered clearly between them.
    /// Then nothing is asked any more.
    #[must_use]
    pub const fn of_run(longest: Duration) -> Self {
        Self { kind: Kind::Silence { longest, lasted: Mutex::new(Duration::ZERO) } }
    }

    /// Whether the provider may be asked again.
    pub(crate) fn lasts(&self) -> bool {
        match &self.kind {
            Kind::Until(end) => Instant::now() < *end,
            Kind::Silence { longest, lasted } => *locked(lasted) < *longest,
        }
    }

    /// The part of it that one payment may use up.
    pub(crate) const fn for_payment(&self) -> PaymentPatience<'_> {
        PaymentPatience { all: self, lasted: Duration::ZERO }
    }
}

/// What is left for one payment.
pub(crate) struct PaymentPatience<'a> {
    all: &'a Patience,
    /// Of its own questions without a clear answer.
    lasted: Duration,
}

impl PaymentPatience<'_> {
    /// Whether the provider may be asked about this payment again.
    pub(crate) fn lasts(&self) -> bool {
        self.all.lasts()
            && match &self.all.kind {
                Kind::Until(_) => true,
                Kind::Silence { longest, .. } => self.lasted < *longest / SILENT_PAYMENTS_MIN,
            }
    }

    /// Asks, no longer than there is time for; `unclear` in the place of an answer that did not come by then.
    pub(crate) async fn ask<T: PartialEq>(&mut self, unclear: T, question: impl Future<Output = T>) -> T {
        match &self.all.kind {
            Kind::Until(end) => tokio::time::timeout_at(*end, question).await.unwrap_or(unclear),
            Kind::Silence { lasted, .. } => {
                let asked = Instant::now();
                let answer = question.await;
                if answer == unclear {
                    self.lasted += asked.elapsed();
                    *locked(lasted) += asked.elapsed();
                } else {
                    *locked(lasted) = Duration::ZERO;
                }
                answer
            }
        }
    }
}

fn locked(lasted: &Mutex<Duration>) -> MutexGuard<'_, Duration> {
    lasted.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Never comes.
    async fn silence() -> Option<u8> {
        std::future::pending().await
    }

    async fn after(pause: Duration, answer: Option<u8>) -> Option<u8> {
        tokio::time::sleep(pause).await;
        answer
    }

    #[tokio::test]
    async fn a_request_ends_whether_or_not_it_is_answered() {
        let patience = Patience::of_request(Duration::from_millis(200));
        let mut one = patience.for_payment();
        assert_eq!(one.ask(None, async { Some(1) }).await, Some(1));
        assert!(one.lasts());
        assert_eq!(one.ask(None, silence()).await, None);
        assert!(!one.lasts() && !patience.lasts());
    }

    #[tokio::test]
    async fn a_run_ends_by_silence_and_any_clear_answer_breaks_it() {
        let pause = Duration::from_millis(40);
        let patience = Patience::of_run(pause * 2);
        for _ in 0..3 {
            let slow = patience.for_payment().ask(None, after(pause * 3, Some(1))).await;
            assert_eq!(slow, Some(1), "slow is not silent");
            assert!(patience.lasts());
        }
        patience.for_payment().ask(None, after(pause, None)).await;
        tokio::time::sleep(pause * 3).await;
        let clear = patience.for_payment().ask(None, async { Some(1) }).await;
        assert_eq!(clear, Some(1), "only what was asked counts");
        patience.for_payment().ask(None, after(pause, None)).await;
        patience.for_payment().ask(None, after(pause, None)).await;
        assert!(!patience.lasts());
    }

    #[tokio::test]
    async fn one_silent_payment_uses_up_its_own_part_only() {
        let patience = Patience::of_run(Duration::from_millis(400));
        let mut silent = patience.for_payment();
        silent.ask(None, after(Duration::from_millis(110), None)).await;
        assert!(!silent.lasts() && patience.lasts());
        let mut next = patience.for_payment();
        assert!(next.lasts());
        next.ask(None, async { Some(1) }).await;
        assert!(next.lasts() && patience.lasts());
    }
}
