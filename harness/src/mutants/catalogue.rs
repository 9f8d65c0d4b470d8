//! The table of planted bugs: `catalogue.toml` beside the patches.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Deserializer};

use crate::exit_code::{EndsWith, ExitCode};
use crate::judgement::SWEEP_OF;
use nogo_faults::catalogue;

/// What stands for a load without any fault.
const NO_FAULT: &str = "none";
/// Stands between a further fault and its victim.
const AT: char = '@';

/// One planted bug.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mutant {
    /// Short name; the patch is `<id>.patch`.
    pub id: String,
    /// The public incident, or what the bug is derived from.
    pub source: String,
    /// What is wrong, in a sentence.
    pub what: String,
    /// Law that has to be violated.
    pub law: String,
    /// Fault without which the bug does not show; `none` where the load alone reveals it; `sweep/STORY` where only the
    /// sweep of that story strikes the point at which it shows.
    pub fault: String,
    /// The fault's victim, where only harm to that one shows the bug; drawn from the seed where none is named.
    #[serde(default)]
    pub target: Option<String>,
    /// Other faults that reveal it, each by itself and by the same law; `FAULT@VICTIM` where the victim matters.
    #[serde(default)]
    pub also: Vec<String>,
    /// Milder faults of the same kind, or one, under each of which it must not show; `none` for the load without any;
    /// `FAULT@VICTIM` where the victim matters.
    #[serde(default, deserialize_with = "one_or_several")]
    pub milder: Vec<String>,
    /// Where another defence is known to hide the bug: that defence. Survival then counts as masked.
    #[serde(default)]
    pub masked_by: Option<String>,
}

impl Mutant {
    /// The story whose sweep reveals it, by name; none where a suite does.
    #[must_use]
    pub fn story(&self) -> Option<&str> {
        self.fault.strip_prefix(SWEEP_OF)
    }

    /// The milder faults with their victims: the one named behind the `@`, else the row's own, if that fault can be
    /// done to it.
    pub fn milder_at(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.with_victims(&self.milder)
    }

    /// The other faults that reveal it, with their victims in the same way.
    pub fn also_at(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.with_victims(&self.also)
    }

    fn with_victims<'a>(&'a self, named: &'a [String]) -> impl Iterator<Item = (&'a str, Option<&'a str>)> {
        named.iter().map(|named| match named.split_once(AT) {
            Some((fault, target)) => (fault, Some(target)),
            None => (named.as_str(), self.own_target_of(named)),
        })
    }

    fn own_target_of(&self, fault: &str) -> Option<&str> {
        self.target.as_deref().filter(|target| can_hurt(fault, target))
    }

    /// What is wrong with the row's faults and victim.
    fn problems(&self) -> Vec<String> {
        let is_suite = self.story().is_none() && self.fault != NO_FAULT;
        let named = if is_suite { self.fault.split(',').collect() } else { Vec::new() };
        let milder: Vec<(&str, Option<&str>)> = self.milder_at().collect();
        let also: Vec<(&str, Option<&str>)> = self.also_at().collect();
        let gentler = milder.iter().map(|(fault, _)| *fault).filter(|fault| *fault != NO_FAULT);
        let all = named.iter().copied().chain(gentler).chain(also.iter().map(|(fault, _)| *fault));
        let unknown = all.filter(|name| catalogue::find(name).is_none());
        let mut problems: Vec<String> =
            unknown.map(|name| format!("{}: there is no fault '{name}'", self.id)).collect();
        if !is_suite && !milder.is_empty() {
            problems.push(format!("{} names a milder fault and needs none", self.id));
        }
        let own = (self.fault.as_str(), self.target.as_deref());
        if milder.contains(&own) {
            problems.push(format!("{}: '{}' is no milder than itself", self.id, self.fault));
        }
        if !is_suite && !also.is_empty() {
            problems.push(format!("{} names other faults and needs none", self.id));
        }
        if let Some(target) = &self.target
            && !matches!(named[..], [name] if can_hurt(name, target))
        {
            problems.push(format!("{}: {} cannot hurt '{target}'", self.id, self.fault));
        }
        for (fault, target) in also.iter().chain(&milder) {
            if let Some(target) = target
                && (*fault == NO_FAULT || catalogue::find(fault).is_some())
                && !can_hurt(fault, target)
            {
                problems.push(format!("{}: {fault} cannot hurt '{target}'", self.id));
            }
        }
        for (index, further) in also.iter().enumerate() {
            if also[..index].contains(further) || *further == own {
                problems.push(format!("{} names '{}' twice", self.id, self.also[index]));
            }
            if milder.contains(further) {
                problems.push(format!("{}: '{}' cannot reveal it and be the milder one", self.id, further.0));
            }
        }
        for (index, further) in milder.iter().enumerate() {
            if milder[..index].contains(further) {
                problems.push(format!("{} names '{}' twice", self.id, self.milder[index]));
            }
        }
        problems
    }
}

/// A word, or several in a list.
fn one_or_several<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a fault's name, or a list of them")]
    enum Named {
        One(String),
        Several(Vec<String>),
    }
    Ok(match Named::deserialize(deserializer)? {
        Named::One(name) => vec![name],
        Named::Several(names) => names,
    })
}

