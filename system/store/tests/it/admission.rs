//! Address, user and session asked of Redis in one trip: the same as three questions.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use forecastle_domain::{SessionId, TenantId, UserId};
use forecastle_store::admission::Admission;
use forecastle_store::limiter::{Allowance, Bucket};
use forecastle_store::{Cache, CacheKey, CacheOptions, CacheUnavailable, Lookup};
use forecastle_testbed::Redis;
use uuid::Uuid;

const TTL: Duration = Duration::from_secs(60);

fn tenant() -> TenantId {
    TenantId::from_uuid(Uuid::from_u128(1))
}

fn session() -> CacheKey {
    CacheKey::session(tenant(), SessionId::from_uuid(Uuid::from_u128(3)))
}

fn address(burst: u32) -> Allowance {
    Allowance { bucket: Bucket::Address(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))), per_second: 1, burst }
}

fn user(burst: u32) -> Allowance {
    Allowance { bucket: Bucket::User(tenant(), UserId::from_uuid(Uuid::from_u128(2))), per_second: 1, burst }
}

fn open(redis: &Redis) -> Cache {
    Cache::open(&CacheOptions { redis_url: redis.url(), timeout: Duration::from_secs(2) }).unwrap()
}

/// Whether each was admitted, and how many tokens it has left.
fn counts(admission: &Admission<u32>) -> [(bool, u32); 2] {
    [&admission.address, &admission.user].map(|taken| {
        let taken = taken.unwrap();
        (taken.admitted, taken.remaining)
    })
}

#[tokio::test]
async fn a_request_takes_a_token_of_each_and_looks_its_session_up_as_a_single_look_does() {
    let redis = Redis::start();
    let cache = open(&redis);
    let first = cache.admit::<u32>(address(90), user(50), &session(), None).await.unwrap();
    assert_eq!(counts(&first), [(true, 89), (true, 49)]);
    let Lookup::Miss(Some(lease)) = first.session else { panic!("{:?}", first.session) };

    let meanwhile = cache.admit::<u32>(address(90), user(50), &session(), None).await.unwrap();
    assert!(matches!(meanwhile.session, Lookup::Miss(None)), "somebody else is about to fill it");
    assert!(cache.fill(lease, &7, TTL).await);
    let hit = cache.admit::<u32>(address(90), user(50), &session(), None).await.unwrap();
    assert!(matches!(hit.session, Lookup::Hit(7)), "{:?}", hit.session);
    assert!(matches!(cache.get::<u32>(&session()).await, Lookup::Hit(7)));

    cache.delete(&[session()]).await;
    let gone = cache.admit::<u32>(address(90), user(50), &session(), None).await.unwrap();
    assert!(matches!(gone.session, Lookup::Miss(Some(_))), "{:?}", gone.session);
    let taken = cache.take_token(user(50)).await.unwrap();
    assert!((45..=47).contains(&taken.remaining), "one bucket, however it is asked: {}", taken.remaining);
}

#[tokio::test]
async fn an_address_without_a_token_costs_its_user_none_and_learns_nothing_of_the_session() {
    let redis = Redis::start();
    let cache = open(&redis);
    let Lookup::Miss(Some(lease)) = cache.get::<u32>(&session()).await else { panic!("an empty cache") };
    assert!(cache.fill(lease, &7, TTL).await);
    assert!(matches!(cache.admit::<u32>(address(1), user(9), &session(), None).await.unwrap().session, Lookup::Hit(7)));
    for _ in 0..5 {
        let refused = cache.admit::<u32>(address(1), user(9), &session(), None).await.unwrap();
        let taken = refused.address.unwrap();
        assert!(!taken.admitted && taken.wait > Duration::ZERO);
        assert!(matches!(refused.session, Lookup::Miss(None)), "{:?}", refused.session);
    }
    let taken = cache.take_token(user(9)).await.unwrap();
    assert_eq!((taken.admitted, taken.remaining), (true, 7), "the user has paid for one request, and now this");
}

