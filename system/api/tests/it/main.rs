//! The interface over real HTTP, on a PostgreSQL and a Redis of each test's own.

mod auth;
mod cut_links;
mod failure;
mod fixtures;
mod forecast_control;
mod hang_up;
mod hostile_redis;
mod http_shape;
mod idempotency;
mod interruption;
mod isolation;
mod jwt_attacks;
mod limits;
mod mail;
mod members;
mod paying;
mod payment_method;
mod plan_changes;
mod product;
mod replicas;
mod roles;
mod servers;
mod sessions;
mod streams;
mod webhooks;
