//! One module for each kind of job.

pub(crate) mod forecast;
