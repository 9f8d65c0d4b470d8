//! Names for scripts, which the wire shows as SHA-1 digests only.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Scripts remembered.
const SCRIPTS_MAX: usize = 256;
/// Longest name made from a script's text, characters.
const NAME_CHARACTERS_MAX: usize = 60;

/// SHA-1 digests to names, learnt from SCRIPT LOAD or told; clones share it.
#[derive(Debug, Clone, Default)]
pub struct ScriptNames(Arc<Mutex<BTreeMap<String, String>>>);

impl ScriptNames {
    /// The name of a script by its digest in lower case.
    pub fn get(&self, sha: &str) -> Option<String> {
        self.lock().get(sha).cloned()
    }

    /// Keeps the first name of each; beyond the bound no more are learnt.
    pub fn learn(&self, sha: &str, name: &str) {
        let mut names = self.lock();
        if names.len() < SCRIPTS_MAX || names.contains_key(sha) {
            names.entry(sha.to_ascii_lowercase()).or_insert_with(|| name.to_owned());
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A name from a script's text: its first line that says something, without comment signs.
pub(super) fn name_of(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let line = text.lines().map(|line| line.trim().trim_start_matches('-').trim()).find(|line| !line.is_empty());
    line.unwrap_or("empty script").chars().take(NAME_CHARACTERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_named_by_its_first_line() {
        assert_eq!(name_of(b"\n  -- take a token\nlocal x = 1"), "take a token");
        assert_eq!(name_of(b"return 1"), "return 1");
        assert_eq!(name_of(b""), "empty script");
    }

    #[test]
    fn a_name_is_kept_once_given() {
        let names = ScriptNames::default();
        names.learn("AB", "first");
        names.learn("ab", "second");
        assert_eq!(names.get("ab").as_deref(), Some("first"));
    }
}
