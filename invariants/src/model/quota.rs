//! Bounds on a period's quota, from what clients were told and how their forecasts ended.
//!
//! A place is taken when a request is accepted and given back once where it ends without
//! success. Times are intervals (sent to answered), so two bounds are kept: the places surely
//! held, which may never pass the cap, and the places possibly held, which must have reached
//! the cap where a request was refused. A place given back twice shows as more held than
//! the cap allows; one never given back shows as a refusal with places free.
//!
//! Re-derived from the specification on purpose: do not deduplicate against the system.

use serde::Serialize;

/// What the client was told about one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum QuotaAnswer {
    /// Accepted (202), or seen to exist afterwards.
    Admitted,
    /// Refused for the quota (402).
    Refused,
    /// No answer: it may hold a place or not.
    Info,
}

/// When a forecast was seen to have ended without success, in nanoseconds of the run's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct EndedWithoutSuccess {
    /// It had not ended before this.
    pub earliest_ns: u64,
    /// It had ended by this.
    pub latest_ns: u64,
}

/// One forecast request of one tenant in one period; replays of an idempotency key left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct QuotaRequest {
    /// When it was sent, in nanoseconds of the run's clock.
    pub sent_ns: u64,
    /// When it was answered; for `Info`, when the client gave up.
    pub answered_ns: u64,
    /// What came back.
    pub answer: QuotaAnswer,
    /// `None`: succeeded, still under way or unknown, so the place stays taken or may.
    pub ended_without_success: Option<EndedWithoutSuccess>,
    /// Whether it succeeded, by the last read.
    pub succeeded: bool,
}

/// A way in which the quota was broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "finding")]
pub enum QuotaFinding {
    /// More places were surely held at one instant than the cap allows.
    HeldBeyondCap {
        /// The instant, in nanoseconds of the run's clock.
        at_ns: u64,
        /// Places surely held then.
        held: u64,
        /// The cap.
        cap: u64,
    },
    /// More forecasts succeeded in the period than the cap allows.
    SucceededBeyondCap {
        /// Forecasts that succeeded.
        succeeded: u64,
        /// The cap.
        cap: u64,
    },
    /// A request was refused although a place was free, or although there is no cap.
    RefusedWithPlacesFree {
        /// Index of the refused request in the argument.
        request: usize,
        /// Places that can have been held at most while it was under way.
        held_at_most: u64,
        /// The cap; `None` where the plan has none.
        cap: Option<u64>,
    },
}

/// All findings for one tenant and period; empty where the quota held. Time O(n log n).
///
/// `cap`: [`super::Plan::hard_cap`] of the plan that was in force all period long; a period
/// with a change of plan is judged with `None` and its refusals left out.
pub fn judge_quota(cap: Option<u64>, requests: &[QuotaRequest]) -> Vec<QuotaFinding> {
    let mut findings = Vec::new();
    if let Some(cap) = cap {
        findings.extend(held_beyond(cap, requests));
        let succeeded = requests.iter().filter(|r| r.succeeded).count() as u64;
        if succeeded > cap {
            findings.push(QuotaFinding::SucceededBeyondCap { succeeded, cap });
        }
    }
    findings.extend(unearned_refusals(cap, requests));
    findings
}

/// The first instant of the highest excess of places surely held.
fn held_beyond(cap: u64, requests: &[QuotaRequest]) -> Option<QuotaFinding> {
    // (instant, is_taken): a place given back at an instant is free for another at once, and
    // `false` sorts first.
    let mut steps: Vec<(u64, bool)> = Vec::new();
    for request in requests {
        let surely = request.answer == QuotaAnswer::Admitted || request.succeeded;
        if !surely {
            continue;
        }
        match request.ended_without_success {
            // It may have ended before the client heard of it: never surely held.
            Some(end) if end.earliest_ns <= request.answered_ns => {}
            Some(end) => {
                steps.push((request.answered_ns, true));
                steps.push((end.earliest_ns, false));
            }
            None => steps.push((request.answered_ns, true)),
        }
    }
    steps.sort_unstable();
    let mut held = 0u64;
    let mut worst: Option<(u64, u64)> = None;
    for (at_ns, is_taken) in steps {
        if is_taken {
            held += 1;
        } else {
            held = held.saturating_sub(1);
        }
        if held > cap && worst.is_none_or(|(_, most)| held > most) {
            worst = Some((at_ns, held));
        }
    }
    worst.map(|(at_ns, held)| QuotaFinding::HeldBeyondCap { at_ns, held, cap })
}

