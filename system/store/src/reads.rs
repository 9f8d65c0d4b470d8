//! Reads that may be answered by a replica, and which one.
//!
//! Law: a read sees every transaction whose success anybody was told before the read was asked for. So a
//! user sees its own writes, and everybody else's, whichever instance took them, and whatever Redis has
//! lost. For each read the primary is asked how far its log reaches (one question for all who wait, see
//! [`crate::read_index`]), and a replica may answer only if it says, on the connection of the read, that
//! it has replayed at least so far. A session's own last commit would be a lower bar, but it would have to
//! be remembered somewhere: in a process, and the next instance does not know it; in Redis, and it is lost
//! with it; in the token, and a worker's commits are not in there. It would also not be enough for what is
//! kept in Redis: a value may be put there only if it is as new as the look that missed it.
//!
//! Where no replica can answer, the primary does: none configured, none that answers, none that has caught
//! up within a short wait, all busy, or the primary does not say how far its log reaches. A read that fails
//! on a replica is done again on the primary. What decides who may do what (sessions, roles, quota, keys)
//! is never read here but through [`Db::tenant`].
//!
//! The order of positions holds for one primary. When another server takes over, the instances are
//! restarted with the new addresses.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use forecastle_domain::TenantId;

use crate::error::StoreError;
use crate::pool::{Db, PoolStats};
use crate::read_index::ReadIndex;
use crate::replica::Replica;
use crate::scope::TenantScope;

/// What a read gives: boxed, since it may have to be done twice.
pub type ReadFuture<'scope, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'scope>>;

/// Where a replica is.
#[derive(Clone, PartialEq, Eq)]
pub struct ReplicaAddress {
    /// As it stands in metrics and logs: lower-case letters, digits and hyphens, at most 32.
    pub name: String,
    /// `postgres://user:password@host:port/database`; never logged.
    pub url: String,
}

impl ReplicaAddress {
    /// Reads `name=postgres://…`.
    ///
    /// # Errors
    /// What is wrong, in words that do not repeat the text: it holds a password.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (name, url) = text.split_once('=').ok_or("a replica is written name=postgres://…")?;
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 32 || !name.chars().all(allowed) || name == PRIMARY {
            return Err("a replica's name has 1 to 32 lower-case letters, digits and hyphens, and is not `primary`");
        }
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err("a replica is written name=postgres://…");
        }
        Ok(Self { name: name.to_owned(), url: url.to_owned() })
    }
}

/// Which replicas there are, and how long each is given.
#[derive(Clone)]
pub struct ReplicaOptions {
    /// The replicas; none means that the primary answers every read.
    pub replicas: Vec<ReplicaAddress>,
    /// Most connections to each of them.
    pub max_connections: u32,
    /// Longest wait for a replica's connection and its first answer; then it is left alone until it answers.
    pub opening_timeout: Duration,
    /// A replica ends a statement after this time.
    pub statement_timeout: Duration,
    /// Longest wait for a replica to replay what a read must see, and for a lock that replay holds.
    pub catch_up_wait: Duration,
    /// Pause between two looks at a replica.
    pub poll_every: Duration,
    /// Longest wait for the primary to say how far its log reaches.
    pub position_timeout: Duration,
}

impl Default for ReplicaOptions {
    /// No replica; 8 connections to each, 500 ms to answer, 1 s a statement, 20 ms to catch up, a look every
    /// 100 ms, 500 ms for the primary's position.
    fn default() -> Self {
        Self {
            replicas: Vec::new(),
            max_connections: 8,
            opening_timeout: Duration::from_millis(500),
            statement_timeout: Duration::from_secs(1),
            catch_up_wait: Duration::from_millis(20),
            poll_every: Duration::from_millis(100),
            position_timeout: Duration::from_millis(500),
        }
    }
}

/// A replica at one moment, for metrics and tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaStats {
    /// Its name.
    pub name: String,
    /// Whether reads are offered to it.
    pub usable: bool,
    /// Bytes of log between the newest position known of the primary and the newest known of it.
    pub lag_bytes: u64,
    /// This process's connections to it.
    pub pool: PoolStats,
}

const PRIMARY: &str = "primary";

/// One process's way to read. Cheap to clone.
#[derive(Clone)]
pub struct Reads {
    shared: Arc<Shared>,
}

struct Shared {
    primary: Db,
    /// There if there are replicas.
    index: Option<ReadIndex>,
    replicas: Vec<Arc<Replica>>,
    turn: AtomicUsize,
}

