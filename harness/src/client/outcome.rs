//! ok, fail or info: what a client may conclude from what it saw.
//!
//! `fail` means that it surely did not happen. A write whose answer is lost or is a server error is `info`: it may have
//! happened. A declared refusal (503 with Retry-After) of a write is `info` as well: the promise that nothing was done is
//! the system's, and the record does not take its word. A read has no effect to be unsure of, so a lost read is `fail`.

use super::transport::{Answer, Exchange, LostReason};

/// How an operation ended, as far as the client can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// A whole 2xx.
    Ok,
    /// It surely did not happen.
    Fail,
    /// It may have happened.
    Info,
}

/// A refusal the server declared: surely not done, and not an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// 429 with Retry-After.
    TooMany,
    /// 503 with Retry-After.
    Unavailable,
}

impl Refusal {
    /// The declared refusal in `answer`, if it is one: 429 or 503 that says when to come again.
    pub fn of(answer: &Answer) -> Option<Self> {
        answer.header("retry-after")?;
        match answer.status {
            429 => Some(Self::TooMany),
            503 => Some(Self::Unavailable),
            _ => None,
        }
    }
}

/// What may be concluded from `exchange`, for a request that is a write or not.
pub fn classify(exchange: &Exchange, write: bool) -> Outcome {
    let unsure = if write { Outcome::Info } else { Outcome::Fail };
    match exchange {
        Exchange::Lost(LostReason::NotConnected) => Outcome::Fail,
        Exchange::Lost(LostReason::TimedOut | LostReason::HungUp | LostReason::Broken) => unsure,
        Exchange::Answered(answer) => match answer.status {
            200..300 => Outcome::Ok,
            400..500 => Outcome::Fail,
            _ => unsure,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, retry_after: bool) -> Exchange {
        let headers = retry_after.then(|| ("retry-after".to_owned(), "1".to_owned())).into_iter().collect();
        Exchange::Answered(Answer { status, headers, body: bytes::Bytes::new() })
    }

    #[test]
    fn a_lost_answer_to_a_write_is_info_and_to_a_read_is_fail() {
        for reason in [LostReason::TimedOut, LostReason::HungUp, LostReason::Broken] {
            assert_eq!(classify(&Exchange::Lost(reason), true), Outcome::Info);
            assert_eq!(classify(&Exchange::Lost(reason), false), Outcome::Fail);
        }
    }

    #[test]
    fn a_write_that_was_never_sent_is_fail() {
        assert_eq!(classify(&Exchange::Lost(LostReason::NotConnected), true), Outcome::Fail);
    }

    #[test]
    fn a_refused_write_may_have_happened_but_a_limited_one_did_not() {
        assert_eq!(classify(&answered(503, true), true), Outcome::Info);
        assert_eq!(classify(&answered(503, true), false), Outcome::Fail);
        assert_eq!(classify(&answered(429, true), true), Outcome::Fail);
    }

    #[test]
    fn only_an_answer_that_says_when_to_come_again_is_a_declared_refusal() {
        let refusal = |status, retry_after| match answered(status, retry_after) {
            Exchange::Answered(answer) => Refusal::of(&answer),
            Exchange::Lost(_) => None,
        };
        assert_eq!(refusal(503, true), Some(Refusal::Unavailable));
        assert_eq!(refusal(429, true), Some(Refusal::TooMany));
        assert_eq!(refusal(503, false), None);
        assert_eq!(refusal(500, true), None);
    }

    #[test]
    fn an_undeclared_server_error_on_a_write_is_info() {
        assert_eq!(classify(&answered(500, false), true), Outcome::Info);
        assert_eq!(classify(&answered(500, true), true), Outcome::Info);
        assert_eq!(classify(&answered(502, false), false), Outcome::Fail);
    }

    #[test]
    fn success_is_ok_and_a_client_error_is_fail() {
        assert_eq!(classify(&answered(202, false), true), Outcome::Ok);
        assert_eq!(classify(&answered(404, false), true), Outcome::Fail);
    }
}
