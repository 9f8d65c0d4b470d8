//! Answers that more than one resource gives.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use forecastle_domain::{SessionId, TenantId, UserId};
use forecastle_store::dashboard::PeriodUsage;
use forecastle_store::identity::Terms;
use forecastle_store::sessions::RefreshSecret;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::state::AppState;
use crate::tokens::Subject;

/// A session and the tokens to use it with.
#[derive(Serialize, ToSchema)]
pub(crate) struct Tokens {
    tenant_id: Uuid,
    user_id: Uuid,
    session_id: Uuid,
    /// JWT for the Authorization header.
    access_token: String,
    /// Opaque; good for one refresh.
    refresh_token: String,
    #[schema(example = "Bearer")]
    token_type: &'static str,
    /// Lifetime of the access token, seconds.
    expires_in: u64,
}

impl Tokens {
    pub(crate) fn issue(
        state: &AppState,
        tenant: TenantId,
        user: UserId,
        session: SessionId,
        secret: &RefreshSecret,
    ) -> Self {
        let ttl = state.config.access_ttl;
        let now_s = u64::try_from(Utc::now().timestamp()).unwrap_or(0);
        Self {
            tenant_id: tenant.as_uuid(),
            user_id: user.as_uuid(),
            session_id: session.as_uuid(),
            access_token: state.config.keys.current().issue(Subject { tenant, user, session }, now_s, ttl),
            refresh_token: URL_SAFE_NO_PAD.encode(secret.0),
            token_type: "Bearer",
            expires_in: ttl.as_secs(),
        }
    }
}

/// A new family's first refresh token.
pub(crate) fn fresh_secret() -> RefreshSecret {
    RefreshSecret(rand::random())
}

/// What the running billing period has used.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub(crate) struct Usage {
    /// 0 is the period of the sign-up.
    period_index: u32,
    /// First instant of the period.
    period_start: DateTime<Utc>,
    /// First instant after it.
    period_end: DateTime<Utc>,
    /// Forecasts that succeeded in it.
    forecasts_succeeded: i64,
    /// Requests admitted in it that have not ended without success.
    quota_taken: i64,
    /// Forecasts the plan includes.
    included_forecasts: u32,
    /// Whether further ones are refused instead of charged.
    hard_cap: bool,
}

impl Usage {
    /// `used` is that of the terms' own period.
    pub(crate) fn of(terms: &Terms, used: PeriodUsage) -> Self {
        Self {
            period_index: terms.period.index,
            period_start: terms.period.start,
            period_end: terms.period.end,
            forecasts_succeeded: used.forecasts_succeeded,
            quota_taken: used.quota_taken,
            included_forecasts: terms.plan.included_forecasts(),
            hard_cap: terms.plan.forecast_cap().is_some(),
        }
    }

    /// Whether the period has ended.
    pub(crate) fn is_over(&self, now: DateTime<Utc>) -> bool {
        now >= self.period_end
    }
}
