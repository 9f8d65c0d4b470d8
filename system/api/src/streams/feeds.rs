//! One reader of each watched tenant's line of events, and one listening link for all of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use forecastle_domain::TenantId;
use forecastle_store::events::{self, EventPage, EventPlace, ForecastEvent};
use forecastle_store::listen::{Heard, Listening, listen};
use forecastle_store::{Db, StoreError};
use rand::RngExt;
use tokio::sync::{Notify, broadcast, watch};
use tokio_util::task::AbortOnDropHandle;

/// Events that wait for a stream before it has to read them again from the database.
const LIVE_MAX: usize = 256;
/// Events read at once.
const PAGE: u32 = 256;
/// First pause before events are looked for again that are there and may not be read yet; doubles.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(200);

struct Feed {
    live: broadcast::Sender<Arc<ForecastEvent>>,
    wake: Arc<Notify>,
    begun: watch::Receiver<bool>,
    watchers: usize,
    _reading: AbortOnDropHandle<()>,
}

type Map = Arc<Mutex<HashMap<TenantId, Feed>>>;

/// The feeds of one instance.
pub(crate) struct Feeds {
    db: Db,
    poll: Duration,
    feeds: Map,
    _listening: Listening,
}

/// One stream's part in its tenant's feed.
pub(crate) struct Subscription {
    /// What is read from now on. May run over: then the stream reads for itself.
    pub(crate) live: broadcast::Receiver<Arc<ForecastEvent>>,
    begun: watch::Receiver<bool>,
    tenant: TenantId,
    feeds: Map,
}

impl Feeds {
    /// Must be called inside a runtime; listens for as long as it lives.
    pub(crate) fn new(db: Db, poll: Duration, listen_keep_alive: Duration) -> Self {
        let feeds: Map = Arc::default();
        let woken = Arc::clone(&feeds);
        let listening = listen(&db, events::CHANNEL, listen_keep_alive, move |heard| match heard {
            // Something may have been missed.
            Heard::Connected => lock(&woken).values().for_each(|feed| feed.wake.notify_one()),
            Heard::Rung(tenant) => {
                if let Some(feed) = tenant.parse().ok().and_then(|id| lock(&woken).get(&id).map(|f| f.wake.clone())) {
                    feed.notify_one();
                }
            }
        });
        Self { db, poll, feeds, _listening: listening }
    }

    pub(crate) fn subscribe(&self, tenant: TenantId) -> Subscription {
        let mut feeds = lock(&self.feeds);
        let feed = feeds.entry(tenant).or_insert_with(|| self.begin(tenant));
        feed.watchers += 1;
        Subscription { live: feed.live.subscribe(), begun: feed.begun.clone(), tenant, feeds: Arc::clone(&self.feeds) }
    }

    fn begin(&self, tenant: TenantId) -> Feed {
        let (live, _) = broadcast::channel(LIVE_MAX);
        let (begin, begun) = watch::channel(false);
        let wake = Arc::new(Notify::new());
        let reading = read_on(self.db.clone(), tenant, self.poll, live.clone(), Arc::clone(&wake), begin);
        Feed { live, wake, begun, watchers: 0, _reading: AbortOnDropHandle::new(tokio::spawn(reading)) }
    }
}

impl Subscription {
    /// Waits until the feed has its place: what commits from then on comes live. Whatever the stream reads
    /// for itself afterwards reaches at least to that place, so that between the two nothing is missed.
    pub(crate) async fn begun(&mut self) -> Result<(), broadcast::error::RecvError> {
        self.begun.wait_for(|begun| *begun).await.map(drop).map_err(|_| broadcast::error::RecvError::Closed)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut feeds = lock(&self.feeds);
        if let Some(feed) = feeds.get_mut(&self.tenant) {
            feed.watchers -= 1;
            if feed.watchers == 0 {
                feeds.remove(&self.tenant);
            }
        }
    }
}

fn lock(feeds: &Map) -> std::sync::MutexGuard<'_, HashMap<TenantId, Feed>> {
    feeds.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A stretch of a tenant's line.
pub(crate) async fn read(db: &Db, tenant: TenantId, place: EventPlace) -> Result<EventPage, StoreError> {
    let mut tx = db.tenant(tenant).begin().await?;
    let page = events::after(&mut tx, place, PAGE).await?;
    tx.rollback().await;
    Ok(page)
}

/// Where a tenant's line ends now.
pub(crate) async fn end(db: &Db, tenant: TenantId) -> Result<EventPlace, StoreError> {
    let mut tx = db.tenant(tenant).begin().await?;
    let end = events::end(&mut tx).await?;
    tx.rollback().await;
    Ok(end)
}

async fn read_on(
    db: Db,
    tenant: TenantId,
    poll: Duration,
    live: broadcast::Sender<Arc<ForecastEvent>>,
    wake: Arc<Notify>,
    begin: watch::Sender<bool>,
) {
    let mut place = loop {
        match end(&db, tenant).await {
            Ok(place) => break place,
            Err(error) => tracing::debug!(error = %error, "begin to read events"),
        }
        tokio::time::sleep(PAUSE_MAX).await;
    };
    begin.send_replace(true);
    let mut pause = PAUSE_MIN;
    loop {
        let wait = match read(&db, tenant, place).await {
            Ok(page) => {
                let came = !page.events.is_empty();
                for event in page.events {
                    place = event.place;
                    // Nobody may be there at this moment; a stream that comes reads for itself first.
                    let _ = live.send(Arc::new(event));
                }
                match (page.more, came) {
                    (true, true) => {
                        pause = PAUSE_MIN;
                        continue;
                    }
                    (true, false) => {
                        pause = (pause * 2).min(PAUSE_MAX);
                        pause
                    }
                    (false, _) => {
                        pause = PAUSE_MIN;
                        poll.mul_f64(jitter())
                    }
                }
            }
            Err(error) => {
                tracing::debug!(error = %error, "read events");
                PAUSE_MAX
            }
        };
        tokio::select! {
            () = wake.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// So that the feeds do not ask in step.
fn jitter() -> f64 {
    rand::rng().random_range(0.5..=1.0)
}