#[tokio::test]
async fn a_user_without_a_token_is_told_so_beside_the_session() {
    let redis = Redis::start();
    let cache = open(&redis);
    assert_eq!(counts(&cache.admit::<u32>(address(9), user(1), &session(), None).await.unwrap())[1], (true, 0));
    let refused = cache.admit::<u32>(address(9), user(1), &session(), None).await.unwrap();
    assert_eq!(counts(&refused), [(true, 7), (false, 0)]);
}

#[tokio::test]
async fn a_redis_without_memory_counts_nothing_and_still_tells_what_it_holds() {
    let redis = Redis::start();
    let cache = open(&redis);
    let Lookup::Miss(Some(lease)) = cache.get::<u32>(&session()).await else { panic!("an empty cache") };
    assert!(cache.fill(lease, &7, TTL).await);
    let client = redis::Client::open(redis.url()).unwrap();
    let mut link = client.get_multiplexed_async_connection().await.unwrap();
    let _: () = redis::cmd("CONFIG").arg(&["SET", "maxmemory", "1"]).query_async(&mut link).await.unwrap();

    let full = cache.admit::<u32>(address(9), user(9), &session(), None).await.unwrap();
    assert_eq!((full.address, full.user), (Err(CacheUnavailable::Refused), Err(CacheUnavailable::Refused)));
    assert!(matches!(full.session, Lookup::Hit(7)), "{:?}", full.session);
    let other = CacheKey::session(tenant(), SessionId::from_uuid(Uuid::from_u128(4)));
    let full = cache.admit::<u32>(address(9), user(9), &other, None).await.unwrap();
    assert!(matches!(full.session, Lookup::Miss(None)), "its mark does not fit, so it may not fill");
    assert_eq!(cache.take_token(address(9)).await, Err(CacheUnavailable::Refused));
}

#[tokio::test]
async fn what_is_no_text_under_the_sessions_key_is_a_miss() {
    let redis = Redis::start();
    let cache = open(&redis);
    let client = redis::Client::open(redis.url()).unwrap();
    let mut link = client.get_multiplexed_async_connection().await.unwrap();
    let _: i64 = redis::cmd("LPUSH").arg(session().as_str()).arg("7").query_async(&mut link).await.unwrap();
    let asked = cache.admit::<u32>(address(9), user(9), &session(), None).await.unwrap();
    assert!(matches!(asked.session, Lookup::Miss(Some(_))), "{:?}", asked.session);
}

#[tokio::test]
async fn what_is_wanted_comes_in_the_same_trip_and_saves_the_look() {
    let redis = Redis::start();
    let cache = open(&redis);
    let wanted = CacheKey::dashboard(tenant());
    let ask = async || cache.admit::<u32>(address(9), user(9), &session(), Some(wanted.clone())).await.unwrap().wanted;
    let load = async |value: u32| Ok::<u32, ()>(value);
    let missed = ask().await;
    assert!(missed.is_some(), "asked, and nothing was there");
    assert_eq!(cache.peeked_or_load(missed, &wanted, TTL, load(1), |_| true).await, Ok(1));
    assert_eq!(cache.peeked_or_load(ask().await, &wanted, TTL, load(2), |_| true).await, Ok(1), "as it was kept");

    let of_another_key = cache.admit::<u32>(address(9), user(9), &session(), Some(session())).await.unwrap().wanted;
    assert_eq!(cache.peeked_or_load(of_another_key, &wanted, TTL, load(3), |_| true).await, Ok(1));

    let before = ask().await;
    cache.delete(std::slice::from_ref(&wanted)).await;
    let after = ask().await;
    assert_eq!(cache.peeked_or_load(before, &wanted, TTL, load(4), |_| true).await, Ok(1), "it looked before");
    assert_eq!(cache.peeked_or_load(after, &wanted, TTL, load(5), |_| true).await, Ok(5));
}