/// Whether a fault can be done to this victim.
fn can_hurt(fault: &str, target: &str) -> bool {
    catalogue::find(fault).is_some_and(|row| row.targets.contains(&target))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(default)]
    mutant: Vec<Mutant>,
}

/// The mutants of a folder, in the order of its table.
#[derive(Debug, Clone)]
pub struct Catalogue {
    /// Folder of the patches.
    pub dir: PathBuf,
    /// The table.
    pub mutants: Vec<Mutant>,
}

impl Catalogue {
    /// Reads `dir/catalogue.toml` and keeps the mutants named in `ids`, or all.
    ///
    /// # Errors
    /// A usage error for a missing table, an unknown key (with its line), a patch without a row, a row without a
    /// patch, a fault or victim that does not exist, or an id that is not in the table.
    pub fn read(dir: &Path, ids: &[String]) -> Result<Self> {
        let path = dir.join("catalogue.toml");
        let text = std::fs::read_to_string(&path).map_err(|error| {
            EndsWith::usage(format!(
                "no mutants in {}: {error}; --dir names a folder with catalogue.toml",
                dir.display()
            ))
        })?;
        let table: Table =
            toml::from_str(&text).map_err(|error| EndsWith::usage(format!("{}: {error}", path.display())))?;
        let mut problems = Vec::new();
        for mutant in &table.mutant {
            if !dir.join(format!("{}.patch", mutant.id)).is_file() {
                problems.push(format!("{} has a row but no {}.patch", mutant.id, mutant.id));
            }
            problems.append(&mut mutant.problems());
        }
        for entry in std::fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if let Some(id) = name.strip_suffix(".patch")
                && !table.mutant.iter().any(|mutant| mutant.id == id)
            {
                problems.push(format!("{name} has no row in catalogue.toml"));
            }
        }
        for id in ids {
            if !table.mutant.iter().any(|mutant| &mutant.id == id) {
                problems.push(format!("no mutant '{id}' in {}", path.display()));
            }
        }
        if !problems.is_empty() {
            return Err(EndsWith::usage(problems.join("; ")).into());
        }
        let mutants: Vec<Mutant> =
            table.mutant.into_iter().filter(|mutant| ids.is_empty() || ids.contains(&mutant.id)).collect();
        if mutants.is_empty() {
            let message = format!("{} lists no mutant", path.display());
            return Err(EndsWith { code: ExitCode::NothingSelected, message }.into());
        }
        Ok(Catalogue { dir: std::path::absolute(dir)?, mutants })
    }

    /// Path of a mutant's patch.
    pub fn patch(&self, mutant: &Mutant) -> PathBuf {
        self.dir.join(format!("{}.patch", mutant.id))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::exit_code::exit_code_of;

    const ROW: &str = "[[mutant]]\nid = 'a'\nsource = 's'\nwhat = 'w'\nlaw = 'l'\nfault = 'none'\n";

    #[test]
    fn rows_and_patches_must_match_one_to_one() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("catalogue.toml"), ROW).unwrap();
        let missing = Catalogue::read(dir.path(), &[]).unwrap_err();
        assert!(missing.to_string().contains("no a.patch"), "{missing}");
        std::fs::write(dir.path().join("a.patch"), "").unwrap();
        assert_eq!(Catalogue::read(dir.path(), &[]).unwrap().mutants.len(), 1);
        std::fs::write(dir.path().join("b.patch"), "").unwrap();
        assert!(Catalogue::read(dir.path(), &[]).unwrap_err().to_string().contains("b.patch has no row"));
    }

    #[test]
    fn a_story_is_named_behind_its_word() {
        let row = |fault: &str| toml::from_str::<Table>(&ROW.replace("none", fault)).unwrap().mutant.remove(0);
        assert_eq!(row("sweep/refresh").story(), Some("refresh"));
        assert_eq!(row("worker-crash").story(), None);
    }

    #[test]
    fn a_milder_fault_hurts_the_same_victim_where_it_can() {
        let row = |more: &str| toml::from_str::<Table>(&format!("{ROW}{more}").replace("'none'", "'partition'"));
        let milder = |more: &str| {
            let row = row(more).unwrap().mutant.remove(0);
            let owned = row.milder_at().map(|(fault, target)| (fault.to_owned(), target.map(str::to_owned)));
            owned.collect::<Vec<_>>()
        };
        let at = |fault: &str, target: Option<&str>| (fault.to_owned(), target.map(str::to_owned));
        assert!(milder("").is_empty());
        let same = milder("target = 'api-1-redis'\nmilder = 'link-latency'\n");
        assert_eq!(same, [at("link-latency", Some("api-1-redis"))]);
        assert_eq!(milder("target = 'api-1-redis'\nmilder = 'redis-loss'\n"), [at("redis-loss", None)]);
        let several = milder("target = 'api-1-redis'\nmilder = ['link-reset@apis-redis', \"none\"]\n");
        assert_eq!(several, [at("link-reset", Some("apis-redis")), at("none", None)]);
    }

    #[test]
    fn every_fault_that_is_not_named_here_reveals_a_planted_bug() {
        // The placebo does nothing. A bug that shows only at a biller which wakes too late is still to be found.
        let known = ["biller-freeze", "placebo"];
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("mutants");
        let mutants = Catalogue::read(&dir, &[]).unwrap().mutants;
        let own = mutants.iter().flat_map(|mutant| mutant.fault.split(','));
        let revealing: BTreeSet<&str> =
            own.chain(mutants.iter().flat_map(|mutant| mutant.also_at().map(|(fault, _)| fault))).collect();
        let bare: Vec<&str> = catalogue::all().map(|row| row.name).filter(|name| !revealing.contains(name)).collect();
        assert_eq!(bare, known, "those under which no planted bug shows");
    }

    #[test]
    fn the_other_faults_have_victims_of_their_own_or_the_same_where_they_can() {
        let text =
            format!("{ROW}target = 'api-1-redis'\nalso = ['redis-freeze', 'half-open', 'partition@apis-redis']\n");
        let row = toml::from_str::<Table>(&text.replace("'none'", "'partition'")).unwrap().mutant.remove(0);
        let expected = [("redis-freeze", None), ("half-open", Some("api-1-redis")), ("partition", Some("apis-redis"))];
        assert_eq!(row.also_at().collect::<Vec<_>>(), expected);
        assert!(row.problems().is_empty(), "{:?}", row.problems());
    }

    #[test]
    fn a_row_must_name_faults_and_victims_that_there_are() {
        let problems = |fault: &str, more: &str| {
            let text = format!("{ROW}{more}").replace("fault = 'none'", &format!("fault = '{fault}'"));
            toml::from_str::<Table>(&text).unwrap().mutant.remove(0).problems().join("; ")
        };
        for (fault, more) in [
            ("redis-flush", ""),
            ("redis-flush", "milder = 'none'"),
            ("redis-flush", "milder = ['redis-slow', 'link-latency@api-1-redis', 'none']"),
            ("partition", "target = 'api-1-redis'\nmilder = 'partition@api-2-redis'"),
            ("redis-flush,worker-crash", "milder = 'redis-flush'"),
            ("partition", "target = 'api-1-redis'"),
            ("redis-freeze", "also = ['redis-blackhole', 'half-open@api-1-redis']"),
            ("sweep/forecast", ""),
            ("none", ""),
        ] {
            assert_eq!(problems(fault, more), "", "{fault} {more}");
        }
        for (fault, more, wrong) in [
            ("redis-flsh", "", "no fault 'redis-flsh'"),
            ("redis-flush", "milder = 'redis-slw'", "no fault 'redis-slw'"),
            ("redis-flush", "milder = 'redis-flush'", "no milder than itself"),
            ("partition", "target = 'api-1-redis'\nmilder = 'partition'", "no milder than itself"),
            ("redis-flush", "milder = ['none', 'none']", "names 'none' twice"),
            ("redis-flush", "milder = 'none@redis'", "none cannot hurt 'redis'"),
            ("redis-flush", "milder = 'half-open@redis'", "half-open cannot hurt 'redis'"),
            ("none", "milder = 'redis-slow'", "needs none"),
            ("sweep/forecast", "milder = 'none'", "needs none"),
            ("partition", "target = 'redis'", "cannot hurt 'redis'"),
            ("none", "target = 'redis'", "cannot hurt 'redis'"),
            ("redis-freeze", "also = ['redis-blackhle']", "no fault 'redis-blackhle'"),
            ("redis-freeze", "also = ['half-open@redis']", "half-open cannot hurt 'redis'"),
            ("redis-freeze", "also = ['redis-freeze']", "names 'redis-freeze' twice"),
            ("redis-freeze", "also = ['redis-slow', 'redis-slow']", "names 'redis-slow' twice"),
            ("redis-freeze", "also = ['redis-slow']\nmilder = 'redis-slow'", "be the milder one"),
            ("none", "also = ['redis-slow']", "names other faults and needs none"),
        ] {
            assert!(problems(fault, more).contains(wrong), "{fault} {more}: {}", problems(fault, more));
        }
    }

    #[test]
    fn a_missing_folder_an_unknown_key_and_an_unknown_id_are_usage_errors() {
        let dir = tempfile::tempdir().unwrap();
        let missing = Catalogue::read(dir.path(), &[]).unwrap_err();
        std::fs::write(dir.path().join("catalogue.toml"), format!("{ROW}lwa = 'typo'\n")).unwrap();
        std::fs::write(dir.path().join("a.patch"), "").unwrap();
        let key = Catalogue::read(dir.path(), &[]).unwrap_err();
        assert!(key.to_string().contains("lwa"), "{key}");
        std::fs::write(dir.path().join("catalogue.toml"), ROW).unwrap();
        let id = Catalogue::read(dir.path(), &["z".to_owned()]).unwrap_err();
        for error in [missing, key, id] {
            assert_eq!(exit_code_of(&error), ExitCode::Usage);
        }
    }
}
