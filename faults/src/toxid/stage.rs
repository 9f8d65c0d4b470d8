//! One toxic at work on one link: takes items, holds them, hands them on when their time comes.
//!
//! No I/O and no clock: whoever drives it says what time it is.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{
    slices::slice_sizes,
    toxic::{Action, ToxicConfig},
};

const LATENCY_CHUNKS_MAX: usize = 1024;
/// How late a slice may be for the next one to make up for it. Timers tick in milliseconds, so
/// without it short delays would add up; with more, slices would come in bursts after a stall.
const CATCH_UP_MAX: Duration = Duration::from_millis(2);
/// The slicer takes no more data while this many slices wait.
const SLICES_MAX: usize = 64;
const BANDWIDTH_BYTES_MAX: usize = 64 * 1024;
/// The bandwidth toxic sends at most what its rate allows for this long in one piece.
const BANDWIDTH_PIECE_MS: u64 = 100;

/// What flows through a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    /// Bytes, with the time they count as read.
    Data(Bytes, Instant),
    /// Nothing comes after this.
    End(End),
}

/// How a link ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The source ended; the other direction may go on.
    Eof,
    /// The whole connection is closed.
    Close,
    /// The whole connection is reset.
    Reset,
}

/// A toxic's state on one link.
pub(super) struct Stage {
    pub(super) id: u64,
    revision: u64,
    /// Drawn by the toxicity; an inactive stage hands everything on at once.
    active: bool,
    rng: ChaCha8Rng,
    /// Whether reset_peer may reset, or only close.
    may_reset: bool,
    action: Action,
    queue: VecDeque<Item>,
    queued_bytes: usize,
    /// When the head of the queue is due, or the stage itself acts.
    due: Option<Instant>,
    /// An end was handed on: whatever comes later is lost.
    ended: bool,
    /// It has swallowed something, so it must come to its end: the stream has a hole.
    swallowed: bool,
    /// What limit_data has let through on this link, over all updates.
    passed_bytes: u64,
    /// When the slicer may send again.
    free_at: Instant,
}

impl Stage {
    pub(super) fn new(toxic: &ToxicConfig, mut rng: ChaCha8Rng, may_reset: bool, now: Instant) -> Self {
        let active = rng.random::<f32>() < toxic.toxicity;
        let mut stage = Self {
            id: toxic.id,
            revision: toxic.revision,
            active,
            rng,
            may_reset,
            action: toxic.action,
            queue: VecDeque::new(),
            queued_bytes: 0,
            due: None,
            ended: false,
            swallowed: false,
            passed_bytes: 0,
            free_at: now,
        };
        stage.restart_silence(now);
        stage
    }

    pub(super) fn is_active(&self) -> bool {
        self.active
    }

    pub(super) fn due(&self) -> Option<Instant> {
        if self.active { self.due } else { None }
    }

    pub(super) fn has_room(&self) -> bool {
        match self.action {
            Action::Latency { .. } => self.queue.len() < LATENCY_CHUNKS_MAX,
            Action::Bandwidth { .. } => self.queued_bytes < BANDWIDTH_BYTES_MAX,
            Action::Slicer { .. } => self.queue.len() < SLICES_MAX,
            Action::Noop
            | Action::SlowClose { .. }
            | Action::Timeout { .. }
            | Action::ResetPeer { .. }
            | Action::LimitData { .. }
            | Action::Blackhole => true,
        }
    }

