//! Which cached value a request will ask for, so that it can be looked for in the trip that admits the request.
//!
//! Not for deciding anything: a handler uses what was found only if it asks for the same key itself.

use axum::extract::{FromRequestParts, MatchedPath, Request};
use axum::http::Method;
use axum::http::request::Parts;
use forecastle_domain::{ForecastId, ScenarioId, TenantId};
use forecastle_store::{CacheKey, Peeked};
use uuid::Uuid;

/// The key that the handler of this request will ask for, if it is one of those that are read most.
pub(crate) fn key_of(request: &Request, tenant: TenantId) -> Option<CacheKey> {
    let route = request.extensions().get::<MatchedPath>()?.as_str();
    key(request.method(), route, request.uri().path(), tenant)
}

fn key(method: &Method, route: &str, path: &str, tenant: TenantId) -> Option<CacheKey> {
    let id = || path.rsplit('/').next().and_then(|id| id.parse::<Uuid>().ok());
    match (method.as_str(), route) {
        ("GET", "/v1/scenarios/{id}") => Some(CacheKey::scenario(tenant, ScenarioId::from_uuid(id()?))),
        ("GET", "/v1/forecasts/{id}") => Some(CacheKey::forecast(tenant, ForecastId::from_uuid(id()?))),
        ("GET", "/v1/dashboard") => Some(CacheKey::dashboard(tenant)),
        _ => None,
    }
}

/// What was found for this request, taken out of it.
pub(crate) struct Found(pub(crate) Option<Peeked>);

impl<S: Send + Sync> FromRequestParts<S> for Found {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(parts.extensions.remove()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_of_the_callers_tenant_and_the_paths_id_or_there_is_none() {
        let tenant = TenantId::from_uuid(Uuid::from_u128(1));
        let id = Uuid::from_u128(2);
        let scenario = key(&Method::GET, "/v1/scenarios/{id}", &format!("/v1/scenarios/{id}"), tenant);
        assert_eq!(scenario, Some(CacheKey::scenario(tenant, ScenarioId::from_uuid(id))));
        assert_eq!(key(&Method::GET, "/v1/dashboard", "/v1/dashboard", tenant), Some(CacheKey::dashboard(tenant)));
        assert_eq!(key(&Method::GET, "/v1/scenarios/{id}", "/v1/scenarios/x", tenant), None);
        assert_eq!(key(&Method::PUT, "/v1/scenarios/{id}", &format!("/v1/scenarios/{id}"), tenant), None);
    }

    #[test]
    fn every_route_named_here_exists() {
        let document: serde_json::Value = serde_json::from_str(&crate::openapi()).unwrap();
        for route in ["/v1/scenarios/{id}", "/v1/forecasts/{id}", "/v1/dashboard"] {
            assert!(document["paths"][route].get("get").is_some(), "{route}");
        }
    }
}
