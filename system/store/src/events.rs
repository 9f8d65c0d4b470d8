//! What happened to a tenant's forecasts, as an ordered line that can be read on from any place.
//!
//! The rows are written by triggers in the transaction that changes a forecast, and by heartbeats.
//! Sequence numbers are given out before commits and become visible out of order, so the line is ordered
//! by transaction and then by number, and read only as far as every transaction has ended
//! (`pg_snapshot_xmin`): nothing can appear behind a place that was read. The price is time: an event waits
//! for the oldest writing transaction of the server, which the time-outs of the pools bound.

use std::time::Duration;

use chrono::{DateTime, Utc};
use forecastle_domain::ForecastId;
use sqlx::FromRow;
use uuid::Uuid;

use crate::error::StoreError;
use crate::pool::Db;
use crate::scope::TenantTx;

/// The channel that a commit with events rings, saying the tenant's id.
pub const CHANNEL: &str = "forecastle_events";

/// A place in a tenant's line of events. Text form: `transaction-number-milliseconds`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventPlace {
    xid: u64,
    seq: i64,
    at_ms: i64,
}

impl std::fmt::Display for EventPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}-{}", self.xid, self.seq, self.at_ms)
    }
}

/// A text that is no place in a line of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a place in a line of events")]
pub struct NotAPlace;

impl std::str::FromStr for EventPlace {
    type Err = NotAPlace;

    fn from_str(text: &str) -> Result<Self, NotAPlace> {
        let mut parts = text.split('-').map(|part| part.bytes().all(|b| b.is_ascii_digit()).then_some(part));
        let mut next = || parts.next().flatten().ok_or(NotAPlace);
        let place = Self {
            xid: next()?.parse().map_err(|_| NotAPlace)?,
            seq: next()?.parse().map_err(|_| NotAPlace)?,
            at_ms: next()?.parse().map_err(|_| NotAPlace)?,
        };
        if parts.next().is_none() { Ok(place) } else { Err(NotAPlace) }
    }
}

/// One change, or one sign of progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForecastEvent {
    /// Where it stands; read on from here.
    pub place: EventPlace,
    /// Whose change it is.
    pub forecast_id: ForecastId,
    /// The state it came to, or is still in.
    pub state: String,
    /// 0 to 100 while it runs, 100 when it has succeeded.
    pub percent: Option<u8>,
    /// Why it failed.
    pub error_code: Option<String>,
    /// When, by the database's clock.
    pub at: DateTime<Utc>,
}

/// A stretch of the line.
#[derive(Debug, Clone, Default)]
pub struct EventPage {
    /// In order.
    pub events: Vec<ForecastEvent>,
    /// Whether more can be seen already but may not be read yet, or did not fit: look again soon.
    pub more: bool,
}

#[derive(FromRow)]
struct Row {
    xid: String,
    seq: i64,
    forecast_id: Uuid,
    state: String,
    percent: Option<i16>,
    error_code: Option<String>,
    at: DateTime<Utc>,
    is_settled: bool,
}

/// Where the line ends now: all that commits from now on comes after it.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn end(tx: &mut TenantTx) -> Result<EventPlace, StoreError> {
    let query = sqlx::query_as(
        "SELECT pg_snapshot_xmin(pg_current_snapshot())::text, (extract(epoch FROM clock_timestamp()) * 1000)::bigint",
    );
    let (xid, at_ms): (String, i64) = tx.one(query).await?;
    // Numbers begin at 1.
    Ok(EventPlace { xid: parse_xid(&xid)?, seq: 0, at_ms })
}

/// Up to `limit` events after a place.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn after(tx: &mut TenantTx, place: EventPlace, limit: u32) -> Result<EventPage, StoreError> {
    let query = sqlx::query_as(
        // Ordered by the column, named in full: a bare `xid` would mean the text that is returned, and '10' < '9'.
        "SELECT e.xid::text, e.seq, e.forecast_id, e.state, e.percent, e.error_code, e.at,
                e.xid < pg_snapshot_xmin(pg_current_snapshot()) AS is_settled
         FROM app.forecast_events e
         WHERE e.tenant_id = $1 AND (e.xid, e.seq) > ($2::text::xid8, $3)
         ORDER BY e.xid, e.seq LIMIT $4",
    );
    let tenant = tx.tenant_id().as_uuid();
    let query = query.bind(tenant).bind(place.xid.to_string()).bind(place.seq).bind(i64::from(limit) + 1);
    let rows: Vec<Row> = tx.all(query).await?;
    let mut page = EventPage { events: Vec::with_capacity(rows.len()), more: false };
    for row in rows {
        if !row.is_settled || page.events.len() >= limit as usize {
            page.more = true;
            break;
        }
        page.events.push(ForecastEvent {
            place: EventPlace { xid: parse_xid(&row.xid)?, seq: row.seq, at_ms: row.at.timestamp_millis() },
            forecast_id: row.forecast_id.into(),
            state: row.state,
            percent: row.percent.and_then(|percent| u8::try_from(percent).ok()),
            error_code: row.error_code,
            at: row.at,
        });
    }
    Ok(page)
}

/// Whether everything after a place is still kept, where events are kept for `kept_for`.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn is_kept(tx: &mut TenantTx, place: EventPlace, kept_for: Duration) -> Result<bool, StoreError> {
    let query = sqlx::query_scalar(
        "SELECT $1::bigint >= (extract(epoch FROM clock_timestamp()) * 1000)::bigint - $2::bigint
            AND $3::text::xid8 <= pg_snapshot_xmax(pg_current_snapshot())",
    );
    let kept_ms = i64::try_from(kept_for.as_millis()).unwrap_or(i64::MAX);
    let kept = tx.scalar(query.bind(place.at_ms).bind(kept_ms).bind(place.xid.to_string())).await?;
    Ok(kept == Some(true))
}

/// Forgets up to `batch` events older than `kept_for`, of whatever tenant; how many there were.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn prune(db: &Db, kept_for: Duration, batch: u32) -> Result<u64, StoreError> {
    let query = sqlx::query_scalar("SELECT app.queue_prune($1, $2)")
        .bind(i64::try_from(kept_for.as_millis()).unwrap_or(i64::MAX))
        .bind(i32::try_from(batch).unwrap_or(i32::MAX));
    let gone: Option<i64> = db.across_tenants().await?.scalar(query).await?;
    Ok(gone.and_then(|gone| u64::try_from(gone).ok()).unwrap_or(0))
}

fn parse_xid(text: &str) -> Result<u64, StoreError> {
    text.parse().map_err(|_| StoreError::Corrupt { what: "forecast_events.xid" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_back_from_its_text_and_nothing_else_is() {
        let place = EventPlace { xid: 7_000_000_000, seq: 3, at_ms: 1_790_000_000_123 };
        assert_eq!(place.to_string().parse(), Ok(place));
        for text in ["", "1", "1-2", "1-2-3-4", "-1-2-3", "1--2", "a-2-3", "1-2-+3", "99999999999999999999-1-1"] {
            assert_eq!(text.parse::<EventPlace>(), Err(NotAPlace), "{text}");
        }
    }
}
