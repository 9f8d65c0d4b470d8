//! What was acknowledged is never seen older, nor lost.
//!
//! Evidence: versions of scenarios as written and read, ordered by real time: only what had ended
//! before something was sent came before it. A read after an acknowledged write shows that version
//! or a later one, from any session, cached or not; within one session versions do not go back,
//! unless an edit was under way. An edit whose answer was lost may have happened or not.
//! How many reads the replicas answered is exposure: where they answered none, nothing was shown
//! about lag. Unknown if nothing was read. Time O(n log n) per scenario.

use std::collections::BTreeMap;

use crate::checker::{Breach, Case, Checker, Finding};
use crate::history::F;
use crate::timeline::{Op, Outcome};

/// The law.
pub struct ReadYourWrites;

impl Checker for ReadYourWrites {
    fn law(&self) -> &'static str {
        "store.read_your_writes"
    }

    fn needs_rows(&self) -> bool {
        true
    }

    fn what(&self) -> &'static str {
        "an acknowledged version is never lost, overwritten unseen, or followed by an older one"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let mut found = Finding::new();
        for (id, register) in Register::all(case) {
            register.judge_reads(case, id, &mut found);
            register.judge_sessions(id, &mut found);
            register.judge_edits(id, &mut found);
            register.judge_last(case, id, &mut found);
            register.judge_content(id, &mut found);
        }
        for reads in case.evidence.final_state.replica_reads.values() {
            found.saw_many("replica_reads", *reads);
            found.saw_many("replicas", u64::from(*reads > 0));
        }
        judge_tenants(case, &mut found);
        judge_dashboards(case, &mut found);
        found
    }
}

/// All that was done to one scenario by its own tenant.
#[derive(Default)]
struct Register<'a> {
    /// Acknowledged writes with the version that each made, by the end.
    writes: Vec<(&'a Op<'a>, u64)>,
    /// Reads with the version that each saw, by the start.
    reads: Vec<(&'a Op<'a>, u64)>,
    /// Reads that were told that there is no such thing.
    misses: Vec<&'a Op<'a>>,
    /// Edits, however they ended.
    edits: Vec<&'a Op<'a>>,
}

