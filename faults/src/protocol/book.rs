//! The rules that are asked for every request, and the record of what they did.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{
    compiled::CompiledPattern,
    follower::Follower,
    grip::{Connection, Firing, Grip, GripState},
    observer::{Origin, Point, RuleRecord, WireEvent, WireEventKind},
    operation::{Operation, Outcome, Protocol},
    points::PointList,
    postgres::WritingFunctions,
    redis::ScriptNames,
    relay::BookInspectors,
    rule::{Rule, RuleError},
};
use crate::toxid::InspectorFactory;

/// Bounds of what a book keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BookLimits {
    /// Rules, removed ones included.
    pub rules_max: usize,
    /// Events; later ones are counted as lost.
    pub events_max: usize,
    /// Points listed; later ones are counted as lost.
    pub points_max: usize,
}

impl Default for BookLimits {
    /// 1024 rules, 20000 events, 20000 points.
    fn default() -> Self {
        Self { rules_max: 1_024, events_max: 20_000, points_max: 20_000 }
    }
}

/// What happens to what a rule holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// It goes on. What was dropped cannot, so its connection is cut.
    Pass,
    /// Its connection is cut.
    Cut,
}

/// A rule did not come as far as was waited for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rule {rule} did not get there within {limit_ms} ms: matched {matched}, acted {acted}, observed {observed}")]
pub struct NotInTime {
    /// Name of the rule.
    pub rule: String,
    /// The limit, milliseconds.
    pub limit_ms: u64,
    /// Requests that fitted.
    pub matched: u64,
    /// Requests chosen.
    pub acted: u64,
    /// Requests hurt.
    pub observed: u64,
}

/// Rules, live and past, with their records; clones share them.
#[derive(Clone)]
pub struct RuleBook {
    shared: Arc<Shared>,
}

impl fmt::Debug for RuleBook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.records().into_iter().map(|record| record.rule.name).collect();
        f.debug_struct("RuleBook").field("rules", &names).finish_non_exhaustive()
    }
}

struct Shared {
    epoch: Instant,
    limits: BookLimits,
    state: Mutex<State>,
    /// No rule is installed and nothing is listed: requests need not be shown.
    is_idle: AtomicBool,
    scripts: ScriptNames,
    functions: WritingFunctions,
    /// Something held was let go.
    released: watch::Sender<u64>,
    /// A record has changed.
    progress: watch::Sender<u64>,
}

struct State {
    rules: Vec<Entry>,
    grips: Vec<Arc<Grip>>,
    events: Vec<WireEvent>,
    events_lost: u64,
    points: PointList,
    connections: u64,
}

struct Entry {
    record: RuleRecord,
    pattern: CompiledPattern,
}

impl Entry {
    fn is_live(&self) -> bool {
        self.record.installed_ns.is_some() && self.record.removed_ns.is_none()
    }
}

impl RuleBook {
    /// A book without rules. `epoch`: what its times count from.
    pub fn new(epoch: Instant, limits: BookLimits) -> Self {
        Self {
            shared: Arc::new(Shared {
                epoch,
                limits,
                state: Mutex::new(State {
                    rules: Vec::new(),
                    grips: Vec::new(),
                    events: Vec::new(),
                    events_lost: 0,
                    points: PointList::new(limits.points_max),
                    connections: 0,
                }),
                is_idle: AtomicBool::new(true),
                scripts: ScriptNames::default(),
                functions: WritingFunctions::default(),
                released: watch::Sender::new(0),
                progress: watch::Sender::new(0),
            }),
        }
    }

    /// Writes a rule down; it does nothing until it is installed.
    ///
    /// # Errors
    /// [`RuleError`] if it says nothing, its name is taken, or the book is full.
    pub fn plan(&self, rule: &Rule) -> Result<(), RuleError> {
        rule.validate()?;
        let at_ns = self.now_ns();
        let mut state = self.lock();
        if state.rules.iter().any(|entry| entry.record.rule.name == rule.name) {
            return Err(RuleError::Duplicate(rule.name.clone()));
        }
        if state.rules.len() >= self.shared.limits.rules_max {
            return Err(RuleError::TooMany { name: rule.name.clone(), rules_max: self.shared.limits.rules_max });
        }
        let pattern = CompiledPattern::new(rule.role.as_deref(), &rule.pattern);
        state.rules.push(Entry { record: RuleRecord::new(rule.clone(), at_ns), pattern });
        self.tell_of_rule(&mut state, at_ns, &rule.name, WireEventKind::Planned);
        Ok(())
    }

