//! The table of planted bugs: `catalogue.toml` beside the patches.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::exit_code::{EndsWith, ExitCode};
use crate::judgement::SWEEP_OF;

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
    /// patch, or an id that is not in the table.
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
