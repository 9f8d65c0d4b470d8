//! What a customer does, from sign-up to the plan's limits.

use reqwest::Method;
use serde_json::{Value, json};

use crate::fixtures::{Instance, config, scenario, sign_up, text};
use crate::servers::Servers;

#[tokio::test]
async fn a_free_customer_gets_five_forecasts_and_three_scenarios_and_is_shown_the_upgrade() {
    let servers = Servers::start().await;
    let api = Instance::start(config(&servers)).await;
    api.sign_up("ada", "FREE").await;
    let taken = api.post("/v1/signup", sign_up("ADA", "FREE")).await;
    assert_eq!(taken.code(), (409, "email_taken".to_owned()));
    let session = api.log_in("ada").await;
    assert_eq!((text(&session, "token_type"), session["expires_in"].as_u64()), ("Bearer", Some(300)));
    let token = text(&session, "access_token");

    let me = api.get("/v1/me", token).await.expect(200).json();
    assert_eq!((text(&me, "email"), text(&me, "role")), ("ada@example.com", "owner"));
    assert_eq!(text(&me, "organization"), "ada Ltd");
    assert_eq!(me["session_id"], session["session_id"]);

    let created = api.post_with_key("/v1/scenarios", token, "s1", scenario("s1")).await.expect(201);
    assert_eq!(created.header("etag"), "\"1\"");
    let id = text(&created.json(), "id").to_owned();
    assert_eq!(created.header("location"), format!("/v1/scenarios/{id}"));
    let read = api.get(&format!("/v1/scenarios/{id}"), token).await.expect(200);
    assert_eq!(read.json()["input"], scenario("s1")["input"]);
    assert_eq!(read.header("etag"), "\"1\"");

    let mut newest = String::new();
    for n in 0..5 {
        let body = json!({"scenario_id": id});
        let asked = api.post_with_key("/v1/forecasts", token, &format!("f{n}"), body).await.expect(202);
        assert_eq!(text(&asked.json(), "state"), "queued");
        newest = text(&asked.json(), "id").to_owned();
        assert_eq!(asked.header("location"), format!("/v1/forecasts/{newest}"));
    }
    let refused = api.post_with_key("/v1/forecasts", token, "f5", json!({"scenario_id": id})).await;
    assert_eq!(refused.code(), (402, "quota_exceeded".to_owned()));
    assert!(text(&refused.json(), "detail").contains("STARTER"));

    let forecast = api.get(&format!("/v1/forecasts/{newest}"), token).await.expect(200).json();
    assert_eq!(forecast["input"], scenario("s1")["input"]);
    assert_eq!((&forecast["result"], &forecast["attempts"]), (&Value::Null, &json!(0)));

    let usage = api.get("/v1/usage", token).await.expect(200).json();
    assert_eq!((&usage["quota_taken"], &usage["forecasts_succeeded"]), (&json!(5), &json!(0)));
    assert_eq!((&usage["included_forecasts"], &usage["hard_cap"]), (&json!(5), &json!(true)));

    api.scenario(token, "s2").await;
    api.scenario(token, "s3").await;
    let refused = api.post_with_key("/v1/scenarios", token, "s4", scenario("s4")).await;
    assert_eq!(refused.code(), (402, "scenario_limit".to_owned()));

    let dashboard = api.get("/v1/dashboard", token).await.expect(200).json();
    assert_eq!((&dashboard["scenarios"], &dashboard["forecasts"]["queued"]), (&json!(3), &json!(5)));
    assert_eq!(dashboard["recent_forecasts"][0]["id"], json!(newest));
    assert_eq!(dashboard["usage"], usage);

    let plan = api.get("/v1/plan", token).await.expect(200).json();
    assert_eq!(
        (&plan["plan"], &plan["overage_minor"], &plan["scenario_limit"]),
        (&json!("FREE"), &Value::Null, &json!(3))
    );
    let invoices = api.get("/v1/invoices", token).await.expect(200).json();
    assert_eq!(invoices, json!({"items": [], "next_cursor": null}));
}

#[tokio::test]
async fn the_cap_holds_when_everybody_asks_at_once() {
    let servers = Servers::start().await;
    let api = Instance::start(config(&servers)).await;
    let session = api.sign_up("ada", "FREE").await;
    let token = text(&session, "access_token");
    let scenario = api.scenario(token, "s").await;
    let body = json!({"scenario_id": scenario["id"]});
    let mut asked = Vec::new();
    for n in 0..12 {
        let (key, body) = (format!("k{n}"), body.clone());
        let api = &api;
        asked.push(async move { api.post_with_key("/v1/forecasts", token, &key, body).await.status.as_u16() });
    }
    let answers = join_all(asked).await;
    assert_eq!(answers.iter().filter(|status| **status == 202).count(), 5, "{answers:?}");
    assert_eq!(answers.iter().filter(|status| **status == 402).count(), 7, "{answers:?}");
}

