//! How long a provider that gives no clear answer is waited for. Two kinds: a request that somebody waits for has
//! an end, and a run bears so much silence in a row, since tenants behind a silent charge have work too.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

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

    /// Asks, no longer than there is time for; `unclear` in the place of an answer that did not come by then.
    pub(crate) async fn ask<T: PartialEq>(&self, unclear: T, question: impl Future<Output = T>) -> T {
        match &self.kind {
            Kind::Until(end) => tokio::time::timeout_at(*end, question).await.unwrap_or(unclear),
            Kind::Silence { lasted, .. } => {
                let asked = Instant::now();
                let answer = question.await;
                let mut lasted = locked(lasted);
                *lasted = if answer == unclear { *lasted + asked.elapsed() } else { Duration::ZERO };
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
        assert_eq!(patience.ask(None, async { Some(1) }).await, Some(1));
        assert!(patience.lasts());
        assert_eq!(patience.ask(None, silence()).await, None);
        assert!(!patience.lasts());
    }

    #[tokio::test]
    async fn a_run_ends_by_silence_and_any_clear_answer_breaks_it() {
        let pause = Duration::from_millis(40);
        let patience = Patience::of_run(pause * 2);
        for _ in 0..3 {
            assert_eq!(patience.ask(None, after(pause * 3, Some(1))).await, Some(1), "slow is not silent");
            assert!(patience.lasts());
        }
        patience.ask(None, after(pause, None)).await;
        tokio::time::sleep(pause * 3).await;
        assert_eq!(patience.ask(None, async { Some(1) }).await, Some(1), "only what was asked counts");
        patience.ask(None, after(pause, None)).await;
        patience.ask(None, after(pause, None)).await;
        assert!(!patience.lasts());
    }
}
