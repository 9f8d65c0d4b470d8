//! Boundaries between periods that were billed, whether or not there was anything to charge.
//!
//! A closing is written once, with the usage it counted, in the transaction that issues its invoice. It is
//! how a missing period is told from one without a charge. Rows are only ever added.

use chrono::{DateTime, Utc};
use forecastle_domain::{InvoiceId, Plan};

use crate::error::StoreError;
use crate::scope::TenantTx;

/// Which boundaries of a tenant were closed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Closed {
    /// Index of the newest, if there is one.
    pub newest: Option<u32>,
    /// Those before it that were not, ascending: there should never be one.
    pub gaps: Vec<u32>,
}

impl Closed {
    /// The first boundary that is not closed.
    #[must_use]
    pub fn next(&self) -> u32 {
        self.gaps.first().copied().unwrap_or_else(|| self.newest.map_or(0, |newest| newest + 1))
    }

    /// Notes that [`Self::next`] is closed now.
    pub fn close_next(&mut self) {
        if self.gaps.is_empty() {
            self.newest = Some(self.next());
        } else {
            self.gaps.remove(0);
        }
    }
}

/// Reads which boundaries were closed.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn closed(tx: &mut TenantTx) -> Result<Closed, StoreError> {
    let tenant = tx.tenant_id().as_uuid();
    let query = sqlx::query_as("SELECT count(*), max(period_index) FROM app.period_closings WHERE tenant_id = $1");
    let (count, newest): (i64, Option<i32>) = tx.one(query.bind(tenant)).await?;
    let Some(newest) = newest else { return Ok(Closed::default()) };
    let mut gaps = Vec::new();
    if count <= i64::from(newest) {
        let query = sqlx::query_as(
            "SELECT n FROM generate_series(0, $2) AS n
             WHERE NOT EXISTS (SELECT 1 FROM app.period_closings c WHERE c.tenant_id = $1 AND c.period_index = n)
             ORDER BY n",
        );
        let rows: Vec<(i32,)> = tx.all(query.bind(tenant).bind(newest)).await?;
        gaps = rows.into_iter().filter_map(|(n,)| u32::try_from(n).ok()).collect();
    }
    Ok(Closed { newest: u32::try_from(newest).ok(), gaps })
}

/// A closing to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closing {
    /// Index of the starting period.
    pub period_index: u32,
    /// Plan in force when the period before ended; `None` at the sign-up.
    pub ended_plan: Option<Plan>,
    /// Plan the period starts with.
    pub started_plan: Plan,
    /// Usage it counted.
    pub usage_events: u64,
    /// Its invoice, if there was anything to charge.
    pub invoice_id: Option<InvoiceId>,
    /// When it was due.
    pub closed_at: DateTime<Utc>,
}

/// Writes a closing down. The caller holds the tenant's lock.
///
/// # Errors
/// `Conflict` if the boundary was closed already; else as [`StoreError`] says.
pub async fn insert(tx: &mut TenantTx, closing: &Closing) -> Result<(), StoreError> {
    let query = sqlx::query(
        "INSERT INTO app.period_closings (tenant_id, period_index, ended_plan, started_plan, usage_events, invoice_id,
                                          closed_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    );
    let query = query
        .bind(tx.tenant_id().as_uuid())
        .bind(i32::try_from(closing.period_index).unwrap_or(i32::MAX))
        .bind(closing.ended_plan.map(Plan::as_str))
        .bind(closing.started_plan.as_str())
        .bind(i64::try_from(closing.usage_events).unwrap_or(i64::MAX))
        .bind(closing.invoice_id.map(InvoiceId::as_uuid))
        .bind(closing.closed_at);
    tx.execute(query).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_closed_before_anything_new() {
        let mut closed = Closed { newest: Some(4), gaps: vec![1, 3] };
        let mut order = Vec::new();
        for _ in 0..4 {
            order.push(closed.next());
            closed.close_next();
        }
        assert_eq!(order, [1, 3, 5, 6]);
        assert_eq!(Closed::default().next(), 0);
    }
}
