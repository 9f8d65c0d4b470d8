//! Double-entry postings.
