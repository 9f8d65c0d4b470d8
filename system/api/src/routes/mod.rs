//! One module per resource. Each operation is registered with its documentation, in one of two
//! groups: whoever is in [`protected`] is reached only with a session that stands.

mod answers;
mod dashboard;
mod forecasts;
mod health;
mod invoices;
mod login;
mod logout;
mod me;
mod plan;
mod scenarios;
mod signup;
mod token;
mod usage;

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
    OpenApiRouter::new().routes(routes!(signup::sign_up)).routes(routes!(login::log_in))
}

/// Operations that need a session.
pub(crate) fn protected() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(logout::log_out))
        .routes(routes!(me::read))
        .routes(routes!(scenarios::create, scenarios::list))
        .routes(routes!(scenarios::read, scenarios::edit))
        .routes(routes!(forecasts::request, forecasts::list))
        .routes(routes!(forecasts::read))
        .routes(routes!(dashboard::read))
        .routes(routes!(plan::read))
        .routes(routes!(usage::read))
        .routes(routes!(invoices::list))
        .routes(routes!(invoices::read))
}
