//! Serialization failures: every transaction that does not say otherwise must fit into one order, and rows are rewritten
//! under it.
//!
//! The server's default isolation becomes REPEATABLE READ, and a session of ours rewrites rows, each to what it was, so
//! that a transaction that has read and then writes one of them is refused with 40001.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    server_setting::ServerSetting,
    session::{Admin, connect, in_words, refused_with, run},
};
use crate::{
    blast_radius::Target,
    fault::{HealError, InstallError, Proof, ProofError},
    harm::{Harm, Wait, refused, unhealed},
};

const PART: &str = "stirrer";
const SERIALIZATION_FAILURE: &str = "40001";
const LEVEL: &str = "repeatable read";
/// Between two rewritings of all rows.
const PAUSE: Duration = Duration::from_millis(40);

/// What is rewritten.
#[derive(Debug, Clone)]
pub struct SerializationConfig {
    /// Told apart from other faults by this: letters, digits and dashes, at most 32.
    pub id: String,
    /// DSN of a superuser, on the database that is hurt.
    pub admin_dsn: String,
    /// Rewrites rows to what they are, such as `UPDATE app.counters SET taken = taken`.
    pub rewrite: String,
    /// Longest wait for the first failure, milliseconds.
    pub landing_ms_max: u64,
    /// Longest wait for everything to be gone, milliseconds.
    pub heal_ms_max: u64,
}

/// Brings about serialization failures until it is healed.
pub struct SerializationFailures {
    config: SerializationConfig,
    admin: Admin,
    setting: ServerSetting,
    stirrer: Option<(CancellationToken, JoinHandle<()>)>,
    rewritten: Arc<AtomicU64>,
}

impl SerializationFailures {
    /// Name of this fault.
    pub const NAME: &'static str = "serialization-failures";

    /// The failures of `config`.
    ///
    /// # Errors
    /// [`InstallError::Parameter`] for an id or DSN that cannot be used.
    pub fn new(config: SerializationConfig) -> Result<Self, InstallError> {
        let admin = Admin::new(&config.id, &config.admin_dsn)?;
        let setting = ServerSetting::new(admin.clone(), "default_transaction_isolation");
        Ok(Self { config, admin, setting, stirrer: None, rewritten: Arc::default() })
    }

    /// A transaction of ours that reads, waits for the stirrer's next round, and writes: what the server says to it.
    async fn try_in_vain(&self) -> Result<String, ProofError> {
        let mut witness = connect(&self.admin.options).await.map_err(ProofError::Unreadable)?;
        let tried = async {
            run(&mut witness, "SET lock_timeout = '2s'; BEGIN; SELECT 1").await?;
            let seen = self.rewritten.load(Ordering::Relaxed);
            let wait = Wait::of_ms(self.config.landing_ms_max);
            while self.rewritten.load(Ordering::Relaxed) < seen + 2 {
                if wait.again("no row was rewritten".into()).await.is_err() {
                    break;
                }
            }
            run(&mut witness, &self.config.rewrite).await
        }
        .await;
        // Whatever it did is not committed.
        let _ = run(&mut witness, "ROLLBACK").await;
        super::session::close(witness).await;
        match tried {
            Err(error) if refused_with(&error, SERIALIZATION_FAILURE) => Ok(in_words(&error)),
            Err(error) => Err(ProofError::Unreadable(in_words(&error))),
            Ok(()) => Err(ProofError::NoHarm("a transaction that read and then wrote was let through".into())),
        }
    }

    async fn look_refused(&self) -> Result<Proof, ProofError> {
        let setting = self.setting.read().await.map_err(ProofError::Unreadable)?;
        if self.stirrer.is_none() || setting.value != LEVEL {
            return Err(ProofError::NoHarm(format!("new sessions get {}", setting.value)));
        }
        let refusal = self.try_in_vain().await?;
        Ok(Proof::new(
            "transactions_refused",
            json!({
                "address": self.admin.address.to_string(), "isolation_of_new_sessions": setting.value,
                "own_transaction": refusal, "rounds": self.rewritten.load(Ordering::Relaxed),
            }),
        ))
    }

    async fn look_quiet(&self) -> Result<Proof, String> {
        let setting = self.setting.read().await?;
        let sessions = self.admin.sessions(PART).await?;
        if setting.is_changed || sessions > 0 {
            return Err(format!("new sessions get {}, {sessions} sessions of ours are left", setting.value));
        }
        Ok(Proof::new(
            "isolation_put_back",
            json!({ "address": self.admin.address.to_string(), "isolation_of_new_sessions": setting.value, "sessions": sessions }),
        ))
    }
}

impl Harm for SerializationFailures {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn targets(&self) -> Vec<Target> {
        vec![Target::Postgres { address: self.admin.address }]
    }

    async fn strike(&mut self) -> Result<Proof, InstallError> {
        let mut connection = self.admin.session(PART).await.map_err(refused("connect"))?;
        // Ours alone must not be refused: it rewrites what it just read, one statement after the other.
        let settings = "SET default_transaction_isolation = 'read committed'; SET lock_timeout = '500ms'";
        run(&mut connection, settings).await.map_err(|error| refused("prepare the session")(in_words(&error)))?;
        let stop = CancellationToken::new();
        let (stopped, rewrite, rewritten) = (stop.clone(), self.config.rewrite.clone(), Arc::clone(&self.rewritten));
        let task = tokio::spawn(async move {
            loop {
                match run(&mut connection, &rewrite).await {
                    Ok(()) => {
                        rewritten.fetch_add(1, Ordering::Relaxed);
                    }
                    // A row was locked for too long: the next round has another chance.
                    Err(sqlx::Error::Database(_)) => {}
                    Err(_) => return,
                }
                tokio::select! {
                    () = stopped.cancelled() => return,
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
        });
        self.stirrer = Some((stop, task));
        self.setting.set(LEVEL).await.map_err(refused("change the default isolation"))?;
        let wait = Wait::of_ms(self.config.landing_ms_max);
        loop {
            match self.look_refused().await {
                Ok(proof) => return Ok(proof),
                Err(seen) => wait.for_landing(Self::NAME, seen.to_string()).await?,
            }
        }
    }

    async fn look(&mut self) -> Result<Proof, ProofError> {
        self.look_refused().await
    }

    async fn undo(&mut self) -> Result<Proof, HealError> {
        self.setting.reset().await.map_err(unhealed("put the default isolation back"))?;
        if let Some((stop, task)) = self.stirrer.take() {
            stop.cancel();
            let _ = task.await;
        }
        self.admin.end_sessions(PART).await.map_err(unhealed("end the session that rewrites"))?;
        let wait = Wait::of_ms(self.config.heal_ms_max);
        loop {
            match self.look_quiet().await {
                Ok(proof) => return Ok(proof),
                Err(seen) => wait.for_healing(Self::NAME, seen).await?,
            }
        }
    }
}

impl Drop for SerializationFailures {
    fn drop(&mut self) {
        if let Some((stop, _)) = &self.stirrer {
            stop.cancel();
        }
    }
}
