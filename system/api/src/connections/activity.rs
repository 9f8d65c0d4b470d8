//! What one connection is doing: told by its own parts, read by whoever looks after all of them.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Where a connection is between two requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The head of a request is awaited: the connection is new, or a part of it came.
    Head,
    /// Nothing has come since the last answer.
    Idle,
    /// More of a body is awaited.
    Body,
    /// It is the instance's turn.
    Work,
    /// The last answer is given; what still comes is thrown away.
    Linger,
}

/// Why a connection is cut; a label of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    HeadSlow,
    Idle,
    AnswerUnread,
    Displaced,
}

impl Cut {
    const ALL: [Self; 4] = [Self::HeadSlow, Self::Idle, Self::AnswerUnread, Self::Displaced];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::HeadSlow => "head_slow",
            Self::Idle => "idle",
            Self::AnswerUnread => "answer_unread",
            Self::Displaced => "displaced",
        }
    }
}

/// All of it is advice between tasks that share nothing else, so no order of memory is asked for.
pub(super) struct Activity {
    began: Instant,
    /// Milliseconds since `began` at which the phase was entered, and the phase in the lowest three bits.
    phase: AtomicU64,
    /// Milliseconds since `began`, and one, at which the client stopped to take what is written; 0 if it takes it.
    blocked: AtomicU64,
    /// A part of a head is there.
    has_begun: AtomicBool,
    /// A request was handed over whose answer is not wholly written.
    answering: AtomicBool,
    /// That answer is wholly in the hands of the protocol.
    answered: AtomicBool,
    /// The body of the last request has not come wholly.
    body_left: AtomicBool,
    /// The client will send nothing more.
    ended: AtomicBool,
    cut_for: AtomicU8,
    cut: Notify,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            phase: AtomicU64::new(Phase::Head as u64),
            blocked: AtomicU64::new(0),
            has_begun: AtomicBool::new(false),
            answering: AtomicBool::new(false),
            answered: AtomicBool::new(false),
            body_left: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            cut_for: AtomicU8::new(0),
            cut: Notify::new(),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX >> 3)
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.store(self.now_ms() << 3 | phase as u64, Relaxed);
    }

    fn phase(&self) -> (Phase, Duration) {
        let packed = self.phase.load(Relaxed);
        let phase = match packed & 7 {
            0 => Phase::Head,
            1 => Phase::Idle,
            2 => Phase::Body,
            3 => Phase::Work,
            _ => Phase::Linger,
        };
        (phase, Duration::from_millis(packed >> 3))
    }

    /// Bytes came.
    pub(super) fn heard(&self) {
        match self.phase().0 {
            Phase::Idle => {
                self.has_begun.store(true, Relaxed);
                self.enter(Phase::Head);
            }
            Phase::Head => self.has_begun.store(true, Relaxed),
            Phase::Body | Phase::Work | Phase::Linger => {}
        }
    }

    /// The client has sent its last byte.
    pub(super) fn ended(&self) {
        self.ended.store(true, Relaxed);
    }

    /// A whole head was handed over.
    pub(super) fn asked(&self, has_body: bool) {
        self.has_begun.store(false, Relaxed);
        self.answering.store(true, Relaxed);
        self.answered.store(false, Relaxed);
        self.body_left.store(has_body, Relaxed);
        self.enter(Phase::Work);
    }

    /// The body is there to its end.
    pub(super) fn body_came(&self) {
        self.body_left.store(false, Relaxed);
        self.enter(Phase::Work);
    }

    /// The protocol has the whole answer, or will not have it.
    pub(super) fn answered(&self) {
        self.answered.store(true, Relaxed);
        self.enter(Phase::Idle);
    }

    /// The client does not take what is written.
    pub(super) fn blocked(&self) {
        if self.blocked.load(Relaxed) == 0 {
            self.blocked.store(self.now_ms() + 1, Relaxed);
        }
    }

    /// Everything written so far is on its way.
    pub(super) fn flushed(&self) {
        self.blocked.store(0, Relaxed);
        if self.answered.swap(false, Relaxed) {
            self.answering.store(false, Relaxed);
        }
    }

    /// Whether what is written now belongs to the answer of a request that the router has heard of.
    pub(super) fn is_answering(&self) -> bool {
        self.answering.load(Relaxed)
    }

    /// Whether a part of a head is there.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun.load(Relaxed)
    }

    /// Whether the client may still be sending what nobody will read.
    pub(super) fn has_body_left(&self) -> bool {
        self.body_left.load(Relaxed) && !self.ended.load(Relaxed)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Relaxed)
    }

    /// Since when the connection has waited for its client; `None` while the client waits for an answer.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        let since = match (self.blocked.load(Relaxed), self.phase()) {
            (0, (Phase::Work, _)) => return None,
            (0, (_, since)) => since,
            (blocked, _) => Duration::from_millis(blocked - 1),
        };
        Some(self.began + since)
    }

    /// Why it must be cut now, if so.
    pub(super) fn overdue(&self, head: Duration, idle: Duration, write: Duration) -> Option<Cut> {
        let since = |then: Duration| self.began.elapsed().saturating_sub(then);
        let blocked = self.blocked.load(Relaxed);
        if blocked != 0 && since(Duration::from_millis(blocked - 1)) > write {
            return Some(Cut::AnswerUnread);
        }
        match self.phase() {
            (Phase::Head, then) if since(then) > head => Some(Cut::HeadSlow),
            (Phase::Idle, then) if since(then) > idle => Some(Cut::Idle),
            _ => None,
        }
    }

    /// Tells the connection's task to cut it.
    pub(super) fn cut(&self, why: Cut) {
        self.cut_for.store(why as u8, Relaxed);
        self.cut.notify_one();
    }

    /// Waits to be told so.
    pub(super) async fn to_be_cut(&self) -> Cut {
        self.cut.notified().await;
        Cut::ALL[usize::from(self.cut_for.load(Relaxed))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn a_connection_waits_for_its_client_except_while_a_request_is_at_work() {
        let activity = Activity::new();
        assert!(activity.waiting_since().is_some() && !activity.has_begun());
        activity.heard();
        assert!(activity.has_begun());
        activity.asked(true);
        assert!(activity.waiting_since().is_none() && activity.has_body_left() && activity.is_answering());
        activity.enter(Phase::Body);
        assert!(activity.waiting_since().is_some());
        activity.body_came();
        assert!(activity.waiting_since().is_none() && !activity.has_body_left());
        activity.blocked();
        assert!(activity.waiting_since().is_some(), "an answer that is not read");
        activity.answered();
        assert!(activity.is_answering(), "not yet written");
        activity.flushed();
        assert!(!activity.is_answering() && activity.waiting_since().is_some());
    }

    #[test]
    fn what_makes_the_instance_wait_too_long_is_cut_for_its_own_reason() {
        let activity = Activity::new();
        assert_eq!(activity.overdue(HOUR, HOUR, HOUR), None);
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(activity.overdue(Duration::ZERO, HOUR, HOUR), Some(Cut::HeadSlow));
        activity.asked(false);
        assert_eq!(activity.overdue(Duration::ZERO, Duration::ZERO, Duration::ZERO), None);
        activity.blocked();
        activity.answered();
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(activity.overdue(HOUR, HOUR, Duration::ZERO), Some(Cut::AnswerUnread));
        activity.flushed();
        assert_eq!(activity.overdue(HOUR, Duration::ZERO, HOUR), Some(Cut::Idle));
    }
}
