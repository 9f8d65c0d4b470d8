//! Integration tests of the verdict crate: the oracles against hand-worked vectors.

mod model_billing;
mod model_compare;
mod model_forecast;
mod model_speed;
