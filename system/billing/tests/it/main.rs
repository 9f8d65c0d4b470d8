//! The billing run against a real PostgreSQL and a small provider that keeps its own book.

mod bed;
mod books;
mod caches;
mod credit_notes;
mod dunning;
mod events;
mod moods;
mod plan_changes;
mod plans;
mod released;
mod seeded;
