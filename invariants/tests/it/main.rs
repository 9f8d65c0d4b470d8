//! Integration tests of the verdict crate: oracles against hand-worked vectors, laws against tampered runs.

mod model_billing;
mod model_compare;
mod model_forecast;
mod model_speed;

mod bounds;
mod clean;
mod stories;
mod tampered;
