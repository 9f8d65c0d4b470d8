//! How many streams there may be, for a user and in all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use forecastle_domain::{TenantId, UserId};

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoSlot {
    /// The user has as many as it may.
    OfUser,
    /// The instance has as many as it can.
    OfInstance,
}

type Owner = (TenantId, UserId);

/// Cheap to clone; all clones count together.
#[derive(Clone)]
pub(crate) struct Slots {
    taken: Arc<Mutex<HashMap<Owner, usize>>>,
    of_user_max: usize,
    max: usize,
}

/// Room for one stream, given back when dropped.
pub(crate) struct Slot {
    slots: Slots,
    owner: Owner,
}

impl Slots {
    pub(crate) fn new(of_user_max: usize, max: usize) -> Self {
        Self { taken: Arc::default(), of_user_max, max }
    }

    pub(crate) fn take(&self, tenant: TenantId, user: UserId) -> Result<Slot, NoSlot> {
        let owner = (tenant, user);
        let mut taken = self.lock();
        if taken.get(&owner).copied().unwrap_or(0) >= self.of_user_max {
            return Err(NoSlot::OfUser);
        }
        if taken.values().sum::<usize>() >= self.max {
            return Err(NoSlot::OfInstance);
        }
        *taken.entry(owner).or_default() += 1;
        metrics::gauge!("forecastle_streams_open").increment(1.0);
        Ok(Slot { slots: self.clone(), owner })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Owner, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.lock();
        if let Some(count) = taken.get_mut(&self.owner) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.owner);
            }
        }
        metrics::gauge!("forecastle_streams_open").decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_user_and_the_instance_have_so_many_and_get_them_back() {
        let slots = Slots::new(2, 3);
        let take = |user| slots.take(TenantId::from_uuid(Uuid::nil()), UserId::from_uuid(Uuid::from_u128(user)));
        let (a, _b) = (take(1).ok(), take(1).ok());
        assert_eq!(take(1).err(), Some(NoSlot::OfUser));
        let _c = take(2).ok();
        assert_eq!(take(3).err(), Some(NoSlot::OfInstance));
        drop(a);
        assert!(take(3).is_ok() && take(1).is_ok());
        assert_eq!(slots.lock().values().sum::<usize>(), 2);
    }
}