    /// Takes an item; gives it back if it passes at once. Only for an active stage.
    pub(super) fn accept(&mut self, item: Item, now: Instant) -> Option<Item> {
        if self.ended {
            return None;
        }
        match self.action {
            Action::Noop => return Some(item),
            Action::Latency { latency_ms, jitter_ms } => {
                let item = match item {
                    Item::Data(bytes, read_at) => Item::Data(bytes, read_at + self.draw_delay(latency_ms, jitter_ms)),
                    end @ Item::End(_) => end,
                };
                self.enqueue(item, now);
            }
            Action::Bandwidth { rate } => match item {
                Item::Data(mut bytes, read_at) => {
                    let piece = piece_bytes(rate);
                    while bytes.len() > piece {
                        self.enqueue(Item::Data(bytes.split_to(piece), read_at), now);
                    }
                    self.enqueue(Item::Data(bytes, read_at), now);
                }
                end @ Item::End(_) => self.enqueue(end, now),
            },
            Action::Timeout { .. } => match item {
                Item::Data(..) => self.restart_silence(now),
                end @ Item::End(_) => return Some(end),
            },
            Action::ResetPeer { timeout_ms } => {
                // The first item pulls the trigger; it and all later ones are lost.
                self.swallowed = true;
                self.due = self.due.or(Some(now + millis(timeout_ms)));
            }
            Action::SlowClose { .. } => match item {
                Item::Data(..) => return Some(item),
                Item::End(_) => self.enqueue(item, now),
            },
            Action::Slicer { average_bytes, variation_bytes, .. } => match item {
                Item::Data(mut bytes, read_at) => {
                    for size in slice_sizes(bytes.len(), average_bytes, variation_bytes, &mut self.rng) {
                        self.enqueue(Item::Data(bytes.split_to(size), read_at), now);
                    }
                }
                Item::End(_) => self.enqueue(item, now),
            },
            Action::LimitData { bytes: limit } => return self.accept_within(limit, item, now),
            Action::Blackhole => self.swallowed = true,
        }
        None
    }

    /// Hands on the next item that is due, if any.
    pub(super) fn release(&mut self, now: Instant) -> Option<Item> {
        if self.ended || !self.active || self.due.is_none_or(|due| due > now) {
            return None;
        }
        let due = self.due.take()?;
        let item = match self.action {
            Action::Timeout { .. } => Item::End(End::Close),
            Action::ResetPeer { .. } => Item::End(self.blow()),
            Action::Noop
            | Action::Latency { .. }
            | Action::Bandwidth { .. }
            | Action::SlowClose { .. }
            | Action::Slicer { .. }
            | Action::LimitData { .. }
            | Action::Blackhole => {
                if let Action::Slicer { delay_us, .. } = self.action {
                    let delay = micros(delay_us);
                    self.free_at = (due + delay).max(now + delay.saturating_sub(CATCH_UP_MAX));
                }
                let item = self.dequeue()?;
                self.schedule_head(due, now);
                item
            }
        };
        self.ended = matches!(item, Item::End(_));
        Some(item)
    }

    /// Takes over new attributes; returns what must be handed on at once.
    pub(super) fn update(&mut self, toxic: &ToxicConfig, now: Instant) -> Vec<Item> {
        if toxic.revision == self.revision {
            return Vec::new();
        }
        self.revision = toxic.revision;
        self.action = toxic.action;
        self.active = self.rng.random::<f32>() < toxic.toxicity || self.swallowed;
        match self.action {
            Action::Timeout { .. } => {
                self.restart_silence(now);
                Vec::new()
            }
            Action::ResetPeer { .. } | Action::LimitData { .. } | Action::Blackhole => Vec::new(),
            Action::Noop | Action::Latency { .. } | Action::Slicer { .. } => self.flush(),
            Action::Bandwidth { .. } | Action::SlowClose { .. } if !self.active => self.flush(),
            Action::Bandwidth { .. } | Action::SlowClose { .. } => {
                self.schedule_head(now, now);
                Vec::new()
            }
        }
    }

    /// Ends the stage, since its toxic was removed; returns what must be handed on.
    pub(super) fn remove(mut self) -> Vec<Item> {
        if self.ended || !self.active {
            return Vec::new();
        }
        match self.action {
            // It swallowed data that cannot be had again: the connection is of no more use.
            Action::Timeout { .. } => vec![Item::End(End::Close)],
            Action::ResetPeer { .. } if self.swallowed => vec![Item::End(self.blow())],
            // As a host answers that comes back and knows the connection no longer.
            Action::Blackhole if self.swallowed => vec![Item::End(End::Reset)],
            Action::ResetPeer { .. } | Action::Blackhole => Vec::new(),
            Action::Noop
            | Action::Latency { .. }
            | Action::Bandwidth { .. }
            | Action::SlowClose { .. }
            | Action::Slicer { .. }
            | Action::LimitData { .. } => self.flush(),
        }
    }

