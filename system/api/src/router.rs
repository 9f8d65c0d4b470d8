//! The groups of routes with their layers around them, as one service.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, StatusCode};
use axum::middleware::from_fn_with_state;
use forecastle_domain::Right;
use utoipa_axum::router::OpenApiRouter;

use crate::error::ApiError;
use crate::layers::{self, Entrance, Guard, Operations};
use crate::routes;
use crate::state::AppState;

/// Everything an instance answers.
pub(crate) fn router(state: AppState) -> Router {
    let mut protected = OpenApiRouter::new();
    for right in Right::ALL {
        let group = routes::of_right(*right);
        // A layer around no route at all is refused by the router.
        if !group.get_openapi().paths.paths.is_empty() {
            let guard = Guard { state: state.clone(), right: *right };
            protected = protected.merge(group.route_layer(from_fn_with_state(guard, layers::authenticate)));
        }
    }
    let credentials = routes::credentials().route_layer(from_fn_with_state(state.clone(), layers::limit_credentials));
    let signed = routes::signed().layer(DefaultBodyLimit::max(state.config.webhook_bytes_max));
    let entrance = Entrance { state: state.clone(), authenticated: Arc::new(operations(&protected)) };
    let body_limit = DefaultBodyLimit::max(state.config.body_bytes_max);
    let (router, _) = routes::public().merge(signed).merge(credentials).merge(protected).split_for_parts();
    router
        .fallback(|| async { ApiError::not_found() })
        .method_not_allowed_fallback(|| async { ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed") })
        .layer((from_fn_with_state(entrance, layers::enter), body_limit))
        .with_state(state)
}

/// What a group answers: the methods of each path.
fn operations(group: &OpenApiRouter<AppState>) -> Operations {
    let paths = group.get_openapi().paths.paths.iter().map(|(path, item)| {
        let documented = [
            (Method::GET, &item.get),
            // Answered by the handler of GET.
            (Method::HEAD, &item.get),
            (Method::POST, &item.post),
            (Method::PUT, &item.put),
            (Method::PATCH, &item.patch),
            (Method::DELETE, &item.delete),
        ];
        let answered = documented.into_iter().filter(|(_, operation)| operation.is_some());
        (path.clone(), answered.map(|(method, _)| method).collect())
    });
    paths.collect()
}
