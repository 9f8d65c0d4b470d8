//! What caches hold of a tenant's billing (its plan, its dashboard), kept from outliving a change by the run.
//!
//! Order, as in the API: announced before the transaction that changes it, deleted after its commit. A
//! deletion that nobody took is owed; a run does not call itself complete while it owes one, since a
//! process that ends takes its memory of it along.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use forecastle_domain::TenantId;
use forecastle_store::{Cache, CacheKey, Deletion};

/// Tries for a deletion that was not taken, at a run's end.
const SETTLE_TRIES_MAX: u32 = 5;
/// First pause between them; doubles.
const SETTLE_PAUSE: Duration = Duration::from_millis(100);

/// A run's access to the cache; with none, all of it does nothing.
pub(crate) struct Cached {
    cache: Option<Cache>,
    owed: Mutex<BTreeSet<TenantId>>,
}

impl Cached {
    pub(crate) fn new(cache: Option<Cache>) -> Self {
        Self { cache, owed: Mutex::default() }
    }

    /// For callers that announce and delete by themselves.
    pub(crate) fn by_the_caller() -> Self {
        Self::new(None)
    }

    /// Whether there is anything to announce to.
    pub(crate) const fn is_present(&self) -> bool {
        self.cache.is_some()
    }

    /// To be called before the transaction begins. Holds for 15 s, or until the deletion.
    pub(crate) async fn announce(&self, tenant: TenantId) {
        if let Some(cache) = &self.cache {
            cache.announce(&keys(tenant)).await;
        }
    }

    /// To be called after the commit.
    pub(crate) async fn delete(&self, tenant: TenantId) {
        if let Some(cache) = &self.cache {
            match cache.delete(&keys(tenant)).await {
                Deletion::Confirmed | Deletion::Recorded => self.owed().remove(&tenant),
                Deletion::Unrecorded => self.owed().insert(tenant),
            };
        }
    }

    /// Tries what is owed once more; of how many tenants it is owed still.
    pub(crate) async fn settle(&self) -> u64 {
        let mut pause = SETTLE_PAUSE;
        for _ in 0..SETTLE_TRIES_MAX {
            let owed: Vec<TenantId> = self.owed().iter().copied().collect();
            if owed.is_empty() {
                return 0;
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
            for tenant in owed {
                self.delete(tenant).await;
            }
        }
        self.owed().len() as u64
    }

    fn owed(&self) -> MutexGuard<'_, BTreeSet<TenantId>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn keys(tenant: TenantId) -> [CacheKey; 2] {
    [CacheKey::plan(tenant), CacheKey::dashboard(tenant)]
}
