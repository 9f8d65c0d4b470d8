//! What the provider knows: one charge per idempotency key, and every request it saw.
//!
//! A charge is booked *before* the answer's fate is decided, so a lost answer never means a lost charge. Which answers
//! are lost is drawn from the seed and the key alone; the order in which requests arrive has no part in it.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use crate::randomness::{Randomness, chance};

/// One charge as the provider booked it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// The provider's own id.
    pub id: String,
    /// Always `succeeded`: a declined card books nothing.
    pub state: String,
    /// Minor units of `currency`.
    pub amount_minor: i64,
    /// ISO 4217.
    pub currency: String,
    /// The key it was charged under; unique in the book.
    pub idempotency_key: String,
    /// The caller's reference, an invoice id.
    pub reference: String,
    /// The token that was charged.
    pub payment_token: String,
    /// Nanoseconds since the run's start.
    pub time_ns: u64,
}

/// One request that reached the provider, whatever came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenRequest {
    /// Nanoseconds since the run's start.
    pub time_ns: u64,
    /// `POST` or `GET`.
    pub method: String,
    /// The idempotency key, empty where the caller sent none.
    pub idempotency_key: String,
    /// What was answered: `charged`, `replayed`, `key_reused`, `declined`, `answer_lost`, `error_after_effect`, `lookup`,
    /// `bad_request`.
    pub outcome: String,
}

/// How often the provider misbehaves on the first charge of a key. Shares are of keys, 0 to 1, and exclude each other.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Behaviour {
    /// The charge is booked, then the connection is cut.
    pub answer_lost_share: f64,
    /// The charge is booked, then a 500 is sent.
    pub error_after_effect_share: f64,
    /// The charge is booked and answered after `slow_ms`.
    pub slow_share: f64,
    /// How slow a slow answer is.
    pub slow_ms: u64,
}

impl Behaviour {
    /// Every answer is given, at once.
    pub const HONEST: Self =
        Self { answer_lost_share: 0.0, error_after_effect_share: 0.0, slow_share: 0.0, slow_ms: 0 };
}

impl Default for Behaviour {
    fn default() -> Self {
        Self { answer_lost_share: 0.15, error_after_effect_share: 0.05, slow_share: 0.05, slow_ms: 300 }
    }
}

/// What happens to the answer of a charge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChargeAnswer {
    /// 201 with a fresh charge, after `delay_ms`.
    Created {
        /// The charge.
        charge: Charge,
        /// Zero unless the key was drawn as slow.
        delay_ms: u64,
    },
    /// 200 with the charge that the key already made.
    Replayed(Charge),
    /// 422: the key was used with another body.
    KeyReused,
    /// 402: the token is one that never pays.
    Declined,
    /// Booked; the connection is to be cut without an answer.
    AnswerLost,
    /// Booked; a 500 is to be sent.
    ErrorAfterEffect,
}

/// Counts of what the provider did, for the evidence that its faults really happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderCounts {
    /// Charges booked.
    pub charged: u64,
    /// Requests answered from the book.
    pub replayed: u64,
    /// 422 for a key with another body.
    pub key_reused: u64,
    /// Charges booked whose answer was cut off.
    pub answers_lost: u64,
    /// Charges booked that were answered with a 500.
    pub errors_after_effect: u64,
    /// Charges answered late.
    pub slow: u64,
    /// Cards declined.
    pub declined: u64,
    /// Look-ups by key.
    pub lookups: u64,
}

/// The whole book at one moment: charges by key, requests in order of arrival.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BookSnapshot {
    /// Charges, ascending by idempotency key.
    pub charges: Vec<Charge>,
    /// Every request seen, in order of arrival.
    pub requests: Vec<SeenRequest>,
    /// What the provider did.
    pub counts: ProviderCounts,
}

/// The book itself. Shared; lives as long as the run.
#[derive(Debug)]
pub struct ProviderBook {
    randomness: Randomness,
    behaviour: Behaviour,
    state: Mutex<BookState>,
}

