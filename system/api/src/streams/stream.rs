//! One stream: what was missed, then what happens, until its reader, its session or the instance goes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::Event;
use forecastle_domain::ForecastId;
use forecastle_store::events::{EventPlace, ForecastEvent};
use futures_util::Stream;
use rand::RngExt;
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::feeds::{self, Subscription};
use super::slots::Slot;
use super::standing::Standing;
use crate::session_check::Caller;
use crate::state::AppState;

/// Messages that wait for a reader.
const WAITING_MAX: usize = 32;
/// When a reader whose stream ended is asked to come back; each at another moment, since what ended its stream
/// has most likely ended all others too.
const COME_BACK_MIN: Duration = Duration::from_secs(1);
const COME_BACK_MAX: Duration = Duration::from_secs(3);

/// Where a stream begins.
pub(crate) struct Start {
    /// Told of this forecast alone.
    pub(crate) only: Option<ForecastId>,
    /// What is told first: the present state of that forecast, on a fresh stream.
    pub(crate) first: Option<ForecastMessage>,
    /// Read on from here.
    pub(crate) place: EventPlace,
    /// Whether something before `place` may have been missed for good.
    pub(crate) has_gap: bool,
}

/// What a message says.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ForecastMessage {
    pub(crate) forecast_id: Uuid,
    pub(crate) state: String,
    pub(crate) percent: Option<u8>,
    pub(crate) error_code: Option<String>,
    pub(crate) at: chrono::DateTime<chrono::Utc>,
}

impl From<&ForecastEvent> for ForecastMessage {
    fn from(event: &ForecastEvent) -> Self {
        Self {
            forecast_id: event.forecast_id.as_uuid(),
            state: event.state.clone(),
            percent: event.percent,
            error_code: event.error_code.clone(),
            at: event.at,
        }
    }
}

/// Why a stream ended; a label of a metric.
#[derive(Debug, Clone, Copy)]
enum Ended {
    ReaderGone,
    ReaderSlow,
    Session,
    Lifetime,
    Draining,
    Unavailable,
}

impl Ended {
    const fn as_str(self) -> &'static str {
        match self {
            Self::ReaderGone => "reader_gone",
            Self::ReaderSlow => "reader_slow",
            Self::Session => "session",
            Self::Lifetime => "lifetime",
            Self::Draining => "draining",
            Self::Unavailable => "unavailable",
        }
    }
}

struct Watcher {
    state: AppState,
    caller: Caller,
    standing: Standing,
    out: mpsc::Sender<Event>,
    only: Option<ForecastId>,
    place: EventPlace,
}

/// Runs a stream in a task of its own; its messages.
pub(crate) fn open(
    state: AppState,
    caller: Caller,
    slot: Slot,
    subscription: Subscription,
    start: Start,
) -> impl Stream<Item = Result<Event, Infallible>> + Send + 'static {
    let (out, messages) = mpsc::channel(WAITING_MAX);
    let cut = CancellationToken::new();
    let cutting = cut.clone().drop_guard();
    tokio::spawn(async move {
        let (_slot, _cutting) = (slot, cutting);
        let standing = state.standings.watch(&state, &caller);
        let mut watcher = Watcher { state, caller, standing, out, only: start.only, place: start.place };
        let Err(ended) = watcher.run(subscription, start).await;
        metrics::counter!("forecastle_streams_ended_total", "reason" => ended.as_str()).increment(1);
    });
    // What still waits for the reader when the stream ends is not told any more: it comes back for it.
    futures_util::stream::unfold((messages, cut), |(mut messages, cut)| async move {
        let message = cut.run_until_cancelled(messages.recv()).await.flatten();
        message.map(|message| (Ok(message), (messages, cut)))
    })
}

impl Watcher {
    async fn run(&mut self, mut subscription: Subscription, start: Start) -> Result<Infallible, Ended> {
        let limits = self.state.config.streams;
        // A stream outlives the token it was opened with by no more than that token's whole life.
        let lifetime = Instant::now() + self.state.config.access_ttl;
        let state = self.state.clone();
        let mut beat_at = Instant::now() + limits.heartbeat;

        if start.has_gap {
            self.send(Event::default().event("reset").data("{}")).await?;
        }
        if let Some(first) = start.first {
            self.send(message("forecast", self.place, &first)).await?;
        }
        self.catch_up().await?;
        self.send(message("ready", self.place, &serde_json::json!({})).retry(come_back())).await?;
        loop {
            tokio::select! {
                biased;
                () = self.out.closed() => return Err(Ended::ReaderGone),
                () = state.draining.cancelled() => return Err(Ended::Draining),
                () = sleep_until(lifetime) => return Err(Ended::Lifetime),
                () = self.standing.over() => return Err(Ended::Session),
                live = subscription.live.recv() => {
                    match live {
                        Ok(event) => self.tell(&event).await?,
                        Err(RecvError::Lagged(_)) => self.catch_up().await?,
                        Err(RecvError::Closed) => return Err(Ended::Unavailable),
                    }
                    beat_at = Instant::now() + limits.heartbeat;
                }
                () = sleep_until(beat_at) => {
                    self.send(Event::default().comment("")).await?;
                    beat_at = Instant::now() + limits.heartbeat;
                }
            }
        }
    }

    /// Reads for itself up to where nothing more may be read yet.
    async fn catch_up(&mut self) -> Result<(), Ended> {
        let end = feeds::end(&self.state.db, self.caller.tenant).await.map_err(|_| Ended::Unavailable)?;
        loop {
            let page = feeds::read(&self.state.db, self.caller.tenant, self.place).await;
            let page = page.map_err(|_| Ended::Unavailable)?;
            if page.events.is_empty() {
                // Everything before this end has been read, so a reader may come back to it.
                self.place = self.place.max(end);
                return Ok(());
            }
            for event in page.events {
                self.tell(&Arc::new(event)).await?;
            }
            if self.standing.is_over() {
                return Err(Ended::Session);
            }
        }
    }

    /// Tells an event, unless it was told before or is of no interest.
    async fn tell(&mut self, event: &Arc<ForecastEvent>) -> Result<(), Ended> {
        if event.place <= self.place {
            return Ok(());
        }
        self.place = event.place;
        if self.only.is_some_and(|only| only != event.forecast_id) {
            return Ok(());
        }
        self.send(message("forecast", event.place, &ForecastMessage::from(&**event))).await
    }

    /// Waits for a slow reader for a while, and looks after its session meanwhile.
    async fn send(&self, message: Event) -> Result<(), Ended> {
        let limits = &self.state.config.streams;
        let given_up_at = Instant::now() + limits.stall;
        tokio::select! {
            biased;
            place = self.out.reserve() => match place {
                Ok(place) => {
                    place.send(message);
                    Ok(())
                }
                Err(_) => Err(Ended::ReaderGone),
            },
            () = self.state.draining.cancelled() => Err(Ended::Draining),
            () = sleep_until(given_up_at) => Err(Ended::ReaderSlow),
            () = self.standing.over() => Err(Ended::Session),
        }
    }
}

fn come_back() -> Duration {
    rand::rng().random_range(COME_BACK_MIN..=COME_BACK_MAX)
}

fn message(name: &str, place: EventPlace, data: &impl Serialize) -> Event {
    let data = serde_json::to_string(data).expect("a message is plain data");
    Event::default().event(name).id(place.to_string()).data(data)
}
