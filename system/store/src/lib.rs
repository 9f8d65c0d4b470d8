//! The only SQL and Redis of Forecastle; one module per aggregate.