#[derive(Debug, Default)]
struct BookState {
    charges: BTreeMap<String, Charge>,
    requests: Vec<SeenRequest>,
    counts: ProviderCounts,
}

/// The fields of a charge request that the key is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct ChargeRequest {
    pub(super) amount_minor: i64,
    pub(super) currency: String,
    pub(super) payment_token: String,
    pub(super) reference: String,
}

impl ProviderBook {
    /// An empty book that misbehaves as `behaviour` says, drawn from `randomness`.
    pub fn new(randomness: Randomness, behaviour: Behaviour) -> Self {
        Self { randomness, behaviour, state: Mutex::default() }
    }

    /// A book that holds `charges` already, and none of the requests that made them.
    pub fn with_charges(randomness: Randomness, behaviour: Behaviour, charges: Vec<Charge>) -> Self {
        let book = Self::new(randomness, behaviour);
        let charges = charges.into_iter().map(|charge| (charge.idempotency_key.clone(), charge)).collect();
        book.state.lock().expect("provider book lock").charges = charges;
        book
    }

    /// Charges under `key`, or answers from the book; `time_ns` is the run's clock.
    pub(super) fn charge(&self, key: &str, request: &ChargeRequest, time_ns: u64) -> ChargeAnswer {
        let mut state = self.state.lock().expect("provider book lock");
        let answer = self.decide(&mut state, key, request, time_ns);
        let outcome = match &answer {
            ChargeAnswer::Created { .. } => "charged",
            ChargeAnswer::Replayed(_) => "replayed",
            ChargeAnswer::KeyReused => "key_reused",
            ChargeAnswer::Declined => "declined",
            ChargeAnswer::AnswerLost => "answer_lost",
            ChargeAnswer::ErrorAfterEffect => "error_after_effect",
        };
        state.saw("POST", key, outcome, time_ns);
        answer
    }

    fn decide(&self, state: &mut BookState, key: &str, request: &ChargeRequest, time_ns: u64) -> ChargeAnswer {
        if let Some(known) = state.charges.get(key) {
            let same = known.amount_minor == request.amount_minor
                && known.currency == request.currency
                && known.payment_token == request.payment_token
                && known.reference == request.reference;
            if !same {
                state.counts.key_reused += 1;
                return ChargeAnswer::KeyReused;
            }
            state.counts.replayed += 1;
            return ChargeAnswer::Replayed(known.clone());
        }
        if request.payment_token.starts_with("tok_declined") {
            state.counts.declined += 1;
            return ChargeAnswer::Declined;
        }
        let charge = Charge {
            id: format!("ch_{:08}", state.charges.len() + 1),
            state: "succeeded".to_owned(),
            amount_minor: request.amount_minor,
            currency: request.currency.clone(),
            idempotency_key: key.to_owned(),
            reference: request.reference.clone(),
            payment_token: request.payment_token.clone(),
            time_ns,
        };
        state.charges.insert(key.to_owned(), charge.clone());
        state.counts.charged += 1;
        self.fate_of_the_answer(state, key, charge)
    }

    fn fate_of_the_answer(&self, state: &mut BookState, key: &str, charge: Charge) -> ChargeAnswer {
        let mut rng = self.randomness.stream(&format!("provider/{key}"));
        if chance(&mut rng, self.behaviour.answer_lost_share) {
            state.counts.answers_lost += 1;
            return ChargeAnswer::AnswerLost;
        }
        if chance(&mut rng, self.behaviour.error_after_effect_share) {
            state.counts.errors_after_effect += 1;
            return ChargeAnswer::ErrorAfterEffect;
        }
        let slow = chance(&mut rng, self.behaviour.slow_share);
        state.counts.slow += u64::from(slow);
        ChargeAnswer::Created { charge, delay_ms: if slow { self.behaviour.slow_ms } else { 0 } }
    }

    /// The charge under `key`, if there is one; counted as a look-up.
    pub(super) fn look_up(&self, key: &str, time_ns: u64) -> Option<Charge> {
        let mut state = self.state.lock().expect("provider book lock");
        state.counts.lookups += 1;
        state.saw("GET", key, "lookup", time_ns);
        state.charges.get(key).cloned()
    }

