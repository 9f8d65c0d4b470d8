//! The binary itself, as processes that are stopped and killed.

mod biller;
mod workers;
