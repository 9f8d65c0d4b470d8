//! Which request is which product event. Requests that machines repeat by themselves are none.

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use forecastle_domain::{TenantId, UserId};
use forecastle_telemetry::ProductEvent;

use crate::state::AppState;

/// The event that a request of a signed-in user is, if it succeeds.
pub(crate) fn of(request: &Request) -> Option<ProductEvent> {
    let route = request.extensions().get::<MatchedPath>()?;
    event(request.method(), route.as_str())
}

fn event(method: &Method, route: &str) -> Option<ProductEvent> {
    Some(match (method.as_str(), route) {
        ("POST", "/v1/logout") => ProductEvent::LoggedOut,
        ("POST", "/v1/scenarios") => ProductEvent::ScenarioCreated,
        ("PUT", "/v1/scenarios/{id}") => ProductEvent::ScenarioEdited,
        ("GET", "/v1/scenarios/{id}") => ProductEvent::ScenarioViewed,
        ("POST", "/v1/forecasts") => ProductEvent::ForecastRequested,
        ("GET", "/v1/forecasts/{id}") => ProductEvent::ForecastViewed,
        ("GET", "/v1/dashboard") => ProductEvent::DashboardViewed,
        ("GET", "/v1/invoices") => ProductEvent::InvoicesViewed,
        _ => return None,
    })
}

/// Tells it, if anybody listens. Never waits.
pub(crate) fn record(state: &AppState, event: ProductEvent, tenant: TenantId, user: UserId) {
    if let Some(analytics) = &state.config.analytics {
        analytics.record(event, tenant, user);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_that_is_an_event_is_a_route_that_exists() {
        let document: serde_json::Value = serde_json::from_str(&crate::openapi()).unwrap();
        let mut events = 0;
        for (path, item) in document["paths"].as_object().unwrap() {
            for method in item.as_object().unwrap().keys() {
                let method: Method = method.to_uppercase().parse().unwrap();
                events += usize::from(event(&method, path).is_some());
            }
        }
        assert_eq!(events, 8);
    }
}
