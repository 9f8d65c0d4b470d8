//! The billing run over all tenants, a bounded number at a time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use forecastle_domain::{BillingTerms, InvoiceId, TenantId};
use forecastle_store::{Cache, Db, StoreError, periods};
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::cached::Cached;
use crate::charge::{Collected, collect};
use crate::patience::Patience;
use crate::provider::Provider;
use crate::tenant_books::{BooksError, Step, advance};

/// Tries for one tenant while the database does not answer.
const TENANT_TRIES_MAX: u32 = 5;
/// First pause between them; doubles.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// Steps of one tenant in one run: each ends with a charge, and a period has few of those.
const STEPS_MAX: u32 = 50_000;

/// What a run did. `unknown`, `incomplete` and `mismatched` say what is left for another run, or for a person.
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
    /// Charges this run recorded as declined; their dunning goes on by itself.
    pub failed: u64,
    /// Missing periods and postings found behind newer ones, and made; more than 0 means that an earlier
    /// run had a bug.
    pub healed: u64,
    /// Tenants that could not be brought to the time, or of which a cache may still hold the plan of before.
    pub incomplete: u64,
    /// Invoices given up.
    pub written_off: u64,
    /// Contradictions between invoices, payments and ledger; more than 0 means a bug.
    pub mismatched: u64,
}

impl RunSummary {
    /// Whether nothing is left to be done for this time.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.unknown == 0 && self.incomplete == 0 && self.mismatched == 0
    }

    const fn add(&mut self, other: &Self) {
        self.drafted += other.drafted;
        self.issued += other.issued;
        self.charged += other.charged;
        self.unknown += other.unknown;
        self.failed += other.failed;
        self.healed += other.healed;
        self.incomplete += other.incomplete;
        self.written_off += other.written_off;
        self.mismatched += other.mismatched;
    }

    /// Counts it, and calls for somebody where there was a bug.
    fn announce(&self) {
        for (name, count) in [
            ("forecastle_billing_drafted_total", self.drafted),
            ("forecastle_billing_issued_total", self.issued),
            ("forecastle_billing_charged_total", self.charged),
            ("forecastle_billing_unknown_total", self.unknown),
            ("forecastle_billing_declined_total", self.failed),
            ("forecastle_billing_healed_total", self.healed),
            ("forecastle_billing_incomplete_total", self.incomplete),
            ("forecastle_billing_written_off_total", self.written_off),
            ("forecastle_billing_mismatched_total", self.mismatched),
        ] {
            metrics::counter!(name).increment(count);
        }
        for (what, count) in [("healed", self.healed), ("mismatched", self.mismatched), ("incomplete", self.incomplete)]
        {
            metrics::gauge!("forecastle_billing_last_run", "what" => what).set(count as f64);
        }
        if self.healed > 0 {
            tracing::error!(healed = self.healed, "missing billing periods or postings found and made");
        }
        if self.mismatched > 0 {
            tracing::error!(mismatched = self.mismatched, "invoices, payments and ledger contradict one another");
        }
    }
}

/// Everything a run works with. Cheap to clone.
#[derive(Clone)]
pub struct BillingRun {
    /// The database; needs a connection for each tenant at work.
    pub db: Db,
    /// Who takes the money.
    pub provider: Provider,
    /// The durations.
    pub terms: BillingTerms,
    /// Tenants brought forward side by side; at least 1.
    pub at_once: usize,
    /// Where cached plans and dashboards are deleted when they change; without it they last their time.
    pub cache: Option<Cache>,
    /// How long the provider may go without a clear answer, over all that is asked, before this run asks it
    /// nothing more. What it would have asked counts as unknown, and is the next run's.
    pub silence_max: Duration,
}

