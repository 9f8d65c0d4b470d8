//! What waits and what was given up, over all tenants: for metrics and the alerts on them.

use sqlx::FromRow;

use crate::error::StoreError;
use crate::pool::Db;

/// Counts and ages at one moment. An age is that of the oldest, in seconds; 0 if there is none.
#[derive(Debug, Clone, Copy, PartialEq, FromRow)]
pub struct Backlog {
    /// Jobs that are due and not claimed.
    pub queue_waiting: i64,
    /// How long the first of them has been due.
    pub queue_oldest_s: f64,
    /// Jobs that used up their attempts within the last hour.
    pub jobs_dead_last_hour: i64,
    /// Payments of which it is not known whether they were taken.
    pub payments_unknown: i64,
    /// Age of the first of them.
    pub payments_unknown_oldest_s: f64,
    /// Mails queued or being sent.
    pub mail_waiting: i64,
    /// Age of the first of them.
    pub mail_oldest_s: f64,
    /// Mails given up within the last hour; those whose token ran out meanwhile are not counted.
    pub mail_dead_last_hour: i64,
}

/// Counts.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn backlog(db: &Db) -> Result<Backlog, StoreError> {
    let rows = db.read_all(|| sqlx::query_as("SELECT * FROM app.ops_backlog()")).await?;
    rows.into_iter().next().ok_or(StoreError::NotFound)
}

impl Backlog {
    /// Sets the gauges of this process.
    pub fn publish(&self) {
        metrics::gauge!("forecastle_queue_waiting").set(self.queue_waiting as f64);
        metrics::gauge!("forecastle_queue_oldest_age_seconds").set(self.queue_oldest_s);
        metrics::gauge!("forecastle_jobs_dead_last_hour").set(self.jobs_dead_last_hour as f64);
        metrics::gauge!("forecastle_payments_unknown").set(self.payments_unknown as f64);
        metrics::gauge!("forecastle_payments_unknown_oldest_age_seconds").set(self.payments_unknown_oldest_s);
        metrics::gauge!("forecastle_mail_waiting").set(self.mail_waiting as f64);
        metrics::gauge!("forecastle_mail_oldest_age_seconds").set(self.mail_oldest_s);
        metrics::gauge!("forecastle_mail_dead_last_hour").set(self.mail_dead_last_hour as f64);
    }
}
