//! What a sink was told: counts, and every body in a file that is searched at the end like a log.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context as _, Result, ensure};
use nogo_invariants::final_state::SinkCounts;
use serde::Deserialize;
use serde_json::Value;

/// Ids of reports that are remembered; more than a run makes.
const IDS_MAX: usize = 200_000;

/// Names of alerts that are counted apart; more than there are rules.
const ALERTS_MAX: usize = 1_000;

/// What a sink is spoken to in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// An envelope of Sentry's protocol, with one report or more.
    Envelope,
    /// A batch of events: `{"events": […]}`.
    Batch,
    /// A notice of the alert process: `{"id": …, "alert": …, "state": …}`.
    Notice,
}

/// The record of one sink. Shared; lives as long as the run.
#[derive(Debug)]
pub struct SinkBook {
    language: Language,
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    counts: SinkCounts,
    /// Ids of reports and notices, which a second try would send again.
    ids: BTreeSet<String>,
    /// Notices by the name of their alert.
    told_of: BTreeMap<String, u64>,
}

/// What a request says.
struct Told {
    events: u64,
    id: Option<String>,
    alert: Option<String>,
}

#[derive(Deserialize)]
struct Batch {
    events: Vec<Value>,
}

#[derive(Deserialize)]
struct Notice {
    id: String,
    alert: String,
    state: String,
}

#[derive(Deserialize)]
struct EnvelopeHead {
    event_id: String,
}

#[derive(Deserialize)]
struct ItemHead {
    #[serde(rename = "type")]
    kind: String,
    length: usize,
}

impl SinkBook {
    /// An empty one, whose bodies go to `path`.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub fn open(language: Language, path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("make {}", path.display()))?;
        let state = State { file, counts: SinkCounts::default(), ids: BTreeSet::new(), told_of: BTreeMap::new() };
        Ok(Self { language, path: path.to_owned(), state: Mutex::new(state) })
    }

    /// What it was told so far.
    pub fn counts(&self) -> SinkCounts {
        self.state.lock().expect("sink book lock").counts
    }

    /// Where the bodies are.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many notices about the alert of that name it was told.
    pub fn notices_of(&self, alert: &str) -> u64 {
        self.state.lock().expect("sink book lock").told_of.get(alert).copied().unwrap_or_default()
    }

    /// Takes a request in, keeping `body` whatever it says; whether it could be read.
    ///
    /// # Errors
    /// If it cannot be kept: what was not kept is not searched.
    pub(super) fn take(&self, body: &[u8]) -> Result<bool> {
        let read = read(self.language, body);
        let mut guard = self.state.lock().expect("sink book lock");
        let state = &mut *guard;
        state.file.write_all(body).and_then(|()| state.file.write_all(b"\n")).context("keep what a sink was told")?;
        state.counts.requests += 1;
        state.counts.bytes += body.len() as u64;
        let Ok(told) = read else {
            state.counts.unreadable += 1;
            return Ok(false);
        };
        state.counts.events += told.events;
        if let Some(alert) = told.alert
            && (state.told_of.contains_key(&alert) || state.told_of.len() < ALERTS_MAX)
        {
            *state.told_of.entry(alert).or_default() += 1;
        }
        if let Some(id) = told.id {
            let is_known = state.ids.contains(&id);
            state.counts.repeated += u64::from(is_known);
            if !is_known && state.ids.len() < IDS_MAX {
                state.ids.insert(id);
            }
        }
        Ok(true)
    }
}

fn read(language: Language, body: &[u8]) -> Result<Told> {
    Ok(match language {
        Language::Envelope => Told { events: 1, id: Some(envelope(body)?), alert: None },
        Language::Batch => {
            let batch: Batch = serde_json::from_slice(body).context("read a batch")?;
            Told { events: batch.events.len() as u64, id: None, alert: None }
        }
        Language::Notice => {
            let Notice { id, alert, state } = serde_json::from_slice(body).context("read a notice")?;
            Told { events: 1, id: Some(format!("{id} {state}")), alert: Some(alert) }
        }
    })
}

/// The id of the report in an envelope of three lines: head, item, payload of the length that the item tells.
fn envelope(body: &[u8]) -> Result<String> {
    let mut lines = body.splitn(3, |byte| *byte == b'\n');
    let mut next = || lines.next().context("a line is missing");
    let head: EnvelopeHead = serde_json::from_slice(next()?).context("read an envelope's head")?;
    let item: ItemHead = serde_json::from_slice(next()?).context("read an item's head")?;
    let payload = next()?.get(..item.length).context("an item is shorter than it says")?;
    ensure!(item.kind == "event", "an item is no event");
    let event: EnvelopeHead = serde_json::from_slice(payload).context("read an event")?;
    ensure!(event.event_id == head.event_id, "an event has another id than its envelope");
    Ok(head.event_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A report whose item says that it is longer by `missing`.
    fn report(id: &str, missing: usize) -> Vec<u8> {
        let payload = format!(r#"{{"event_id":"{id}","message":"failed"}}"#);
        let length = payload.len() + missing;
        format!("{{\"event_id\":\"{id}\"}}\n{{\"type\":\"event\",\"length\":{length}}}\n{payload}\n").into_bytes()
    }

    fn book(language: Language) -> (SinkBook, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        (SinkBook::open(language, &folder.path().join("sink.log")).unwrap(), folder)
    }

    #[test]
    fn a_report_that_comes_twice_is_counted_as_repeated() {
        let (book, _folder) = book(Language::Envelope);
        for id in ["abcd", "abce", "abcd"] {
            assert!(book.take(&report(id, 0)).unwrap(), "{id}");
        }
        let counts = book.counts();
        assert_eq!((counts.requests, counts.events, counts.repeated, counts.unreadable), (3, 3, 1, 0));
    }

    #[test]
    fn what_does_not_read_is_counted_and_kept() {
        let (book, _folder) = book(Language::Envelope);
        for odd in [&b"who is there"[..], &report("abcd", 2), b"{}\n{}\n{}"] {
            assert!(!book.take(odd).unwrap());
        }
        assert_eq!((book.counts().unreadable, book.counts().events), (3, 0));
        assert!(std::fs::read_to_string(book.path()).unwrap().starts_with("who is there\n"));
    }

    #[test]
    fn notices_are_counted_by_their_alert_and_repeated_by_id_and_state() {
        let (book, _folder) = book(Language::Notice);
        for state in ["firing", "firing", "resolved"] {
            let notice =
                format!("{{\"id\":\"drill:drill:1\",\"alert\":\"drill\",\"state\":\"{state}\",\"value\":1.0}}");
            assert!(book.take(notice.as_bytes()).unwrap());
        }
        assert_eq!((book.notices_of("drill"), book.notices_of("queue_age")), (3, 0));
        assert_eq!((book.counts().events, book.counts().repeated), (3, 1));
    }

    #[test]
    fn a_batch_counts_its_events() {
        let (book, _folder) = book(Language::Batch);
        assert!(book.take(br#"{"events":[{"event":"logged_in"},{"event":"logged_out"}]}"#).unwrap());
        assert!(!book.take(b"[]").unwrap());
        let counts = book.counts();
        assert_eq!((counts.requests, counts.events, counts.unreadable), (2, 2, 1));
        assert_eq!(counts.bytes, 59);
    }
}
