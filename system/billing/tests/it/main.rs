//! The billing run against a real PostgreSQL and a small provider that keeps its own book.

mod books;
mod provider;
