//! Whether the sessions that streams belong to still stand: looked at once for each session, however many of
//! its streams are open, and not in step with the other sessions. Where Redis has no answer each look is a
//! question to PostgreSQL, so what is saved here is saved in an outage.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use forecastle_domain::Right;
use rand::RngExt;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::session_check::{self, Caller};
use crate::state::AppState;
use crate::tokens::Subject;

type Map = Arc<Mutex<HashMap<Subject, Weak<Looking>>>>;

/// The sessions of one instance that have streams.
#[derive(Default)]
pub(crate) struct Standings {
    looking: Map,
}

/// One session's looks. They end with the last stream.
struct Looking {
    over: watch::Receiver<bool>,
    subject: Subject,
    all: Map,
    _looks: AbortOnDropHandle<()>,
}

/// One stream's word on its session.
pub(crate) struct Standing {
    looking: Arc<Looking>,
}

impl Standings {
    /// Looks after the session of a caller that was just let in. The first look comes within the time between
    /// two of them.
    pub(crate) fn watch(&self, state: &AppState, caller: &Caller) -> Standing {
        let subject = Subject { tenant: caller.tenant, user: caller.user, session: caller.session };
        let found = lock(&self.looking).get(&subject).and_then(Weak::upgrade);
        // Who was let in has a session that stands, whatever was found before.
        if let Some(looking) = found.filter(|looking| !*looking.over.borrow()) {
            return Standing { looking };
        }
        let (end, over) = watch::channel(false);
        let looks = AbortOnDropHandle::new(tokio::spawn(look(state.clone(), subject, end)));
        let looking = Arc::new(Looking { over, subject, all: Arc::clone(&self.looking), _looks: looks });
        lock(&self.looking).insert(subject, Arc::downgrade(&looking));
        Standing { looking }
    }
}

impl Standing {
    /// Returns once the session is over, may not read any more, or nobody can say.
    pub(crate) async fn over(&self) {
        // Looks that ended without a word are as good as a no.
        let _ = self.looking.over.clone().wait_for(|over| *over).await;
    }

    /// The same at this moment.
    pub(crate) fn is_over(&self) -> bool {
        *self.looking.over.borrow()
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        let mut all = lock(&self.all);
        if all.get(&self.subject).is_some_and(|other| other.strong_count() == 0) {
            all.remove(&self.subject);
        }
    }
}

async fn look(state: AppState, subject: Subject, end: watch::Sender<bool>) {
    let limits = state.config.streams;
    loop {
        // Streams that opened together, as after an outage, do not ask together.
        let part = rand::rng().random_range(0.5..=1.0);
        sleep(limits.recheck.mul_f64(part)).await;
        let check = session_check::check(&state, subject);
        match timeout(limits.recheck_timeout, check).await {
            Ok(Ok(caller)) if caller.role.may(Right::Read) => {}
            // Also where nobody can say: then nobody is told.
            _ => {
                end.send_replace(true);
                return;
            }
        }
    }
}

fn lock(all: &Map) -> std::sync::MutexGuard<'_, HashMap<Subject, Weak<Looking>>> {
    all.lock().unwrap_or_else(PoisonError::into_inner)
}