    /// Begins to ask a planned rule for every request, its count at nought; without effect on one
    /// that was installed before.
    ///
    /// # Errors
    /// [`RuleError::Unknown`].
    pub fn install(&self, name: &str) -> Result<(), RuleError> {
        let at_ns = self.now_ns();
        let mut state = self.lock();
        let entry = find(&mut state, name)?;
        if entry.record.installed_ns.is_none() {
            entry.record.installed_ns = Some(at_ns);
            self.tell_of_rule(&mut state, at_ns, name, WireEventKind::Installed);
        }
        self.settle_idle(&state);
        Ok(())
    }

    /// Lets go what the rule holds; the rule stays.
    ///
    /// # Errors
    /// [`RuleError::Unknown`].
    pub fn release(&self, name: &str, release: Release) -> Result<(), RuleError> {
        let at_ns = self.now_ns();
        let mut state = self.lock();
        find(&mut state, name)?;
        let word = match release {
            Release::Pass => GripState::Passed,
            Release::Cut => GripState::Cut,
        };
        self.let_go(&mut state, name, word);
        self.tell_of_rule(&mut state, at_ns, name, WireEventKind::Released);
        Ok(())
    }

    /// Asks the rule no more; what it delays goes on at once, what it holds or has dropped is cut.
    /// Without effect on one that was removed before.
    ///
    /// # Errors
    /// [`RuleError::Unknown`].
    pub fn remove(&self, name: &str) -> Result<(), RuleError> {
        let at_ns = self.now_ns();
        let mut state = self.lock();
        let entry = find(&mut state, name)?;
        if entry.record.removed_ns.is_none() {
            entry.record.removed_ns = Some(at_ns);
            self.let_go(&mut state, name, GripState::Removed);
            self.tell_of_rule(&mut state, at_ns, name, WireEventKind::Removed);
        }
        self.settle_idle(&state);
        Ok(())
    }

    /// How many requests the rule has chosen that are still held, delayed or waited for.
    pub fn held(&self, name: &str) -> usize {
        let state = self.lock();
        // Where the request or its connection is gone, nobody else has the grip.
        state.grips.iter().filter(|grip| grip.rule() == name && Arc::strong_count(grip) > 1).count()
    }

    /// Removes every rule.
    pub fn remove_all(&self) {
        let names: Vec<String> = self.records().into_iter().map(|record| record.rule.name).collect();
        for name in names {
            // Names are never struck off, so each is known.
            let _ = self.remove(&name);
        }
    }

    /// Begins or ends the listing of points.
    pub fn set_listing(&self, on: bool) {
        let mut state = self.lock();
        state.points.is_listing = on;
        self.settle_idle(&state);
    }

    /// Forgets the points listed so far, so that their counts begin anew; a rule installed in the same moment counts alike.
    pub fn forget_points(&self) {
        self.lock().points.clear();
    }

    /// Gives a script a name that rules and listings use; `sha`: its SHA-1 in hexadecimal digits.
    pub fn name_script(&self, sha: &str, name: &str) {
        self.shared.scripts.learn(sha, name);
    }

    /// Tells which functions of PostgreSQL write although a SELECT calls them (lower case, without schema), so that such
    /// a SELECT counts as a writing statement. For statements that come up from now on.
    pub fn name_writing_functions(&self, names: impl IntoIterator<Item = String>) {
        self.shared.functions.learn(names);
    }

    /// Follows every connection of a proxy that leads from this process to such a server.
    pub fn inspectors(&self, origin: Origin, protocol: Protocol) -> Arc<dyn InspectorFactory> {
        Arc::new(BookInspectors { book: self.clone(), origin, protocol })
    }