    /// Notes a request that could not be read.
    pub(super) fn bad_request(&self, method: &str, key: &str, time_ns: u64) {
        self.state.lock().expect("provider book lock").saw(method, key, "bad_request", time_ns);
    }

    /// Everything the provider knows, charges ascending by key.
    pub fn snapshot(&self) -> BookSnapshot {
        let state = self.state.lock().expect("provider book lock");
        BookSnapshot {
            charges: state.charges.values().cloned().collect(),
            requests: state.requests.clone(),
            counts: state.counts,
        }
    }
}

impl BookState {
    fn saw(&mut self, method: &str, key: &str, outcome: &str, time_ns: u64) {
        self.requests.push(SeenRequest {
            time_ns,
            method: method.to_owned(),
            idempotency_key: key.to_owned(),
            outcome: outcome.to_owned(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(amount_minor: i64) -> ChargeRequest {
        ChargeRequest {
            amount_minor,
            currency: "EUR".to_owned(),
            payment_token: "tok_1".to_owned(),
            reference: "invoice-1".to_owned(),
        }
    }

    fn honest() -> Behaviour {
        Behaviour { answer_lost_share: 0.0, error_after_effect_share: 0.0, slow_share: 0.0, slow_ms: 0 }
    }

    #[test]
    fn the_same_key_and_body_charges_once() {
        let book = ProviderBook::new(Randomness::new(1), honest());
        assert!(matches!(book.charge("k", &request(5), 1), ChargeAnswer::Created { .. }));
        assert!(matches!(book.charge("k", &request(5), 2), ChargeAnswer::Replayed(_)));
        assert_eq!(book.snapshot().charges.len(), 1);
    }

    #[test]
    fn the_same_key_with_another_body_is_refused_and_changes_nothing() {
        let book = ProviderBook::new(Randomness::new(1), honest());
        book.charge("k", &request(5), 1);
        assert_eq!(book.charge("k", &request(6), 2), ChargeAnswer::KeyReused);
        assert_eq!(book.snapshot().charges[0].amount_minor, 5);
    }

    #[test]
    fn a_lost_answer_is_booked_once_and_found_by_key() {
        let book = ProviderBook::new(Randomness::new(1), Behaviour { answer_lost_share: 1.0, ..honest() });
        assert_eq!(book.charge("k", &request(5), 1), ChargeAnswer::AnswerLost);
        assert_eq!(book.look_up("k", 2).map(|charge| charge.amount_minor), Some(5));
        assert!(matches!(book.charge("k", &request(5), 3), ChargeAnswer::Replayed(_)));
        let snapshot = book.snapshot();
        assert_eq!((snapshot.charges.len(), snapshot.requests.len()), (1, 3));
    }

    #[test]
    fn which_answers_are_lost_depends_on_seed_and_key_only() {
        let lost = |order: &[usize]| {
            let book = ProviderBook::new(Randomness::new(9), Behaviour::default());
            let mut lost: Vec<usize> = order
                .iter()
                .filter(|&&n| book.charge(&format!("inv-{n}"), &request(1), 0) == ChargeAnswer::AnswerLost)
                .copied()
                .collect();
            lost.sort_unstable();
            lost
        };
        let forward: Vec<usize> = (0..200).collect();
        let backward: Vec<usize> = (0..200).rev().collect();
        let first = lost(&forward);
        assert_eq!(first, lost(&backward));
        assert!((15..50).contains(&first.len()), "{}", first.len());
    }

    #[test]
    fn a_declined_token_books_nothing() {
        let book = ProviderBook::new(Randomness::new(1), honest());
        let declined = ChargeRequest { payment_token: "tok_declined_1".to_owned(), ..request(5) };
        assert_eq!(book.charge("k", &declined, 1), ChargeAnswer::Declined);
        assert!(book.snapshot().charges.is_empty());
    }
}