impl Reads {
    /// Prepares the pools; connects in the background, so a dead server delays no start. Must be called
    /// inside a tokio runtime.
    ///
    /// # Errors
    /// `Refused` if an address does not parse or two replicas have one name.
    pub fn open(primary: Db, options: &ReplicaOptions) -> Result<Self, StoreError> {
        let mut replicas = Vec::new();
        for ReplicaAddress { name, url } in &options.replicas {
            if replicas.iter().any(|other: &Arc<Replica>| other.name() == name) {
                return Err(StoreError::Refused { code: "replica_name".to_owned() });
            }
            replicas.push(Replica::open(name, url, primary.options(), options)?);
        }
        let index = match replicas.is_empty() {
            true => None,
            false => Some(ReadIndex::open(primary.options(), options.position_timeout)?),
        };
        let shared = Shared { primary, index, replicas, turn: AtomicUsize::new(0) };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Runs `read` for one tenant, on a replica that has replayed all that was committed before, or else
    /// on the primary. It may run twice, and can write nothing on a replica.
    ///
    /// # Errors
    /// As `read` and the primary say; a replica's failure never is one.
    pub async fn read<T, R>(&self, tenant: TenantId, read: R) -> Result<T, StoreError>
    where
        T: Send,
        R: for<'scope> Fn(&'scope TenantScope) -> ReadFuture<'scope, T> + Send + Sync,
    {
        match self.read_replica(tenant, &read).await {
            Ok(answer) => return answer,
            Err(None) => {}
            Err(Some(reason)) => {
                metrics::counter!("forecastle_replica_fallbacks_total", "reason" => reason).increment(1);
            }
        }
        count(PRIMARY);
        read(&self.shared.primary.tenant(tenant)).await
    }

    /// An answer, or why the primary has to give it; no reason where there are no replicas.
    async fn read_replica<T, R>(
        &self,
        tenant: TenantId,
        read: &R,
    ) -> Result<Result<T, StoreError>, Option<&'static str>>
    where
        R: for<'scope> Fn(&'scope TenantScope) -> ReadFuture<'scope, T> + Send + Sync,
    {
        let shared = &*self.shared;
        let Some(index) = &shared.index else { return Err(None) };
        if !shared.replicas.iter().any(|replica| replica.is_usable()) {
            return Err(Some("none_usable"));
        }
        let Some(needed) = index.now().await else { return Err(Some("no_position")) };
        let turn = shared.turn.fetch_add(1, Ordering::Relaxed);
        let mut reason = "none_usable";
        for nth in 0..shared.replicas.len() {
            let replica = &shared.replicas[turn.wrapping_add(nth) % shared.replicas.len()];
            if !replica.is_usable() {
                continue;
            }
            let scope = match replica.scope(tenant, needed).await {
                Ok(scope) => scope,
                Err(passed_over) => {
                    reason = passed_over.as_str();
                    continue;
                }
            };
            return match read(&scope).await {
                // It has seen all that the primary would have shown.
                answer @ (Ok(_) | Err(StoreError::NotFound)) => {
                    count_owned(replica.name());
                    Ok(answer)
                }
                Err(error) => Err(Some(replica.failed_to_read(&error).as_str())),
            };
        }
        Err(Some(reason))
    }

    /// How each replica is, in the order of the options.
    #[must_use]
    pub fn replicas(&self) -> Vec<ReplicaStats> {
        let newest = self.shared.index.as_ref().map(ReadIndex::latest).unwrap_or_default();
        let stats = self.shared.replicas.iter().map(|replica| ReplicaStats {
            name: replica.name().to_owned(),
            usable: replica.is_usable(),
            lag_bytes: newest.0.saturating_sub(replica.position().0),
            pool: replica.pool(),
        });
        stats.collect()
    }

    /// Closes idle connections to the replicas and waits, at most `limit` each, for the others.
    pub async fn close(&self, limit: Duration) {
        for replica in &self.shared.replicas {
            replica.close(limit).await;
        }
    }
}

fn count(target: &'static str) {
    metrics::counter!("forecastle_reads_total", "target" => target).increment(1);
}

fn count_owned(target: &str) {
    metrics::counter!("forecastle_reads_total", "target" => target.to_owned()).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_name_and_a_refusal_does_not_repeat_its_password() {
        let parsed = ReplicaAddress::parse("replica-1=postgres://u:p@h/d?sslmode=disable");
        assert!(parsed.is_ok_and(|r| r.name == "replica-1" && r.url == "postgres://u:p@h/d?sslmode=disable"));
        for wrong in ["postgres://u:secret@h/d", "=postgres://secret", "A=postgres://secret", "a=http://secret", "a"] {
            assert!(ReplicaAddress::parse(wrong).is_err_and(|why| !why.contains("secret")), "{wrong}");
        }
        assert!(ReplicaAddress::parse("primary=postgres://h/d").is_err());
    }
}
