//! Claims, leases and runs forecast jobs.
