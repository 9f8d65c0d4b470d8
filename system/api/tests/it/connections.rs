//! How many connections an instance holds: as many as it was given, however much is asked of it.

use std::time::Duration;

use sqlx::{Connection as _, PgConnection};

use crate::fixtures::{Instance, config, text};
use crate::product::join_all;
use crate::servers::Servers;
use crate::streams::Reader;

/// What the instance under test is given.
const GIVEN: u32 = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_holds_no_more_connections_than_it_was_given() {
    let servers = Servers::start().await;
    let mut config = config(&servers);
    config.db.max_connections = GIVEN;
    config.db.acquire_timeout = Duration::from_millis(400);
    config.db.lock_timeout = Duration::from_secs(2);
    config.db.application_name = "instance-under-test".to_owned();
    let api = Instance::start(config).await;
    let session = api.sign_up("ada", "PRO").await;
    let token = text(&session, "access_token");
    api.get("/v1/me", token).await.expect(200);
    // With a stream open the instance also holds the link that listens for it.
    let mut stream = Reader::open(&api, token, "", None).await;
    stream.told("ready").await;

    // Whoever gets a connection keeps it until the lock is given up, and somebody gets none.
    let mut holder = PgConnection::connect(&servers.database_url("postgres")).await.unwrap();
    sqlx::raw_sql("BEGIN; LOCK TABLE app.users IN ACCESS EXCLUSIVE MODE").execute(&mut holder).await.unwrap();
    let asking = join_all((0..3 * GIVEN).map(|_| async { api.get("/v1/users", token).await.status.as_u16() }));
    let mut most = 0_i64;
    let mut admin = PgConnection::connect(&servers.database_url("postgres")).await.unwrap();
    let counting = async {
        loop {
            let held = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'instance-under-test'";
            most = most.max(sqlx::query_scalar(held).fetch_one(&mut admin).await.unwrap());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let answers = tokio::select! {
        answers = asking => answers,
        () = counting => unreachable!(),
    };
    assert!(answers.iter().all(|status| *status == 503), "every connection was in use: {answers:?}");
    assert_eq!(most, i64::from(GIVEN));
}
