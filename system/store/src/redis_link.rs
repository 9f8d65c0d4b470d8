//! The link to Redis: bounded, rebuilt when it goes silent, and cut off for a while when it keeps failing.
//!
//! The driver's manager reconnects after an error but never after silence: behind a link that swallows
//! packets it would time out for ever. So silence is counted here, and the manager replaced.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Cmd, FromRedisValue, ScriptInvocation};

use crate::cache::CacheUnavailable;

/// Time-outs in a row after which the connection is built anew.
const SILENT_IN_A_ROW_MAX: u32 = 3;
/// Failures in a row after which Redis is left alone for `OPEN_FOR`.
const FAILURES_IN_A_ROW_MAX: u32 = 5;
/// How long the breaker stays open before one caller may try.
const OPEN_FOR: Duration = Duration::from_millis(500);

pub(crate) struct RedisLink {
    client: Client,
    timeout: Duration,
    manager: ArcSwap<ConnectionManager>,
    silent_in_a_row: AtomicU32,
    breaker: Mutex<Breaker>,
}

/// Count and deadline change together: a success that came between a failure's count and its deadline
/// would leave a breaker open that nothing closes.
#[derive(Default)]
struct Breaker {
    failures_in_a_row: u32,
    open_until: Option<Instant>,
}

impl RedisLink {
    pub(crate) fn open(url: &str, timeout: Duration) -> Result<Self, CacheUnavailable> {
        let client = Client::open(url).map_err(|_| CacheUnavailable::BadAddress)?;
        let manager = lazy_manager(&client, timeout)?;
        Ok(Self {
            client,
            timeout,
            manager: ArcSwap::from_pointee(manager),
            silent_in_a_row: AtomicU32::new(0),
            breaker: Mutex::default(),
        })
    }

    pub(crate) async fn command<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, CacheUnavailable> {
        self.admit()?;
        let used = self.manager.load_full();
        let mut manager = ConnectionManager::clone(&used);
        let answer = tokio::time::timeout(self.timeout, command.query_async(&mut manager)).await;
        self.settle(&used, answer)
    }

    pub(crate) async fn script<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T, CacheUnavailable> {
        self.admit()?;
        let used = self.manager.load_full();
        let mut manager = ConnectionManager::clone(&used);
        let answer = tokio::time::timeout(self.timeout, script.invoke_async(&mut manager)).await;
        self.settle(&used, answer)
    }

    pub(crate) fn is_cut_off(&self) -> bool {
        self.lock_breaker().open_until.is_some_and(|until| Instant::now() < until)
    }

