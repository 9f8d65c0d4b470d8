//! The billing run over all tenants, a bounded number at a time.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use forecastle_domain::TenantId;
use forecastle_store::{Db, StoreError, periods};
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::charge::{Collected, collect};
use crate::provider::Provider;
use crate::tenant_books::{Books, BooksError, bring_up_to};

/// Tries for one tenant while the database does not answer.
const TENANT_TRIES_MAX: u32 = 5;
/// First pause between them; doubles.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// What a run did. `unknown`, `failed` and `incomplete` say what is left for another run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct RunSummary {
    /// Invoices drafted.
    pub drafted: u64,
    /// Invoices issued.
    pub issued: u64,
    /// Payments this run recorded as received.
    pub charged: u64,
    /// Payments of which it is not known whether they were taken.
    pub unknown: u64,
    /// Payments the provider refused.
    pub failed: u64,
    /// Missing periods found behind newer ones, and drafted; more than 0 means an earlier run had a bug.
    pub healed: u64,
    /// Tenants that could not be brought to the time.
    pub incomplete: u64,
}

impl RunSummary {
    /// Whether nothing is left to be done for this time.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.unknown == 0 && self.failed == 0 && self.incomplete == 0
    }

    const fn add(&mut self, other: &Self) {
        self.drafted += other.drafted;
        self.issued += other.issued;
        self.charged += other.charged;
        self.unknown += other.unknown;
        self.failed += other.failed;
        self.healed += other.healed;
        self.incomplete += other.incomplete;
    }
}

/// Brings every tenant to `as_of`, `at_once` of them side by side (at least 1). Safe to repeat, to run
/// twice at the same time, and to kill.
///
/// # Errors
/// Only if the list of tenants cannot be read; one tenant's trouble is counted as `incomplete`.
pub async fn run_to(
    db: &Db,
    provider: &Provider,
    as_of: DateTime<Utc>,
    at_once: usize,
) -> Result<RunSummary, StoreError> {
    let tenants = list_tenants(db, as_of).await?;
    let slots = Arc::new(Semaphore::new(at_once.max(1)));
    let mut tasks = JoinSet::new();
    let mut summary = RunSummary::default();
    for tenant in tenants {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { break };
        let (db, provider) = (db.clone(), provider.clone());
        tasks.spawn(async move {
            let _slot = slot;
            bill_tenant(&db, &provider, tenant, as_of).await
        });
        while let Some(done) = tasks.try_join_next() {
            summary.add(&done.unwrap_or(RunSummary { incomplete: 1, ..RunSummary::default() }));
        }
    }
    while let Some(done) = tasks.join_next().await {
        summary.add(&done.unwrap_or(RunSummary { incomplete: 1, ..RunSummary::default() }));
    }
    Ok(summary)
}

async fn list_tenants(db: &Db, as_of: DateTime<Utc>) -> Result<Vec<TenantId>, StoreError> {
    let mut pause = PAUSE_MIN;
    for _ in 1..TENANT_TRIES_MAX {
        match periods::billing_tenants(db, as_of).await {
            Err(error) if error.is_unavailable() => {
                tracing::warn!(error = %error, "list tenants");
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            answer => return answer,
        }
    }
    periods::billing_tenants(db, as_of).await
}

async fn bill_tenant(db: &Db, provider: &Provider, tenant: TenantId, as_of: DateTime<Utc>) -> RunSummary {
    let mut summary = RunSummary::default();
    let books = match bring_up_patiently(db, tenant, as_of).await {
        Ok(books) => books,
        Err(error) => {
            tracing::error!(error = %error, "bring a tenant's books up to date");
            summary.incomplete = 1;
            return summary;
        }
    };
    summary.drafted = books.drafted;
    summary.issued = books.issued;
    summary.healed = books.healed;
    for payment in &books.to_collect {
        match collect(db, provider, tenant, payment, books.payment_token.as_deref()).await {
            Ok(Collected::Charged) => summary.charged += 1,
            Ok(Collected::AlreadyRecorded) => {}
            Ok(Collected::Unknown) => summary.unknown += 1,
            Ok(Collected::Failed) => summary.failed += 1,
            Err(error) => {
                tracing::error!(error = %error, "collect a payment");
                summary.unknown += 1;
            }
        }
    }
    summary
}

async fn bring_up_patiently(db: &Db, tenant: TenantId, as_of: DateTime<Utc>) -> Result<Books, BooksError> {
    let mut pause = PAUSE_MIN;
    for _ in 1..TENANT_TRIES_MAX {
        match bring_up_to(db, tenant, as_of).await {
            Err(BooksError::Store(error)) if error.is_unavailable() => {
                tracing::warn!(error = %error, "bring a tenant's books up to date");
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            outcome => return outcome,
        }
    }
    bring_up_to(db, tenant, as_of).await
}
