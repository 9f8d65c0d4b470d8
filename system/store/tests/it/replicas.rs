//! Reads on real streaming replicas: never older than what was acknowledged, and never lost with a replica.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use forecastle_domain::{ScenarioId, TenantId};
use forecastle_store::scenarios::{self, Edited, ScenarioContent};
use forecastle_store::{Db, Reads, ReplicaAddress, ReplicaOptions, StoreError};
use forecastle_testbed::{Postgres, Replica, customers};
use serde_json::json;

use crate::support::{Bed, bed, options, wait_until};

struct Pair {
    bed: Bed,
    replicas: [Replica; 2],
    tenant: TenantId,
    scenario: ScenarioId,
}

async fn pair() -> Pair {
    let mut bed = bed().await;
    let customer = customers::sign_up(&mut bed.admin, "PRO", "EUR", "2026-01-01").await;
    let replicas = [Replica::start(&bed.postgres, "replica-1").await, Replica::start(&bed.postgres, "replica-2").await];
    let (tenant, scenario) = (TenantId::from_uuid(customer.tenant), ScenarioId::from_uuid(customer.scenario));
    Pair { bed, replicas, tenant, scenario }
}

impl Pair {
    fn replica_options(&self) -> ReplicaOptions {
        let address = |replica: &Replica| ReplicaAddress {
            name: replica.name().to_owned(),
            url: replica.url_of("forecastle_app"),
        };
        ReplicaOptions { replicas: self.replicas.iter().map(address).collect(), ..ReplicaOptions::default() }
    }

    /// What one instance reads with, once it has seen both replicas.
    async fn reads(&self) -> Reads {
        let reads = Reads::open(self.bed.db.clone(), &self.replica_options()).expect("open reads");
        wait_until("both replicas usable", async || reads.replicas().iter().all(|replica| replica.usable)).await;
        reads
    }

    async fn edit(&self, db: &Db, version: i32) -> i32 {
        let content = ScenarioContent { name: format!("edit {version}"), notes: None, input: json!({}) };
        let mut tx = db.tenant(self.tenant).begin().await.expect("begin");
        let edited = scenarios::edit(&mut tx, self.scenario, version, &content).await.expect("edit");
        tx.commit().await.expect("commit");
        match edited {
            Edited::Scenario(scenario) => scenario.version,
            other => panic!("{other:?}"),
        }
    }

    async fn version(&self, reads: &Reads) -> Result<i32, StoreError> {
        let id = self.scenario;
        let found = reads.read(self.tenant, |scope| Box::pin(scenarios::read(scope, id))).await?;
        Ok(found.expect("the scenario").version)
    }
}

/// Who answers: `in_recovery` is told by the server itself.
async fn answered_by_a_replica(reads: &Reads, tenant: TenantId) -> bool {
    let standby = reads.read(tenant, |scope| {
        Box::pin(async move { scope.begin().await?.one::<(bool,)>(sqlx::query_as("SELECT pg_is_in_recovery()")).await })
    });
    standby.await.expect("a read").0
}

