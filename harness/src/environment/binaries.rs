//! Finds the host's server binaries and the user to run them as.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// Paths of what the process engine runs.
#[derive(Debug, Clone)]
pub struct ServerBinaries {
    /// The folder of `initdb`, `pg_basebackup` and `postgres`.
    pub postgres_folder: PathBuf,
    /// `redis-server`.
    pub redis: PathBuf,
}

/// An account without privileges that servers run as when nogo was started by root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unprivileged {
    /// User id, never 0.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
}

impl ServerBinaries {
    /// Looks in `NOGO_POSTGRES_BIN` (a folder) and `NOGO_REDIS_SERVER` (a file) first, then in
    /// the distribution's version folders (the highest version wins) and in `PATH`.
    ///
    /// # Errors
    /// If one is missing; the message names all that are, and the fix.
    pub fn find() -> Result<Self> {
        match (postgres_folder(), redis_server()) {
            (Some(postgres_folder), Some(redis)) => Ok(Self { postgres_folder, redis }),
            (postgres, redis) => {
                let mut missing = Vec::new();
                if postgres.is_none() {
                    missing.push("initdb, pg_basebackup and postgres");
                }
                if redis.is_none() {
                    missing.push("redis-server");
                }
                bail!(
                    "{} not found: run ci/setup --engine process as root, or name them with \
                     NOGO_POSTGRES_BIN and NOGO_REDIS_SERVER",
                    missing.join(" and ")
                )
            }
        }
    }
}

/// The folder that holds `initdb`, `pg_basebackup` and `postgres`.
#[must_use]
pub fn postgres_folder() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("NOGO_POSTGRES_BIN") {
        return Some(PathBuf::from(named)).filter(|folder| has_postgres(folder));
    }
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .filter(|(_, folder)| has_postgres(folder))
        .collect();
    versions.sort();
    versions.pop().map(|(_, folder)| folder).or_else(|| path_folders().find(|folder| has_postgres(folder)))
}

/// The path of `redis-server`.
#[must_use]
pub fn redis_server() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("NOGO_REDIS_SERVER") {
        return Some(PathBuf::from(named)).filter(|file| file.is_file());
    }
    find_in_path("redis-server")
}

/// The first file of that name in `PATH`.
#[must_use]
pub fn find_in_path(name: &str) -> Option<PathBuf> {
    path_folders().map(|folder| folder.join(name)).find(|file| file.is_file())
}

fn path_folders() -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).collect::<Vec<_>>().into_iter()
}

fn has_postgres(folder: &Path) -> bool {
    ["initdb", "pg_basebackup", "postgres"].iter().all(|program| folder.join(program).is_file())
}

impl Unprivileged {
    /// `None` if nogo does not run as root: then servers run as its own user. Otherwise the user
    /// `postgres` if there is one, else `nobody`.
    ///
    /// # Errors
    /// If nogo runs as root and there is neither.
    pub fn for_servers() -> Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        match ["postgres", "nobody"].iter().find_map(|name| account(&accounts, name)) {
            Some(user) => Ok(Some(user)),
            None => bail!(
                "nogo runs as root, PostgreSQL refuses to, and there is neither a user postgres \
                 nor a user nobody: start nogo as an ordinary user"
            ),
        }
    }
}

/// The account `name` in a text of passwd's form, unless it is root's.
fn account(accounts: &str, name: &str) -> Option<Unprivileged> {
    let line = accounts.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    let uid = fields.next()?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    (uid != 0).then_some(Unprivileged { uid, gid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_read_by_its_whole_name_and_never_root() {
        let accounts = "root:x:0:0::/root:/bin/sh\npostgres2:x:7:8::/:/bin/sh\n\
                        postgres:x:103:105::/var/lib/postgresql:/bin/bash\nnobody:x:0:0::/:/bin/false\n";
        assert_eq!(account(accounts, "postgres"), Some(Unprivileged { uid: 103, gid: 105 }));
        assert_eq!(account(accounts, "nobody"), None);
        assert_eq!(account(accounts, "absent"), None);
    }
}
