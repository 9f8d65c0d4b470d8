//! What an authenticated request asks of Redis before anything else, in one trip: a token of its address, then one
//! of its user, then the session it names, and beside them what it wants to read, if that may be cached.
//!
//! Law: this is [`Cache::take_token`] twice and [`Cache::get`] once, with their words and their guards, and
//! decides nothing that those do not. An address without a token ends it: nobody else's bucket is touched then.
//! What is wanted comes back unread; the caller opens it once the session has been judged.

use std::sync::LazyLock;

use redis::Script;
use serde::de::DeserializeOwned;

use crate::cache::{
    Cache, CacheKey, CacheUnavailable, FILL_LEASE_MS, FillLease, Lookup, NOBODY_FILLS, Peeked, count_lookup,
};
use crate::limiter::{Allowance, TAKE_LUA, Taken};

/// Keys: address, user, session. Arguments: rate and burst of the first two, the caller's mark (empty where the
/// session is not to be looked at) and its lifetime in ms. A fourth key, if any, is what is wanted.
static ADMIT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&format!(
        "{TAKE_LUA} \
         local a, a_left, a_wait = take(KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), now) \
         if a == 0 then return {{a, a_left, a_wait, 0, 0, 0, false, false}} end \
         local u, u_left, u_wait = take(KEYS[2], tonumber(ARGV[3]), tonumber(ARGV[4]), now) \
         local v = false \
         if ARGV[5] ~= '' then \
           v = redis.pcall('GET', KEYS[3]) \
           if type(v) == 'table' then redis.call('DEL', KEYS[3]) v = false end \
           if not v then \
             local done = redis.pcall('SET', KEYS[3], ARGV[5], 'PX', ARGV[6]) \
             if type(done) == 'table' and done.err then v = '{NOBODY_FILLS}' end \
           end \
         end \
         local wanted = false \
         if KEYS[4] then \
           wanted = redis.pcall('GET', KEYS[4]) \
           if type(wanted) == 'table' then wanted = false end \
         end \
         return {{a, a_left, a_wait, u, u_left, u_wait, v, wanted}}"
    ))
});

/// What Redis said.
#[derive(Debug)]
pub struct Admission<T> {
    /// Of the address; an error where Redis could not count.
    pub address: Result<Taken, CacheUnavailable>,
    /// Of the user, likewise. Meaningless where the address was refused.
    pub user: Result<Taken, CacheUnavailable>,
    /// The session; a miss without a lease where the address was refused.
    pub session: Lookup<T>,
    /// What lay under the wanted key; `None` where that was not asked.
    pub wanted: Option<Peeked>,
}

impl<T> Admission<T> {
    /// What holds where Redis said nothing at all.
    #[must_use]
    pub fn unanswered(why: CacheUnavailable) -> Self {
        Self { address: Err(why), user: Err(why), session: Lookup::Miss(None), wanted: None }
    }
}

impl Cache {
    /// Asks all of it; `session` and `wanted` have the guards of [`Cache::get`].
    ///
    /// # Errors
    /// What kept Redis from answering: the caller's floors decide, and PostgreSQL is asked for the session.
    pub async fn admit<T: DeserializeOwned>(
        &self,
        address: Allowance,
        user: Allowance,
        session: &CacheKey,
        wanted: Option<CacheKey>,
    ) -> Result<Admission<T>, CacheUnavailable> {
        // Asked before Redis is, as every look does.
        let lease = self.may_give_out(session).then(|| FillLease::new(session));
        let wanted = wanted.filter(|key| self.may_give_out(key));
        let mut call = ADMIT.key(address.bucket.key());
        call.key(user.bucket.key()).key(session.as_str());
        if let Some(key) = &wanted {
            call.key(key.as_str());
        }
        for allowance in [address, user] {
            call.arg(allowance.per_second.max(1)).arg(allowance.burst.max(1));
        }
        call.arg(lease.as_ref().map_or("", FillLease::mark)).arg(FILL_LEASE_MS);
        type Answer = (i64, i64, i64, i64, i64, i64, Option<Vec<u8>>, Option<Vec<u8>>);
        let (a, a_left, a_wait, u, u_left, u_wait, found, value): Answer = self.script(&call).await?;
        let address = Taken::read((a, a_left, a_wait));
        let found = match lease {
            Some(lease) if a != 0 => self.settle_look(lease, found).await,
            _ => Lookup::Miss(None),
        };
        if a != 0 {
            count_lookup(session, &found);
        }
        Ok(Admission {
            address,
            user: Taken::read((u, u_left, u_wait)),
            session: found,
            wanted: wanted.map(|key| Peeked::of(key, value)),
        })
    }
}
