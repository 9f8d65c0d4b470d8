//! A PostgreSQL cluster of one test's own.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::server::{Server, as_server_account, bin_folder};

/// A running server with the superuser `postgres`, the database `forecastle`, and no password.
/// Nothing is synced to disk: it is for tests that do not crash it.
pub struct Postgres {
    server: Server,
}

impl Postgres {
    /// Starts a new cluster; about a second.
    ///
    /// # Panics
    /// With the fix in its text, if PostgreSQL is not there or does not start.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with settings of its own, each `name=value`, over those of a test.
    ///
    /// # Panics
    /// With the fix in its text, if PostgreSQL is not there or does not start.
    #[must_use]
    pub fn start_with(settings: &[&str]) -> Self {
        let postgres = Self { server: Server::start(settings, initialise) };
        postgres.create_database();
        postgres
    }

    /// The superuser's address of the database.
    #[must_use]
    pub fn admin_url(&self) -> String {
        self.url_of("postgres")
    }

    /// A role's address of the database.
    #[must_use]
    pub fn url_of(&self, role: &str) -> String {
        url(role, self.port())
    }

    /// Its first process, which is the parent of the others.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// The port it listens on.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.server.port
    }

    /// Stops it where it is: connections stay, answers do not come.
    pub fn freeze(&self) {
        self.server.freeze();
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.server.thaw();
    }

    /// The listener accepts before the server takes logins, so the first one may have to wait.
    fn create_database(&self) {
        for _ in 0..150 {
            let made = Command::new(bin_folder().join("createdb"))
                .args(["-h", "127.0.0.1", "-p", &self.port().to_string(), "-U", "postgres", "forecastle"])
                .stderr(Stdio::null())
                .status();
            if made.is_ok_and(|s| s.success()) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("createdb did not succeed within 15 s");
    }
}

pub(crate) fn url(role: &str, port: u16) -> String {
    format!("postgres://{role}@127.0.0.1:{port}/forecastle")
}

pub(crate) fn initialise(data: &Path) {
    let made = as_server_account(&bin_folder().join("initdb"))
        .args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync", "-D"])
        .arg(data)
        .output()
        .expect("run initdb");
    assert!(made.status.success(), "initdb failed: {}", String::from_utf8_lossy(&made.stderr));
}