    /// limit_data: what is within the limit passes; what reaches it is the last.
    fn accept_within(&mut self, limit: i64, item: Item, now: Instant) -> Option<Item> {
        let Item::Data(mut bytes, read_at) = item else { return Some(item) };
        if self.swallowed {
            return None;
        }
        let left = u64::try_from(limit).unwrap_or(0).saturating_sub(self.passed_bytes);
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        if bytes.len() < left {
            self.passed_bytes += bytes.len() as u64;
            return Some(Item::Data(bytes, read_at));
        }
        self.swallowed = true;
        bytes.truncate(left);
        self.passed_bytes += bytes.len() as u64;
        if !bytes.is_empty() {
            self.enqueue(Item::Data(bytes, read_at), now);
        }
        self.enqueue(Item::End(End::Close), now);
        None
    }

    fn blow(&self) -> End {
        if self.may_reset { End::Reset } else { End::Close }
    }

    fn flush(&mut self) -> Vec<Item> {
        self.due = None;
        self.queued_bytes = 0;
        let items: Vec<Item> = self.queue.drain(..).collect();
        self.ended |= items.iter().any(|item| matches!(item, Item::End(_)));
        items
    }

    fn enqueue(&mut self, item: Item, now: Instant) {
        if let Item::Data(bytes, _) = &item {
            self.queued_bytes += bytes.len();
        }
        self.queue.push_back(item);
        if self.queue.len() == 1 {
            self.schedule_head(now, now);
        }
    }

    fn dequeue(&mut self) -> Option<Item> {
        let item = self.queue.pop_front()?;
        if let Item::Data(bytes, _) = &item {
            self.queued_bytes -= bytes.len();
        }
        Some(item)
    }

    /// `after`: when the item before the head was due.
    fn schedule_head(&mut self, after: Instant, now: Instant) {
        self.due = self.queue.front().map(|head| match (head, self.action) {
            (Item::Data(_, at), Action::Latency { .. }) => *at,
            (Item::Data(bytes, _), Action::Bandwidth { rate }) => after + sending_time(bytes, rate),
            (Item::End(_), Action::SlowClose { delay_ms }) => now + millis(delay_ms),
            (_, Action::Slicer { .. }) => after.max(self.free_at),
            (Item::Data(..) | Item::End(_), _) => now,
        });
    }

    fn restart_silence(&mut self, now: Instant) {
        if let Action::Timeout { timeout_ms } = self.action {
            self.due = (timeout_ms > 0).then(|| now + millis(timeout_ms));
        }
    }

    fn draw_delay(&mut self, latency_ms: i64, jitter_ms: i64) -> Duration {
        let jitter_us = if jitter_ms > 0 {
            let bound = jitter_ms.saturating_mul(1_000);
            self.rng.random_range(-bound..bound)
        } else {
            0
        };
        let delay_us = latency_ms.saturating_mul(1_000).saturating_add(jitter_us);
        Duration::from_micros(u64::try_from(delay_us).unwrap_or(0))
    }
}

