//! What a struck biller leaves: money that the books do not know of, or work that another has to do; and passes that do
//! not come to their end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nogo_faults::{BoxFuture, ProcessControl as _, ProcessEnding};
use nogo_invariants::history::{Proof, ProofKind};
use sqlx::PgPool;

use super::{EffectProbe, proof};
use crate::provider::ProviderBook;
use crate::run::one_pass::PassingBiller;

/// A pass over all tenants of a suite takes a fraction of this where nothing stands in its way.
const STUCK: Duration = Duration::from_secs(3);
/// Keys of the charges that were asked for, or were about to be, and have no end.
const OPEN_CHARGES: &str = "SELECT idempotency_key FROM app.payments
    WHERE tenant_id::text = ANY($1) AND state IN ('intended', 'unknown')";
/// Who has been charged, or asked in vain.
const SETTLED: &str = "SELECT count(DISTINCT tenant_id) FROM app.payments
    WHERE tenant_id::text = ANY($1) AND state IN ('succeeded', 'failed')";

/// Those whose first charges a pass was to make, and what became of that.
pub struct FirstCharges {
    /// Ids of the tenants.
    pub due: Vec<String>,
    /// Read-only connections past every proxy.
    pub reader: PgPool,
    /// What the payment provider knows.
    pub provider: Arc<ProviderBook>,
}

impl FirstCharges {
    /// How many are settled.
    async fn settled(&self) -> Result<usize> {
        let count: i64 = sqlx::query_scalar(SETTLED).bind(&self.due).fetch_one(&self.reader).await?;
        usize::try_from(count).context("count who is settled")
    }

    /// How many charges the provider has made that the books count as open.
    async fn unrecorded(&self) -> Result<usize> {
        let open: Vec<String> = sqlx::query_scalar(OPEN_CHARGES).bind(&self.due).fetch_all(&self.reader).await?;
        let made: BTreeSet<String> =
            self.provider.snapshot().charges.into_iter().map(|charge| charge.idempotency_key).collect();
        Ok(open.iter().filter(|key| made.contains(*key)).count())
    }

    /// A whole pass of `biller` has ended well, and everybody is settled.
    async fn recovered(&self, biller: &PassingBiller) -> Proof {
        let looked = async {
            let code = biller.whole_pass().await?;
            anyhow::Ok((code, self.settled().await?, self.unrecorded().await?))
        };
        let (well, what) = match looked.await {
            Ok((code, settled, unrecorded)) => {
                let all = self.due.len();
                let what = format!(
                    "a whole pass ends with {code:?}; {settled} of {all} are settled, {unrecorded} charges not recorded"
                );
                (code == Some(0) && settled == all && unrecorded == 0, what)
            }
            Err(error) => (false, format!("not read: {error:#}")),
        };
        proof(ProofKind::Recovery, "the biller's exit code and app.payments", well, what)
    }
}

/// A biller that ended after the provider had charged: its payments stand open, and nobody asks any more.
pub struct MoneyUnrecorded {
    /// Whom it was to charge.
    pub charges: FirstCharges,
    /// The biller.
    pub biller: Arc<PassingBiller>,
}

impl MoneyUnrecorded {
    async fn look(&self) -> Result<(bool, String)> {
        // One that is under way may yet hear of it.
        let ended = self.biller.look()?;
        let count = self.charges.unrecorded().await?;
        let state = if ended.is_some() { "has ended" } else { "is under way" };
        let what = format!(
            "{count} charges that the provider has made stand open in the books; {} {state}",
            self.biller.name()
        );
        Ok((ended.is_some() && count > 0, what))
    }
}

impl EffectProbe for MoneyUnrecorded {
    fn effect(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let source = "the provider's book and app.payments";
            match self.look().await {
                Ok((shows, what)) => proof(ProofKind::Effect, source, shows, what),
                Err(error) => proof(ProofKind::Effect, source, false, format!("not read: {error:#}")),
            }
        })
    }

    fn recovery(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(self.charges.recovered(&self.biller))
    }
}

/// A biller that stands still until the database has taken its locks from it: another does its work.
pub struct TakenOver {
    /// Whom it was to charge.
    pub charges: FirstCharges,
    /// The biller.
    pub biller: Arc<PassingBiller>,
    /// The other one.
    pub other: Arc<PassingBiller>,
}

impl TakenOver {
    async fn look(&self) -> Result<(bool, String)> {
        let Some(ending) = self.other.look()? else {
            return Ok((false, format!("{} is still at it", self.other.name())));
        };
        let (settled, all) = (self.charges.settled().await?, self.charges.due.len());
        let stands = self.biller.identity().is_some_and(|identity| identity.is_paused());
        if ending.code != Some(0) || settled < all {
            self.other.start()?;
        }
        let (other, still) = (self.other.name(), if stands { "stands still" } else { "goes on" });
        let what = format!(
            "{other} ended with {:?}; {settled} of {all} are settled, and {} {still}",
            ending.code,
            self.biller.name()
        );
        Ok((ending.code == Some(0) && settled == all && stands, what))
    }
}

impl EffectProbe for TakenOver {
    fn effect(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let source = "another biller's exit code and app.payments";
            match self.look().await {
                Ok((shows, what)) => proof(ProofKind::Effect, source, shows, what),
                Err(error) => proof(ProofKind::Effect, source, false, format!("not read: {error:#}")),
            }
        })
    }

    fn recovery(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            self.other.ended().await;
            self.charges.recovered(&self.biller).await
        })
    }
}

/// A biller whose way to the database is cut: its pass does not come to its end, or ends without having done its work.
pub struct PassStuck {
    biller: Arc<PassingBiller>,
    began: Option<Instant>,
}

impl PassStuck {
    /// `biller` is sent on its way at the first look.
    #[must_use]
    pub fn new(biller: Arc<PassingBiller>) -> Self {
        Self { biller, began: None }
    }

    fn shows(&mut self) -> Result<(bool, String)> {
        let ending = self.biller.look()?;
        let under_way = self.began.get_or_insert_with(Instant::now).elapsed();
        Ok(match ending {
            None => (under_way >= STUCK, format!("its pass is under way for {} ms", under_way.as_millis())),
            Some(ProcessEnding { code, .. }) => (code != Some(0), format!("its pass ended with {code:?}")),
        })
    }
}

impl EffectProbe for PassStuck {
    fn effect(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let source = "a biller's pass";
            match self.shows() {
                Ok((shows, what)) => proof(ProofKind::Effect, source, shows, what),
                Err(error) => proof(ProofKind::Effect, source, false, format!("not started: {error:#}")),
            }
        })
    }

    fn recovery(&mut self) -> BoxFuture<'_, Proof> {
        Box::pin(async move {
            let source = "the biller's exit code";
            match self.biller.whole_pass().await {
                Ok(code) => {
                    let what = format!("a whole pass ends with {code:?}");
                    proof(ProofKind::Recovery, source, code == Some(0), what)
                }
                Err(error) => proof(ProofKind::Recovery, source, false, format!("not started: {error:#}")),
            }
        })
    }
}