#[tokio::test]
async fn an_edit_replaces_exactly_the_version_it_names() {
    let servers = Servers::start().await;
    let api = Instance::start(config(&servers)).await;
    let session = api.sign_up("ada", "PRO").await;
    let token = text(&session, "access_token");
    let id = text(&api.scenario(token, "s").await, "id").to_owned();
    let path = format!("/v1/scenarios/{id}");
    let put = async |headers: &[(&str, &str)], name: &str| {
        api.send(Method::PUT, &path, Some(token), headers, Some(&scenario(name))).await
    };
    assert_eq!(put(&[], "a").await.code(), (428, "if_match_required".to_owned()));
    let edited = put(&[("if-match", "\"1\"")], "b").await.expect(200);
    assert_eq!((edited.header("etag"), text(&edited.json(), "name")), ("\"2\"", "b"));
    for stale in ["\"1\"", "\"3\"", "*", "W/\"2\""] {
        assert_eq!(put(&[("if-match", stale)], "c").await.code(), (412, "version_differs".to_owned()), "{stale}");
    }
    let read = api.get(&path, token).await.expect(200);
    assert_eq!((read.header("etag"), text(&read.json(), "name")), ("\"2\"", "b"), "the cached version 1 is gone");

    let both = join_all(["x", "y"].map(|name| {
        let (api, path) = (&api, &path);
        async move {
            api.send(Method::PUT, path, Some(token), &[("if-match", "\"2\"")], Some(&scenario(name)))
                .await
                .status
                .as_u16()
        }
    }))
    .await;
    assert!(both.contains(&200) && both.contains(&412), "{both:?}");
}

#[tokio::test]
async fn pages_hold_every_scenario_once_and_wrong_fields_are_named() {
    let servers = Servers::start().await;
    let api = Instance::start(config(&servers)).await;
    let session = api.sign_up("ada", "PRO").await;
    let token = text(&session, "access_token");
    for n in 0..7 {
        api.scenario(token, &format!("s{n}")).await;
    }
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = api.get(&format!("/v1/scenarios?limit=3{cursor}"), token).await.expect(200).json();
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 3 && items.iter().all(|item| item.get("input").is_none()));
        seen.extend(items.iter().map(|item| text(item, "name").to_owned()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, ["s6", "s5", "s4", "s3", "s2", "s1", "s0"]);

    let mut wrong = scenario("");
    wrong["input"]["horizon_months"] = json!(121);
    wrong["input"]["revenue"][0]["price"] = json!(9.99);
    let refused = api.post_with_key("/v1/scenarios", token, "wrong", wrong).await.expect(422).json();
    let pointers: Vec<_> = refused["errors"].as_array().unwrap().iter().map(|e| text(e, "pointer")).collect();
    assert!(
        ["/name", "/input/horizon_months", "/input/revenue/0/price"].iter().all(|p| pointers.contains(p)),
        "{pointers:?}"
    );
}

/// Runs all at once, answers in order.
pub(crate) async fn join_all<T>(work: impl IntoIterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut open: Vec<_> = work.into_iter().map(|work| (Box::pin(work), None)).collect();
    std::future::poll_fn(|context| {
        let mut pending = false;
        for (work, done) in &mut open {
            if done.is_none() {
                match work.as_mut().poll(context) {
                    std::task::Poll::Ready(value) => *done = Some(value),
                    std::task::Poll::Pending => pending = true,
                }
            }
        }
        if pending { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    open.into_iter().map(|(_, done)| done.expect("finished")).collect()
}

#[tokio::test]
async fn calculators_answer_exactly_and_name_each_wrong_field() {
    let servers = Servers::start().await;
    let api = Instance::start(config(&servers)).await;
    api.sign_up("ada", "FREE").await;
    let session = api.log_in("ada").await;
    let token = text(&session, "access_token");
    let ask = async |name: &str, body: Value| {
        api.send(Method::POST, &format!("/v1/calculators/{name}"), Some(token), &[], Some(&body)).await
    };

    let flows = json!(["-15000", "1500", "2500", "3500", "4500", "6000"]);
    let npv = ask("npv", json!({ "rate": "0.05", "flows": flows })).await.expect(200);
    assert_eq!(npv.json(), json!({ "value": "122.894854950943" }));
    assert_eq!(npv.header("cache-control"), "private, no-store");
    let roots = ask("irr", json!({ "flows": ["-100", "220", "-121"] })).await.expect(200).json();
    assert_eq!(roots, json!({ "roots": ["0.100000000000"] }));
    let wrong = ask("pmt", json!({ "rate": "0.1", "periods": 0, "pv": 5 })).await.expect(422).json();
    assert_eq!((&wrong["errors"][0]["pointer"], &wrong["errors"][1]["pointer"]), (&json!("/periods"), &json!("/pv")));
    let huge = ask("fv", json!({ "rate": "10", "periods": 1200, "pmt": "1" })).await;
    assert_eq!(huge.code(), (422, "amount_out_of_range".to_owned()));
    let none = ask("nper", json!({ "rate": "0", "pmt": "0", "pv": "1" })).await.expect(200).json();
    assert_eq!(none, json!({ "value": null }));
}
