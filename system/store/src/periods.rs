//! What billing knows of a tenant.