    /// Lets a call through unless the breaker is open; after its time one caller at a time tries.
    fn admit(&self) -> Result<(), CacheUnavailable> {
        let mut breaker = self.lock_breaker();
        match breaker.open_until {
            Some(until) if Instant::now() < until => Err(CacheUnavailable::CutOff),
            Some(_) => {
                // This caller tries; the others stay out until it has an answer or the time is over.
                breaker.open_until = Some(Instant::now() + OPEN_FOR.max(self.timeout));
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn settle<T>(
        &self,
        used: &Arc<ConnectionManager>,
        answer: Result<redis::RedisResult<T>, tokio::time::error::Elapsed>,
    ) -> Result<T, CacheUnavailable> {
        let error = match answer {
            Ok(Ok(value)) => {
                self.silent_in_a_row.store(0, Ordering::Relaxed);
                *self.lock_breaker() = Breaker::default();
                return Ok(value);
            }
            Ok(Err(error)) if error.is_timeout() => CacheUnavailable::Timeout,
            Ok(Err(error)) if is_an_answer(&error) => {
                // The link is whole: garbage under one key must not cost everybody the cache.
                self.silent_in_a_row.store(0, Ordering::Relaxed);
                *self.lock_breaker() = Breaker::default();
                tracing::debug!(kind = ?error.kind(), "redis refused");
                let refused = CacheUnavailable::Refused;
                metrics::counter!("forecastle_redis_failures_total", "kind" => refused.as_str()).increment(1);
                return Err(refused);
            }
            Ok(Err(error)) => {
                tracing::debug!(kind = ?error.kind(), "redis failed");
                CacheUnavailable::Failed
            }
            Err(_) => CacheUnavailable::Timeout,
        };
        metrics::counter!("forecastle_redis_failures_total", "kind" => error.as_str()).increment(1);
        if error == CacheUnavailable::Timeout {
            // Those who waited on a connection that is replaced already say nothing about the new one.
            if Arc::ptr_eq(used, &self.manager.load())
                && self.silent_in_a_row.fetch_add(1, Ordering::Relaxed) + 1 >= SILENT_IN_A_ROW_MAX
            {
                self.rebuild();
            }
        } else {
            self.silent_in_a_row.store(0, Ordering::Relaxed);
        }
        let mut breaker = self.lock_breaker();
        breaker.failures_in_a_row = breaker.failures_in_a_row.saturating_add(1);
        if breaker.failures_in_a_row >= FAILURES_IN_A_ROW_MAX {
            breaker.open_until = Some(Instant::now() + OPEN_FOR);
        }
        Err(error)
    }

    fn rebuild(&self) {
        if let Ok(manager) = lazy_manager(&self.client, self.timeout) {
            self.manager.store(Arc::new(manager));
            self.silent_in_a_row.store(0, Ordering::Relaxed);
            metrics::counter!("forecastle_redis_rebuilds_total").increment(1);
        }
    }

    fn lock_breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the server said this, or something that it said does not read as what was asked for.
fn is_an_answer(error: &redis::RedisError) -> bool {
    matches!(
        error.kind(),
        redis::ErrorKind::Server(_) | redis::ErrorKind::Extension | redis::ErrorKind::UnexpectedReturnType
    )
}

fn lazy_manager(client: &Client, timeout: Duration) -> Result<ConnectionManager, CacheUnavailable> {
    let config = ConnectionManagerConfig::new()
        .set_response_timeout(Some(timeout))
        .set_connection_timeout(Some(timeout))
        .set_number_of_retries(1)
        .set_min_delay(Duration::from_millis(20))
        .set_max_delay(Duration::from_millis(100));
    ConnectionManager::new_lazy_with_config(client.clone(), config).map_err(|_| CacheUnavailable::BadAddress)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A call's outcome, as the manager gives it.
    fn settle(link: &RedisLink, answers: bool) {
        let used = link.manager.load_full();
        let answer = if answers { Ok(()) } else { Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe).into()) };
        let _ = link.settle(&used, Ok(answer));
    }

    #[tokio::test]
    async fn an_answer_closes_the_breaker() {
        let link = RedisLink::open("redis://127.0.0.1:1/", Duration::from_millis(1)).unwrap();
        (0..FAILURES_IN_A_ROW_MAX).for_each(|_| settle(&link, false));
        assert!(link.is_cut_off() && link.admit() == Err(CacheUnavailable::CutOff));
        settle(&link, true);
        assert!(!link.is_cut_off() && link.admit() == Ok(()));
    }

    #[tokio::test]
    async fn a_failure_beside_an_answer_never_leaves_a_breaker_open_that_the_next_answer_does_not_close() {
        let link = RedisLink::open("redis://127.0.0.1:1/", Duration::from_millis(1)).unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        let stuck = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    settle(&link, false);
                }
            });
            let mut stuck = 0;
            for _ in 0..100_000 {
                settle(&link, true);
                let breaker = link.lock_breaker();
                // Open, and as good as never failed: what stayed so until the process ended.
                stuck += u32::from(breaker.failures_in_a_row == 0 && breaker.open_until.is_some());
            }
            done.store(true, Ordering::Relaxed);
            stuck
        });
        assert_eq!(stuck, 0);
    }
}
