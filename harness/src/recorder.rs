//! The only writer of the history.
//!
//! One lock gives each event its number, its time and its phase, so the record is ordered by construction: numbers have
//! no gap and time never goes back. A thread of its own turns events into lines and lines into zstd frames; a frame ends
//! at least every second, so that a crash of the harness leaves all but the last second readable.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nogo_invariants::history::{
    Completion, Edge, Event, F, FaultEvent, Header, Invoke, Note, Phase, PhaseEvent, ProbeEvent, ProcessEvent,
};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use crate::client::Outcome;
use crate::steady_state::Tally;

/// Events that may wait for the writer; beyond that the record is broken and the run inconclusive.
const QUEUE_EVENTS_MAX: usize = 200_000;
/// A frame ends after this long.
const FRAME_MS_MAX: u64 = 1_000;
/// zstd's level: speed before size, the load shares the machine.
const LEVEL: i32 = 1;

/// The run's one monotonic clock.
#[derive(Debug, Clone, Copy)]
pub struct RunClock {
    started: Instant,
}

impl RunClock {
    /// Starts now.
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// Nanoseconds since the start.
    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// The moment `ns` after the start.
    pub fn at(&self, ns: u64) -> Instant {
        self.started + Duration::from_nanos(ns)
    }
}

/// Where the record goes. Cheap to clone; every clone writes to the same history.
#[derive(Debug, Clone)]
pub struct Recorder {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    clock: RunClock,
    line: Mutex<Line>,
    next_op: AtomicU64,
    tally: Tally,
    /// Operations of the load sent so far, by kind.
    sent: Mutex<HashMap<F, u64>>,
    sent_more: Notify,
    writer: Mutex<Option<JoinHandle<anyhow::Result<Recording>>>>,
}

#[derive(Debug)]
struct Line {
    next_index: u64,
    phase: Phase,
    phase_open: bool,
    queue: Option<SyncSender<Event>>,
    failure: Option<String>,
}

/// A finished record.
#[derive(Debug)]
pub struct Recording {
    /// Every event, in order.
    pub events: Vec<Event>,
    /// SHA-256, lower-case hex, of the lines as text, newlines included.
    pub sha256: String,
    /// The compressed file.
    pub path: PathBuf,
}

impl Recorder {
    /// Opens `path` for writing and records `header` as line 0.
    ///
    /// # Errors
    /// Where the file cannot be created or the writer cannot be started.
    pub fn start(path: &Path, header: Header, clock: RunClock) -> anyhow::Result<Self> {
        let recorder = Self::open(path, clock)?;
        recorder.record(|_| Event::Header(header));
        Ok(recorder)
    }

    /// Opens `path` for writing with what happened before as its first lines: they keep their times, which must be of
    /// `clock`, and are numbered anew. New operations are numbered after theirs.
    ///
    /// # Errors
    /// Where the file cannot be created or the writer cannot be started.
    pub fn resume(path: &Path, before: Vec<Event>, clock: RunClock) -> anyhow::Result<Self> {
        let recorder = Self::open(path, clock)?;
        let ops = before.iter().filter_map(|event| match event {
            Event::Invoke(invoke) => Some(invoke.op + 1),
            _ => None,
        });
        recorder.shared.next_op.store(ops.max().unwrap_or(0), Ordering::Relaxed);
        {
            let mut line = recorder.shared.line.lock().expect("history lock");
            for event in before {
                let t_ns = event.time_ns();
                recorder.append_at(&mut line, event, t_ns);
            }
        }
        Ok(recorder)
    }

