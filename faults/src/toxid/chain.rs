//! The stages of one link in order, and their exchange while data is under way.

use std::{collections::VecDeque, time::Instant};

use bytes::Bytes;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use super::{
    stage::{End, Item, Stage},
    toxic::ToxicConfig,
};
use crate::network::Stream;

const READY_ITEMS_MAX: usize = 64;

/// Which link this is; with a toxic's name it decides every random draw.
#[derive(Debug, Clone)]
pub(super) struct LinkOrigin {
    pub seed: u64,
    pub proxy: String,
    /// Number of the connection within its proxy, from 0.
    pub connection: u64,
    pub stream: Stream,
    /// Whether a reset_peer toxic added to a live link resets it, or closes it as the official
    /// server does.
    pub reset_live_links: bool,
}

impl LinkOrigin {
    fn rng(&self, toxic: &str) -> ChaCha8Rng {
        let mut hash = Sha256::new();
        for part in [
            self.seed.to_string().as_bytes(),
            self.proxy.as_bytes(),
            self.connection.to_string().as_bytes(),
            self.stream.to_string().as_bytes(),
            toxic.as_bytes(),
        ] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        ChaCha8Rng::from_seed(hash.finalize().into())
    }
}

/// The stages of one link.
pub(super) struct Chain {
    origin: LinkOrigin,
    stages: Vec<Stage>,
    ready: VecDeque<Item>,
}

impl Chain {
    pub(super) fn new(origin: LinkOrigin, toxics: &[ToxicConfig], now: Instant) -> Self {
        let stages = toxics.iter().map(|toxic| Stage::new(toxic, origin.rng(&toxic.name), true, now)).collect();
        Self { origin, stages, ready: VecDeque::new() }
    }

    /// Whether more may be read from the source.
    pub(super) fn has_room(&self) -> bool {
        self.ready.len() < READY_ITEMS_MAX && self.stages.iter().all(Stage::has_room)
    }

    pub(super) fn push(&mut self, bytes: Bytes, now: Instant) {
        self.feed(0, Item::Data(bytes, now), now);
    }

    /// Nothing is pushed after this.
    pub(super) fn push_end(&mut self, end: End, now: Instant) {
        self.feed(0, Item::End(end), now);
    }