fn unearned_refusals(cap: Option<u64>, requests: &[QuotaRequest]) -> Vec<QuotaFinding> {
    let mut sent: Vec<u64> = Vec::new();
    let mut given_back: Vec<u64> = Vec::new();
    for request in requests {
        if request.answer != QuotaAnswer::Refused {
            sent.push(request.sent_ns);
            if let Some(end) = request.ended_without_success {
                given_back.push(end.latest_ns);
            }
        }
    }
    sent.sort_unstable();
    given_back.sort_unstable();
    let mut findings = Vec::new();
    for (index, request) in requests.iter().enumerate() {
        if request.answer != QuotaAnswer::Refused {
            continue;
        }
        let taken = sent.partition_point(|at| *at <= request.answered_ns);
        let back = given_back.partition_point(|at| *at < request.sent_ns);
        let held_at_most = taken.saturating_sub(back) as u64;
        if cap.is_none_or(|cap| held_at_most < cap) {
            findings.push(QuotaFinding::RefusedWithPlacesFree { request: index, held_at_most, cap });
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(at: u64, answer: QuotaAnswer) -> QuotaRequest {
        QuotaRequest {
            sent_ns: at,
            answered_ns: at + 5,
            answer,
            ended_without_success: None,
            succeeded: answer == QuotaAnswer::Admitted,
        }
    }

    fn failed(at: u64, earliest_ns: u64, latest_ns: u64) -> QuotaRequest {
        QuotaRequest {
            ended_without_success: Some(EndedWithoutSuccess { earliest_ns, latest_ns }),
            succeeded: false,
            ..request(at, QuotaAnswer::Admitted)
        }
    }

    fn admitted(count: u64) -> Vec<QuotaRequest> {
        (0..count).map(|n| request(n * 10, QuotaAnswer::Admitted)).collect()
    }

    #[test]
    fn five_admitted_and_the_sixth_refused_is_right() {
        let mut all = admitted(5);
        all.push(request(100, QuotaAnswer::Refused));
        assert_eq!(judge_quota(Some(5), &all), []);
    }

    #[test]
    fn a_sixth_admitted_is_found() {
        assert_eq!(
            judge_quota(Some(5), &admitted(6)),
            [
                QuotaFinding::HeldBeyondCap { at_ns: 55, held: 6, cap: 5 },
                QuotaFinding::SucceededBeyondCap { succeeded: 6, cap: 5 },
            ]
        );
    }

    #[test]
    fn a_failed_forecast_gives_its_place_back_once() {
        let mut all = admitted(4);
        all.push(failed(50, 60, 70));
        all.push(request(80, QuotaAnswer::Admitted));
        assert_eq!(judge_quota(Some(5), &all), []);
        // One place came back, two were taken for it: given back twice.
        all.push(request(90, QuotaAnswer::Admitted));
        assert!(judge_quota(Some(5), &all).contains(&QuotaFinding::HeldBeyondCap { at_ns: 95, held: 6, cap: 5 }));
    }

    #[test]
    fn a_place_never_given_back_shows_as_an_unearned_refusal() {
        let mut all = admitted(4);
        all.push(failed(50, 60, 70));
        all.push(request(80, QuotaAnswer::Refused));
        assert_eq!(
            judge_quota(Some(5), &all),
            [QuotaFinding::RefusedWithPlacesFree { request: 5, held_at_most: 4, cap: Some(5) }]
        );
    }

    #[test]
    fn a_lost_answer_excuses_a_refusal_but_is_no_excess() {
        let mut all = admitted(4);
        all.push(request(50, QuotaAnswer::Info));
        all.push(request(60, QuotaAnswer::Refused));
        assert_eq!(judge_quota(Some(5), &all), []);
        let mut all = admitted(5);
        all.push(request(60, QuotaAnswer::Info));
        assert_eq!(judge_quota(Some(5), &all), []);
    }

    #[test]
    fn a_plan_without_cap_never_refuses() {
        let all = [request(0, QuotaAnswer::Refused)];
        assert_eq!(
            judge_quota(None, &all),
            [QuotaFinding::RefusedWithPlacesFree { request: 0, held_at_most: 0, cap: None }]
        );
        assert_eq!(judge_quota(None, &admitted(2_000)), []);
        assert_eq!(judge_quota(Some(5), &[]), []);
    }
}