    /// Follows one new connection.
    pub fn follow(&self, origin: Origin, protocol: Protocol) -> Follower {
        let number = {
            let mut state = self.lock();
            state.connections += 1;
            state.connections - 1
        };
        let (scripts, functions) = (self.shared.scripts.clone(), self.shared.functions.clone());
        Follower::new(self.clone(), Connection { origin, number }, protocol, scripts, functions)
    }

    /// The record of one rule.
    ///
    /// # Errors
    /// [`RuleError::Unknown`].
    pub fn record(&self, name: &str) -> Result<RuleRecord, RuleError> {
        find(&mut self.lock(), name).map(|entry| entry.record.clone())
    }

    /// The records of all rules in the order of their planning.
    pub fn records(&self) -> Vec<RuleRecord> {
        self.lock().rules.iter().map(|entry| entry.record.clone()).collect()
    }

    /// Names of the rules whose harm never came about.
    pub fn without_effect(&self) -> Vec<String> {
        let records = self.records().into_iter();
        records.filter(|record| record.observed == 0).map(|record| record.rule.name).collect()
    }

    /// The events so far in order, and how many there was no room for.
    pub fn events(&self) -> (Vec<WireEvent>, u64) {
        let state = self.lock();
        (state.events.clone(), state.events_lost)
    }

    /// The points listed so far in order, and how many there was no room for.
    pub fn points(&self) -> (Vec<Point>, u64) {
        self.lock().points.read()
    }

    /// Waits until the rule's record is as `reached` wants it.
    ///
    /// # Errors
    /// [`NotInTime`], at once if there is no such rule.
    pub async fn wait_for(
        &self,
        name: &str,
        limit: Duration,
        reached: impl Fn(&RuleRecord) -> bool,
    ) -> Result<RuleRecord, NotInTime> {
        let mut progress = self.shared.progress.subscribe();
        let waiting = async {
            loop {
                progress.borrow_and_update();
                match self.record(name) {
                    Ok(record) if reached(&record) => return Some(record),
                    Ok(_) => {}
                    Err(_) => return None,
                }
                if progress.changed().await.is_err() {
                    return None;
                }
            }
        };
        if let Ok(Some(record)) = tokio::time::timeout(limit, waiting).await {
            return Ok(record);
        }
        let record = self.record(name).ok();
        let count = |of: fn(&RuleRecord) -> u64| record.as_ref().map_or(0, of);
        Err(NotInTime {
            rule: name.into(),
            limit_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
            matched: count(|record| record.matched),
            acted: count(|record| record.acted),
            observed: count(|record| record.observed),
        })
    }

    /// Wakes when something held was let go.
    pub(super) fn releases(&self) -> watch::Receiver<u64> {
        self.shared.released.subscribe()
    }

    /// Enters a request into the list, if points are listed and it is one; where it stands there.
    pub(super) fn list(&self, connection: &Connection, operation: &Operation) -> Option<usize> {
        if self.shared.is_idle.load(Ordering::Acquire) || !operation.is_point() {
            return None;
        }
        let at_ns = self.now_ns();
        self.lock().points.push(at_ns, connection, operation)
    }

    pub(super) fn list_outcome(&self, at: usize, outcome: &Outcome) {
        self.lock().points.set_outcome(at, outcome);
    }