    /// The next item that has passed every stage.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Item> {
        for index in 0..self.stages.len() {
            while let Some(item) = self.stages[index].release(now) {
                self.feed(index + 1, item, now);
            }
        }
        self.ready.pop_front()
    }

    /// When [`Self::pop`] is worth calling again without a push; none if never.
    pub(super) fn due(&self) -> Option<Instant> {
        self.stages.iter().filter_map(Stage::due).min()
    }

    /// Adds, updates and removes stages to match `toxics`; what removed ones held moves on.
    pub(super) fn reconcile(&mut self, toxics: &[ToxicConfig], now: Instant) {
        let find = |id: u64| toxics.iter().find(|toxic| toxic.id == id);
        let mut index = 0;
        while index < self.stages.len() {
            let held = match find(self.stages[index].id) {
                Some(toxic) => {
                    index += 1;
                    self.stages[index - 1].update(toxic, now)
                }
                None => self.stages.remove(index).remove(),
            };
            for item in held {
                self.feed(index, item, now);
            }
        }
        for toxic in toxics {
            if !self.stages.iter().any(|stage| stage.id == toxic.id) {
                self.stages.push(Stage::new(toxic, self.origin.rng(&toxic.name), self.origin.reset_live_links, now));
            }
        }
    }

    fn feed(&mut self, first: usize, mut item: Item, now: Instant) {
        for stage in self.stages.iter_mut().skip(first) {
            if stage.is_active() {
                match stage.accept(item, now) {
                    Some(passed) => item = passed,
                    None => return,
                }
            }
        }
        self.ready.push_back(item);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::toxid::toxic::Action;

    fn origin(connection: u64) -> LinkOrigin {
        LinkOrigin { seed: 1, proxy: "db".into(), connection, stream: Stream::Downstream, reset_live_links: false }
    }

    fn toxic(id: u64, action: Action) -> ToxicConfig {
        ToxicConfig { id, revision: 0, name: format!("toxic-{id}"), stream: Stream::Downstream, toxicity: 1.0, action }
    }

    fn slow(id: u64, latency_ms: i64) -> ToxicConfig {
        toxic(id, Action::Latency { latency_ms, jitter_ms: 0 })
    }

    fn drain(chain: &mut Chain, now: Instant) -> Vec<u8> {
        let mut text = Vec::new();
        while let Some(Item::Data(bytes, _)) = chain.pop(now) {
            text.extend_from_slice(&bytes);
        }
        text
    }

    #[test]
    fn removing_toxics_one_by_one_keeps_every_byte_in_order() {
        let now = Instant::now();
        let mut chain = Chain::new(origin(0), &[slow(1, 1_000), slow(2, 2_000)], now);
        chain.push(Bytes::from_static(b"ab"), now);
        chain.push(Bytes::from_static(b"cd"), now);
        chain.reconcile(&[slow(2, 2_000)], now);
        chain.push(Bytes::from_static(b"ef"), now);
        assert_eq!(drain(&mut chain, now), b"");
        chain.reconcile(&[], now);
        chain.push(Bytes::from_static(b"gh"), now);
        assert_eq!(drain(&mut chain, now), b"abcdefgh");
    }

    #[test]
    fn updating_latency_lets_go_of_what_is_held_and_delays_the_rest_anew() {
        let now = Instant::now();
        let mut chain = Chain::new(origin(0), &[slow(1, 60_000)], now);
        chain.push(Bytes::from_static(b"old"), now);
        let updated = ToxicConfig { revision: 1, ..slow(1, 10) };
        chain.reconcile(std::slice::from_ref(&updated), now);
        assert_eq!(drain(&mut chain, now), b"old");
        chain.push(Bytes::from_static(b"new"), now);
        assert_eq!(drain(&mut chain, now + Duration::from_millis(9)), b"");
        assert_eq!(drain(&mut chain, now + Duration::from_millis(10)), b"new");
    }

    #[test]
    fn end_of_data_does_not_overtake_delayed_data() {
        let now = Instant::now();
        let mut chain = Chain::new(origin(0), &[slow(1, 100)], now);
        chain.push(Bytes::from_static(b"last"), now);
        chain.push_end(End::Eof, now);
        assert_eq!(chain.pop(now), None);
        let later = now + Duration::from_millis(100);
        assert!(matches!(chain.pop(later), Some(Item::Data(..))));
        assert_eq!(chain.pop(later), Some(Item::End(End::Eof)));
    }

    #[test]
    fn reset_on_a_live_link_only_closes_it() {
        let now = Instant::now();
        let mut chain = Chain::new(origin(0), &[], now);
        chain.reconcile(&[toxic(1, Action::ResetPeer { timeout_ms: 0 })], now);
        chain.push(Bytes::from_static(b"x"), now);
        assert_eq!(chain.pop(now), Some(Item::End(End::Close)));
    }

    /// Sizes and delays that a slicer and a jitter give this link's first chunk.
    fn drawn(origin: LinkOrigin, names: [&str; 2]) -> (Vec<usize>, Duration) {
        let now = Instant::now();
        let slicer = toxic(1, Action::Slicer { average_bytes: 100, variation_bytes: 60, delay_us: 0 });
        let slicer = ToxicConfig { name: names[0].into(), ..slicer };
        let jitter =
            ToxicConfig { name: names[1].into(), ..toxic(2, Action::Latency { latency_ms: 1_000, jitter_ms: 1_000 }) };
        let mut chain = Chain::new(origin.clone(), &[slicer], now);
        chain.push(Bytes::from(vec![0; 5_000]), now);
        let mut sizes = Vec::new();
        while let Some(Item::Data(bytes, _)) = chain.pop(now) {
            sizes.push(bytes.len());
        }
        let mut chain = Chain::new(origin, &[jitter], now);
        chain.push(Bytes::from_static(b"x"), now);
        (sizes, chain.due().expect("held") - now)
    }

    #[test]
    fn sizes_and_delays_repeat_for_the_same_link_and_differ_for_any_other() {
        let names = ["slicer", "jitter"];
        let (sizes, delay) = drawn(origin(3), names);
        assert_eq!(drawn(origin(3), names), (sizes.clone(), delay));
        assert_eq!(sizes.iter().sum::<usize>(), 5_000);
        let others = [
            (LinkOrigin { seed: 2, ..origin(3) }, names),
            (LinkOrigin { proxy: "cache".into(), ..origin(3) }, names),
            (origin(4), names),
            (LinkOrigin { stream: Stream::Upstream, ..origin(3) }, names),
            (origin(3), ["other", "jitter"]),
        ];
        for (origin, names) in others {
            let other = drawn(origin.clone(), names);
            assert!(other.0 != sizes && (other.1 != delay || names[0] == "other"), "{origin:?} {names:?}");
        }
    }

    #[test]
    fn draws_depend_on_the_connection_and_repeat_with_the_seed() {
        let pattern = |seed| {
            (0..64)
                .map(|connection| {
                    let half = ToxicConfig { toxicity: 0.5, ..toxic(1, Action::Noop) };
                    let origin = LinkOrigin { seed, ..origin(connection) };
                    Chain::new(origin, &[half], Instant::now()).stages[0].is_active()
                })
                .collect::<Vec<bool>>()
        };
        assert_eq!(pattern(1), pattern(1));
        assert_ne!(pattern(1), pattern(2));
        assert!(pattern(1).contains(&true) && pattern(1).contains(&false));
    }
}
