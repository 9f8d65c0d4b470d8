//! The record as laws want it: operations with their ends, phases and fault windows.
//!
//! Law of the record is checked here; a record that breaks it is [`Malformed`], and then no law
//! has an opinion. Not for judging.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::history::{Completion, Edge, Event, F, FaultEvent, FaultState, Header, Invoke, Phase, ProcessEvent};

/// Why a record cannot be judged.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Malformed {
    /// The first line is not a header, or of another format.
    #[error("line 0 is no header of a known format")]
    Header,
    /// A line's number is not its place.
    #[error("line {0} has another number")]
    Number(u64),
    /// Time went back.
    #[error("time goes back at line {0}")]
    Time(u64),
    /// Two requests with one number.
    #[error("operation {0} is sent twice")]
    SentTwice(u64),
    /// An answer without a request, or a second one.
    #[error("operation {0} ends without or after its end")]
    Ended(u64),
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A whole 2xx.
    Ok,
    /// Surely not done.
    Fail,
    /// Perhaps done; also where no end was recorded.
    Info,
}

/// A request and its end.
#[derive(Debug, Clone, Copy)]
pub struct Op<'a> {
    /// The request.
    pub invoke: &'a Invoke,
    /// The end, where one was recorded.
    pub end: Option<&'a Completion>,
    /// How it ended.
    pub outcome: Outcome,
}

impl<'a> Op<'a> {
    /// What it asks for.
    pub fn f(&self) -> F {
        self.invoke.f
    }

    /// Label of the tenant that asks.
    pub fn tenant(&self) -> Option<&'a str> {
        self.invoke.tenant.as_deref()
    }

    /// Label of the tenant, or nothing, for messages.
    pub fn who(&self) -> &'a str {
        self.tenant().unwrap_or("nobody")
    }

    /// The moment of sending.
    pub fn sent_ns(&self) -> u64 {
        self.invoke.t_ns
    }

    /// The end; never, where none was recorded.
    pub fn ended_ns(&self) -> u64 {
        self.end.map_or(u64::MAX, |end| end.t_ns)
    }

    /// HTTP status, where an answer came.
    pub fn status(&self) -> Option<u16> {
        self.end.and_then(|end| end.status)
    }

    /// Whether the answer said yes, whole or not.
    pub fn said_yes(&self) -> bool {
        self.status().is_some_and(|status| (200..300).contains(&status))
    }

    /// Whether the client left on purpose, before an answer.
    pub fn was_given_up(&self) -> bool {
        self.end.is_some_and(|end| end.error.as_deref() == Some(crate::history::HUNG_UP))
    }

    /// Whether a whole 2xx arrived.
    pub fn is_ok(&self) -> bool {
        self.outcome == Outcome::Ok
    }

    /// The parsed answer of an operation that is `ok`.
    pub fn answer(&self) -> Option<&'a crate::history::Answer> {
        self.end.filter(|_| self.is_ok()).and_then(|end| end.value.as_ref())
    }

    /// Lines of the record: the request and its end.
    pub fn lines(&self) -> Vec<u64> {
        let mut lines = vec![self.invoke.i];
        lines.extend(self.end.map(|end| end.i));
        lines
    }
}

/// A fault from when it was installed to when it was seen to be over.
#[derive(Debug, Clone)]
pub struct Window<'a> {
    /// `F1`, …
    pub id: &'a str,
    /// Kind of fault.
    pub kind: &'a str,
    /// What it hurts.
    pub target: &'a str,
    /// Installed.
    pub start_ns: u64,
    /// Removed; the record's end where it never was.
    pub end_ns: u64,
    /// Recovered; the record's end where it never was.
    pub recovered_ns: u64,
}

impl Window<'_> {
    /// Whether an instant lies between installing and removing.
    pub fn contains(&self, t_ns: u64) -> bool {
        (self.start_ns..=self.end_ns).contains(&t_ns)
    }

    /// Whether two faults stand at the same time.
    pub fn overlaps(&self, other: &Window<'_>) -> bool {
        self.id != other.id && self.start_ns <= other.end_ns && other.start_ns <= self.end_ns
    }

    /// Whether an interval touches the fault or its aftermath.
    pub fn disturbs(&self, from_ns: u64, to_ns: u64) -> bool {
        from_ns <= self.recovered_ns && self.start_ns <= to_ns
    }
}

/// The record, indexed.
#[derive(Debug, Clone)]
pub struct Timeline<'a> {
    /// Which run.
    pub header: &'a Header,
    /// Operations by number, which is not their order in time.
    pub ops: BTreeMap<u64, Op<'a>>,
    /// Operations per second offered in each phase.
    pub offered: BTreeMap<Phase, u64>,
    /// Start and end of each phase; the end is the record's where it is missing.
    pub phases: BTreeMap<Phase, (u64, u64)>,
    /// Fault windows by start.
    pub windows: Vec<Window<'a>>,
    /// Events of each fault, in order.
    pub faults: BTreeMap<&'a str, Vec<&'a FaultEvent>>,
    /// Events of processes, in order.
    pub processes: Vec<&'a ProcessEvent>,
    /// Time of the last line.
    pub last_ns: u64,
}

