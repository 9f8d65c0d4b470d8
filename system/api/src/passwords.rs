//! Hashing and checking passwords with argon2id, off the async threads and behind a bound.
//!
//! Law: an unknown address costs the same work as a known one, and a queue that is full refuses
//! instead of growing. Passwords and hashes are never logged.
//!
//! The memory that a hash works in is kept and used again. Freed, it would go back to whichever of the
//! allocator's arenas its thread had, and each of them would keep tens of megabytes for good.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use argon2::password_hash::Error as HashError;
use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use tokio::sync::Semaphore;

use crate::error::ApiError;

/// Hashes and verifies; cheap to clone.
#[derive(Clone)]
pub struct Passwords {
    /// Cost of a new hash.
    params: Params,
    /// Work areas that no hash uses at the moment; there are never more than hashes computed at once.
    areas: Arc<Mutex<Vec<WorkArea>>>,
    /// Hashes computed at once.
    running: Arc<Semaphore>,
    /// Hashes computed or waited for.
    admitted: Arc<Semaphore>,
    /// Longest wait for a turn.
    wait: Duration,
    /// Hash of a password nobody has, verified where the address is unknown.
    decoy: Arc<str>,
}

impl Passwords {
    /// A pool of `running_max` hashes at a time, each of `memory_kib` and `passes`, with at most
    /// `waiters_max` waiting, each for at most `wait`.
    ///
    /// # Panics
    /// If argon2 refuses the cost parameters, which come from configuration.
    #[must_use]
    pub fn new(running_max: usize, waiters_max: usize, wait: Duration, memory_kib: u32, passes: u32) -> Self {
        let params = Params::new(memory_kib, passes, 1, None).expect("argon2 cost parameters in range");
        let nobody = uuid::Uuid::new_v4();
        let mut area = WorkArea::default();
        let decoy = area.hash(params.clone(), nobody.as_bytes()).expect("argon2 hashes 16 bytes").to_string();
        Self {
            params,
            areas: Arc::new(Mutex::new(vec![area])),
            running: Arc::new(Semaphore::new(running_max)),
            admitted: Arc::new(Semaphore::new(running_max + waiters_max)),
            wait,
            decoy: decoy.into(),
        }
    }

    /// The PHC string of a new password, with a fresh salt.
    ///
    /// # Errors
    /// 503 if too many wait.
    pub async fn hash(&self, password: String) -> Result<String, ApiError> {
        let params = self.params.clone();
        self.run(move |area| area.hash(params, password.as_bytes()).map(|hash| hash.to_string()))
            .await?
            .map_err(|_| ApiError::internal("argon2 refused to hash"))
    }

    /// Whether `password` is the one that `stored` was made from. With no stored hash the same work is
    /// done and the answer is no.
    ///
    /// # Errors
    /// 503 if too many wait.
    pub async fn verify(&self, password: String, stored: Option<String>) -> Result<bool, ApiError> {
        let known = stored.is_some();
        let stored = stored.unwrap_or_else(|| self.decoy.to_string());
        let matches = self
            .run(move |area| {
                PasswordHash::new(&stored).is_ok_and(|hash| area.is_match(&hash, password.as_bytes()) == Ok(true))
            })
            .await?;
        Ok(known && matches)
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut WorkArea) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let admitted = self.admitted.clone().try_acquire_owned().map_err(|_| ApiError::unavailable())?;
        // A caller that goes away while it waits leaves its place to the next.
        let turn = tokio::time::timeout(self.wait, self.running.clone().acquire_owned());
        let Ok(Ok(running)) = turn.await else { return Err(ApiError::unavailable()) };
        // The permits travel with the work: a caller that goes away does not make room for another.
        let areas = self.areas.clone();
        let task = tokio::task::spawn_blocking(move || {
            let _held = (admitted, running);
            let mut area = areas.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
            let outcome = work(&mut area);
            areas.lock().unwrap_or_else(PoisonError::into_inner).push(area);
            outcome
        });
        task.await.map_err(|_| ApiError::internal("password task ended early"))
    }
}

/// The memory of one hash at a time; grows to the largest that was asked of it.
#[derive(Default)]
struct WorkArea(Vec<Block>);

impl WorkArea {
    fn hash(&mut self, params: Params, password: &[u8]) -> Result<PasswordHash, HashError> {
        let salt = Salt::generate();
        Ok(PasswordHash {
            algorithm: Algorithm::Argon2id.ident(),
            version: Some(Version::V0x13.into()),
            params: ParamsString::try_from(&params)?,
            hash: Some(self.digest(Algorithm::Argon2id, Version::V0x13, params, password, &salt)?),
            salt: Some(salt),
        })
    }

