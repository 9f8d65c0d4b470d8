//! Signs tenants up and plants what the load and the probes need: sessions, scenarios, a first forecast.

use std::sync::Arc;

use anyhow::{Context, bail};
use nogo_invariants::history::{Args, F};
use rand::RngExt;
use serde_json::json;

use super::driver::{Call, was_never_sent};
use super::load::Shared;
use super::sessions::session_answer;
use super::stories::{Story, draw_scenario};
use super::tenants::{TenantProfile, client_address};
use super::world::{LogicalClient, Tenant};
use crate::client::{Request, Session};

/// Tenants that are seeded at once; password hashing takes a core each.
const SEEDERS: usize = 6;
/// A sign-up that was refused or never sent is tried again this often.
const ATTEMPTS_MAX: usize = 4;

/// Signs up every profile and plants its data; tenants come back in the order of the profiles.
///
/// # Errors
/// Where a sign-up is not acknowledged, or a tenant ends without a session, a scenario or a forecast.
pub(super) async fn seed_tenants(shared: &Arc<Shared>, profiles: Vec<TenantProfile>) -> anyhow::Result<Vec<Tenant>> {
    let mut seeders = tokio::task::JoinSet::new();
    let count = profiles.len();
    let queue = Arc::new(std::sync::Mutex::new(profiles));
    for _ in 0..SEEDERS.min(count) {
        let (shared, queue) = (Arc::clone(shared), Arc::clone(&queue));
        seeders.spawn(async move {
            let mut seeded = Vec::new();
            loop {
                let Some(profile) = queue.lock().expect("profiles lock").pop() else { return anyhow::Ok(seeded) };
                let label = profile.label.clone();
                seeded.push(seed_tenant(&shared, profile).await.with_context(|| format!("seed {label}"))?);
            }
        });
    }
    let mut tenants = Vec::with_capacity(count);
    while let Some(seeded) = seeders.join_next().await {
        tenants.extend(seeded.context("join seeder")??);
    }
    tenants.sort_by_key(|tenant| tenant.profile.index);
    Ok(tenants)
}

async fn seed_tenant(shared: &Arc<Shared>, profile: TenantProfile) -> anyhow::Result<Tenant> {
    let clients = if profile.hot { shared.spec.clients_per_hot_tenant } else { shared.spec.clients_per_tenant };
    let mut clients: Vec<LogicalClient> = (0..clients.max(1))
        .map(|number| LogicalClient {
            process: format!("client-{}-{number}", profile.label),
            address: client_address(0, profile.index * 16 + number),
            session: None,
        })
        .collect();
    let session = sign_up(shared, &profile, &clients[0]).await?;
    let (tenant_id, user_id) = (session.tenant_id.clone(), session.user_id.clone());
    clients[0].session = Some(session);
    shared.driver.tenant_has_data();
    let tenant = Tenant::new(profile, tenant_id, user_id, clients);
    for (number, client) in tenant.clients.iter().enumerate().skip(1) {
        let mut client = client.lock().await;
        let signed_in = shared.driver.ensure_session(&tenant, &mut client, &shared.shelf, number).await;
        anyhow::ensure!(signed_in, "sign in {}", client.process);
    }
    plant_data(shared, &tenant).await?;
    Ok(tenant)
}

async fn sign_up(shared: &Shared, profile: &TenantProfile, client: &LogicalClient) -> anyhow::Result<Session> {
    let mut request = Request::new("POST", "/v1/signup").with_body(json!({
        "organization": profile.organization,
        "name": profile.owner_name,
        "email": profile.email,
        "password": profile.password,
        "plan": profile.plan,
        "currency": profile.currency,
        "time_zone": profile.time_zone,
        "tax_rate_ppm": profile.tax_rate_ppm,
        "payment_token": profile.payment_token,
    }));
    request.forwarded_for.clone_from(&client.address);
    let label = format!("{}/s1", profile.label);
    let mut call = Call::new(F::Signup, &client.process, request);
    call.tenant = Some(profile.label.clone());
    call.opens_session = Some(label.clone());
    call.instance = profile.index;
    call.args = Args {
        plan: Some(profile.plan.clone()),
        currency: Some(profile.currency.clone()),
        zone: Some(profile.time_zone.clone()),
        tax_rate_ppm: u32::try_from(profile.tax_rate_ppm).ok(),
        ..Args::default()
    };
    for _ in 0..ATTEMPTS_MAX {
        let done = shared.driver.call(call.clone()).await;
        if let Some(answer) = session_answer(&done) {
            return Ok(Session::new(answer, label, done.op));
        }
        let limited = done.status() == Some(429);
        if !limited && !was_never_sent(&done) {
            let body = done.exchange.answer().map(|answer| String::from_utf8_lossy(&answer.body).into_owned());
            bail!("sign-up ended {:?} with status {:?}: {}", done.outcome, done.status(), body.unwrap_or_default());
        }
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    bail!("sign-up was refused {ATTEMPTS_MAX} times")
}

/// Two scenarios and a first forecast; a hot or PRO tenant gets a simulated scenario as well.
async fn plant_data(shared: &Arc<Shared>, tenant: &Tenant) -> anyhow::Result<()> {
    let mut rng = shared.randomness.stream(&format!("data/planted-{}", tenant.profile.index));
    let mut client = tenant.clients[0].lock().await;
    let intended_ns = shared.driver.recorder().clock().now_ns();
    let story = Story { shared, tenant, instance: rng.random_range(0..1_000), intended_ns, hangs_up: None };
    let simulated = if tenant.profile.plan == "FREE" { 0 } else { 1 };
    for number in 0..2 + simulated {
        let draft = draw_scenario(&mut rng, shared, &tenant.profile, number == 2);
        story.create_scenario(&mut client, draft, &mut rng).await.context("plant a scenario")?;
    }
    let known = tenant.scenario(0, Some(false)).context("a planted scenario")?;
    story.request_forecast_on(&mut client, &known.id, &mut rng).await.context("plant a forecast")?;
    Ok(())
}
