//! Statements on one table that take longer than anybody waits, so that their own time-out ends them.
//!
//! A trigger of ours sleeps before each statement of the named kind. It sleeps in the server, where the sleeper's
//! statement_timeout finds it; no lock is held that the statement itself would not hold.

use serde_json::json;

use super::session::{Admin, close, connect, in_words, refused_with, run};
use crate::{
    blast_radius::Target,
    fault::{HealError, InstallError, Proof, ProofError},
    harm::{Harm, Wait, refused},
};

const QUERY_CANCELED: &str = "57014";
/// Time-out of the witness's own statement.
const WITNESS_MS: u64 = 100;

/// Which statements sleep, and for how long.
#[derive(Debug, Clone)]
pub struct SlowStatementConfig {
    /// Told apart from other faults by this: letters, digits and dashes, at most 32.
    pub id: String,
    /// DSN of a superuser, on the database that is hurt.
    pub admin_dsn: String,
    /// The table, with its schema.
    pub table: String,
    /// The events of a trigger, such as `UPDATE OR DELETE`.
    pub events: String,
    /// A statement that the trigger must stop and that touches no row, such as
    /// `UPDATE app.notes SET text = text WHERE false`.
    pub witness: String,
    /// How long each sleeps, milliseconds.
    pub sleep_ms: u64,
    /// Longest wait for the table to take or lose the trigger, milliseconds.
    pub lock_ms_max: u64,
}

/// Slows statements on a table; healing takes the trigger away.
pub struct SlowStatement {
    config: SlowStatementConfig,
    admin: Admin,
    object: String,
}

impl SlowStatement {
    /// Name of this fault.
    pub const NAME: &'static str = "statement-timeout";

    /// The slow statements of `config`.
    ///
    /// # Errors
    /// [`InstallError::Parameter`] for an id or DSN that cannot be used.
    pub fn new(config: SlowStatementConfig) -> Result<Self, InstallError> {
        let admin = Admin::new(&config.id, &config.admin_dsn)?;
        let object = admin.name.replace('-', "_");
        Ok(Self { config, admin, object })
    }

    /// Triggers and functions of ours in the catalogue.
    async fn objects(&self) -> Result<i64, String> {
        let (count,): (i64,) = self
            .admin
            .ask(&format!(
                "SELECT (SELECT count(*) FROM pg_trigger WHERE tgname = '{0}' AND tgenabled <> 'D') \
                      + (SELECT count(*) FROM pg_proc WHERE proname = '{0}')",
                self.object
            ))
            .await?;
        Ok(count)
    }

    /// What becomes of a statement of ours that may take 100 ms.
    async fn witness(&self) -> Result<Result<(), String>, ProofError> {
        let mut witness = connect(&self.admin.options).await.map_err(ProofError::Unreadable)?;
        let limited = format!("SET statement_timeout = {WITNESS_MS}");
        let tried = async {
            run(&mut witness, &limited).await?;
            run(&mut witness, &self.config.witness).await
        }
        .await;
        close(witness).await;
        match tried {
            Ok(()) => Ok(Ok(())),
            Err(error) if refused_with(&error, QUERY_CANCELED) => Ok(Err(in_words(&error))),
            Err(error) => Err(ProofError::Unreadable(in_words(&error))),
        }
    }

    async fn look_slow(&self) -> Result<Proof, ProofError> {
        let objects = self.objects().await.map_err(ProofError::Unreadable)?;
        if objects < 2 {
            return Err(ProofError::NoHarm("the table has no trigger of ours".into()));
        }
        let Err(refusal) = self.witness().await? else {
            return Err(ProofError::NoHarm(format!("a statement ended within {WITNESS_MS} ms")));
        };
        Ok(Proof::new(
            "statements_time_out",
            json!({
                "address": self.admin.address.to_string(), "table": self.config.table, "events": self.config.events,
                "objects": objects, "own_statement": refusal,
            }),
        ))
    }
}

impl Harm for SlowStatement {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn targets(&self) -> Vec<Target> {
        vec![Target::Postgres { address: self.admin.address }]
    }

    async fn strike(&mut self) -> Result<Proof, InstallError> {
        let (object, config) = (&self.object, &self.config);
        let seconds = format!("{}.{:03}", config.sleep_ms / 1_000, config.sleep_ms % 1_000);
        let function = format!(
            "CREATE FUNCTION public.{object}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER \
             SET search_path = pg_catalog AS $$ BEGIN PERFORM pg_sleep({seconds}); RETURN NULL; END $$"
        );
        let trigger = format!(
            "CREATE TRIGGER {object} BEFORE {} ON {} FOR EACH STATEMENT EXECUTE FUNCTION public.{object}()",
            config.events, config.table
        );
        let limited = format!("SET lock_timeout = {}", config.lock_ms_max);
        self.admin.tell(&[&limited, &function, &trigger]).await.map_err(refused("put the trigger on the table"))?;
        self.look_slow()
            .await
            .map_err(|seen| InstallError::DidNotLand { fault: Self::NAME.into(), reason: seen.to_string() })
    }

    async fn look(&mut self) -> Result<Proof, ProofError> {
        self.look_slow().await
    }

    async fn undo(&mut self) -> Result<Proof, HealError> {
        let object = &self.object;
        // Who sleeps holds the table; dropping the trigger waits for the next gap.
        let limited = format!("SET lock_timeout = {}", self.config.lock_ms_max);
        let drop_trigger = format!("DROP TRIGGER IF EXISTS {object} ON {}", self.config.table);
        let drop_function = format!("DROP FUNCTION IF EXISTS public.{object}()");
        let wait = Wait::of_ms(self.config.lock_ms_max);
        loop {
            let told = self.admin.tell(&[&limited, &drop_trigger, &drop_function]).await;
            let seen = match (told, self.objects().await) {
                (_, Ok(0)) => match self.witness().await {
                    Ok(Ok(())) => {
                        return Ok(Proof::new(
                            "statements_end",
                            json!({ "address": self.admin.address.to_string(), "table": self.config.table, "objects": 0 }),
                        ));
                    }
                    Ok(Err(refusal)) => refusal,
                    Err(error) => error.to_string(),
                },
                (Err(reason), _) => reason,
                (Ok(()), Ok(count)) => format!("{count} objects of ours are left"),
                (Ok(()), Err(reason)) => reason,
            };
            wait.for_healing(Self::NAME, seen).await?;
        }
    }
}