    fn open(path: &Path, clock: RunClock) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("create history {}", path.display()))?;
        let (queue, events) = sync_channel(QUEUE_EVENTS_MAX);
        let kept = path.to_path_buf();
        let writer = std::thread::Builder::new()
            .name("history".to_owned())
            .spawn(move || write_all(file, &kept, &events))
            .context("start history writer")?;
        let line =
            Line { next_index: 0, phase: Phase::Provision, phase_open: false, queue: Some(queue), failure: None };
        Ok(Self {
            shared: Arc::new(Shared {
                clock,
                line: Mutex::new(line),
                next_op: AtomicU64::new(0),
                tally: Tally::default(),
                sent: Mutex::default(),
                sent_more: Notify::new(),
                writer: Mutex::new(Some(writer)),
            }),
        })
    }

    /// The run's clock.
    pub fn clock(&self) -> RunClock {
        self.shared.clock
    }

    /// Running figures of the load, for probes and progress.
    pub fn tally(&self) -> &Tally {
        &self.shared.tally
    }

    /// A number for an operation, never given twice.
    pub fn next_op(&self) -> u64 {
        self.shared.next_op.fetch_add(1, Ordering::Relaxed)
    }

    /// The present phase.
    pub fn phase(&self) -> Phase {
        self.shared.line.lock().expect("history lock").phase
    }

    /// Ends the present phase and begins `phase`, with the open-loop rate it offers (0 for none).
    pub fn enter_phase(&self, phase: Phase, offered_per_s: u64) {
        self.leave_phase();
        let mut line = self.shared.line.lock().expect("history lock");
        line.phase = phase;
        line.phase_open = true;
        self.append(&mut line, Event::Phase(PhaseEvent { i: 0, t_ns: 0, phase, edge: Edge::Start, offered_per_s }));
    }

    /// Ends the present phase, if one is open.
    pub fn leave_phase(&self) {
        let mut line = self.shared.line.lock().expect("history lock");
        if line.phase_open {
            line.phase_open = false;
            let phase = line.phase;
            let end = PhaseEvent { i: 0, t_ns: 0, phase, edge: Edge::End, offered_per_s: 0 };
            self.append(&mut line, Event::Phase(end));
        }
    }

    /// Records that a request is about to be sent; number, time and phase are filled in here.
    pub fn invoke(&self, invoke: Invoke) {
        let (f, mut is_load) = (invoke.f, false);
        self.record(|phase| {
            is_load = matches!(phase, Phase::Baseline | Phase::Load);
            Event::Invoke(Invoke { phase, ..invoke })
        });
        if is_load {
            *self.shared.sent.lock().expect("counts lock").entry(f).or_default() += 1;
            self.shared.sent_more.notify_waiters();
        }
    }

    /// Waits until `kth` operations of a kind were sent since the load began.
    pub async fn wait_until_sent(&self, f: F, kth: u64) {
        loop {
            let more = self.shared.sent_more.notified();
            let sent = self.shared.sent.lock().expect("counts lock").get(&f).copied().unwrap_or(0);
            if sent >= kth {
                return;
            }
            more.await;
        }
    }

    /// Records how an operation ended; `counts` says whether it is part of the load, whose figures are tallied.
    pub fn complete(&self, outcome: Outcome, completion: Completion, counts: bool) {
        if counts {
            self.shared.tally.observe(self.shared.clock.now_ns(), outcome, &completion);
        }
        self.record(|_| match outcome {
            Outcome::Ok => Event::Ok(completion),
            Outcome::Fail => Event::Fail(completion),
            Outcome::Info => Event::Info(completion),
        });
    }

    /// Records a fault's change of state.
    pub fn fault(&self, event: FaultEvent) {
        self.record(|_| Event::Fault(event));
    }

    /// Records a process's start, readiness or end.
    pub fn process(&self, event: ProcessEvent) {
        self.record(|_| Event::Process(event));
    }

    /// Records a probe.
    pub fn probe(&self, name: &str, ok: bool, detail: &str) {
        let event = ProbeEvent { i: 0, t_ns: 0, name: name.to_owned(), ok, detail: detail.to_owned() };
        self.record(|_| Event::Probe(event));
    }

    /// Records a remark for a reader.
    pub fn note(&self, text: &str) {
        self.record(|_| Event::Note(Note { i: 0, t_ns: 0, text: text.to_owned() }));
    }

    /// Whether every event so far was taken by the writer.
    ///
    /// # Errors
    /// Once an event was not written: the record has a hole and the run is inconclusive.
    pub fn check(&self) -> anyhow::Result<()> {
        match &self.shared.line.lock().expect("history lock").failure {
            Some(failure) => bail!("the history is incomplete: {failure}"),
            None => Ok(()),
        }
    }

    /// Ends the record and hands it over. Blocks until the last frame is on disk; events recorded later are lost.
    ///
    /// # Errors
    /// Where any event was not written, or the record was finished before.
    pub fn finish(&self) -> anyhow::Result<Recording> {
        self.leave_phase();
        self.shared.line.lock().expect("history lock").queue = None;
        let writer = self.shared.writer.lock().expect("writer lock").take().context("finish the history once")?;
        let recording = match writer.join() {
            Ok(written) => written.context("write history")?,
            Err(_) => bail!("the history writer panicked"),
        };
        self.check()?;
        Ok(recording)
    }

    fn record(&self, make: impl FnOnce(Phase) -> Event) {
        let mut line = self.shared.line.lock().expect("history lock");
        let event = make(line.phase);
        self.append(&mut line, event);
    }

    fn append(&self, line: &mut Line, event: Event) {
        self.append_at(line, event, self.shared.clock.now_ns());
    }

    fn append_at(&self, line: &mut Line, mut event: Event, t_ns: u64) {
        stamp(&mut event, line.next_index, t_ns);
        let Some(queue) = &line.queue else {
            line.failure.get_or_insert_with(|| "an event came after the end".to_owned());
            return;
        };
        match queue.try_send(event) {
            Ok(()) => line.next_index += 1,
            Err(TrySendError::Full(_)) => {
                line.failure.get_or_insert_with(|| format!("the writer fell {QUEUE_EVENTS_MAX} events behind"));
            }
            Err(TrySendError::Disconnected(_)) => {
                line.failure.get_or_insert_with(|| "the writer ended early".to_owned());
            }
        }
    }
}

