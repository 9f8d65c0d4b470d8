//! Sign-up: a tenant with its owner, signed in at once; the address is verified by mail meanwhile.

use axum::extract::State;
use axum::http::StatusCode;
use chrono_tz::Tz;
use forecastle_domain::{
    CredentialError, Currency, Email, LaunchPhase, Password, PaymentToken, Plan, SessionId, TenantId, TokenPurpose,
    UserId,
};
use forecastle_store::identity::{self, EMAIL_CONSTRAINT, NewTenant};
use forecastle_store::sessions;
use forecastle_telemetry::ProductEvent;
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::answers::{Tokens, fresh_secret};
use crate::detached::detached;
use crate::error::{ApiError, FieldProblem, Problem};
use crate::extract::{Fields, JsonBody};
use crate::invitation::CODE_LENGTH_MAX;
use crate::product_events;
use crate::reply::Reply;
use crate::state::AppState;
use crate::texts::{CurrencyCode, EmailText, PlanName, ShortText};

/// A sign-up. Has no `Debug`: it holds a password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "documents the body, which is read field by field")]
pub(crate) struct SignUp {
    organization: ShortText,
    /// The owner's name.
    name: ShortText,
    /// The owner's address.
    email: EmailText,
    /// 12 to 128 characters.
    #[schema(format = "password", min_length = 12, max_length = 128)]
    password: String,
    /// FREE if absent.
    #[schema(value_type = PlanName, required = false)]
    plan: Option<PlanName>,
    currency: CurrencyCode,
    /// IANA name.
    #[schema(format = "iana-time-zone", example = "Europe/Berlin")]
    time_zone: String,
    /// Parts per million; 0 if absent.
    #[schema(value_type = i64, required = false, minimum = 0, maximum = 1_000_000)]
    tax_rate_ppm: Option<i64>,
    /// The payment provider's token; required for a paid plan. Never a card number.
    #[schema(max_length = 200, pattern = "^[!-~]*$", example = "tok_visa_4f9c")]
    payment_token: Option<String>,
    /// While customers are taken by invitation.
    #[schema(max_length = 100, pattern = r"^[^\u0000]*$")]
    invitation_code: Option<String>,
}

struct Accepted {
    organization: String,
    name: String,
    email: Email,
    password: Password,
    plan: Plan,
    currency: Currency,
    zone: Tz,
    tax_rate_ppm: i64,
    payment_token: Option<String>,
    invitation_code: Option<String>,
}

/// Make a tenant and its owner, and sign the owner in.
#[utoipa::path(post, path = "/v1/signup", tag = "auth", request_body = SignUp, responses(
    (status = 201, body = Tokens),
    (status = 400, body = Problem, content_type = "application/problem+json", description = "The body is not JSON."),
    (status = 403, body = Problem, content_type = "application/problem+json", description = "No more customers for now, or only invited ones."),
    (status = 409, body = Problem, content_type = "application/problem+json", description = "The address is taken."),
    (status = 422, body = Problem, content_type = "application/problem+json", description = "Fields are wrong."),
))]
pub(crate) async fn sign_up(State(state): State<AppState>, JsonBody(body): JsonBody) -> Result<Reply, ApiError> {
    let accepted = accept(&body)?;
    if state.config.launch_phase.is_some_and(LaunchPhase::needs_invitation)
        && !state.config.invited.admits(&accepted.email, accepted.invitation_code.as_deref())
    {
        return Err(ApiError::new(StatusCode::FORBIDDEN, "invitation_required")
            .detail("Customers are taken by invitation at the moment."));
    }
    if let Some(cap) = state.config.customers_max()
        && identity::tenants_count(&state.db).await? >= cap
    {
        return Err(cap_reached());
    }
    let password_hash = state.passwords.hash(accepted.password.expose().to_owned()).await?;
    let tokens = detached(async move { store(&state, accepted, password_hash).await }).await?;
    Ok(Reply::json(StatusCode::CREATED, &tokens))
}

async fn store(state: &AppState, accepted: Accepted, password_hash: String) -> Result<Tokens, ApiError> {
    let tenant = TenantId::from_uuid(Uuid::now_v7());
    let user = UserId::from_uuid(Uuid::now_v7());
    let session = SessionId::from_uuid(Uuid::new_v4());
    let secret = fresh_secret();
    let new = NewTenant {
        user_id: user,
        organization: accepted.organization,
        plan: accepted.plan,
        currency: accepted.currency,
        zone: accepted.zone,
        tax_rate_ppm: accepted.tax_rate_ppm,
        payment_token: accepted.payment_token,
        email: accepted.email,
        name: accepted.name,
        password_hash,
    };
    let mut tx = state.db.tenant(tenant).begin().await?;
    match identity::sign_up(&mut tx, &new).await {
        Err(error) if error.is_conflict_on(EMAIL_CONSTRAINT) => {
            return Err(ApiError::new(StatusCode::CONFLICT, "email_taken")
                .detail("An account with this e-mail address exists."));
        }
        done => done?,
    }
    let config = &state.config;
    // Asked before as well, so that nobody's password is hashed for nothing; only here does it hold.
    if let Some(cap) = config.customers_max()
        && identity::tenants_count_locked(&mut tx).await? > cap
    {
        return Err(cap_reached());
    }
    sessions::open(&mut tx, session, user, &secret, config.lifetimes()).await?;
    if let Some(mail) = &config.mail {
        mail.issue(&mut tx, user, TokenPurpose::EmailVerification).await?;
    }
    tx.commit().await?;
    product_events::record(state, ProductEvent::SignedUp, tenant, user);
    Ok(Tokens::issue(state, tenant, user, session, &secret))
}