/// On a busy host a replica may need longer than a read waits for it, so more than one read may be needed.
async fn a_replica_answers(reads: &Reads, tenant: TenantId) {
    wait_until("a replica answers", async || answered_by_a_replica(reads, tenant).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_reads_on_one_instance_see_each_write_that_another_has_acknowledged() {
    let pair = pair().await;
    let (one, two) = (pair.reads().await, pair.reads().await);
    let mut on_replicas = 0;
    let mut version = 1;
    for round in 0..1_000 {
        version = pair.edit(&pair.bed.db, version).await;
        let reads = if round % 2 == 0 { &one } else { &two };
        assert_eq!(pair.version(reads).await, Ok(version), "round {round}");
        on_replicas += u32::from(answered_by_a_replica(reads, pair.tenant).await);
    }
    assert!(on_replicas > 100, "replicas have answered only {on_replicas} of 1,000 reads");
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_share_a_question_see_what_was_written_before_each_of_them_asked() {
    let pair = pair().await;
    let reads = pair.reads().await;
    let (written, told) = tokio::sync::watch::channel(1);
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (reads, told) = (reads.clone(), told.clone());
        let (tenant, id) = (pair.tenant, pair.scenario);
        readers.spawn(async move {
            let mut seen = 0;
            while seen < 300 {
                let at_least = *told.borrow();
                let found = reads.read(tenant, |scope| Box::pin(scenarios::read(scope, id))).await.expect("a read");
                let version = found.expect("the scenario").version;
                assert!(version >= at_least, "read {version} after {at_least} was acknowledged");
                seen = version;
            }
        });
    }
    let mut version = 1;
    while version < 300 {
        version = pair.edit(&pair.bed.db, version).await;
        written.send_replace(version);
    }
    while let Some(reader) = readers.join_next().await {
        reader.expect("a reader that saw every acknowledged write");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_do_not_replay_are_passed_over_until_they_have_caught_up() {
    let pair = pair().await;
    let reads = pair.reads().await;
    a_replica_answers(&reads, pair.tenant).await;

    pair.replicas[0].pause_replay().await;
    let version = pair.edit(&pair.bed.db, 1).await;
    for _ in 0..10 {
        assert_eq!(pair.version(&reads).await, Ok(version), "one replica lags");
    }
    a_replica_answers(&reads, pair.tenant).await;
    assert!(!reads.replicas()[0].usable, "known to lag, it is not waited for again");
    pair.replicas[1].pause_replay().await;
    let version = pair.edit(&pair.bed.db, version).await;
    for _ in 0..10 {
        assert_eq!(pair.version(&reads).await, Ok(version), "both replicas lag");
    }
    assert!(!answered_by_a_replica(&reads, pair.tenant).await);
    assert!(reads.replicas().iter().all(|replica| !replica.usable), "known to lag, they are not waited for again");

    for replica in &pair.replicas {
        replica.resume_replay().await;
    }
    wait_until("both catch up", async || reads.replicas().iter().all(|replica| replica.usable)).await;
    a_replica_answers(&reads, pair.tenant).await;
    assert_eq!(pair.version(&reads).await, Ok(version));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_killed_costs_no_read_and_is_used_again_when_it_is_back() {
    let mut pair = pair().await;
    let reads = pair.reads().await;
    a_replica_answers(&reads, pair.tenant).await;
    pair.replicas[0].kill();
    let version = pair.edit(&pair.bed.db, 1).await;
    for _ in 0..20 {
        let started = Instant::now();
        assert_eq!(pair.version(&reads).await, Ok(version));
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    }
    wait_until("the loss is known", async || !reads.replicas()[0].usable).await;
    a_replica_answers(&reads, pair.tenant).await;
    pair.replicas[1].kill();
    for _ in 0..20 {
        assert_eq!(pair.version(&reads).await, Ok(version), "the primary answers");
    }
    for replica in &mut pair.replicas {
        replica.start_again().await;
    }
    wait_until("both are back", async || reads.replicas().iter().all(|replica| replica.usable)).await;
    assert_eq!(pair.version(&reads).await, Ok(version));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_replica_delays_a_read_within_its_bound_and_then_nobody() {
    let pair = pair().await;
    let reads = pair.reads().await;
    for replica in &pair.replicas {
        replica.freeze();
    }
    let version = pair.edit(&pair.bed.db, 1).await;
    let started = Instant::now();
    assert_eq!(pair.version(&reads).await, Ok(version));
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    wait_until("both are known to be frozen", async || reads.replicas().iter().all(|replica| !replica.usable)).await;
    let started = Instant::now();
    for _ in 0..20 {
        assert_eq!(pair.version(&reads).await, Ok(version));
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    for replica in &pair.replicas {
        replica.thaw();
    }
    wait_until("both go on", async || reads.replicas().iter().all(|replica| replica.usable)).await;
    a_replica_answers(&reads, pair.tenant).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_a_replica_cannot_carry_out_takes_the_replica_from_nobody_else() {
    let pair = pair().await;
    // Nothing but a read's own failure could take a replica away, and nothing would bring it back.
    let hour = Duration::from_secs(3_600);
    let rare = ReplicaOptions {
        poll_every: hour,
        statement_timeout: Duration::from_millis(300),
        catch_up_wait: Duration::from_secs(2),
        ..pair.replica_options()
    };
    let reads = Reads::open(pair.bed.db.clone(), &rare).expect("open reads");
    wait_until("both replicas usable", async || reads.replicas().iter().all(|replica| replica.usable)).await;
    let is_ok = [
        ("SELECT pg_sleep(0.8)::text", true),
        ("SELECT (1 / (count(*) - count(*)))::text FROM app.tenants", false),
        ("SELECT count(*) FROM app.tenants", false),
    ];
    for (statement, is_ok) in is_ok {
        for round in 1..=2 {
            let tries = AtomicU32::new(0);
            let read = reads.read(pair.tenant, |scope| {
                tries.fetch_add(1, Ordering::Relaxed);
                Box::pin(async move { scope.begin().await?.one::<(String,)>(sqlx::query_as(statement)).await })
            });
            assert_eq!(read.await.is_ok(), is_ok, "{statement}");
            assert_eq!(tries.into_inner(), 2, "asked of a replica, then of the primary: {statement}, {round}");
        }
        assert!(reads.replicas().iter().all(|replica| replica.usable), "{statement}");
    }
    assert!(answered_by_a_replica(&reads, pair.tenant).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_shows_only_the_tenant_that_asks_and_takes_no_write() {
    let mut pair = pair().await;
    let foreign = customers::sign_up(&mut pair.bed.admin, "FREE", "EUR", "2026-01-01").await;
    let reads = pair.reads().await;
    let seen = async || {
        let seen = reads.read(pair.tenant, |scope| {
            Box::pin(async move {
                let query = sqlx::query_as("SELECT pg_is_in_recovery(), tenant_id FROM app.tenants");
                scope.begin().await?.all::<(bool, uuid::Uuid)>(query).await
            })
        });
        seen.await.expect("a read")
    };
    wait_until("a replica shows its own row and no other", async || {
        let rows = seen().await;
        assert_eq!(rows.iter().map(|row| row.1).collect::<Vec<_>>(), [pair.tenant.as_uuid()]);
        rows[0].0
    })
    .await;
    let id = ScenarioId::from_uuid(foreign.scenario);
    let found = reads.read(pair.tenant, |scope| Box::pin(scenarios::read(scope, id)));
    assert!(found.await.expect("a read").is_none());

    // On a replica the write is refused, so the read is done again on the primary, and rolled back there.
    let write = reads.read(pair.tenant, |scope| {
        Box::pin(async move { scope.begin().await?.execute(sqlx::query("UPDATE app.scenarios SET name = 'x'")).await })
    });
    assert_eq!(write.await, Ok(1));
    wait_until("rolled back", async || {
        customers::count(&mut pair.bed.admin, "SELECT count(*) FROM app.scenarios WHERE name = 'x'").await == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_was_promoted_is_not_believed() {
    let pair = pair().await;
    let reads = pair.reads().await;
    for replica in &pair.replicas {
        replica.promote().await;
    }
    let version = pair.edit(&pair.bed.db, 1).await;
    assert_eq!(pair.version(&reads).await, Ok(version));
    wait_until("both are left alone", async || reads.replicas().iter().all(|replica| !replica.usable)).await;
    assert!(!answered_by_a_replica(&reads, pair.tenant).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_stays_within_the_budget_of_connections_and_every_read_is_answered() {
    let pair = pair().await;
    let few = ReplicaOptions { max_connections: 2, ..pair.replica_options() };
    let wide = Db::open(forecastle_store::DbOptions { max_connections: 8, ..options(&pair.bed.postgres) });
    let reads = Reads::open(wide.expect("open"), &few).expect("open reads");
    wait_until("both replicas usable", async || reads.replicas().iter().all(|replica| replica.usable)).await;
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (reads, tenant, id) = (reads.clone(), pair.tenant, pair.scenario);
        readers.spawn(async move { reads.read(tenant, |scope| Box::pin(scenarios::read(scope, id))).await });
    }
    while let Some(read) = readers.join_next().await {
        assert!(read.expect("no panic").expect("a read").is_some());
    }
    for replica in reads.replicas() {
        assert!(replica.pool.open <= 2, "{replica:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_primary_nothing_is_read_from_a_replica() {
    let pair = pair().await;
    let reads = pair.reads().await;
    pair.bed.postgres.freeze();
    let started = Instant::now();
    let refused = pair.version(&reads).await;
    assert!(refused.as_ref().is_err_and(StoreError::is_unavailable), "{refused:?}");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    pair.bed.postgres.thaw();
    wait_until("reads are back", async || pair.version(&reads).await == Ok(1)).await;
}

#[tokio::test]
async fn two_replicas_of_one_name_are_refused() {
    let postgres = Postgres::start();
    let db = Db::open(options(&postgres)).expect("open");
    let one = ReplicaAddress { name: "a".to_owned(), url: postgres.url_of("forecastle_app") };
    let twice = ReplicaOptions { replicas: vec![one.clone(), one], ..ReplicaOptions::default() };
    assert!(matches!(Reads::open(db, &twice), Err(StoreError::Refused { .. })));
}