impl<'a> Register<'a> {
    fn all(case: &'a Case<'a>) -> BTreeMap<&'a str, Self> {
        let mut all: BTreeMap<&str, Self> = BTreeMap::new();
        for op in case.timeline.ops.values() {
            if !matches!(op.f(), F::ScenarioCreate | F::ScenarioEdit | F::ScenarioRead) {
                continue;
            }
            let answer = op.answer();
            let Some(id) = answer.and_then(|answer| answer.id.as_deref()).or(op.invoke.args.id.as_deref()) else {
                continue;
            };
            let register = all.entry(id).or_default();
            if op.f() == F::ScenarioEdit {
                register.edits.push(op);
            }
            match (op.f(), answer.and_then(|answer| answer.version)) {
                (F::ScenarioRead, Some(version)) => register.reads.push((op, version)),
                (F::ScenarioRead, None) if op.status() == Some(404) => register.misses.push(op),
                (F::ScenarioCreate | F::ScenarioEdit, Some(version)) => register.writes.push((op, version)),
                _ => {}
            }
        }
        for register in all.values_mut() {
            register.writes.sort_by_key(|(op, version)| (op.ended_ns(), *version));
            register.reads.sort_by_key(|(op, _)| (op.sent_ns(), op.invoke.op));
        }
        all
    }

    /// The acknowledged write of the newest version that had ended before an instant.
    fn newest_before(&self, t_ns: u64) -> Option<&(&'a Op<'a>, u64)> {
        let ended = self.writes.partition_point(|(op, _)| op.ended_ns() < t_ns);
        self.writes[..ended].iter().max_by_key(|(_, version)| *version)
    }

    fn judge_reads(&self, case: &Case<'_>, id: &str, found: &mut Finding) {
        for (read, seen) in &self.reads {
            found.saw("reads", &case.timeline, read.ended_ns(), read.f().name());
            let Some((write, version)) = self.newest_before(read.sent_ns()) else {
                continue;
            };
            if !write.end.is_some_and(|end| end.replayed) {
                found.saw("reads_after_write", &case.timeline, read.ended_ns(), "");
            }
            if seen < version {
                let what = format!("{} read version {seen} of {id} after {version} was acknowledged", read.who());
                let breach =
                    Breach::new("stale_read", what, format!("version {version} or later"), format!("version {seen}"));
                found.breach(breach.at(read.ended_ns()).shown_by(write).shown_by(read).of(read.who()));
            }
        }
        for miss in &self.misses {
            if let Some((write, _)) = self.newest_before(miss.sent_ns()) {
                let what = format!("{} was told that scenario {id} does not exist", miss.who());
                let breach = Breach::new("acknowledged_scenario_not_found", what, "200", "404");
                found.breach(breach.at(miss.ended_ns()).shown_by(write).shown_by(miss).of(miss.who()));
            }
        }
    }

    /// Versions seen by one session do not go back.
    fn judge_sessions(&self, id: &str, found: &mut Finding) {
        let mut newest: BTreeMap<&str, (&Op<'_>, u64)> = BTreeMap::new();
        for (read, seen) in &self.reads {
            let session = read.invoke.session.as_deref().unwrap_or(&read.invoke.process);
            let Some((before, version)) = newest.get(session).copied() else {
                newest.insert(session, (read, *seen));
                continue;
            };
            if *seen >= version {
                newest.insert(session, (read, *seen));
                continue;
            }
            // A write under way may be seen by one read and not by the next.
            let between = |edit: &&Op<'_>| edit.sent_ns() <= read.ended_ns() && before.sent_ns() <= edit.ended_ns();
            if before.ended_ns() < read.sent_ns() && !self.edits.iter().any(between) {
                let what = format!("a session of {} read version {version} of {id}, then {seen}", read.who());
                let breach =
                    Breach::new("versions_went_back", what, format!("version {version} or later"), seen.to_string());
                found.breach(breach.at(read.ended_ns()).shown_by(before).shown_by(read).of(read.who()));
            }
        }
    }

    /// Of two edits that name one version, one at most is acknowledged; each makes the next one.
    fn judge_edits(&self, id: &str, found: &mut Finding) {
        let mut by_base: BTreeMap<u64, &Op<'_>> = BTreeMap::new();
        for (edit, version) in self.writes.iter().filter(|(op, _)| op.f() == F::ScenarioEdit) {
            let Some(base) = edit.invoke.args.if_version else {
                continue;
            };
            if let Some(other) = by_base.insert(base, edit) {
                let what = format!("two edits of version {base} of {id} were both acknowledged");
                let breach = Breach::new("two_edits_of_one_version", what, "one 200, one 412", "two 200");
                found.breach(breach.at(edit.ended_ns()).shown_by(other).shown_by(edit).of(edit.who()));
            }
            if *version <= base {
                let what = format!("an edit of version {base} of {id} made version {version}");
                let breach = Breach::new("edit_made_no_version", what, format!("above {base}"), version.to_string());
                found.breach(breach.shown_by(edit).of(edit.who()));
            }
        }
    }

    /// At the end the newest acknowledged version is there, and none that nobody can have made.
    fn judge_last(&self, case: &Case<'_>, id: &str, found: &mut Finding) {
        let Some((write, newest)) = self.newest_before(u64::MAX) else {
            return;
        };
        let rows = &case.evidence.final_state.scenarios;
        if rows.is_empty() {
            return;
        }
        found.saw_many("last_versions", 1);
        let Some(row) = rows.iter().find(|row| row.scenario_id == id) else {
            let what = format!("{}'s scenario {id} was acknowledged and is gone", write.who());
            let breach = Breach::new("acknowledged_scenario_lost", what, format!("version {newest}"), "no row");
            found.breach(breach.shown_by(write).of(write.who()));
            return;
        };
        if row.version < *newest {
            let what = format!("an acknowledged edit of {}'s scenario {id} is lost", write.who());
            let (newest, last) = (format!("version {newest} or later"), format!("version {}", row.version));
            found.breach(Breach::new("acknowledged_edit_lost", what, newest, last).shown_by(write).of(write.who()));
        }
        let possible = self.edits.iter().filter(|edit| edit.outcome != Outcome::Fail).count() as u64;
        let is_created_here = self.writes.iter().any(|(op, version)| op.f() == F::ScenarioCreate && *version == 1);
        if is_created_here && row.version > 1 + possible {
            let what = format!("{}'s scenario {id} has versions that nobody wrote", write.who());
            let breach =
                Breach::new("version_nobody_wrote", what, format!("at most {}", 1 + possible), row.version.to_string());
            found.breach(breach.of(write.who()));
        }
    }

    /// A version has one content, whoever reads it and whenever.
    fn judge_content(&self, id: &str, found: &mut Finding) {
        let mut contents: BTreeMap<u64, (&Op<'_>, &str)> = BTreeMap::new();
        for (op, version) in self.writes.iter().chain(&self.reads) {
            let Some(digest) = op.answer().and_then(|answer| answer.content_sha256.as_deref()) else {
                continue;
            };
            match contents.get(version) {
                None => {
                    contents.insert(*version, (op, digest));
                }
                Some((first, other)) if *other != digest => {
                    let what = format!("version {version} of {id} was shown with two contents");
                    let breach = Breach::new("one_version_two_contents", what, *other, digest);
                    found.breach(breach.at(op.ended_ns()).shown_by(first).shown_by(op).of(op.who()));
                }
                Some(_) => {}
            }
        }
    }
}

/// A tenant whose sign-up was acknowledged is there.
fn judge_tenants(case: &Case<'_>, found: &mut Finding) {
    for op in case.timeline.ops.values().filter(|op| op.f() == F::Signup) {
        let Some(id) = op.answer().and_then(|answer| answer.tenant_id.as_deref()) else {
            continue;
        };
        if !case.rows.tenants.contains_key(id) && !case.rows.tenants.is_empty() {
            let what = format!("{}'s sign-up was acknowledged and the tenant is gone", op.who());
            found.breach(Breach::new("acknowledged_tenant_lost", what, id, "no row").shown_by(op).of(op.who()));
        }
    }
}

/// A dashboard counts at least what was created and acknowledged before it was asked for.
fn judge_dashboards(case: &Case<'_>, found: &mut Finding) {
    let mut created: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
    let creates = case.timeline.ops.values().filter(|op| op.f() == F::ScenarioCreate);
    for op in creates {
        if let (Some(tenant), Some(id)) = (op.tenant(), op.answer().and_then(|answer| answer.id.as_deref())) {
            let at = created.entry(tenant).or_default().entry(id).or_insert(u64::MAX);
            *at = (*at).min(op.ended_ns());
        }
    }
    for op in case.timeline.ops.values().filter(|op| op.f() == F::Dashboard) {
        let (Some(tenant), Some(shown)) = (op.tenant(), op.answer().and_then(|answer| answer.dashboard.as_ref()))
        else {
            continue;
        };
        let mine = created.get(tenant);
        let least = mine.map_or(0, |mine| mine.values().filter(|at| **at < op.sent_ns()).count() as u64);
        found.saw("dashboards", &case.timeline, op.ended_ns(), op.f().name());
        if shown.scenarios < least {
            let what = format!("{tenant}'s dashboard counts {} scenarios, {least} were acknowledged", shown.scenarios);
            let breach = Breach::new("stale_dashboard", what, format!("at least {least}"), shown.scenarios.to_string());
            found.breach(breach.shown_by(op).of(tenant));
        }
    }
}
