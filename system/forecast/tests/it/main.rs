//! The forecast from the outside: JSON in, JSON and hash out.

mod calculators;
mod extremes;
mod identities;
mod refusals;
mod scenario;
mod section_two;
mod uncertainty;
mod vectors;
