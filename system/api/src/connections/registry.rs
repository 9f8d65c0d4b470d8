//! Which connections there are, who of them must make room, and who has taken too long.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::activity::{Activity, Cut};

/// Bounds of the time between two looks at all connections.
const SWEEP_MIN: Duration = Duration::from_millis(10);
const SWEEP_MAX: Duration = Duration::from_secs(1);

/// Times after which a connection that makes the instance wait is cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub(super) head: Duration,
    pub(super) idle: Duration,
    pub(super) write: Duration,
}

impl Patience {
    /// Time between two looks: a limit is overstepped by an eighth of it at most, or by a second.
    pub(super) fn sweep_every(&self) -> Duration {
        (self.head.min(self.idle).min(self.write) / 8).clamp(SWEEP_MIN, SWEEP_MAX)
    }
}

/// Cheap to clone; all clones count together.
#[derive(Clone)]
pub(super) struct Registry {
    shared: Arc<Shared>,
}

struct Shared {
    open: Mutex<HashMap<u64, Arc<Activity>>>,
    next: AtomicU64,
    max: usize,
    patience: Patience,
}

/// A connection's place, given back when dropped.
pub(super) struct Place {
    registry: Registry,
    id: u64,
    pub(super) activity: Arc<Activity>,
}

impl Registry {
    pub(super) fn new(max: usize, patience: Patience) -> Self {
        let (open, next) = (Mutex::default(), AtomicU64::new(0));
        Self { shared: Arc::new(Shared { open, next, max: max.max(1), patience }) }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Activity>>> {
        self.shared.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a newcomer, if need be that of the connection which has waited longest for its client;
    /// `None` if all of them have a request at work.
    pub(super) fn admit(&self) -> Option<Place> {
        let mut open = self.lock();
        if open.len() >= self.shared.max {
            let waiting = open.iter().filter_map(|(id, activity)| Some((activity.waiting_since()?, *id)));
            let (_, longest) = waiting.min()?;
            if let Some(activity) = open.remove(&longest) {
                activity.cut(Cut::Displaced);
            }
        }
        let id = self.shared.next.fetch_add(1, Relaxed);
        let activity = Arc::new(Activity::new());
        open.insert(id, Arc::clone(&activity));
        self.publish(&open);
        Some(Place { registry: self.clone(), id, activity })
    }

    /// Cuts whoever has made the instance wait too long.
    pub(super) fn sweep(&self) {
        let Patience { head, idle, write } = self.shared.patience;
        for activity in self.lock().values() {
            if let Some(why) = activity.overdue(head, idle, write) {
                activity.cut(why);
            }
        }
    }

    fn publish(&self, open: &HashMap<u64, Arc<Activity>>) {
        metrics::gauge!("forecastle_connections_open").set(u32::try_from(open.len()).unwrap_or(u32::MAX));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.registry.lock();
        open.remove(&self.id);
        self.registry.publish(&open);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connections::activity::Phase;

    fn registry(max: usize, patience_ms: u64) -> Registry {
        let patience = Duration::from_millis(patience_ms);
        Registry::new(max, Patience { head: patience, idle: patience, write: patience })
    }

    #[tokio::test]
    async fn a_newcomer_displaces_who_has_waited_longest_and_nobody_at_work() {
        let registry = registry(2, 60_000);
        let first = registry.admit().unwrap();
        tokio::time::sleep(Duration::from_millis(3)).await;
        let second = registry.admit().unwrap();
        first.activity.asked(false);
        let third = registry.admit().unwrap();
        assert_eq!(second.activity.to_be_cut().await, Cut::Displaced);
        third.activity.asked(false);
        assert!(registry.admit().is_none(), "all at work");
        drop(second);
        assert!(registry.admit().is_none(), "who was displaced has no place to give back");
        drop(first);
        assert!(registry.admit().is_some());
    }

    #[tokio::test]
    async fn who_lingers_is_not_cut_again_and_makes_room_first() {
        let registry = registry(1, 1);
        let place = registry.admit().unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        registry.sweep();
        assert_eq!(place.activity.to_be_cut().await, Cut::HeadSlow);
        place.activity.enter(Phase::Linger);
        tokio::time::sleep(Duration::from_millis(5)).await;
        registry.sweep();
        assert!(tokio::time::timeout(Duration::from_millis(20), place.activity.to_be_cut()).await.is_err());
        let _newcomer = registry.admit().unwrap();
        assert_eq!(place.activity.to_be_cut().await, Cut::Displaced);
    }
}