impl BillingRun {
    /// Brings every tenant to `as_of`. Safe to repeat, to run twice at the same time, and to kill.
    ///
    /// # Errors
    /// Only if the list of tenants cannot be read; one tenant's trouble is counted as `incomplete`.
    pub async fn to(&self, as_of: DateTime<Utc>) -> Result<RunSummary, StoreError> {
        let tenants = list_tenants(&self.db, as_of).await?;
        let shared = Arc::new((Cached::new(self.cache.clone()), Patience::of_run(self.silence_max)));
        let slots = Arc::new(Semaphore::new(self.at_once.max(1)));
        let mut tasks = JoinSet::new();
        let mut summary = RunSummary::default();
        let died = RunSummary { incomplete: 1, ..RunSummary::default() };
        for tenant in tenants {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { break };
            let (run, shared) = (self.clone(), Arc::clone(&shared));
            tasks.spawn(async move {
                let _slot = slot;
                run.bill_tenant(tenant, as_of, &shared.0, &shared.1).await
            });
            while let Some(done) = tasks.try_join_next() {
                summary.add(&done.unwrap_or(died));
            }
        }
        while let Some(done) = tasks.join_next().await {
            summary.add(&done.unwrap_or(died));
        }
        if !shared.1.lasts() {
            tracing::warn!("the provider was silent for too long; what is left to collect is for the next run");
            metrics::counter!("forecastle_billing_provider_silent_total").increment(1);
        }
        let owed = shared.0.settle().await;
        if owed > 0 {
            tracing::error!(owed, "cached plans could not be deleted");
            summary.incomplete += owed;
        }
        summary.announce();
        Ok(summary)
    }

    async fn bill_tenant(
        &self,
        tenant: TenantId,
        as_of: DateTime<Utc>,
        cached: &Cached,
        patience: &Patience,
    ) -> RunSummary {
        let mut summary = RunSummary::default();
        // Nobody can be asked inside of a step, so one that would change the plan ends before it.
        let mut may_change_plan = !cached.is_present();
        let mut blocked = BTreeSet::new();
        for _ in 0..STEPS_MAX {
            let step = match self.advance_patiently(tenant, as_of, &blocked, may_change_plan).await {
                Ok(step) => step,
                Err(error) => {
                    tracing::error!(error = %error, "bring a tenant's books up to date");
                    if may_change_plan {
                        cached.announce(tenant).await;
                    }
                    break;
                }
            };
            summary.drafted += step.drafted;
            summary.issued += step.issued;
            summary.healed += step.healed;
            summary.written_off += step.written_off;
            summary.mismatched += step.mismatched;
            if step.plan_changed {
                cached.delete(tenant).await;
                may_change_plan = !cached.is_present();
            }
            if step.waits_for_announcement {
                cached.announce(tenant).await;
                may_change_plan = true;
            }
            for payment in &step.to_collect {
                match collect(&self.db, &self.provider, tenant, payment, &self.terms, cached, patience).await {
                    Ok(Collected::Charged) => summary.charged += 1,
                    Ok(Collected::AlreadyRecorded | Collected::Credited) => {}
                    Ok(Collected::Declined) => summary.failed += 1,
                    Ok(Collected::Unknown) => {
                        summary.unknown += 1;
                        blocked.insert(payment.invoice_id);
                    }
                    Err(error) => {
                        tracing::error!(error = %error, "collect a payment");
                        summary.unknown += 1;
                        blocked.insert(payment.invoice_id);
                    }
                }
            }
            if step.is_last {
                return summary;
            }
        }
        summary.incomplete = 1;
        summary
    }

    async fn advance_patiently(
        &self,
        tenant: TenantId,
        as_of: DateTime<Utc>,
        blocked: &BTreeSet<InvoiceId>,
        may_change_plan: bool,
    ) -> Result<Step, BooksError> {
        let mut pause = PAUSE_MIN;
        for _ in 1..TENANT_TRIES_MAX {
            match advance(&self.db, tenant, as_of, &self.terms, blocked, may_change_plan).await {
                Err(BooksError::Store(error)) if error.is_unavailable() => {
                    tracing::warn!(error = %error, "bring a tenant's books up to date");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                outcome => return outcome,
            }
        }
        advance(&self.db, tenant, as_of, &self.terms, blocked, may_change_plan).await
    }
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