    /// Asks every live rule; the first whose count is met acts.
    pub(super) fn consider(&self, connection: &Connection, operation: &Operation) -> Option<Firing> {
        if self.shared.is_idle.load(Ordering::Acquire) || !operation.may_match() {
            return None;
        }
        let at_ns = self.now_ns();
        let mut state = self.lock();
        let mut chosen: Option<Firing> = None;
        let mut told = Vec::new();
        for entry in state.rules.iter_mut().filter(|entry| entry.is_live()) {
            if !entry.pattern.matches(&connection.origin, operation) {
                continue;
            }
            let record = &mut entry.record;
            record.matched += 1;
            let name = record.rule.name.clone();
            told.push((name.clone(), WireEventKind::Matched { match_number: record.matched }));
            if !record.rule.k.is_met_by(record.matched) {
                continue;
            }
            if chosen.is_some() {
                told.push((name, WireEventKind::Overruled));
                continue;
            }
            record.acted += 1;
            told.push((name.clone(), WireEventKind::Acted));
            chosen = Some(Firing {
                action: record.rule.action.clone(),
                place: record.rule.place,
                operation: operation.label(),
                grip: Arc::new(Grip::new(name)),
            });
        }
        if told.is_empty() {
            return None;
        }
        let label = operation.label();
        for (rule, kind) in told {
            self.tell(
                &mut state,
                WireEvent {
                    at_ns,
                    rule: Some(rule),
                    origin: Some(connection.origin.clone()),
                    connection: Some(connection.number),
                    operation: Some(label.clone()),
                    kind,
                },
            );
        }
        if let Some(firing) = &chosen {
            // Grips whose connection is gone are held by nobody else.
            state.grips.retain(|grip| Arc::strong_count(grip) > 1);
            state.grips.push(Arc::clone(&firing.grip));
        }
        chosen
    }

    pub(super) fn confirmed(&self, connection: &Connection, firing: &Firing, outcome: &Outcome) {
        self.happened(connection, firing, WireEventKind::Confirmed { outcome: outcome.clone() }, |record, _| {
            record.applied += u64::from(*outcome == Outcome::Done);
        });
    }

    pub(super) fn observed(&self, connection: &Connection, firing: &Firing, late_ms: Option<u64>) {
        self.happened(connection, firing, WireEventKind::Observed { late_ms }, |record, at_ns| {
            record.observed += 1;
            record.observed_ns.get_or_insert(at_ns);
        });
    }

    pub(super) fn overruled(&self, connection: &Connection, firing: &Firing) {
        self.happened(connection, firing, WireEventKind::Overruled, |_, _| {});
    }

    pub(super) fn untracked(&self, connection: &Connection, reason: &str) {
        let at_ns = self.now_ns();
        self.tell(
            &mut self.lock(),
            WireEvent {
                at_ns,
                rule: None,
                origin: Some(connection.origin.clone()),
                connection: Some(connection.number),
                operation: None,
                kind: WireEventKind::Untracked { reason: reason.into() },
            },
        );
    }

    fn happened(
        &self,
        connection: &Connection,
        firing: &Firing,
        kind: WireEventKind,
        change: impl Fn(&mut RuleRecord, u64),
    ) {
        let at_ns = self.now_ns();
        let mut state = self.lock();
        if let Ok(entry) = find(&mut state, firing.grip.rule()) {
            change(&mut entry.record, at_ns);
        }
        self.tell(
            &mut state,
            WireEvent {
                at_ns,
                rule: Some(firing.grip.rule().to_owned()),
                origin: Some(connection.origin.clone()),
                connection: Some(connection.number),
                operation: Some(firing.operation.clone()),
                kind,
            },
        );
    }

    fn tell_of_rule(&self, state: &mut State, at_ns: u64, rule: &str, kind: WireEventKind) {
        let rule = Some(rule.to_owned());
        self.tell(state, WireEvent { at_ns, rule, origin: None, connection: None, operation: None, kind });
    }

    fn tell(&self, state: &mut State, event: WireEvent) {
        if state.events.len() < self.shared.limits.events_max {
            state.events.push(event);
        } else {
            state.events_lost += 1;
        }
        self.shared.progress.send_modify(|version| *version += 1);
    }

    fn let_go(&self, state: &mut State, rule: &str, word: GripState) {
        for grip in state.grips.iter().filter(|grip| grip.rule() == rule) {
            grip.set(word);
        }
        self.shared.released.send_modify(|version| *version += 1);
    }

    fn settle_idle(&self, state: &State) {
        let is_idle = !state.points.is_listing && !state.rules.iter().any(Entry::is_live);
        self.shared.is_idle.store(is_idle, Ordering::Release);
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.shared.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn find<'a>(state: &'a mut State, name: &str) -> Result<&'a mut Entry, RuleError> {
    let entry = state.rules.iter_mut().find(|entry| entry.record.rule.name == name);
    entry.ok_or_else(|| RuleError::Unknown(name.into()))
}
