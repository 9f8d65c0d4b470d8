//! The key set in use, replaceable while requests are served: how signing keys rotate without a restart.
//!
//! Order of a rotation, each step on every instance before the next: add the new key behind the old one
//! (everybody verifies it), put it first (it signs), and drop the old one once its last tokens have expired.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::tokens::KeySet;

/// Clones share one set: what one replaces, all use.
#[derive(Clone, Debug)]
pub struct KeyRing {
    current: Arc<ArcSwap<KeySet>>,
}

impl KeyRing {
    /// The set at this moment. Take it once for one piece of work.
    #[must_use]
    pub fn current(&self) -> Arc<KeySet> {
        self.current.load_full()
    }

    /// Uses another set from now on.
    pub fn replace(&self, keys: KeySet) {
        self.current.store(Arc::new(keys));
    }
}

impl From<KeySet> for KeyRing {
    fn from(keys: KeySet) -> Self {
        Self { current: Arc::new(ArcSwap::from_pointee(keys)) }
    }
}
