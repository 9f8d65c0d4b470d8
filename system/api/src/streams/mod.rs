//! Events of forecasts to whoever watches, as server-sent events.
//!
//! One listening connection and one reader for each watched tenant, however many watch; each stream
//! remembers its own place in the tenant's line of events, so nothing is missed or told twice, whatever
//! got lost on the way. Bounded: streams of a user and of the instance, what waits for a slow reader, and
//! the time in which a session that has ended goes on being told.

mod feeds;
mod slots;
mod standing;
mod stream;

use std::time::Duration;

pub(crate) use feeds::Feeds;
pub(crate) use slots::{NoSlot, Slots};
pub(crate) use standing::Standings;
pub(crate) use stream::{ForecastMessage, Start, open};

/// Limits and rhythms of the streams of one instance.
#[derive(Debug, Clone, Copy)]
pub struct StreamLimits {
    /// Most streams of one user on this instance; further ones get 429.
    pub of_user_max: usize,
    /// Most streams of this instance; further ones get 503.
    pub max: usize,
    /// Silence after which a comment is sent, so that neither end takes the link for dead.
    pub heartbeat: Duration,
    /// Longest time between two looks for events, whatever the listening link says.
    pub poll: Duration,
    /// Longest time between two looks whether a session stands that has streams.
    pub recheck: Duration,
    /// Longest time in which that look must be answered; with `recheck` it bounds how long a revoked
    /// session is still told anything.
    pub recheck_timeout: Duration,
    /// How long a reader may leave its stream full before it is cut off.
    pub stall: Duration,
    /// Silence after which the listening link is asked whether it still stands.
    pub listen_keep_alive: Duration,
    /// How long events are kept: the same as the workers are told.
    pub events_kept: Duration,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self {
            of_user_max: 8,
            max: 1_000,
            heartbeat: Duration::from_secs(15),
            poll: Duration::from_secs(2),
            recheck: Duration::from_millis(400),
            recheck_timeout: Duration::from_millis(500),
            stall: Duration::from_secs(5),
            listen_keep_alive: Duration::from_secs(5),
            events_kept: Duration::from_secs(3_600),
        }
    }
}
