//! Changes of plan: paid for or not given, whoever hangs up, dies or is late.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use chrono::Utc;
use forecastle_billing::{BillingTerms, ChangeRequest, Patience, Provider, Requested, request_change, settle_charge};
use forecastle_domain::{Plan, TenantId, UserId};
use forecastle_store::forecast_control;
use forecastle_store::plan_upgrades::UpgradeRequest;
use forecastle_testbed::customers::{self, count};
use reqwest::Method;
use serde_json::{Value, json};

use crate::fixtures::{Answer, Instance, text};
use crate::paying::{Event, Owner, PayBed, charge_event};

/// Longest wait for what goes on by itself.
const PATIENCE: Duration = Duration::from_secs(20);

async fn ask(bed: &PayBed, owner: &Owner, key: &str, plan: &str) -> Answer {
    bed.api.post_with_key("/v1/plan/changes", &owner.token, key, json!({ "plan": plan })).await
}

async fn plan(bed: &PayBed, owner: &Owner) -> Value {
    bed.api.get("/v1/plan", &owner.token).await.expect(200).json()
}

async fn until_plan(bed: &PayBed, owner: &Owner, wanted: &str) {
    let given_up = Instant::now() + PATIENCE;
    while plan(bed, owner).await["plan"] != wanted {
        assert!(Instant::now() < given_up, "the plan never became {wanted}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn later(hours: u64) -> chrono::DateTime<Utc> {
    Utc::now() + Duration::from_secs(3600 * hours)
}

/// Invoices, payments and plans of everybody, as one text.
async fn stand(bed: &mut PayBed) -> String {
    let query =
        "SELECT concat_ws(' ', t.plan, (SELECT string_agg(state, ',' ORDER BY requested_at) FROM app.plan_upgrades),
                        (SELECT string_agg(concat(kind, ':', state), ',' ORDER BY number) FROM app.invoices),
                        (SELECT string_agg(state, ',' ORDER BY created_at) FROM app.payments))
                 FROM app.tenants t";
    sqlx::query_scalar(query).fetch_one(&mut bed.admin).await.unwrap()
}

/// The books stand by themselves: a run finds nothing to heal and no contradiction.
async fn assert_run_is_content(bed: &mut PayBed) {
    let summary = bed.bill(later(2)).await;
    assert_eq!((summary.healed, summary.mismatched, summary.incomplete), (0, 0, 0), "{summary:?}");
    bed.assert_square().await;
}

#[tokio::test]
async fn an_upgrade_is_charged_for_the_rest_of_the_period_and_in_force_at_once() {
    let mut bed = PayBed::start().await;
    let owner = bed.owner("ada", "FREE").await;
    assert_eq!(plan(&bed, &owner).await["plan"], "FREE");
    let answer = ask(&bed, &owner, "up-1", "STARTER").await.expect(201);
    assert_eq!((&answer.json()["state"], &answer.json()["kind"]), (&json!("applied"), &json!("upgrade")));
    assert_eq!(plan(&bed, &owner).await["plan"], "STARTER", "no cached plan survives the change");
    let replayed = ask(&bed, &owner, "up-1", "STARTER").await.expect(201);
    assert_eq!((replayed.text.as_str(), replayed.header("idempotency-replayed")), (answer.text.as_str(), "true"));
    assert_eq!(ask(&bed, &owner, "up-1", "PRO").await.code(), (422, "idempotency_key_reused".to_owned()));
    assert_eq!(ask(&bed, &owner, "up-2", "STARTER").await.code(), (409, "plan_unchanged".to_owned()));

    // A second one in the same period is a proration of its own, from the plan before.
    ask(&bed, &owner, "up-3", "PRO").await.expect(201);
    let invoices = bed.api.get("/v1/invoices", &owner.token).await.expect(200).json();
    let items = invoices["items"].as_array().unwrap();
    let heads: Vec<_> = items.iter().map(|i| (text(i, "kind"), text(i, "state"), i["number"].as_i64())).collect();
    assert_eq!(heads, [("proration", "paid", Some(2)), ("proration", "paid", Some(1))]);
    let kinds: Vec<_> = items[0]["lines"].as_array().unwrap().iter().map(|line| text(line, "kind")).collect();
    assert_eq!(kinds, ["proration_charge", "proration_credit"]);
    assert_eq!(stand(&mut bed).await, "PRO applied,applied proration:paid,proration:paid succeeded,succeeded");
    assert_run_is_content(&mut bed).await;
    // The next period's base is the new plan's.
    let upcoming = bed.api.get("/v1/invoices/upcoming", &owner.token).await.expect(200).json();
    assert_eq!((&upcoming["plan"], &upcoming["total_minor"]), (&json!("PRO"), &json!(9200)));
}

#[tokio::test]
async fn a_key_is_as_good_as_new_once_the_answer_under_it_is_forgotten() {
    let mut bed = PayBed::start().await;
    let owner = bed.owner("ada", "FREE").await;
    let first = ask(&bed, &owner, "up", "STARTER").await.expect(201).json();
    let forget = async |bed: &mut PayBed, hours: &str| {
        let over = format!(
            "UPDATE app.idempotency_keys SET expires_at = expires_at - interval '{hours} hours';
             UPDATE app.plan_upgrades SET settled_at = settled_at - interval '{hours} hours',
                                          requested_at = requested_at - interval '{hours} hours'"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(over)).execute(&mut bed.admin).await.unwrap();
    };
    forget(&mut bed, "23").await;
    assert_eq!(ask(&bed, &owner, "up", "PRO").await.code(), (422, "idempotency_key_reused".to_owned()));
    // The answer was lost before it was kept: the upgrade itself answers for as long.
    sqlx::query("DELETE FROM app.idempotency_keys").execute(&mut bed.admin).await.unwrap();
    assert_eq!(ask(&bed, &owner, "up", "STARTER").await.expect(201).json()["id"], first["id"]);
    forget(&mut bed, "2").await;
    sqlx::query("DELETE FROM app.idempotency_keys").execute(&mut bed.admin).await.unwrap();
    let second = ask(&bed, &owner, "up", "PRO").await.expect(201).json();
    assert_ne!(second["id"], first["id"]);
    assert_eq!(plan(&bed, &owner).await["plan"], "PRO");
    assert_eq!(bed.book.count(), 2, "each is charged");
    let replayed = ask(&bed, &owner, "up", "PRO").await.expect(201);
    assert_eq!(replayed.json()["id"], second["id"]);
    bed.assert_square().await;
}

#[tokio::test]
async fn the_upcoming_invoice_is_read_while_somebody_works_on_the_tenant() {
    let mut bed = PayBed::start().await;
    let owner = bed.owner("ada", "PRO").await;
    let quiet = bed.api.get("/v1/invoices/upcoming", &owner.token).await.expect(200).text;
    sqlx::raw_sql("BEGIN; SELECT 1 FROM app.tenants FOR UPDATE").execute(&mut bed.admin).await.unwrap();
    assert_eq!(bed.api.get("/v1/invoices/upcoming", &owner.token).await.expect(200).text, quiet);
    sqlx::raw_sql("ROLLBACK").execute(&mut bed.admin).await.unwrap();
}

#[tokio::test]
async fn a_declined_upgrade_changes_nothing_and_may_be_asked_for_again() {
    let mut bed = PayBed::start().await;
    let owner = bed.owner("ada", "FREE").await;
    bed.book.decline("tok_good");
    assert_eq!(ask(&bed, &owner, "up-1", "PRO").await.code(), (402, "payment_declined".to_owned()));
    assert_eq!(stand(&mut bed).await, "FREE declined proration:void failed");
    assert_eq!(plan(&bed, &owner).await["pending_change"], Value::Null);
    let body = json!({ "payment_token": "tok_better" });
    bed.api.send(Method::PUT, "/v1/payment-method", Some(&owner.token), &[], Some(&body)).await.expect(200);
    ask(&bed, &owner, "up-1", "PRO").await.expect(201);
    assert_eq!(stand(&mut bed).await, "PRO declined,applied proration:void,proration:paid failed,succeeded");
    assert_run_is_content(&mut bed).await;
    let notes = bed.api.get("/v1/credit-notes", &owner.token).await.expect(200).json();
    let note = &notes["items"][0];
    assert_eq!((notes["items"].as_array().unwrap().len(), &note["to_balance_minor"]), (1, &json!(0)));
    let read = bed.api.get(&format!("/v1/credit-notes/{}", text(note, "id")), &owner.token).await.expect(200).json();
    assert_eq!(&read, note);
}

#[tokio::test]
async fn an_answer_that_is_lost_is_asked_for_and_charged_once() {
    let mut bed = PayBed::start().await;
    let owner = bed.owner("ada", "FREE").await;
    bed.book.answers_to_lose.store(1, Ordering::SeqCst);
    ask(&bed, &owner, "up-1", "STARTER").await.expect(201);
    bed.book.requests_to_refuse.store(1, Ordering::SeqCst);
    ask(&bed, &owner, "up-2", "PRO").await.expect(201);
    assert_eq!(bed.book.count(), 2);
    assert_run_is_content(&mut bed).await;
}

#[tokio::test]
async fn an_upgrade_waits_while_nobody_knows_and_the_providers_event_ends_it() {
    let mut bed = PayBed::start().await;
    let owner = bed.owner("ada", "FREE").await;
    bed.book.answers_to_lose.store(100, Ordering::SeqCst);
    bed.book.look_ups_to_lose.store(100, Ordering::SeqCst);
    let waiting = ask(&bed, &owner, "up-1", "PRO").await.expect(202).json();
    assert_eq!(waiting["state"], "awaiting_payment");
    let standing = plan(&bed, &owner).await;
    assert_eq!((&standing["plan"], &standing["pending_change"]["state"]), (&json!("FREE"), &json!("awaiting_payment")));
    let other = ask(&bed, &owner, "up-2", "STARTER").await;
    assert_eq!(other.code(), (409, "plan_change_in_progress".to_owned()));
    assert_eq!(stand(&mut bed).await, "FREE awaiting_payment proration:issued unknown");

    let event = charge_event("charge.succeeded", &bed.book.charges()[0]);
    bed.send(&Event::now("evt_1", event)).await.expect(200);
    assert_eq!(plan(&bed, &owner).await["plan"], "PRO");
    assert_eq!(ask(&bed, &owner, "up-1", "PRO").await.expect(201).json()["id"], waiting["id"]);
    assert_eq!(bed.book.count(), 1);
    assert_run_is_content(&mut bed).await;
}

#[tokio::test]
async fn a_client_that_hangs_up_in_the_middle_leaves_nothing_half_done() {
    let mut bed = PayBed::start().await;
    let owner = bed.owner("ada", "FREE").await;
    bed.book.hold_answers();
    let url = bed.api.url("/v1/plan/changes");
    let token = owner.token.clone();
    let client = tokio::spawn(async move {
        let request = reqwest::Client::new().post(url).bearer_auth(token).header("idempotency-key", "up-1");
        let _ = request.json(&json!({ "plan": "PRO" })).send().await;
    });
    bed.book.until_asked(1).await;
    client.abort();
    let _ = client.await;
    // Nobody waits for the answer any more: that is measured now, and not when the work is done.
    let given_up = Instant::now() + PATIENCE;
    let counted = r#"route="/v1/plan/changes",method="POST",status="none",outcome="given_up""#;
    while !bed.api.send(Method::GET, "/metrics", None, &[], None).await.text.contains(counted) {
        assert!(Instant::now() < given_up, "a request that was given up was never counted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bed.book.release_answers();
    until_plan(&bed, &owner, "PRO").await;
    // The plan changes with the payment; the request that was left alone still has its key for a moment.
    let end = Instant::now() + PATIENCE;
    let answer = loop {
        let answer = ask(&bed, &owner, "up-1", "PRO").await;
        if answer.code() != (409, "idempotency_in_flight".to_owned()) {
            break answer;
        }
        assert!(Instant::now() < end, "the key is never given back");
    };
    answer.expect(201);
    assert_eq!(bed.book.count(), 1);
    assert_run_is_content(&mut bed).await;
}

#[tokio::test]
async fn an_instance_that_dies_after_any_step_leaves_the_rest_to_the_run() {
    for dies_after_the_charge in [false, true] {
        let mut bed = PayBed::start().await;
        let owner = bed.owner("ada", "FREE").await;
        let tenant: TenantId = owner.tenant.parse().unwrap();
        let user: String =
            sqlx::query_scalar("SELECT user_id::text FROM app.users").fetch_one(&mut bed.admin).await.unwrap();
        let by = UpgradeRequest { user: user.parse::<UserId>().unwrap(), key: "up-1", kept: Duration::from_secs(3600) };
        let mut tx = bed.biller.tenant(tenant).begin().await.unwrap();
        let wanted = ChangeRequest { to: Plan::Pro, by, fingerprint: [0; 32] };
        let Requested::Charge(_, payment) = request_change(&mut tx, &wanted).await.unwrap() else { panic!("a charge") };
        tx.commit().await.unwrap();
        assert_eq!(stand(&mut bed).await, "FREE awaiting_payment proration:issued intended");
        if dies_after_the_charge {
            bed.book.hold_answers();
            let (db, provider) = (bed.biller.clone(), bed.provider.clone());
            let dying = tokio::spawn(async move {
                let patience = Patience::of_request(PATIENCE);
                settle_charge(&db, &provider, tenant, &payment, &BillingTerms::default(), &patience).await
            });
            bed.book.until_asked(1).await;
            dying.abort();
            assert!(dying.await.unwrap_err().is_cancelled());
            bed.book.release_answers();
            assert_eq!(bed.book.count(), 1, "the money is taken, and nobody has written it down");
        }
        let summary = bed.bill(later(2)).await;
        assert_eq!((summary.charged, summary.mismatched), (1, 0));
        assert_eq!(stand(&mut bed).await, "PRO applied proration:paid succeeded");
        assert_eq!(bed.book.count(), 1);
        assert_run_is_content(&mut bed).await;
    }
}

#[tokio::test]
async fn money_that_comes_after_the_period_is_closed_is_credited_and_gives_no_plan() {
    let mut bed = PayBed::start().await;
    let owner = bed.owner("ada", "FREE").await;
    bed.book.answers_to_lose.store(1_000, Ordering::SeqCst);
    bed.book.look_ups_to_lose.store(1_000, Ordering::SeqCst);
    ask(&bed, &owner, "up-1", "PRO").await.expect(202);
    let summary = bed.bill(later(24 * 32)).await;
    assert_eq!((summary.unknown, summary.incomplete), (1, 0), "what is not known keeps nothing else back");
    let charge = bed.book.charges().remove(0);
    bed.send(&Event::now("evt_1", charge_event("charge.succeeded", &charge))).await.expect(200);
    assert_eq!(stand(&mut bed).await, "FREE lapsed proration:paid succeeded");
    let credit = "SELECT credit_balance_minor FROM app.tenants";
    assert_eq!(bed.count(credit).await, charge["amount_minor"].as_i64().unwrap());
    let summary = bed.bill(later(24 * 32)).await;
    assert_eq!((summary.healed, summary.mismatched, summary.unknown), (0, 0, 0));
    bed.assert_square().await;
    assert_eq!(ask(&bed, &owner, "up-1", "PRO").await.expect(201).json()["state"], "lapsed");
}

#[tokio::test]
async fn two_upgrades_at_once_are_one() {
    let mut bed = PayBed::start().await;
    let owner = bed.owner("ada", "FREE").await;
    let (a, b) = tokio::join!(ask(&bed, &owner, "up-1", "PRO"), ask(&bed, &owner, "up-2", "PRO"));
    let mut answers = [a.status.as_u16(), b.status.as_u16()];
    answers.sort_unstable();
    assert_eq!(answers, [201, 409], "{} {}", a.text, b.text);
    assert_eq!((bed.book.count(), bed.count("SELECT count(*) FROM app.invoices").await), (1, 1));
    assert_run_is_content(&mut bed).await;
}

#[tokio::test]
async fn a_downgrade_waits_for_the_periods_end_and_can_be_withdrawn() {
    let mut bed = PayBed::start().await;
    let owner = bed.owner("ada", "PRO").await;
    let withdraw = async |bed: &PayBed| {
        bed.api.send(Method::DELETE, "/v1/plan/changes/pending", Some(&owner.token), &[], None).await.status.as_u16()
    };
    let scheduled = ask(&bed, &owner, "down-1", "FREE").await.expect(201).json();
    assert_eq!((&scheduled["state"], &scheduled["kind"]), (&json!("pending"), &json!("downgrade")));
    let standing = plan(&bed, &owner).await;
    assert_eq!((&standing["plan"], &standing["pending_change"]["plan"]), (&json!("PRO"), &json!("FREE")));
    assert_eq!((withdraw(&bed).await, withdraw(&bed).await), (204, 404));
    assert_eq!(plan(&bed, &owner).await["pending_change"], Value::Null);

    ask(&bed, &owner, "down-2", "FREE").await.expect(201);
    ask(&bed, &owner, "down-3", "STARTER").await.expect(201);
    let upcoming = bed.api.get("/v1/invoices/upcoming", &owner.token).await.expect(200).json();
    assert_eq!(upcoming["plan"], "PRO", "the first period's invoice is still to be issued");
    bed.bill(later(2)).await;
    let upcoming = bed.api.get("/v1/invoices/upcoming", &owner.token).await.expect(200).json();
    assert_eq!((&upcoming["plan"], &upcoming["total_minor"]), (&json!("STARTER"), &json!(2700)));
    let summary = bed.bill(later(24 * 33)).await;
    assert_eq!((summary.healed, summary.mismatched), (0, 0));
    assert_eq!(bed.count("SELECT count(*) FROM app.tenants WHERE plan = 'STARTER'").await, 1);
    let second = "SELECT total_minor FROM app.invoices WHERE kind = 'subscription' AND period_index = 1";
    assert_eq!(bed.count(second).await, 2700);
    bed.assert_square().await;
}

#[tokio::test]
async fn an_upgrade_without_a_payment_method_is_refused() {
    let mut bed = PayBed::start().await;
    let owner = bed.owner("ada", "FREE").await;
    sqlx::query("UPDATE app.tenants SET payment_token = NULL").execute(&mut bed.admin).await.unwrap();
    assert_eq!(ask(&bed, &owner, "up-1", "PRO").await.code(), (402, "payment_method_required".to_owned()));
    assert_eq!(ask(&bed, &owner, "up-2", "GOLD").await.code(), (422, "invalid".to_owned()));
    assert_eq!(stand(&mut bed).await, "FREE");
}

#[tokio::test]
async fn the_preview_is_the_invoice_that_is_drafted_when_nothing_comes_after() {
    let mut bed = PayBed::start().await;
    let owner = bed.owner("ada", "STARTER").await;
    bed.bill(later(2)).await;
    let users = "INSERT INTO app.scenarios (tenant_id, scenario_id, name, input, created_at, updated_at)
                 SELECT tenant_id, gen_random_uuid(), 's', '{}', now(), now() FROM app.tenants";
    sqlx::query(users).execute(&mut bed.admin).await.unwrap();
    let events = "WITH made AS (
            INSERT INTO app.forecasts (tenant_id, forecast_id, scenario_id, scenario_version, requested_by, input, state,
                engine_version, result, result_hash, requested_at, finished_at, quota_period, quota_state)
            SELECT s.tenant_id, gen_random_uuid(), s.scenario_id, 1, u.user_id, '{}', 'succeeded', '1', '{}',
                   repeat('0', 64), now(), now(), 0, 'consumed'
            FROM app.scenarios s JOIN app.users u USING (tenant_id), generate_series(1, 107) RETURNING tenant_id, forecast_id)
        INSERT INTO app.usage_events (tenant_id, usage_event_id, forecast_id, occurred_at)
        SELECT tenant_id, gen_random_uuid(), forecast_id, now() FROM made";
    sqlx::query(events).execute(&mut bed.admin).await.unwrap();
    let preview = bed.api.get("/v1/invoices/upcoming", &owner.token).await.expect(200).json();
    assert_eq!((&preview["usage_events"], &preview["total_minor"]), (&json!(107), &json!(2700 + 7 * 19)));
    bed.bill(later(24 * 31 + 1)).await;
    let invoices = bed.api.get("/v1/invoices", &owner.token).await.expect(200).json();
    let drafted = invoices["items"].as_array().unwrap().iter().find(|i| i["period_index"] == 1).unwrap();
    for field in ["lines", "tax_minor", "total_minor", "currency", "period_index", "period_start", "period_end"] {
        assert_eq!(drafted[field], preview[field], "{field}");
    }
}

#[tokio::test]
async fn past_due_means_frees_limits_until_it_is_paid() {
    let mut bed = PayBed::start().await;
    let owner = bed.owner("ada", "STARTER").await;
    bed.book.decline("tok_good");
    bed.bill(later(24 * 8)).await;
    let given_up = Instant::now() + PATIENCE;
    let standing = loop {
        // The biller of this test deletes no cached plan; an entry lasts ten seconds.
        let standing = plan(&bed, &owner).await;
        if standing["billing_state"] == "past_due" {
            break standing;
        }
        assert!(Instant::now() < given_up, "never past due");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!((&standing["plan"], &standing["subscribed_plan"]), (&json!("FREE"), &json!("STARTER")));
    assert_eq!(ask(&bed, &owner, "up-1", "PRO").await.code(), (402, "past_due".to_owned()));
    for n in 0..3 {
        bed.api.scenario(&owner.token, &format!("s-{n}")).await;
    }
    let fourth = bed.api.post_with_key("/v1/scenarios", &owner.token, "s-4", crate::fixtures::scenario("s")).await;
    assert_eq!(fourth.code(), (402, "scenario_limit".to_owned()));

    let invoices = bed.api.get("/v1/invoices", &owner.token).await.json();
    let pay = format!("/v1/invoices/{}/pay", text(&invoices["items"][0], "id"));
    let paying = async |key: &str| bed.api.post_with_key(&pay, &owner.token, key, Value::Null).await;
    assert_eq!(paying("pay-1").await.code(), (402, "payment_declined".to_owned()));
    let body = json!({ "payment_token": "tok_better" });
    bed.api.send(Method::PUT, "/v1/payment-method", Some(&owner.token), &[], Some(&body)).await.expect(200);
    let standing = plan(&bed, &owner).await;
    assert_eq!((&standing["plan"], &standing["billing_state"]), (&json!("STARTER"), &json!("current")));
    assert_eq!(paying("pay-2").await.expect(200).json()["state"], "paid");
    assert_eq!(paying("pay-2").await.expect(200).header("idempotency-replayed"), "true");
    bed.api.post_with_key("/v1/scenarios", &owner.token, "s-5", crate::fixtures::scenario("s")).await.expect(201);
    bed.assert_square().await;
}

#[tokio::test]
async fn paying_an_invoice_whose_answer_is_lost_takes_the_money_once() {
    let mut bed = PayBed::start().await;
    let owner = bed.owner("ada", "STARTER").await;
    bed.book.decline("tok_good");
    bed.bill(later(2)).await;
    sqlx::query("UPDATE app.tenants SET payment_token = 'tok_better'").execute(&mut bed.admin).await.unwrap();
    bed.book.answers_to_lose.store(3, Ordering::SeqCst);
    bed.book.look_ups_to_lose.store(100, Ordering::SeqCst);
    let invoices = bed.api.get("/v1/invoices", &owner.token).await.json();
    let pay = format!("/v1/invoices/{}/pay", text(&invoices["items"][0], "id"));
    bed.api.post_with_key(&pay, &owner.token, "pay-1", Value::Null).await.expect(202);
    bed.book.look_ups_to_lose.store(0, Ordering::SeqCst);
    let (a, b) = tokio::join!(
        bed.api.post_with_key(&pay, &owner.token, "pay-1", Value::Null),
        bed.api.post_with_key(&pay, &owner.token, "pay-2", Value::Null)
    );
    assert_eq!((a.status.as_u16(), b.status.as_u16()), (200, 200), "{} {}", a.text, b.text);
    assert_eq!(bed.book.count(), 1);
    bed.assert_square().await;
    let foreign = bed.owner("eve", "FREE").await;
    let refused = bed.api.post_with_key(&pay, &foreign.token, "pay-1", Value::Null).await;
    assert_eq!(refused.code(), (404, "not_found".to_owned()));
}

#[tokio::test]
async fn two_requests_at_the_quotas_edge_admit_exactly_one() {
    let bed = PayBed::start().await;
    let mut admin = customers::connect(&bed.servers.database_url("postgres")).await;
    let owner = bed.owner("ada", "FREE").await;
    let scenario = bed.api.scenario(&owner.token, "s").await;
    let body = json!({ "scenario_id": text(&scenario, "id") });
    let ask = async |key: String| bed.api.post_with_key("/v1/forecasts", &owner.token, &key, body.clone()).await.status;
    for n in 0..4 {
        assert_eq!(ask(format!("f-{n}")).await.as_u16(), 202);
    }
    for round in 0..5 {
        let asked = (0..4).map(|n| ask(format!("edge-{round}-{n}")));
        let answers = crate::product::join_all(asked).await;
        let mut answers: Vec<u16> = answers.iter().map(|status| status.as_u16()).collect();
        answers.sort_unstable();
        assert_eq!(answers, [202, 402, 402, 402]);
        assert_eq!(count(&mut admin, "SELECT taken::bigint FROM app.quota_periods").await, 5);
        // One ends without success, and is given back, once.
        let cancel = "SELECT forecast_id::text FROM app.forecasts WHERE state = 'queued' ORDER BY requested_at LIMIT 1";
        let id: String = sqlx::query_scalar(cancel).fetch_one(&mut admin).await.unwrap();
        let cancelling = (0..3).map(|_| async {
            let mut tx = bed.biller.tenant(owner.tenant.parse().unwrap()).begin().await.unwrap();
            forecast_control::cancel(&mut tx, id.parse().unwrap()).await.unwrap();
            tx.commit().await.unwrap();
        });
        crate::product::join_all(cancelling).await;
        assert_eq!(count(&mut admin, "SELECT taken::bigint FROM app.quota_periods").await, 4);
    }
}

#[tokio::test]
async fn a_silent_provider_is_answered_202_within_the_requests_time() {
    let mut bed = PayBed::start().await;
    let owner = bed.owner("ada", "STARTER").await;
    // Takes connections and never says a word.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let mut config = bed.config.clone();
    config.provider = Some(Provider::new(&url, Duration::from_millis(800)).unwrap());
    config.provider_patience = Duration::from_millis(1_000);
    config.request_timeout = Duration::from_secs(4);
    bed.bill(later(2)).await;
    bed.api = Instance::start(config).await;
    let upgrade = ask(&bed, &owner, "up-1", "PRO").await.expect(202).json();
    assert_eq!(upgrade["state"], "awaiting_payment");
    let path = format!("/v1/invoices/{}/pay", text(&upgrade, "invoice_id"));
    bed.api.post_with_key(&path, &owner.token, "pay-1", json!({})).await.expect(202);
    // The run, whose provider speaks, ends it.
    let summary = bed.bill(later(3)).await;
    assert_eq!((summary.charged, summary.unknown), (1, 0), "{summary:?}");
    until_plan(&bed, &owner, "PRO").await;
    assert_run_is_content(&mut bed).await;
}
