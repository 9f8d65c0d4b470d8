//! What one webhook has still to be told: the latest of each alert, however long it is away.
//!
//! Bounded without dropping: of an alert that is over before anybody heard of it, and of one that has fired again
//! since, nothing is kept. So at most two notices wait for each rule and instance, and a webhook that comes back
//! is told how things stand, not how they went.

use std::collections::BTreeMap;

use crate::lifecycle::Alert;

struct Untold {
    alert: Alert,
    /// Nobody was told that it fired.
    is_news: bool,
}

/// In order of arrival.
#[derive(Default)]
pub(crate) struct Outbox {
    untold: BTreeMap<u64, Untold>,
    last: u64,
    /// Tried last.
    tried: u64,
}

impl Outbox {
    /// Puts a notice in, in the place of what it overtakes.
    pub(crate) fn put(&mut self, alert: Alert) {
        let is_same = |untold: &&Untold| untold.alert.id == alert.id;
        let is_news = alert.state != "resolved" || self.untold.values().find(is_same).is_some_and(|old| old.is_news);
        self.untold.retain(|_, old| {
            let is_over_unheard = old.is_news && old.alert.state == "resolved";
            let is_of_the_same = old.alert.alert == alert.alert && old.alert.instance == alert.instance;
            old.alert.id != alert.id && !(is_of_the_same && is_over_unheard)
        });
        self.last += 1;
        self.untold.insert(self.last, Untold { alert, is_news });
    }

    /// Takes back what is untold of an alert.
    pub(crate) fn withdraw(&mut self, id: &str) {
        self.untold.retain(|_, untold| untold.alert.id != id);
    }

    /// The next one to try, with its number: the one after that which was tried last, so that one which is never
    /// taken keeps no other back.
    pub(crate) fn next(&mut self) -> Option<(u64, Alert)> {
        let after = self.untold.range(self.tried + 1..).next();
        let (number, untold) = after.or_else(|| self.untold.first_key_value())?;
        self.tried = *number;
        Some((*number, untold.alert.clone()))
    }

    /// The notice of this number, about the alert of this id, was taken.
    pub(crate) fn told(&mut self, number: u64, id: &str) {
        if self.untold.remove(&number).is_none() {
            // Overtaken on its way: what follows it is about something that was heard of.
            let of_it = self.untold.values_mut().filter(|untold| untold.alert.id == id);
            of_it.for_each(|untold| untold.is_news = false);
        }
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.untold.len()
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::rules::Severity;

    fn alert(instance: &str, firing: u32, state: &'static str) -> Alert {
        Alert {
            id: format!("r:{instance}:{firing}"),
            alert: "r".to_owned(),
            instance: instance.to_owned(),
            severity: Severity::Critical,
            state,
            summary: String::new(),
            value: 1.0,
            since: DateTime::UNIX_EPOCH,
            acknowledged: false,
        }
    }

    /// What is told when everything is taken from now on.
    fn drain(outbox: &mut Outbox) -> Vec<String> {
        let mut told = Vec::new();
        while let Some((number, alert)) = outbox.next() {
            told.push(format!("{} {}", alert.id, alert.state));
            outbox.told(number, &alert.id);
        }
        told
    }

    #[test]
    fn what_was_missed_is_told_as_it_stands() {
        let mut outbox = Outbox::default();
        outbox.put(alert("a", 1, "firing"));
        outbox.put(alert("b", 1, "firing"));
        outbox.put(alert("a", 1, "resolved"));
        assert_eq!(drain(&mut outbox), ["r:b:1 firing", "r:a:1 resolved"], "over meanwhile, and told all the same");
    }

    #[test]
    fn an_alert_that_comes_and_goes_for_hours_leaves_two_notices_at_most() {
        let mut outbox = Outbox::default();
        outbox.put(alert("a", 0, "firing"));
        assert_eq!(drain(&mut outbox), ["r:a:0 firing"]);
        // The webhook is away from here on.
        outbox.put(alert("a", 0, "resolved"));
        for firing in 1..1_000 {
            outbox.put(alert("a", firing, "firing"));
            outbox.put(alert("a", firing, "resolved"));
            assert!(outbox.len() <= 2);
        }
        outbox.put(alert("a", 1_000, "firing"));
        assert_eq!(drain(&mut outbox), ["r:a:0 resolved", "r:a:1000 firing"]);
    }

    #[test]
    fn the_end_of_what_was_told_on_its_way_is_told() {
        let mut outbox = Outbox::default();
        outbox.put(alert("a", 1, "firing"));
        let (number, on_its_way) = outbox.next().unwrap();
        outbox.put(alert("a", 1, "resolved"));
        outbox.told(number, &on_its_way.id);
        outbox.put(alert("a", 2, "firing"));
        assert_eq!(drain(&mut outbox), ["r:a:1 resolved", "r:a:2 firing"]);
    }

    #[test]
    fn one_that_is_never_taken_keeps_no_other_back() {
        let mut outbox = Outbox::default();
        for instance in ["a", "b", "c"] {
            outbox.put(alert(instance, 1, "firing"));
        }
        let mut tried = Vec::new();
        for _ in 0..4 {
            let (number, alert) = outbox.next().unwrap();
            tried.push(alert.instance.clone());
            if alert.instance != "a" {
                outbox.told(number, &alert.id);
            }
        }
        assert_eq!(tried, ["a", "b", "c", "a"]);
        outbox.withdraw("r:a:1");
        assert!(outbox.next().is_none());
    }
}
