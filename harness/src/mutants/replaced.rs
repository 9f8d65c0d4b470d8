//! A bug planted into a function that a later migration writes anew is never run: it would survive, and say nothing
//! about any law.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result};

/// One function that is changed where it no longer counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Replaced {
    /// Its name, with its schema.
    pub(super) function: String,
    /// The file that is changed, below the root.
    pub(super) changed: String,
    /// Name of the later file that writes it anew.
    pub(super) later: String,
}

/// The functions of SQL files that `patch` changes although a later file of the same folder, in the order of names,
/// creates them again.
///
/// # Errors
/// When a folder below `root` cannot be read. A file that is new in the patch has nothing to be replaced.
pub(super) fn replaced(root: &Path, patch: &str) -> Result<BTreeSet<Replaced>> {
    let mut found = BTreeSet::new();
    for (name, lines) in changed_lines(patch).into_iter().filter(|(name, _)| name.ends_with(".sql")) {
        let path = root.join(&name);
        let (Ok(text), Some(folder)) = (std::fs::read_to_string(&path), path.parent()) else { continue };
        let functions: BTreeSet<&str> = lines.iter().filter_map(|line| function_around(&text, *line)).collect();
        for later in later_files(folder, &path)? {
            let newer = std::fs::read_to_string(folder.join(&later)).with_context(|| format!("read {later}"))?;
            let created: BTreeSet<&str> = newer.lines().filter_map(created).collect();
            found.extend(functions.intersection(&created).map(|function| Replaced {
                function: (*function).to_owned(),
                changed: name.clone(),
                later: later.clone(),
            }));
        }
    }
    Ok(found)
}

/// Each file that a patch changes, with the lines (from 1, in the file as it is) at which it does.
fn changed_lines(patch: &str) -> Vec<(String, Vec<usize>)> {
    let mut files: Vec<(String, Vec<usize>)> = Vec::new();
    // Where the hunk stands, and how many lines of both sides are still to come: a line of SQL that is taken out may
    // look like a head.
    let (mut at, mut old, mut new) = (0, 0, 0);
    for line in patch.lines() {
        if (old, new) == (0, 0) {
            if let Some(name) = line.strip_prefix("--- ") {
                files.push((name.trim_start_matches("a/").to_owned(), Vec::new()));
            } else if let Some(hunk) = line.strip_prefix("@@ -") {
                let mut ranges = hunk.split(' ').map(range);
                (at, old) = ranges.next().unwrap_or_default();
                new = ranges.next().unwrap_or_default().1;
            }
            continue;
        }
        let Some((_, lines)) = files.last_mut() else { continue };
        let kind = line.as_bytes().first();
        if matches!(kind, Some(b'-' | b'+')) {
            lines.push(at);
        }
        if !matches!(kind, Some(b'+' | b'\\')) {
            at += 1;
            old = old.saturating_sub(1);
        }
        if !matches!(kind, Some(b'-' | b'\\')) {
            new = new.saturating_sub(1);
        }
    }
    files
}

/// First line and length of `12,7`, `+12,7` or `12`, which is one line.
fn range(text: &str) -> (usize, usize) {
    let (start, length) = text.trim_start_matches('+').split_once(',').unwrap_or((text, "1"));
    (start.parse().unwrap_or(0), length.parse().unwrap_or(0))
}

/// The function whose definition reaches over line `line`.
fn function_around(text: &str, line: usize) -> Option<&str> {
    let mut around = None;
    for (number, text) in (1..).zip(text.lines()) {
        if let Some(name) = created(text) {
            around = Some(name);
        }
        if number >= line {
            return around;
        }
        if text.trim_start().starts_with("$$;") {
            around = None;
        }
    }
    None
}

/// The name in the first line of a statement that creates a function.
fn created(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("CREATE ")?;
    let rest = rest.strip_prefix("OR REPLACE ").unwrap_or(rest).strip_prefix("FUNCTION ")?;
    rest.split_once('(').map(|(name, _)| name.trim())
}

/// Names of the SQL files in `folder` that come behind `path`, in their order.
fn later_files(folder: &Path, path: &Path) -> Result<Vec<String>> {
    let mut later = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".sql") && path.file_name().is_some_and(|own| *own.to_string_lossy() < *name) {
            later.push(name);
        }
    }
    later.sort_unstable();
    Ok(later)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "CREATE TABLE a (b text);\n\nCREATE FUNCTION app.claim(\n    n integer)\nAS $$\nBEGIN\n    \
                         at := now();\nEND;\n$$;\n\nCREATE FUNCTION app.claimed()\nAS $$\nBEGIN\n    x;\nEND;\n$$;\n";
    const LATER: &str = "-- again\nCREATE OR REPLACE FUNCTION app.claim(\n    n integer)\nAS $$\nBEGIN\nEND;\n$$;\n\
                         GRANT EXECUTE ON FUNCTION app.claimed() TO somebody;\n";

    fn patch(name: &str, hunk: &str) -> String {
        format!("diff --git a/m/{name} b/m/{name}\n--- a/m/{name}\n+++ b/m/{name}\n{hunk}")
    }

    fn found(patch: &str) -> Vec<(String, String)> {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("m")).unwrap();
        std::fs::write(root.path().join("m/0001_first.sql"), FIRST).unwrap();
        std::fs::write(root.path().join("m/0002_later.sql"), LATER).unwrap();
        let found = replaced(root.path(), patch).unwrap();
        found.into_iter().map(|replaced| (replaced.function, replaced.later)).collect()
    }

    #[test]
    fn a_function_that_a_later_file_creates_again_is_named() {
        let hunk = "@@ -5,4 +5,4 @@ CREATE\n AS $$\n BEGIN\n-    at := now();\n+    at := then();\n END;\n";
        assert_eq!(found(&patch("0001_first.sql", hunk)), [("app.claim".to_owned(), "0002_later.sql".to_owned())]);
        let added = "@@ -6,2 +6,3 @@\n BEGIN\n+    first;\n     at := now();\n";
        assert_eq!(found(&patch("0001_first.sql", added)).len(), 1);
    }

    #[test]
    fn what_is_not_replaced_may_be_changed() {
        let table = "@@ -1,2 +1,2 @@\n-CREATE TABLE a (b text);\n+CREATE UNLOGGED TABLE a (b text);\n \n";
        let other = "@@ -13,2 +13,2 @@\n BEGIN\n-    x;\n+    y;\n";
        // The comment that is taken out looks like a head, and its line is none of a function's.
        let comment = "@@ -1,1 +0,0 @@\n--- again\n";
        let newest = "@@ -5,2 +5,3 @@\n BEGIN\n+    z;\n END;\n";
        for (name, hunk) in [
            ("0001_first.sql", table),
            ("0001_first.sql", other),
            ("0002_later.sql", newest),
            ("0002_later.sql", comment),
            ("0003_absent.sql", newest),
            ("lib.rs", newest),
        ] {
            assert_eq!(found(&patch(name, hunk)), [], "{name} {hunk}");
        }
    }
}
