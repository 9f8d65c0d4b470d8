//! A streaming replica of a test's own cluster.

use std::time::{Duration, Instant};

use sqlx::Connection as _;
use sqlx::postgres::PgConnection;

use crate::postgres::{Postgres, url};
use crate::server::{Server, as_server_account, bin_folder};

/// Longest wait for a replica to do what it was told.
const PATIENCE: Duration = Duration::from_secs(30);

/// A hot standby that streams from its primary under its own name and slot, and answers reads.
pub struct Replica {
    server: Server,
    name: String,
}

impl Replica {
    /// Copies the primary and starts streaming; about a second. `name`: letters, digits and hyphens.
    ///
    /// # Panics
    /// If the copy cannot be made or the replica does not answer.
    pub async fn start(primary: &Postgres, name: &str) -> Self {
        let from = format!("host=127.0.0.1 port={} user=postgres application_name={name}", primary.port());
        let server = Server::start(&["hot_standby=on"], |data| {
            let copied = as_server_account(&bin_folder().join("pg_basebackup"))
                .args(["-d", &from, "--checkpoint=fast", "--no-sync", "--write-recovery-conf", "--create-slot"])
                .args(["--slot", &name.replace('-', "_"), "-D"])
                .arg(data)
                .output()
                .expect("run pg_basebackup");
            assert!(copied.status.success(), "pg_basebackup failed: {}", String::from_utf8_lossy(&copied.stderr));
        });
        let replica = Self { server, name: name.to_owned() };
        replica.until("SELECT pg_is_in_recovery()").await;
        replica
    }

    /// What it calls itself at the primary.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A role's address of the database.
    #[must_use]
    pub fn url_of(&self, role: &str) -> String {
        url(role, self.server.port)
    }

    /// Receives on, but shows nothing new from now on.
    ///
    /// # Panics
    /// If it does not within 30 s.
    pub async fn pause_replay(&self) {
        self.until("SELECT true FROM pg_wal_replay_pause()").await;
        self.until("SELECT pg_get_wal_replay_pause_state() = 'paused'").await;
    }

    /// Catches up.
    ///
    /// # Panics
    /// If it does not answer within 30 s.
    pub async fn resume_replay(&self) {
        self.until("SELECT true FROM pg_wal_replay_resume()").await;
    }

    /// Makes it a primary of its own.
    ///
    /// # Panics
    /// If it does not within 30 s.
    pub async fn promote(&self) {
        self.until("SELECT pg_promote(true, 20)").await;
    }

    /// Stops it where it is: connections stay, answers do not come.
    pub fn freeze(&self) {
        self.server.freeze();
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.server.thaw();
    }

    /// SIGKILL to it and its children.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Starts it again, and waits until it answers.
    ///
    /// # Panics
    /// If it does not within 30 s.
    pub async fn start_again(&mut self) {
        self.server.start_again();
        self.until("SELECT pg_is_in_recovery()").await;
    }

    /// Asks as the superuser until the answer is true; refused logins are tried again.
    async fn until(&self, question: &'static str) {
        let end = Instant::now() + PATIENCE;
        loop {
            let asked = async {
                let mut connection = PgConnection::connect(&self.url_of("postgres")).await?;
                sqlx::query_scalar::<_, bool>(question).fetch_one(&mut connection).await
            };
            match asked.await {
                Ok(true) => return,
                answer => assert!(Instant::now() < end, "{} did not within 30 s: {question}: {answer:?}", self.name),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
