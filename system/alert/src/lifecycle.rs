//! The life of an alert: quiet, pending, firing, and over.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::time::Instant;

use crate::rules::{Rule, Severity};
use crate::signal::Reading;

/// What people are told, and what they see when they ask.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Alert {
    /// Names this firing: rule, instance and when it began.
    pub id: String,
    /// The rule's name.
    pub alert: String,
    /// The process it is about.
    pub instance: String,
    /// How bad it is.
    pub severity: Severity,
    /// `firing`, `escalated` or `resolved`.
    pub state: &'static str,
    /// The rule in words.
    pub summary: String,
    /// The reading that made it fire.
    pub value: f64,
    /// When it began to fire.
    pub since: DateTime<Utc>,
    /// Whether somebody has said that they take care.
    pub acknowledged: bool,
}

enum State {
    Pending { since: Instant },
    Firing { since: Instant, escalated: bool, alert: Alert },
}

/// What has to be told after a step.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Notice {
    Tell(Alert),
    Escalate(Alert),
}

/// All alerts that are not quiet, by rule and instance.
#[derive(Default)]
pub(crate) struct Board {
    states: BTreeMap<(String, String), State>,
}

impl Board {
    /// Takes one reading in; what there is to tell.
    pub(crate) fn step(&mut self, rule: &Rule, instance: &str, reading: Reading, now: Instant) -> Option<Notice> {
        let key = (rule.name.clone(), instance.to_owned());
        let value = match reading {
            Reading::Value(value) if rule.holds(value) => value,
            // An instance that does not answer says nothing about what was pending or firing.
            Reading::Unknown => return None,
            _ => return self.end(&key),
        };
        let hold = Duration::from_secs(rule.for_s);
        let began = match self.states.get(&key) {
            Some(State::Firing { .. }) => return None,
            Some(State::Pending { since }) => *since,
            None => now,
        };
        if now.duration_since(began) < hold {
            self.states.insert(key, State::Pending { since: began });
            return None;
        }
        let since = Utc::now();
        let alert = Alert {
            id: format!("{}:{instance}:{}", rule.name, since.timestamp_millis()),
            alert: rule.name.clone(),
            instance: instance.to_owned(),
            severity: rule.severity,
            state: "firing",
            summary: rule.summary.clone(),
            value,
            since,
            acknowledged: false,
        };
        self.states.insert(key, State::Firing { since: now, escalated: false, alert: alert.clone() });
        Some(Notice::Tell(alert))
    }

    fn end(&mut self, key: &(String, String)) -> Option<Notice> {
        match self.states.remove(key)? {
            State::Pending { .. } => None,
            State::Firing { alert, .. } => Some(Notice::Tell(Alert { state: "resolved", ..alert })),
        }
    }

    /// Critical alerts that nobody took care of in time; each once.
    pub(crate) fn escalate(&mut self, after: Duration, now: Instant) -> Vec<Notice> {
        let mut notices = Vec::new();
        for state in self.states.values_mut() {
            let State::Firing { since, escalated, alert } = state else { continue };
            let is_due = alert.severity == Severity::Critical
                && !alert.acknowledged
                && !*escalated
                && now.duration_since(*since) >= after;
            if is_due {
                *escalated = true;
                notices.push(Notice::Escalate(Alert { state: "escalated", ..alert.clone() }));
            }
        }
        notices
    }

    /// Notes that somebody takes care; false if no alert of that id is firing.
    pub(crate) fn acknowledge(&mut self, id: &str) -> bool {
        for state in self.states.values_mut() {
            if let State::Firing { alert, .. } = state
                && alert.id == id
            {
                alert.acknowledged = true;
                return true;
            }
        }
        false
    }

    /// What is firing, by rule and instance.
    pub(crate) fn firing(&self) -> Vec<Alert> {
        let firing = self.states.values().filter_map(|state| match state {
            State::Firing { alert, .. } => Some(alert.clone()),
            State::Pending { .. } => None,
        });
        firing.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Rules;

    fn rule(name: &str) -> Rule {
        Rules::read(None).unwrap().all.into_iter().find(|rule| rule.name == name).unwrap()
    }

    #[test]
    fn an_alert_is_pending_first_fires_once_and_is_over_once() {
        let (rule, start) = (rule("queue_age"), Instant::now());
        let mut board = Board::default();
        let mut at =
            |s: u64, value: f64| board.step(&rule, "api", Reading::Value(value), start + Duration::from_secs(s));
        assert_eq!(at(0, 500.0), None, "pending");
        assert_eq!(at(10, 500.0), None);
        assert!(matches!(at(15, 500.0), Some(Notice::Tell(alert)) if alert.state == "firing" && alert.value == 500.0));
        assert_eq!(at(20, 600.0), None, "told already");
        assert!(matches!(at(25, 1.0), Some(Notice::Tell(alert)) if alert.state == "resolved"));
        assert_eq!(at(30, 1.0), None);
        assert_eq!(at(35, 500.0), None, "a short one");
        assert_eq!(at(40, 1.0), None, "is never told");
    }

    #[test]
    fn a_silent_instance_ends_no_alert() {
        let (rule, now) = (rule("dead_letters"), Instant::now());
        let mut board = Board::default();
        assert!(board.step(&rule, "api", Reading::Value(1.0), now).is_some());
        assert_eq!(board.step(&rule, "api", Reading::Unknown, now), None);
        assert!(board.step(&rule, "api", Reading::Quiet, now).is_some(), "resolved");
    }

    #[test]
    fn a_look_that_failed_does_not_begin_the_wait_anew() {
        let (rule, start) = (rule("queue_age"), Instant::now());
        let mut board = Board::default();
        let mut at = |s: u64, reading| board.step(&rule, "api", reading, start + Duration::from_secs(s));
        assert_eq!(at(0, Reading::Value(500.0)), None, "pending");
        for s in [5, 10] {
            assert_eq!(at(s, Reading::Unknown), None);
        }
        assert!(at(15, Reading::Value(500.0)).is_some(), "it has held for as long as it must");
        assert_eq!(at(20, Reading::Unknown), None);
    }

    #[test]
    fn a_critical_alert_that_nobody_takes_escalates_once() {
        let (start, after) = (Instant::now(), Duration::from_secs(60));
        let (critical, warning) = (rule("process_gone"), rule("dead_letters"));
        let mut board = Board::default();
        for name in ["a", "b"] {
            board.step(&critical, name, Reading::Value(1.0), start);
            board.step(&critical, name, Reading::Value(1.0), start + Duration::from_secs(10));
        }
        board.step(&warning, "a", Reading::Value(1.0), start);
        let firing = board.firing();
        assert_eq!(firing.len(), 3);
        let taken = firing.iter().find(|alert| alert.instance == "b").unwrap().id.clone();
        assert!(board.acknowledge(&taken) && !board.acknowledge("nothing"));
        assert!(board.escalate(after, start + Duration::from_secs(60)).is_empty(), "firing for 50 s");
        let escalated = board.escalate(after, start + Duration::from_secs(70));
        assert!(matches!(&escalated[..], [Notice::Escalate(alert)] if alert.instance == "a"));
        assert!(board.escalate(after, start + Duration::from_secs(700)).is_empty());
    }
}