    /// With the cost that the hash itself names; the comparison takes the same time wherever they differ.
    fn is_match(&mut self, stored: &PasswordHash, password: &[u8]) -> Result<bool, HashError> {
        let (Some(salt), Some(expected)) = (&stored.salt, &stored.hash) else { return Ok(false) };
        let algorithm = Algorithm::try_from(stored.algorithm.as_str())?;
        let version = stored.version.map(Version::try_from).transpose()?.unwrap_or_default();
        let found = self.digest(algorithm, version, Params::try_from(stored)?, password, salt)?;
        Ok(found == *expected)
    }

    fn digest(
        &mut self,
        algorithm: Algorithm,
        version: Version,
        params: Params,
        password: &[u8],
        salt: &Salt,
    ) -> Result<Output, HashError> {
        let length = params.output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN);
        let blocks = params.block_count();
        if self.0.len() < blocks {
            self.0 = vec![Block::new(); blocks];
        }
        let mut digest = [0; Output::MAX_LENGTH];
        let digest = digest.get_mut(..length).ok_or(HashError::OutputSize)?;
        let argon = Argon2::new(algorithm, version, params);
        argon.hash_password_into_with_memory(password, salt, digest, &mut self.0)?;
        Ok(Output::new(digest)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(60);

    fn small() -> Passwords {
        Passwords::new(1, 1, WAIT, 64, 1)
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
    async fn hashes_are_those_of_the_library_and_share_their_memory() {
        use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
        let passwords = Passwords::new(2, 8, WAIT, 64, 1);
        let stored = passwords.hash("correct horse battery".to_owned()).await.unwrap();
        let parsed = PasswordHash::new(&stored).unwrap();
        assert!(Argon2::default().verify_password(b"correct horse battery", &parsed).is_ok());
        let dearer = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(128, 2, 1, None).unwrap());
        let foreign = dearer.hash_password(b"correct horse battery").unwrap().to_string();
        assert!(passwords.verify("correct horse battery".to_owned(), Some(foreign)).await.unwrap());
        let (a, b, c, d) = tokio::join!(
            passwords.hash("a".to_owned()),
            passwords.hash("b".to_owned()),
            passwords.hash("c".to_owned()),
            passwords.hash("d".to_owned()),
        );
        assert!([a, b, c, d].into_iter().all(|hash| hash.is_ok()));
        let kept = passwords.areas.lock().unwrap().len();
        assert!((1..=2).contains(&kept), "{kept} work areas for two hashes at a time");
    }

    #[tokio::test]
    async fn an_unknown_address_never_verifies_and_costs_a_whole_hash() {
        let passwords = Passwords::new(1, 1, WAIT, 8 * 1024, 2);
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
            async move { passwords.run(move |_| held.recv().is_err()).await }
        });
        let second = tokio::spawn({
            let passwords = passwords.clone();
            async move { passwords.run(|_| ()).await }
        });
        while passwords.admitted.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let refused = passwords.run(|_| ()).await.unwrap_err();
        assert_eq!(refused.status(), axum::http::StatusCode::SERVICE_UNAVAILABLE);
        drop(release);
        assert!(first.await.unwrap().unwrap());
        second.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn who_waits_gets_a_turn_who_waits_too_long_a_503_and_who_hangs_up_leaves_its_place() {
        let mut passwords = small();
        passwords.wait = Duration::from_millis(50);
        let (release, held) = std::sync::mpsc::channel::<()>();
        let first = tokio::spawn({
            let passwords = passwords.clone();
            async move { passwords.run(move |_| held.recv().is_err()).await }
        });
        while passwords.running.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let too_long = passwords.run(|_| ()).await.unwrap_err();
        assert_eq!(too_long.status(), axum::http::StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(passwords.admitted.available_permits(), 1, "its place is free again");

        passwords.wait = WAIT;
        let hangs_up = tokio::spawn({
            let passwords = passwords.clone();
            async move { passwords.run(|_| ()).await }
        });
        while passwords.admitted.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        hangs_up.abort();
        assert!(hangs_up.await.unwrap_err().is_cancelled());
        let waits = passwords.run(|_| ());
        let (waited, ()) = tokio::join!(waits, async { drop(release) });
        waited.unwrap();
        assert!(first.await.unwrap().unwrap());
        assert_eq!(passwords.admitted.available_permits(), 2);
    }

    #[tokio::test]
    async fn a_hash_whose_caller_hung_up_keeps_its_place_until_it_is_done() {
        let passwords = small();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let (started, when_started) = tokio::sync::oneshot::channel();
        let caller = tokio::spawn({
            let passwords = passwords.clone();
            async move {
                let work = move |_: &mut WorkArea| {
                    started.send(()).unwrap();
                    held.recv().is_err()
                };
                passwords.run(work).await
            }
        });
        when_started.await.unwrap();
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
        assert_eq!(passwords.running.available_permits(), 0, "the thread is still busy");
        drop(release);
        passwords.run(|_| ()).await.unwrap();
    }
}
