//! The last look at a run, after heal and quiescence: rows, cache, connections, outputs. Reads only.

mod connections;
mod leaks;
mod redis_scan;
mod replica_reads;
mod rows;

pub use connections::{in_use_connections, read_connections};
pub use leaks::{scan_file, scan_text};
pub use redis_scan::scan_redis;
pub use replica_reads::reads_of;
pub use rows::read_rows;

use nogo_invariants::final_state::{Charge, ProviderBook};

use crate::provider::BookSnapshot;

/// The provider's book in the form the laws read, charges in the order they were made.
pub fn provider_book(book: &BookSnapshot) -> ProviderBook {
    let mut charges: Vec<Charge> = book
        .charges
        .iter()
        .map(|charge| Charge {
            charge_id: charge.id.clone(),
            idempotency_key: charge.idempotency_key.clone(),
            amount_minor: charge.amount_minor,
            currency: charge.currency.clone(),
            reference: charge.reference.clone(),
            payment_token: charge.payment_token.clone(),
            charged_t_ns: charge.time_ns,
        })
        .collect();
    charges.sort_by(|a, b| (a.charged_t_ns, &a.charge_id).cmp(&(b.charged_t_ns, &b.charge_id)));
    ProviderBook {
        charges,
        requests_seen: book.requests.iter().filter(|request| request.method == "POST").count() as u64,
        duplicates_answered: book.counts.replayed,
        answers_lost: book.counts.answers_lost + book.counts.errors_after_effect,
    }
}
