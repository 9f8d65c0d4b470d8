//! One transaction that is begun, does a little, and then stays open with nobody to end it.
//!
//! What it took decides the harm: row locks, a table lock, or only its place among the running transactions. What it
//! holds is read by another session, which also tries for the same and must be refused.

use serde_json::{Value, json};
use sqlx::PgConnection;

use super::session::{Admin, close, connect, in_words, refused_with, run};
use crate::{
    blast_radius::Target,
    fault::{HealError, InstallError, Proof, ProofError},
    harm::{Harm, Wait, refused},
};

const PART: &str = "holder";
const LOCK_NOT_AVAILABLE: &str = "55P03";
/// How long the contender waits before the lock counts as held.
const CONTENDER_LOCK_MS: u64 = 50;

/// What the transaction does, and how it shows.
#[derive(Debug, Clone)]
pub struct HeldTransactionConfig {
    /// Name of the fault, such as `row-locks`.
    pub name: &'static str,
    /// Told apart from other faults by this: letters, digits and dashes, at most 32.
    pub id: String,
    /// DSN of a superuser.
    pub admin_dsn: String,
    /// Run in order after BEGIN, such as `SELECT 1 FROM app.notes FOR UPDATE`.
    pub statements: Vec<String>,
    /// A statement of another session that must fail for want of a lock; none where no lock is held and the
    /// transaction's number must hold back what the server takes for settled.
    pub contender: Option<String>,
    /// Longest wait for each lock, milliseconds.
    pub lock_ms_max: u64,
    /// Longest wait for the session to be gone again, milliseconds.
    pub heal_ms_max: u64,
}

/// Holds one transaction open; healing ends it.
pub struct HeldTransaction {
    config: HeldTransactionConfig,
    admin: Admin,
    holder: Option<PgConnection>,
}

/// The holder as another session sees it.
#[derive(Debug, sqlx::FromRow)]
struct Held {
    sessions: i64,
    idle_in_transaction: i64,
    age_ms: i64,
    locks: i64,
    blocked_sessions: i64,
    is_oldest: bool,
}

impl HeldTransaction {
    /// The transaction of `config`.
    ///
    /// # Errors
    /// [`InstallError::Parameter`] for an id or DSN that cannot be used.
    pub fn new(config: HeldTransactionConfig) -> Result<Self, InstallError> {
        let admin = Admin::new(&config.id, &config.admin_dsn)?;
        Ok(Self { config, admin, holder: None })
    }

    /// `application_name` of the session that holds the transaction.
    pub fn application_name(&self) -> String {
        format!("{}-{PART}", self.admin.name)
    }

    async fn read(&self) -> Result<Held, String> {
        let question = format!(
            "WITH holder AS (SELECT * FROM pg_stat_activity WHERE application_name = '{}') \
             SELECT count(*) AS sessions, count(*) FILTER (WHERE state = 'idle in transaction') AS idle_in_transaction, \
                    coalesce(max(extract(epoch FROM clock_timestamp() - xact_start) * 1000), 0)::bigint AS age_ms, \
                    (SELECT count(*) FROM pg_locks l JOIN holder USING (pid) \
                      WHERE l.granted AND l.locktype IN ('relation', 'tuple', 'transactionid')) AS locks, \
                    (SELECT count(*) FROM pg_stat_activity waiting \
                      WHERE pg_blocking_pids(waiting.pid) && (SELECT coalesce(array_agg(pid), '{{}}') FROM holder)) \
                      AS blocked_sessions, \
                    coalesce(bool_or(backend_xid::text::bigint \
                      = (pg_snapshot_xmin(pg_current_snapshot())::text::numeric % 4294967296)::bigint), false) AS is_oldest \
               FROM holder",
            self.application_name()
        );
        self.admin.ask(&question).await
    }

    async fn look_held(&self) -> Result<Proof, ProofError> {
        let held = self.read().await.map_err(ProofError::Unreadable)?;
        if held.idle_in_transaction == 0 {
            return Err(ProofError::NoHarm("no session of ours is idle in a transaction".into()));
        }
        let refusal = match &self.config.contender {
            Some(statement) => Some(self.contend(statement).await?),
            None if held.is_oldest => None,
            None => return Err(ProofError::NoHarm("an older transaction than ours runs".into())),
        };
        Ok(Proof::new("transaction_held", self.detail(&held, refusal)))
    }

    /// Tries for what is held; the refusal.
    async fn contend(&self, statement: &str) -> Result<String, ProofError> {
        let mut contender = connect(&self.admin.options).await.map_err(ProofError::Unreadable)?;
        let limited = format!("SET lock_timeout = {CONTENDER_LOCK_MS}; BEGIN");
        let tried = async {
            run(&mut contender, &limited).await?;
            run(&mut contender, statement).await
        }
        .await;
        close(contender).await;
        match tried {
            Err(error) if refused_with(&error, LOCK_NOT_AVAILABLE) => Ok(in_words(&error)),
            Err(error) => Err(ProofError::Unreadable(in_words(&error))),
            Ok(()) => Err(ProofError::NoHarm("another session got the lock".into())),
        }
    }

    fn detail(&self, held: &Held, refusal: Option<String>) -> Value {
        json!({
            "address": self.admin.address.to_string(),
            "sessions": held.sessions,
            "idle_in_transaction": held.idle_in_transaction,
            "age_ms": held.age_ms,
            "locks_held": held.locks,
            "blocked_sessions": held.blocked_sessions,
            "oldest_running": held.is_oldest,
            "contender": refusal,
        })
    }
}

impl Harm for HeldTransaction {
    fn name(&self) -> &str {
        self.config.name
    }

    fn targets(&self) -> Vec<Target> {
        vec![Target::Postgres { address: self.admin.address }]
    }

    async fn strike(&mut self) -> Result<Proof, InstallError> {
        let mut holder = self.admin.session(PART).await.map_err(refused("connect"))?;
        let begun = async {
            run(&mut holder, &format!("SET lock_timeout = {}; BEGIN", self.config.lock_ms_max)).await?;
            for statement in &self.config.statements {
                run(&mut holder, statement).await?;
            }
            Ok::<_, sqlx::Error>(())
        }
        .await;
        // Kept even after a failure: healing rolls back what was taken so far.
        self.holder = Some(holder);
        begun.map_err(|error| InstallError::DidNotLand {
            fault: self.config.name.into(),
            reason: format!("take locks: {}", in_words(&error)),
        })?;
        let wait = Wait::of_ms(self.config.lock_ms_max);
        loop {
            match self.look_held().await {
                Ok(proof) => return Ok(proof),
                Err(seen) => wait.for_landing(self.config.name, seen.to_string()).await?,
            }
        }
    }

    async fn look(&mut self) -> Result<Proof, ProofError> {
        self.look_held().await
    }

    async fn undo(&mut self) -> Result<Proof, HealError> {
        if let Some(holder) = self.holder.take() {
            close(holder).await;
        }
        let wait = Wait::of_ms(self.config.heal_ms_max);
        loop {
            let seen = match self.read().await {
                Ok(held) if held.sessions == 0 => {
                    return Ok(Proof::new("transaction_ended", self.detail(&held, None)));
                }
                Ok(held) => format!("{} sessions of ours are left", held.sessions),
                Err(reason) => reason,
            };
            // It may not have heard the farewell.
            let _ = self.admin.end_sessions(PART).await;
            wait.for_healing(self.config.name, seen).await?;
        }
    }
}
