//! The steps of a launch: who may sign up, and how many, exactly.

use forecastle_api::Invited;
use forecastle_domain::LaunchPhase;
use serde_json::json;
use sqlx::Connection as _;

use crate::fixtures::{Instance, config, sign_up};
use crate::product::join_all;
use crate::servers::Servers;

#[tokio::test]
async fn the_closed_beta_takes_the_invited_only() {
    let servers = Servers::start().await;
    let mut beta = config(&servers);
    beta.launch_phase = Some(LaunchPhase::ClosedBeta);
    beta.invited = Invited::new(&["Ada@example.com".to_owned()], &["spring-2026".to_owned()]).unwrap();
    let api = Instance::start(beta).await;
    let refused = api.post("/v1/signup", sign_up("eve", "FREE")).await;
    assert_eq!(refused.code(), (403, "invitation_required".to_owned()));
    let with_code = |code: &str| {
        let mut body = sign_up("eve", "FREE");
        body["invitation_code"] = json!(code);
        body
    };
    assert_eq!(api.post("/v1/signup", with_code("winter")).await.code().1, "invitation_required");
    assert_eq!(api.post("/v1/signup", with_code(&"x".repeat(101))).await.code(), (422, "invalid".to_owned()));
    api.post("/v1/signup", with_code("spring-2026")).await.expect(201);
    api.post("/v1/signup", sign_up("ada", "FREE")).await.expect(201);
}

#[tokio::test]
async fn a_phase_takes_exactly_as_many_as_it_says_from_two_instances_at_once() {
    let servers = Servers::start().await;
    let mut first = config(&servers);
    first.launch_phase = Some(LaunchPhase::First1000);
    first.limits.credentials = forecastle_api::Rate::per_second(10_000);
    let (one, two) = (Instance::start(first.clone()).await, Instance::start(first.clone()).await);
    one.sign_up("ada", "FREE").await;
    // All but four of the other places are taken by customers who are there already.
    let mut operator = sqlx::PgConnection::connect(&servers.database_url("postgres")).await.unwrap();
    sqlx::query(
        "INSERT INTO app.tenants (tenant_id, organization, plan, currency, time_zone, anchor_date, signed_up_at)
         SELECT gen_random_uuid(), 'x', 'FREE', 'EUR', 'UTC', current_date, now() FROM generate_series(1, 995)",
    )
    .execute(&mut operator)
    .await
    .unwrap();
    let answers = join_all((0..12).map(|n| {
        let api = if n % 2 == 0 { &one } else { &two };
        async move { api.post("/v1/signup", sign_up(&format!("u{n}"), "FREE")).await }
    }))
    .await;
    assert_eq!(answers.iter().filter(|answer| answer.status.as_u16() == 201).count(), 4);
    for refused in answers.iter().filter(|answer| answer.status.as_u16() != 201) {
        assert_eq!(refused.code(), (403, "customer_cap_reached".to_owned()));
    }
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM app.tenants").fetch_one(&mut operator).await.unwrap();
    assert_eq!(count, 1_000);
    // The next phase opens again, by configuration alone.
    first.launch_phase = Some(LaunchPhase::First5000);
    Instance::start(first).await.sign_up("late", "FREE").await;
}
