//! Seeded customers are customers: they log in and find their past.

use forecastle_store::seed::{SeedPlan, seed};
use serde_json::json;
use sqlx::{Connection as _, PgConnection};

use crate::fixtures::{Instance, PASSWORD, config, scenario};
use crate::servers::Servers;

#[tokio::test]
async fn a_seeded_customer_logs_in_and_finds_its_scenarios_forecasts_and_invoices() {
    let servers = Servers::start().await;
    let admin_url = servers.database_url("postgres");
    let api = Instance::start(config(&servers)).await;
    // The hash that this instance's own settings make of the password.
    api.sign_up("ada", "STARTER").await;
    let mut admin = PgConnection::connect(&admin_url).await.unwrap();
    let password_hash: String =
        sqlx::query_scalar("SELECT password_hash FROM app.users").fetch_one(&mut admin).await.unwrap();
    let input = scenario("seeded")["input"].take();
    let forecast = forecastle_forecast::run(&input, 1, &|| false).unwrap();
    let plan = SeedPlan {
        customers: 10,
        scenarios_each: 2,
        forecasts_each: 3,
        months: 2,
        email_prefix: "seeded".to_owned(),
        password_hash,
        input,
        engine_version: forecastle_forecast::ENGINE_VERSION.to_owned(),
        result: forecast.result.clone(),
        result_hash: forecast.result_hash,
        at: chrono::Utc::now(),
        seed: 1,
        connections: 1,
    };
    assert_eq!(seed(&admin_url, &plan).await.unwrap().customers, 10);

    // Number 9 is on PRO.
    let email = format!("{}-9@seed.example", plan.email_prefix);
    let tokens = api.post("/v1/login", json!({ "email": email, "password": PASSWORD })).await.expect(200).json();
    let token = tokens["access_token"].as_str().unwrap();
    let dashboard = api.get("/v1/dashboard", token).await.expect(200).json();
    assert_eq!((&dashboard["plan"], &dashboard["scenarios"]), (&json!("PRO"), &json!(2)));
    assert_eq!(dashboard["forecasts"]["succeeded"], json!(3));
    let newest = dashboard["recent_forecasts"][0]["id"].as_str().unwrap();
    let read = api.get(&format!("/v1/forecasts/{newest}"), token).await.expect(200).json();
    assert_eq!(read["result"], forecast.result);
    let invoices = api.get("/v1/invoices", token).await.expect(200).json();
    assert_eq!(invoices["items"][0]["state"], json!("paid"));
}
