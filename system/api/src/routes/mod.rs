//! One module per resource. Each operation is registered with its documentation, in exactly one group:
//! open to everybody ([`public`], [`credentials`]), or reached only with a session that stands and a
//! role that has the group's right ([`of_right`]). There is no other way in, so an operation without a
//! declared right cannot be registered; a handler need not, and must not, look at the role itself.

mod answers;
mod audit_log;
pub(crate) mod calculators;
mod credit_notes;
mod dashboard;
mod email_verification;
mod flags;
mod forecast_control;
mod forecast_events;
mod forecast_result;
mod forecasts;
mod health;
mod invoice_payment;
mod invoices;
mod login;
mod logout;
mod me;
mod password;
mod password_reset;
mod payment_method;
mod payments;
mod plan;
mod plan_changes;
mod scenario_input;
mod scenarios;
mod sessions;
mod signup;
mod token;
mod usage;
mod users;
mod webhooks;

use forecastle_domain::Right;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::state::AppState;

/// Operations open to everybody.
pub(crate) fn public() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(token::refresh))
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
        .routes(routes!(health::openapi))
        .routes(routes!(health::jwks))
}

/// Operations open to everybody where a password can be guessed or an account made: limited tighter.
pub(crate) fn credentials() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(signup::sign_up))
        .routes(routes!(login::log_in))
        .routes(routes!(email_verification::confirm))
        .routes(routes!(password_reset::request))
        .routes(routes!(password_reset::confirm))
}

/// Operations that a signature lets in instead of a session.
pub(crate) fn signed() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(webhooks::receive))
}

/// Operations that need a session and this right. Who lacks the right gets 403 `role_forbidden` before
/// anything else of the request is looked at; the OpenAPI document says so by itself.
pub(crate) fn of_right(right: Right) -> OpenApiRouter<AppState> {
    let group = OpenApiRouter::new();
    match right {
        Right::Account => group
            .routes(routes!(logout::log_out))
            .routes(routes!(me::read))
            .routes(routes!(email_verification::resend))
            .routes(routes!(password::change))
            .routes(routes!(sessions::list))
            .routes(routes!(sessions::revoke)),
        Right::Read => group
            .routes(routes!(scenarios::list))
            .routes(routes!(scenarios::read))
            .routes(routes!(forecasts::list))
            .routes(routes!(forecast_events::stream))
            .routes(routes!(forecasts::read))
            .routes(routes!(calculators::npv))
            .routes(routes!(calculators::pmt))
            .routes(routes!(calculators::pv))
            .routes(routes!(calculators::fv))
            .routes(routes!(calculators::nper))
            .routes(routes!(calculators::mirr))
            .routes(routes!(calculators::irr))
            .routes(routes!(calculators::percentile))
            .routes(routes!(calculators::amortisation))
            .routes(routes!(dashboard::read))
            .routes(routes!(plan::read))
            .routes(routes!(flags::read))
            .routes(routes!(usage::read))
            .routes(routes!(invoices::list))
            .routes(routes!(invoices::read))
            .routes(routes!(invoice_payment::upcoming))
            .routes(routes!(payments::list))
            .routes(routes!(payments::read))
            .routes(routes!(credit_notes::list))
            .routes(routes!(credit_notes::read))
            .routes(routes!(users::list))
            .routes(routes!(users::read)),
        Right::Write => group
            .routes(routes!(scenarios::create))
            .routes(routes!(scenarios::edit))
            .routes(routes!(forecasts::request))
            .routes(routes!(forecast_control::cancel))
            .routes(routes!(forecast_control::retry)),
        Right::ManageUsers => group
            .routes(routes!(users::add))
            .routes(routes!(users::change, users::remove))
            .routes(routes!(audit_log::list)),
        Right::ManageBilling => group
            .routes(routes!(payment_method::read, payment_method::replace))
            .routes(routes!(plan_changes::request))
            .routes(routes!(plan_changes::withdraw))
            .routes(routes!(invoice_payment::pay)),
    }
}