fn cap_reached() -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, "customer_cap_reached").detail("No further customers are taken at the moment.")
}

fn accept(body: &[u8]) -> Result<Accepted, ApiError> {
    let mut fields = Fields::parse(body)?;
    let organization = fields.line("organization", 1..=200);
    let name = fields.line("name", 1..=200);
    let email = read_credential(&mut fields, "email", |text| Email::parse(&text));
    let password = read_credential(&mut fields, "password", Password::parse);
    let plan = fields.word_or("plan", Plan::Free, "must be FREE, STARTER or PRO");
    let currency = fields.word("currency", "must be USD, EUR, GBP, JPY or KWD");
    let zone = fields.word("time_zone", "must be an IANA time zone");
    let tax_rate_ppm = fields.integer_or("tax_rate_ppm", 0, 0..=1_000_000);
    let payment_token = payment_token(&mut fields);
    if plan.is_some_and(|plan| plan != Plan::Free) && payment_token.is_none() {
        let message = "is required for a paid plan";
        fields.problem(FieldProblem::new("/payment_token", "required", message));
    }
    let invitation_code = fields.optional_text("invitation_code", CODE_LENGTH_MAX);
    fields.finish()?;
    let read = (email, password, plan, currency, zone);
    let (Some(email), Some(password), Some(plan), Some(currency), Some(zone)) = read else {
        return Err(ApiError::internal("a refused field was not noted"));
    };
    Ok(Accepted {
        organization,
        name,
        email,
        password,
        plan,
        currency,
        zone,
        tax_rate_ppm,
        payment_token,
        invitation_code,
    })
}

/// Null and an empty string are none.
fn payment_token(fields: &mut Fields) -> Option<String> {
    let text = fields.optional_text("payment_token", 200).filter(|token| !token.is_empty())?;
    match PaymentToken::parse(&text) {
        Ok(token) => Some(token.as_str().to_owned()),
        Err(error) => {
            fields.problem(FieldProblem::new("/payment_token", error.code(), error.to_string()));
            // Noted: the message "required" beside it would mislead.
            Some(String::new())
        }
    }
}

/// A credential that holds to its own rules; `None` if it was wrong and noted.
pub(super) fn read_credential<T>(
    fields: &mut Fields,
    name: &'static str,
    parse: impl FnOnce(String) -> Result<T, CredentialError>,
) -> Option<T> {
    let text = fields.string(name)?;
    match parse(text) {
        Ok(value) => Some(value),
        Err(error) => {
            fields.problem(FieldProblem::new(format!("/{name}"), error.code(), error.to_string()));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(change: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
        let mut body = serde_json::json!({
            "organization": "Acme", "name": "Ada", "email": "ada@example.com", "password": "correct horse battery",
            "currency": "EUR", "time_zone": "Europe/Berlin",
        });
        change(&mut body);
        body.to_string().into_bytes()
    }

    fn refused(change: impl FnOnce(&mut serde_json::Value)) -> String {
        accept(&body(change)).err().map(|error| error.body()).unwrap_or_default()
    }

    #[test]
    fn a_sign_up_defaults_to_the_free_plan_without_tax() {
        let accepted = accept(&body(|_| ())).ok().unwrap();
        assert_eq!((accepted.plan, accepted.tax_rate_ppm), (Plan::Free, 0));
    }

    #[test]
    fn wrong_fields_are_named_and_never_repeated() {
        let answer = refused(|b| b["password"] = "hunter2".into());
        assert!(answer.contains("/password") && answer.contains("too_short") && !answer.contains("hunter2"));
        assert!(refused(|b| b["plan"] = "PRO".into()).contains("/payment_token"));
        let card = refused(|b| b["payment_token"] = "4242424242424242".into());
        assert!(card.contains("card_number") && !card.contains("4242") && !card.contains("required"));
        assert!(refused(|b| b["currency"] = "CHF".into()).contains("/currency"));
        assert!(refused(|b| b["time_zone"] = "Mars/Olympus".into()).contains("/time_zone"));
        assert!(refused(|b| b["tax_rate_ppm"] = 1_000_001.into()).contains("/tax_rate_ppm"));
        assert!(refused(|b| b["email"] = 7.into()).contains("wrong_type"));
    }
}
