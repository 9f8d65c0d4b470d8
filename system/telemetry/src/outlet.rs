//! A bounded queue between whoever has something to tell and the task that tells it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

/// The near end. Cheap to clone; never waits.
pub(crate) struct Outlet<T> {
    sink: &'static str,
    queue: mpsc::Sender<T>,
    finish: Arc<Notify>,
    finished: Arc<Notify>,
}

impl<T> Clone for Outlet<T> {
    fn clone(&self) -> Self {
        Self {
            sink: self.sink,
            queue: self.queue.clone(),
            finish: Arc::clone(&self.finish),
            finished: Arc::clone(&self.finished),
        }
    }
}

/// The far end: one task's own.
pub(crate) struct Inlet<T> {
    sink: &'static str,
    queue: mpsc::Receiver<T>,
    finish: Arc<Notify>,
    finished: Arc<Notify>,
    finishing: bool,
}

/// A queue of at most `queue_max` items, at least one; `sink` is its name in metrics.
pub(crate) fn open<T>(sink: &'static str, queue_max: usize) -> (Outlet<T>, Inlet<T>) {
    let (sender, receiver) = mpsc::channel(queue_max.max(1));
    let (finish, finished) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let outlet = Outlet { sink, queue: sender, finish: Arc::clone(&finish), finished: Arc::clone(&finished) };
    (outlet, Inlet { sink, queue: receiver, finish, finished, finishing: false })
}

impl<T> Outlet<T> {
    /// Puts an item into the queue, or drops it and counts that. Takes no time worth measuring.
    pub(crate) fn offer(&self, item: T) {
        if self.queue.try_send(item).is_err() {
            metrics::counter!("forecastle_sink_dropped_total", "sink" => self.sink).increment(1);
        }
        let waiting = self.queue.max_capacity() - self.queue.capacity();
        metrics::gauge!("forecastle_sink_queue_length", "sink" => self.sink).set(waiting as f64);
    }

    /// Lets the task send what waits, at most for `limit`.
    pub(crate) async fn flush(&self, limit: Duration) {
        self.finish.notify_one();
        let _ = tokio::time::timeout(limit, self.finished.notified()).await;
    }
}

impl<T> Inlet<T> {
    /// Up to `limit` items: waits for the first, then up to `linger` for more; `None` at the end.
    pub(crate) async fn next_batch(&mut self, limit: usize, linger: Duration) -> Option<Vec<T>> {
        let mut batch = Vec::new();
        if !self.finishing {
            let first = tokio::select! {
                biased;
                first = self.queue.recv() => Some(first?),
                () = self.finish.notified() => {
                    self.finishing = true;
                    None
                }
            };
            batch.extend(first);
        }
        if !self.finishing && batch.len() < limit {
            let until = tokio::time::Instant::now() + linger;
            while batch.len() < limit {
                tokio::select! {
                    biased;
                    more = self.queue.recv() => match more {
                        Some(item) => batch.push(item),
                        None => break,
                    },
                    () = self.finish.notified() => {
                        self.finishing = true;
                        break;
                    }
                    () = tokio::time::sleep_until(until) => break,
                }
            }
        }
        while batch.len() < limit {
            match self.queue.try_recv() {
                Ok(item) => batch.push(item),
                Err(_) => break,
            }
        }
        metrics::gauge!("forecastle_sink_queue_length", "sink" => self.sink).set(self.queue.len() as f64);
        if batch.is_empty() && self.finishing {
            self.finished.notify_one();
            return None;
        }
        Some(batch)
    }

    /// Counts what became of so many items.
    pub(crate) fn count(&self, outcome: Result<(), &'static str>, items: usize) {
        let word = outcome.err().unwrap_or("sent");
        metrics::counter!("forecastle_sink_events_total", "sink" => self.sink, "outcome" => word)
            .increment(items as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_queue_takes_no_more_and_what_was_taken_comes_out_in_order() {
        let (outlet, mut inlet) = open::<u32>("test", 3);
        (0..10).for_each(|item| outlet.offer(item));
        assert_eq!(inlet.next_batch(2, Duration::ZERO).await, Some(vec![0, 1]));
        assert_eq!(inlet.next_batch(2, Duration::ZERO).await, Some(vec![2]));
        outlet.offer(11);
        let flushed = tokio::spawn(async move { outlet.flush(Duration::from_secs(5)).await });
        let mut rest = Vec::new();
        while let Some(batch) = inlet.next_batch(2, Duration::from_millis(1)).await {
            rest.extend(batch);
        }
        assert_eq!(rest, [11]);
        flushed.await.unwrap();
    }
}