fn stamp(event: &mut Event, index: u64, now_ns: u64) {
    event.set_index(index);
    let time = match event {
        Event::Header(e) => &mut e.t_ns,
        Event::Phase(e) => &mut e.t_ns,
        Event::Invoke(e) => &mut e.t_ns,
        Event::Ok(e) | Event::Fail(e) | Event::Info(e) => &mut e.t_ns,
        Event::Fault(e) => &mut e.t_ns,
        Event::Process(e) => &mut e.t_ns,
        Event::Probe(e) => &mut e.t_ns,
        Event::Note(e) => &mut e.t_ns,
    };
    *time = now_ns;
}

/// The writer thread: drains the queue into frames until every sender is gone.
fn write_all(mut file: File, path: &Path, queue: &Receiver<Event>) -> anyhow::Result<Recording> {
    let mut events = Vec::new();
    let mut hash = Sha256::new();
    let frame_max = Duration::from_millis(FRAME_MS_MAX);
    let mut open = true;
    while open {
        let first = match queue.recv() {
            Ok(event) => event,
            Err(_) => break,
        };
        let ends = Instant::now() + frame_max;
        let mut frame = zstd::Encoder::new(&mut file, LEVEL).context("begin frame")?;
        let mut next = Some(first);
        while let Some(event) = next.take() {
            let mut text = serde_json::to_vec(&event).context("write event as json")?;
            text.push(b'\n');
            hash.update(&text);
            frame.write_all(&text).context("write frame")?;
            events.push(event);
            match queue.recv_timeout(ends.saturating_duration_since(Instant::now())) {
                Ok(event) => next = Some(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => open = false,
            }
        }
        frame.finish().context("end frame")?;
        file.flush().context("flush history")?;
    }
    file.sync_all().context("sync history")?;
    Ok(Recording { events, sha256: hex::encode(hash.finalize()), path: path.to_path_buf() })
}

/// A stored history as it could be read.
#[derive(Debug)]
pub struct StoredHistory {
    /// Events of all whole lines.
    pub events: Vec<Event>,
    /// SHA-256 of those lines as text.
    pub sha256: String,
    /// The file ends within a frame or a line: the harness died.
    pub cut_off: bool,
}

/// Reads a history back. A torn end is no error: what is whole before it is returned, with `cut_off` set.
///
/// # Errors
/// Where the file cannot be opened, or a whole line is no event.
pub fn read_history(path: &Path) -> anyhow::Result<StoredHistory> {
    let file = File::open(path).with_context(|| format!("open history {}", path.display()))?;
    let mut lines = BufReader::new(zstd::Decoder::new(file).context("read zstd")?);
    let mut stored = StoredHistory { events: Vec::new(), sha256: String::new(), cut_off: false };
    let mut hash = Sha256::new();
    let mut text = Vec::new();
    loop {
        text.clear();
        match lines.read_until(b'\n', &mut text) {
            Ok(0) => break,
            Ok(_) if text.last() != Some(&b'\n') => {
                stored.cut_off = true;
                break;
            }
            Ok(_) => {}
            Err(_) => {
                stored.cut_off = true;
                break;
            }
        }
        let event = serde_json::from_slice(&text).with_context(|| format!("read line {}", stored.events.len()))?;
        hash.update(&text);
        stored.events.push(event);
    }
    stored.sha256 = hex::encode(hash.finalize());
    Ok(stored)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nogo_invariants::history::FORMAT_VERSION;

    fn header() -> Header {
        Header {
            i: 9,
            t_ns: 9,
            format: FORMAT_VERSION,
            run_id: "r".into(),
            seed: "1".into(),
            suite: "smoke".into(),
            engine: "process".into(),
            started_unix_us: 0,
        }
    }

    #[test]
    fn what_was_recorded_is_read_back_with_the_same_hash() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("history.ndjson.zst");
        let recorder = Recorder::start(&path, header(), RunClock::start()).expect("start");
        recorder.enter_phase(Phase::Baseline, 150);
        for n in 0..500 {
            recorder.note(&format!("note {n}"));
        }
        let recording = recorder.finish().expect("finish");
        let stored = read_history(&path).expect("read");
        assert_eq!(stored.events, recording.events);
        assert_eq!(stored.sha256, recording.sha256);
        assert!(!stored.cut_off);
        let numbers: Vec<u64> = stored.events.iter().map(Event::index).collect();
        assert_eq!(numbers, (0..503).collect::<Vec<u64>>());
        assert!(stored.events.windows(2).all(|pair| pair[0].time_ns() <= pair[1].time_ns()));
    }

    #[test]
    fn a_resumed_record_goes_on_where_another_ended() {
        let folder = tempfile::tempdir().expect("folder");
        let clock = RunClock::start();
        let first = Recorder::start(&folder.path().join("first"), header(), clock).expect("start");
        first.enter_phase(Phase::Seed, 0);
        first.note("before");
        let before = first.finish().expect("finish").events;
        let path = folder.path().join("second");
        let second = Recorder::resume(&path, before.clone(), clock).expect("resume");
        second.note("after");
        let events = second.finish().expect("finish").events;
        assert_eq!(events[..before.len()], before[..]);
        assert!(events.windows(2).all(|pair| pair[0].time_ns() <= pair[1].time_ns()));
        assert!(events.iter().enumerate().all(|(n, event)| event.index() == n as u64));
        assert_eq!(read_history(&path).expect("read").events, events);
    }

    #[test]
    fn events_of_many_threads_stay_in_order() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("history.ndjson.zst");
        let recorder = Recorder::start(&path, header(), RunClock::start()).expect("start");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..250).for_each(|n| recorder.note(&n.to_string())));
            }
        });
        let events = recorder.finish().expect("finish").events;
        assert!(events.iter().enumerate().all(|(n, event)| event.index() == n as u64));
        assert!(events.windows(2).all(|pair| pair[0].time_ns() <= pair[1].time_ns()));
    }

    #[test]
    fn a_torn_end_leaves_the_events_before_it_readable() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("history.ndjson.zst");
        let recorder = Recorder::start(&path, header(), RunClock::start()).expect("start");
        recorder.note("kept");
        // A frame is ended by time alone; wait for it as a crash later on would find it.
        let deadline = Instant::now() + Duration::from_secs(10);
        while read_history(&path).map_or(0, |stored| stored.events.len()) < 2 {
            assert!(Instant::now() < deadline, "no frame within ten seconds");
            std::thread::sleep(Duration::from_millis(20));
        }
        let whole = std::fs::metadata(&path).expect("metadata").len();
        recorder.note(&"lost ".repeat(1_000));
        recorder.finish().expect("finish");
        let torn = std::fs::OpenOptions::new().write(true).open(&path).expect("open");
        torn.set_len(whole + 7).expect("tear");
        let stored = read_history(&path).expect("read");
        assert_eq!(stored.events.len(), 2);
        assert!(stored.cut_off);
    }

    #[test]
    fn an_event_after_the_end_is_reported() {
        let folder = tempfile::tempdir().expect("folder");
        let recorder = Recorder::start(&folder.path().join("h.zst"), header(), RunClock::start()).expect("start");
        recorder.finish().expect("finish");
        recorder.note("too late");
        assert!(recorder.check().is_err());
    }
}
