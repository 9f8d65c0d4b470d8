//! What caches hold of a plan ends with what the run changes, and a run that cannot see to that says so.

use std::time::Duration;

use forecastle_domain::Plan;
use forecastle_store::{Cache, CacheKey, CacheOptions, Lookup};
use forecastle_testbed::Redis;
use forecastle_testbed::customers::Customer;

use crate::bed::{Bed, bed};
use crate::plan_changes::ask;

/// Longest wait for an answer of Redis.
const TIMEOUT: Duration = Duration::from_millis(500);
/// Longer than any test.
const LIFETIME: Duration = Duration::from_secs(300);

/// An instance that reads the cache, beside the biller.
fn with_cache(bed: &mut Bed, redis: &Redis) -> Cache {
    let options = CacheOptions { redis_url: redis.url(), timeout: TIMEOUT };
    bed.run.cache = Some(Cache::open_for_writing(&options, &bed.run.db).unwrap());
    Cache::open(&options).unwrap()
}

fn keys(customer: &Customer) -> [CacheKey; 2] {
    [CacheKey::plan(customer.tenant.into()), CacheKey::dashboard(customer.tenant.into())]
}

async fn fill(reader: &Cache, customer: &Customer) {
    for key in keys(customer) {
        let Lookup::Miss(Some(lease)) = reader.get::<String>(&key).await else { panic!("a miss") };
        assert!(reader.fill(lease, &"of before", LIFETIME).await);
    }
}

async fn assert_empty(reader: &Cache, customer: &Customer) {
    for key in keys(customer) {
        assert!(matches!(reader.get::<String>(&key).await, Lookup::Miss(Some(_))), "{}", key.as_str());
    }
}

#[tokio::test]
async fn an_upgrade_that_the_run_settles_leaves_nothing_cached_of_before() {
    let (mut bed, redis) = (bed().await, Redis::start());
    let customer = bed.customer("STARTER", "USD", "2026-01-01 00:00+00").await;
    bed.bill_to_each(&["2026-01-02T00:00:00Z"]).await;
    bed.set_clock("2026-01-10T00:00:00Z").await;
    ask(&bed, &customer, Plan::Pro, "up-1").await;
    let reader = with_cache(&mut bed, &redis);
    fill(&reader, &customer).await;
    assert_eq!(bed.bill("2026-01-10T01:00:00Z").await.charged, 1);
    assert_eq!(bed.words("SELECT plan FROM app.tenants").await, ["PRO"]);
    assert_empty(&reader, &customer).await;
}

#[tokio::test]
async fn a_downgrade_that_the_run_applies_leaves_nothing_cached_of_before() {
    let (mut bed, redis) = (bed().await, Redis::start());
    let customer = bed.customer("PRO", "USD", "2026-01-01 00:00+00").await;
    bed.bill_to_each(&["2026-01-02T00:00:00Z"]).await;
    bed.set_clock("2026-01-10T00:00:00Z").await;
    ask(&bed, &customer, Plan::Starter, "down-1").await;
    let reader = with_cache(&mut bed, &redis);
    fill(&reader, &customer).await;
    bed.bill_to_each(&["2026-02-01T02:00:00Z"]).await;
    assert_eq!(bed.words("SELECT plan FROM app.tenants").await, ["STARTER"]);
    assert_empty(&reader, &customer).await;
    bed.assert_square().await;
}

#[tokio::test]
async fn a_run_that_owes_a_deletion_to_a_lost_cache_is_not_complete() {
    let (mut bed, mut redis) = (bed().await, Redis::start());
    bed.customer("STARTER", "USD", "2026-01-01 00:00+00").await;
    with_cache(&mut bed, &redis);
    redis.kill();
    bed.does("REVOKE INSERT ON app.cache_debts FROM forecastle_app").await;
    let summary = bed.bill("2026-01-02T00:00:00Z").await;
    assert_eq!((summary.charged, summary.incomplete), (1, 1), "nobody has taken the deletion");
    bed.does("GRANT INSERT ON app.cache_debts TO forecastle_app").await;
    bed.assert_square().await;
}
