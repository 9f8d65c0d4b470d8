//! Where a page of a list begins: newest first, by time and then by id.
//!
//! Not for the text form of a cursor: that is the interface's.

use chrono::{DateTime, TimeZone as _, Utc};
use uuid::Uuid;

/// The last row of the page before; rows strictly older follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageKey {
    /// The row's time, whole microseconds.
    pub at: DateTime<Utc>,
    /// The row's id, which orders rows of one time.
    pub id: Uuid,
}

impl PageKey {
    /// Before every row there can be.
    #[must_use]
    pub fn start() -> Self {
        let far = Utc.with_ymd_and_hms(9999, 12, 31, 0, 0, 0).single().expect("a date in the calendar");
        Self { at: far, id: Uuid::max() }
    }
}

/// Some rows and the place where the next ones begin.
#[derive(Debug)]
pub struct Page<T> {
    /// Newest first, at most as many as asked for.
    pub items: Vec<T>,
    /// `None` at the end of the list.
    pub next: Option<PageKey>,
}

impl<T> Page<T> {
    /// From one row more than the page holds, which tells whether there is a next one.
    pub(crate) fn of(mut rows: Vec<T>, limit: u32, key: impl Fn(&T) -> PageKey) -> Self {
        let limit = limit as usize;
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        let next = if has_more { rows.last().map(key) } else { None };
        Self { items: rows, next }
    }
}
