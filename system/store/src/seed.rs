//! Customers in bulk.