impl<'a> Timeline<'a> {
    /// Reads a record. Time O(n log n).
    ///
    /// # Errors
    /// The first breach of the record's law.
    pub fn read(history: &'a [Event]) -> Result<Self, Malformed> {
        let Some(Event::Header(header)) = history.first() else {
            return Err(Malformed::Header);
        };
        if header.format != crate::history::FORMAT_VERSION {
            return Err(Malformed::Header);
        }
        let mut timeline = Self {
            header,
            ops: BTreeMap::new(),
            offered: BTreeMap::new(),
            phases: BTreeMap::new(),
            windows: Vec::new(),
            faults: BTreeMap::new(),
            processes: Vec::new(),
            last_ns: history.last().map_or(0, Event::time_ns),
        };
        let mut now_ns = 0;
        for (place, event) in (0u64..).zip(history) {
            if event.index() != place {
                return Err(Malformed::Number(place));
            }
            if event.time_ns() < now_ns {
                return Err(Malformed::Time(place));
            }
            now_ns = event.time_ns();
            timeline.take(event)?;
        }
        timeline.find_windows();
        Ok(timeline)
    }

    fn take(&mut self, event: &'a Event) -> Result<(), Malformed> {
        match event {
            Event::Invoke(invoke) => {
                let op = Op { invoke, end: None, outcome: Outcome::Info };
                if self.ops.insert(invoke.op, op).is_some() {
                    return Err(Malformed::SentTwice(invoke.op));
                }
            }
            Event::Ok(end) => self.end(end, Outcome::Ok)?,
            Event::Fail(end) => self.end(end, Outcome::Fail)?,
            Event::Info(end) => self.end(end, Outcome::Info)?,
            Event::Phase(phase) => match phase.edge {
                Edge::Start => {
                    self.phases.insert(phase.phase, (phase.t_ns, self.last_ns));
                    self.offered.insert(phase.phase, phase.offered_per_s);
                }
                Edge::End => {
                    self.phases.entry(phase.phase).or_insert((0, 0)).1 = phase.t_ns;
                }
            },
            Event::Fault(fault) => self.faults.entry(&fault.id).or_default().push(fault),
            Event::Process(process) => self.processes.push(process),
            Event::Header(_) | Event::Probe(_) | Event::Note(_) => {}
        }
        Ok(())
    }

    fn end(&mut self, end: &'a Completion, outcome: Outcome) -> Result<(), Malformed> {
        let op = self.ops.get_mut(&end.op).filter(|op| op.end.is_none()).ok_or(Malformed::Ended(end.op))?;
        op.end = Some(end);
        op.outcome = outcome;
        Ok(())
    }

    fn find_windows(&mut self) {
        for (id, events) in &self.faults {
            let time_of = |state| events.iter().find(|event| event.state == state).map(|event| event.t_ns);
            let Some(start_ns) = time_of(FaultState::Installed) else {
                continue;
            };
            let end_ns = time_of(FaultState::Removed).unwrap_or(self.last_ns);
            let recovered_ns = time_of(FaultState::Recovered).unwrap_or(self.last_ns).max(end_ns);
            let (kind, target) = (events[0].kind.as_str(), events[0].target.as_str());
            self.windows.push(Window { id, kind, target, start_ns, end_ns, recovered_ns });
        }
        self.windows.sort_by_key(|window| (window.start_ns, window.id));
    }

    /// The fault whose window an instant lies in; the last installed of several.
    pub fn window_at(&self, t_ns: u64) -> Option<&Window<'a>> {
        self.windows.iter().rev().find(|window| window.contains(t_ns))
    }

    /// The phase that an instant lies in; the last begun of several.
    pub fn phase_at(&self, t_ns: u64) -> Option<Phase> {
        self.phases.iter().rev().find(|(_, (start, end))| (*start..=*end).contains(&t_ns)).map(|(phase, _)| *phase)
    }

    /// Microseconds since 1970, as nanoseconds of the run's clock; 0 for what lies before.
    pub fn run_clock_ns(&self, unix_us: i64) -> u64 {
        u64::try_from(unix_us.saturating_sub(self.header.started_unix_us)).unwrap_or(0).saturating_mul(1_000)
    }

    /// When the last fault was removed; none where there was no fault.
    pub fn healed_ns(&self) -> Option<u64> {
        self.windows.iter().map(|window| window.end_ns).max()
    }
}
