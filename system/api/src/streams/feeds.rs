//! One reader of each watched tenant's line of events, and one listening link for all of them. The link wakes its
//! server's side at every commit that rings, so it is there only while somebody watches, and a while after.

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
/// How long the link stays after the last stream has gone: whoever lost theirs comes back at once.
const LISTEN_AFTER: Duration = Duration::from_secs(30);

struct Feed {
    live: broadcast::Sender<Arc<ForecastEvent>>,
    wake: Arc<Notify>,
    begun: watch::Receiver<bool>,
    watchers: usize,
    _reading: AbortOnDropHandle<()>,
}

/// What an instance's streams share.
#[derive(Default)]
struct Watched {
    feeds: HashMap<TenantId, Feed>,
    listening: Option<Listening>,
    /// Counts the times that the last stream has gone.
    left: u64,
}

type Map = Arc<Mutex<Watched>>;

/// The feeds of one instance.
pub(crate) struct Feeds {
    db: Db,
    poll: Duration,
    listen_keep_alive: Duration,
    listen_after: Duration,
    feeds: Map,
}

/// One stream's part in its tenant's feed.
pub(crate) struct Subscription {
    /// What is read from now on. May run over: then the stream reads for itself.
    pub(crate) live: broadcast::Receiver<Arc<ForecastEvent>>,
    begun: watch::Receiver<bool>,
    tenant: TenantId,
    listen_after: Duration,
    feeds: Map,
}

impl Feeds {
    pub(crate) fn new(db: Db, poll: Duration, listen_keep_alive: Duration) -> Self {
        Self { db, poll, listen_keep_alive, listen_after: LISTEN_AFTER, feeds: Arc::default() }
    }

    /// Must be called inside a runtime.
    pub(crate) fn subscribe(&self, tenant: TenantId) -> Subscription {
        let mut watched = lock(&self.feeds);
        watched.listening.get_or_insert_with(|| self.listen());
        let feed = watched.feeds.entry(tenant).or_insert_with(|| self.begin(tenant));
        feed.watchers += 1;
        Subscription {
            live: feed.live.subscribe(),
            begun: feed.begun.clone(),
            tenant,
            listen_after: self.listen_after,
            feeds: Arc::clone(&self.feeds),
        }
    }

    fn listen(&self) -> Listening {
        let woken = Arc::downgrade(&self.feeds);
        listen(&self.db, events::CHANNEL, self.listen_keep_alive, move |heard| {
            let Some(woken) = woken.upgrade() else { return };
            match heard {
                // Something may have been missed.
                Heard::Connected => lock(&woken).feeds.values().for_each(|feed| feed.wake.notify_one()),
                Heard::Rung(tenant) => {
                    let wake = tenant.parse().ok().and_then(|id| lock(&woken).feeds.get(&id).map(|f| f.wake.clone()));
                    if let Some(wake) = wake {
                        wake.notify_one();
                    }
                }
            }
        })
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
        let mut watched = lock(&self.feeds);
        let Some(feed) = watched.feeds.get_mut(&self.tenant) else { return };
        feed.watchers -= 1;
        if feed.watchers > 0 {
            return;
        }
        watched.feeds.remove(&self.tenant);
        if watched.feeds.is_empty() {
            watched.left += 1;
            stop_listening_later(&self.feeds, watched.left, self.listen_after);
        }
    }
}

/// Unless somebody has come since.
fn stop_listening_later(feeds: &Map, left: u64, listen_after: Duration) {
    // Outside a runtime everything ends, the link too.
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    let feeds = Arc::downgrade(feeds);
    runtime.spawn(async move {
        tokio::time::sleep(listen_after).await;
        if let Some(feeds) = feeds.upgrade() {
            let mut watched = lock(&feeds);
            if watched.feeds.is_empty() && watched.left == left {
                watched.listening = None;
            }
        }
    });
}

fn lock(feeds: &Map) -> std::sync::MutexGuard<'_, Watched> {
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

#[cfg(test)]
mod tests {
    use forecastle_store::DbOptions;

    use super::*;

    #[tokio::test]
    async fn the_link_is_there_while_somebody_watches_and_a_while_after() {
        // Nobody is there: the link tries again and again, which is all that is asked of it here.
        let db = Db::open(DbOptions::new("postgres://nobody@127.0.0.1:1/nothing", "test")).unwrap();
        let tenant = TenantId::from_uuid(uuid::Uuid::now_v7());
        let mut feeds = Feeds::new(db, Duration::from_secs(1), Duration::from_secs(1));
        feeds.listen_after = Duration::from_millis(200);
        let is_listening = || lock(&feeds.feeds).listening.is_some();
        assert!(!is_listening());
        drop(feeds.subscribe(tenant));
        assert!(is_listening(), "for those who come back");
        let back = feeds.subscribe(tenant);
        tokio::time::sleep(feeds.listen_after * 3).await;
        assert!(is_listening(), "somebody has come back");
        drop(back);
        let end = tokio::time::Instant::now() + Duration::from_secs(10);
        while is_listening() {
            assert!(tokio::time::Instant::now() < end, "nobody watches");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