fn millis(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

fn micros(us: i64) -> Duration {
    Duration::from_micros(u64::try_from(us).unwrap_or(0))
}

/// The rate counts in 1000 bytes per second, that is in bytes per millisecond.
fn piece_bytes(rate: i64) -> usize {
    match u64::try_from(rate) {
        Ok(rate) if rate > 0 => usize::try_from(rate.saturating_mul(BANDWIDTH_PIECE_MS)).unwrap_or(usize::MAX),
        _ => usize::MAX,
    }
}

fn sending_time(bytes: &Bytes, rate: i64) -> Duration {
    match u64::try_from(rate) {
        Ok(rate) if rate > 0 => Duration::from_micros((bytes.len() as u64).saturating_mul(1_000) / rate),
        _ => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::network::Stream;

    fn toxic(action: Action) -> ToxicConfig {
        ToxicConfig { id: 1, revision: 0, name: "t".into(), stream: Stream::Upstream, toxicity: 1.0, action }
    }

    fn stage(action: Action, now: Instant) -> Stage {
        Stage::new(&toxic(action), ChaCha8Rng::from_seed([7; 32]), true, now)
    }

    fn data(length: usize, at: Instant) -> Item {
        Item::Data(Bytes::from(vec![0; length]), at)
    }

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn latency_counts_from_the_reading_so_chunks_do_not_pile_up() {
        let start = Instant::now();
        let mut stage = stage(Action::Latency { latency_ms: 100, jitter_ms: 0 }, start);
        for index in 0..10 {
            assert_eq!(stage.accept(data(1, start + ms(index)), start + ms(index)), None);
        }
        assert_eq!(stage.release(start + ms(99)), None);
        let mut released = 0;
        while stage.release(start + ms(109)).is_some() {
            released += 1;
        }
        assert_eq!(released, 10);
    }

    #[test]
    fn jitter_above_latency_never_delays_below_zero() {
        let start = Instant::now();
        let mut stage = stage(Action::Latency { latency_ms: 1, jitter_ms: 50 }, start);
        for _ in 0..200 {
            let delay = stage.draw_delay(1, 50);
            assert!(delay <= ms(51));
        }
    }

    #[test]
    fn bandwidth_sends_each_piece_when_its_share_of_the_rate_is_over() {
        let start = Instant::now();
        let mut stage = stage(Action::Bandwidth { rate: 20 }, start);
        assert_eq!(stage.accept(data(6_000, start), start), None);
        let mut sent = 0;
        for elapsed in (0..=300).step_by(10) {
            while let Some(Item::Data(bytes, _)) = stage.release(start + ms(elapsed)) {
                sent += bytes.len() as u64;
            }
            assert_eq!(sent, elapsed / 100 * 2_000);
        }
        assert_eq!(sent, 6_000);
    }

    #[test]
    fn timeout_closes_after_silence_since_the_last_chunk() {
        let start = Instant::now();
        let mut stage = stage(Action::Timeout { timeout_ms: 100 }, start);
        assert_eq!(stage.accept(data(1, start), start + ms(60)), None);
        assert_eq!(stage.release(start + ms(159)), None);
        assert_eq!(stage.release(start + ms(160)), Some(Item::End(End::Close)));
    }

    #[test]
    fn timeout_of_zero_never_closes_until_it_is_removed() {
        let start = Instant::now();
        let mut stage = stage(Action::Timeout { timeout_ms: 0 }, start);
        assert_eq!(stage.accept(data(1, start), start), None);
        assert_eq!(stage.due(), None);
        assert_eq!(stage.remove(), [Item::End(End::Close)]);
    }

    #[test]
    fn reset_waits_for_the_first_data() {
        let start = Instant::now();
        let mut stage = stage(Action::ResetPeer { timeout_ms: 50 }, start);
        assert_eq!(stage.release(start + ms(500)), None);
        assert_eq!(stage.accept(data(1, start), start + ms(500)), None);
        assert_eq!(stage.release(start + ms(549)), None);
        assert_eq!(stage.release(start + ms(550)), Some(Item::End(End::Reset)));
    }

    #[test]
    fn slow_close_delays_the_end_and_no_data() {
        let start = Instant::now();
        let mut stage = stage(Action::SlowClose { delay_ms: 100 }, start);
        assert_eq!(stage.accept(data(3, start), start), Some(data(3, start)));
        assert_eq!(stage.accept(Item::End(End::Eof), start + ms(10)), None);
        assert_eq!(stage.release(start + ms(109)), None);
        assert_eq!(stage.release(start + ms(110)), Some(Item::End(End::Eof)));
    }

    #[test]
    fn removing_slow_close_lets_the_end_go_at_once() {
        let start = Instant::now();
        let mut stage = stage(Action::SlowClose { delay_ms: 60_000 }, start);
        assert_eq!(stage.accept(Item::End(End::Eof), start), None);
        assert_eq!(stage.remove(), [Item::End(End::Eof)]);
    }

    #[test]
    fn slicer_spaces_slices_by_its_delay_also_over_chunks() {
        let start = Instant::now();
        let mut stage = stage(Action::Slicer { average_bytes: 10, variation_bytes: 0, delay_us: 5_000 }, start);
        assert_eq!(stage.accept(data(20, start), start), None);
        assert_eq!(stage.accept(data(10, start), start), None);
        assert_eq!(stage.accept(Item::End(End::Eof), start), None);
        for (elapsed, expected) in [(0, Some(data(10, start))), (4, None), (5, Some(data(10, start))), (9, None)] {
            assert_eq!(stage.release(start + ms(elapsed)), expected, "at {elapsed} ms");
        }
        assert_eq!(stage.release(start + ms(10)), Some(data(10, start)));
        assert_eq!(stage.release(start + ms(14)), None);
        assert_eq!(stage.release(start + ms(15)), Some(Item::End(End::Eof)));
    }

    #[test]
    fn slicer_makes_up_for_a_late_timer_but_not_for_a_stall() {
        let start = Instant::now();
        let mut stage = stage(Action::Slicer { average_bytes: 10, variation_bytes: 0, delay_us: 10_000 }, start);
        assert_eq!(stage.accept(data(40, start), start), None);
        assert_eq!(stage.release(start), Some(data(10, start)));
        assert_eq!(stage.release(start + ms(11)), Some(data(10, start)));
        assert_eq!(stage.due(), Some(start + ms(20)));
        assert_eq!(stage.release(start + ms(500)), Some(data(10, start)));
        assert_eq!(stage.release(start + ms(507)), None);
        assert_eq!(stage.due(), Some(start + ms(508)));
    }

    #[test]
    fn limit_data_counts_over_updates_and_closes_at_the_limit() {
        let start = Instant::now();
        let mut stage = stage(Action::LimitData { bytes: 10 }, start);
        assert_eq!(stage.accept(data(6, start), start), Some(data(6, start)));
        let raised = ToxicConfig { revision: 1, ..toxic(Action::LimitData { bytes: 14 }) };
        assert_eq!(stage.update(&raised, start), []);
        assert_eq!(stage.accept(data(5, start), start), Some(data(5, start)));
        assert_eq!(stage.accept(data(5, start), start), None);
        assert_eq!(stage.release(start), Some(data(3, start)));
        assert_eq!(stage.release(start), Some(Item::End(End::Close)));
        assert_eq!(stage.accept(data(1, start), start), None);
        assert_eq!(stage.release(start), None);
    }

    #[test]
    fn limit_below_what_has_passed_closes_at_the_next_data() {
        let start = Instant::now();
        let mut stage = stage(Action::LimitData { bytes: 10 }, start);
        assert_eq!(stage.accept(data(6, start), start), Some(data(6, start)));
        let lowered = ToxicConfig { revision: 1, ..toxic(Action::LimitData { bytes: 5 }) };
        assert_eq!(stage.update(&lowered, start), []);
        assert_eq!(stage.accept(data(1, start), start), None);
        assert_eq!(stage.release(start), Some(Item::End(End::Close)));
    }

    #[test]
    fn black_hole_swallows_the_end_and_removal_resets_only_what_lost_something() {
        let start = Instant::now();
        assert_eq!(stage(Action::Blackhole, start).remove(), []);
        let mut stage = stage(Action::Blackhole, start);
        assert_eq!(stage.accept(Item::End(End::Eof), start), None);
        assert_eq!(stage.due(), None);
        let spared = ToxicConfig { revision: 1, toxicity: 0.0, ..toxic(Action::Blackhole) };
        assert_eq!(stage.update(&spared, start), []);
        assert!(stage.is_active(), "a stream with a hole cannot go on");
        assert_eq!(stage.remove(), [Item::End(End::Reset)]);
    }

    #[test]
    fn toxicity_of_zero_never_acts_and_of_one_always() {
        let now = Instant::now();
        for number in 0..50 {
            let draw = |toxicity| {
                let toxic = ToxicConfig { toxicity, ..toxic(Action::Noop) };
                Stage::new(&toxic, ChaCha8Rng::from_seed([number; 32]), true, now).is_active()
            };
            assert!(!draw(0.0));
            assert!(draw(1.0));
        }
    }
}
