//! Signed-in customers for the load: their sessions are written straight into the tables and their access
//! tokens signed here, since logging 5,000 in one by one would measure argon2.

use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use forecastle_api::KeySet;
use forecastle_api::tokens::Subject;
use hyper::header::HeaderValue;
use sha2::{Digest as _, Sha256};
use sqlx::FromRow;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::bed::SIGNING_KEYS;

/// The one password of all seeded customers.
pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// A signed-in owner with a scenario.
pub(crate) struct Customer {
    pub(crate) tenant: Uuid,
    pub(crate) email: String,
    pub(crate) is_pro: bool,
    pub(crate) scenario: Uuid,
    /// A scenario with a simulation of 1,000 paths; PRO customers have one.
    pub(crate) simulated: Option<Uuid>,
    /// `Bearer …`
    pub(crate) authorization: HeaderValue,
    /// An address of its own, for `X-Forwarded-For`.
    pub(crate) address: HeaderValue,
    /// Version of `scenario`; held while an edit is under way, so that no two of ours collide.
    pub(crate) version: tokio::sync::Mutex<i32>,
    /// Good for one refresh; held while one is under way.
    pub(crate) refresh_token: tokio::sync::Mutex<String>,
    /// The latest forecast asked for, if any.
    pub(crate) forecast: Mutex<Option<Uuid>>,
}

#[derive(FromRow)]
struct Row {
    tenant_id: Uuid,
    user_id: Uuid,
    session_id: Uuid,
    email: String,
    plan: String,
    scenario_id: Uuid,
    version: i32,
    simulated_id: Option<Uuid>,
    forecast_id: Option<Uuid>,
}

/// Opens a session for each of `wanted` seeded customers, the first by number of their prefix.
pub(crate) async fn sign_in(admin: &mut PgConnection, wanted: u32) -> anyhow::Result<Vec<Customer>> {
    let uncertainty = crate::inputs::uncertainty(1_000);
    // Of the session's id: first the secret, then what is stored of it.
    sqlx::query(
        "WITH picked AS (
             SELECT u.tenant_id, u.user_id, gen_random_uuid() AS session_id
             FROM app.users u ORDER BY length(u.email), u.email LIMIT $1),
         opened AS (
             INSERT INTO app.sessions (tenant_id, session_id, user_id, created_at, expires_at)
             SELECT tenant_id, session_id, user_id, now(), now() + interval '30 days' FROM picked)
         INSERT INTO app.refresh_tokens (tenant_id, token_hash, session_id, issued_at, expires_at)
         SELECT tenant_id, sha256(sha256(convert_to(session_id::text, 'UTF8'))), session_id, now(),
                now() + interval '30 days' FROM picked",
    )
    .bind(i64::from(wanted))
    .execute(&mut *admin)
    .await
    .context("open sessions")?;
    sqlx::query(
        "INSERT INTO app.scenarios (tenant_id, scenario_id, name, input, version, created_at, updated_at)
         SELECT DISTINCT ON (s.tenant_id) s.tenant_id, gen_random_uuid(), 'Simulated',
                s.input || jsonb_build_object('uncertainty', $1::jsonb), 1, now(), now()
         FROM app.scenarios s JOIN app.tenants t USING (tenant_id) JOIN app.sessions o USING (tenant_id)
         WHERE t.plan = 'PRO' AND NOT s.input ? 'uncertainty'",
    )
    .bind(&uncertainty)
    .execute(&mut *admin)
    .await
    .context("add simulated scenarios")?;
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT o.tenant_id, o.user_id, o.session_id, u.email, t.plan, s.scenario_id, s.version,
                (SELECT x.scenario_id FROM app.scenarios x WHERE x.tenant_id = o.tenant_id AND x.name = 'Simulated'
                 LIMIT 1) AS simulated_id,
                (SELECT f.forecast_id FROM app.forecasts f WHERE f.tenant_id = o.tenant_id LIMIT 1) AS forecast_id
         FROM app.sessions o JOIN app.users u USING (tenant_id, user_id) JOIN app.tenants t USING (tenant_id)
         JOIN LATERAL (SELECT scenario_id, version FROM app.scenarios x
                       WHERE x.tenant_id = o.tenant_id AND x.name <> 'Simulated'
                       ORDER BY scenario_id LIMIT 1) s ON true
         ORDER BY length(u.email), u.email",
    )
    .fetch_all(&mut *admin)
    .await
    .context("read the signed-in customers")?;
    let keys = KeySet::parse(SIGNING_KEYS).context("read the signing key")?;
    let now_s = u64::try_from(chrono::Utc::now().timestamp()).unwrap_or(0);
    rows.into_iter().enumerate().map(|(index, row)| row.sign_in(index, &keys, now_s)).collect()
}

impl Row {
    fn sign_in(self, index: usize, keys: &KeySet, now_s: u64) -> anyhow::Result<Customer> {
        let subject =
            Subject { tenant: self.tenant_id.into(), user: self.user_id.into(), session: self.session_id.into() };
        let token = keys.issue(subject, now_s, Duration::from_secs(4 * 3600));
        let secret = Sha256::digest(self.session_id.to_string().as_bytes());
        let address = format!("10.{}.{}.{}", index >> 16 & 255, index >> 8 & 255, index & 255);
        Ok(Customer {
            tenant: self.tenant_id,
            email: self.email,
            is_pro: self.plan == "PRO",
            scenario: self.scenario_id,
            simulated: self.simulated_id,
            authorization: HeaderValue::from_str(&format!("Bearer {token}"))?,
            address: HeaderValue::from_str(&address)?,
            version: tokio::sync::Mutex::new(self.version),
            refresh_token: tokio::sync::Mutex::new(URL_SAFE_NO_PAD.encode(secret)),
            forecast: Mutex::new(self.forecast_id),
        })
    }
}
