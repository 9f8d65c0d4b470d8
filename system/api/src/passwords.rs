//! Hashing and checking passwords with argon2id, off the async threads and behind a bound.
//!
//! Law: an unknown address costs the same work as a known one, and a queue that is full refuses
//! instead of growing. Passwords and hashes are never logged.

use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;

use crate::error::ApiError;

/// Hashes and verifies; cheap to clone.
#[derive(Clone)]
pub struct Passwords {
    argon: Argon2<'static>,
    /// Hashes computed at once.
    running: Arc<Semaphore>,
    /// Hashes computed or waited for.
    admitted: Arc<Semaphore>,
    /// Hash of a password nobody has, verified where the address is unknown.
    decoy: Arc<str>,
}

impl Passwords {
    /// A pool of `running_max` hashes at a time, each of `memory_kib` and `passes`, with at most
    /// `waiters_max` waiting.
    ///
    /// # Panics
    /// If argon2 refuses the cost parameters, which come from configuration.
    #[must_use]
    pub fn new(running_max: usize, waiters_max: usize, memory_kib: u32, passes: u32) -> Self {
        let params = Params::new(memory_kib, passes, 1, None).expect("argon2 cost parameters in range");
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let nobody = uuid::Uuid::new_v4();
        let decoy = argon.hash_password(nobody.as_bytes()).expect("argon2 hashes 16 bytes").to_string();
        Self {
            argon,
            running: Arc::new(Semaphore::new(running_max)),
            admitted: Arc::new(Semaphore::new(running_max + waiters_max)),
            decoy: decoy.into(),
        }
    }

    /// The PHC string of a new password, with a fresh salt.
    ///
    /// # Errors
    /// 503 if too many wait.
    pub async fn hash(&self, password: String) -> Result<String, ApiError> {
        let argon = self.argon.clone();
        self.run(move || argon.hash_password(password.as_bytes()).map(|hash| hash.to_string()))
            .await?
            .map_err(|_| ApiError::internal("argon2 refused to hash"))
    }

    /// Whether `password` is the one that `stored` was made from. With no stored hash the same work is
    /// done and the answer is no.
    ///
    /// # Errors
    /// 503 if too many wait.
    pub async fn verify(&self, password: String, stored: Option<String>) -> Result<bool, ApiError> {
        let argon = self.argon.clone();
        let known = stored.is_some();
        let stored = stored.unwrap_or_else(|| self.decoy.to_string());
        let matches = self
            .run(move || {
                PasswordHash::new(&stored).is_ok_and(|hash| argon.verify_password(password.as_bytes(), &hash).is_ok())
            })
            .await?;
        Ok(known && matches)
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
        let admitted = self.admitted.clone().try_acquire_owned().map_err(|_| ApiError::unavailable())?;
        let running = self.running.clone().acquire_owned().await.map_err(|_| ApiError::unavailable())?;
        // The permits travel with the work: a caller that goes away does not make room for another.
        let task = tokio::task::spawn_blocking(move || {
            let _held = (admitted, running);
            work()
        });
        task.await.map_err(|_| ApiError::internal("password task ended early"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Passwords {
        Passwords::new(1, 1, 64, 1)
    }

    #[tokio::test]
    async fn only_the_right_password_verifies() {
        let passwords = small();
        let stored = passwords.hash("correct horse battery".to_owned()).await.unwrap();
        assert!(stored.starts_with("$argon2id$"));
        assert!(passwords.verify("correct horse battery".to_owned(), Some(stored.clone())).await.unwrap());
        assert!(!passwords.verify("wrong horse battery".to_owned(), Some(stored)).await.unwrap());
    }

    #[tokio::test]
    async fn an_unknown_address_never_verifies_and_costs_a_whole_hash() {
        let passwords = Passwords::new(1, 1, 8 * 1024, 2);
        let stored = passwords.hash("correct horse battery".to_owned()).await.unwrap();
        let timed = async |stored: Option<String>| {
            let started = std::time::Instant::now();
            assert!(!passwords.verify("wrong horse battery".to_owned(), stored).await.unwrap());
            started.elapsed()
        };
        let known = timed(Some(stored)).await;
        let unknown = timed(None).await;
        assert!(unknown * 10 > known, "unknown {unknown:?}, known {known:?}");
    }

    #[tokio::test]
    async fn a_full_queue_is_refused_at_once() {
        let passwords = small();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let first = tokio::spawn({
            let passwords = passwords.clone();
            async move { passwords.run(move || held.recv().is_err()).await }
        });
        let second = tokio::spawn({
            let passwords = passwords.clone();
            async move { passwords.run(|| ()).await }
        });
        while passwords.admitted.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let refused = passwords.run(|| ()).await.unwrap_err();
        assert_eq!(refused.status(), axum::http::StatusCode::SERVICE_UNAVAILABLE);
        drop(release);
        assert!(first.await.unwrap().unwrap());
        second.await.unwrap().unwrap();
    }
}
