//! Log lines on their way out: one bounded queue and one thread. Whoever logs never waits, so a log that nobody reads
//! (a full pipe, a stopped terminal) holds up no request; what finds the queue full is dropped and counted.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use serde_json::json;

enum Item {
    Line(Vec<u8>),
    /// Answered when everything before it is written.
    Flush(SyncSender<()>),
}

/// The near end of the queue. Cheap to clone.
#[derive(Clone)]
pub(crate) struct LogWriter {
    queue: SyncSender<Item>,
    dropped: Arc<AtomicU64>,
}

impl LogWriter {
    /// Starts the thread, which ends when the last near end is gone.
    pub(crate) fn start(queue_max: usize, out: impl Write + Send + 'static) -> std::io::Result<Self> {
        let (queue, lines) = sync_channel(queue_max);
        let dropped = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&dropped);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || write_all(&lines, &counted, out))?;
        Ok(Self { queue, dropped })
    }

    /// Never waits.
    pub(crate) fn write(&self, line: Vec<u8>) {
        if let Err(TrySendError::Full(_)) = self.queue.try_send(Item::Line(line)) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            metrics::counter!("forecastle_log_lines_dropped_total").increment(1);
        }
    }

    /// Waits until everything so far is written; false if it was not within `limit`.
    pub(crate) fn flush(&self, limit: Duration) -> bool {
        let (written, when_written) = sync_channel(1);
        let end = std::time::Instant::now() + limit;
        let mut flush = Item::Flush(written);
        // A full queue has no place for the question either.
        while let Err(TrySendError::Full(again)) = self.queue.try_send(flush) {
            if std::time::Instant::now() >= end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
            flush = again;
        }
        when_written.recv_timeout(end.saturating_duration_since(std::time::Instant::now())).is_ok()
    }
}

fn write_all(lines: &Receiver<Item>, dropped: &AtomicU64, mut out: impl Write) {
    while let Ok(item) = lines.recv() {
        match item {
            Item::Line(line) => {
                let _ = out.write_all(&line);
                let lost = dropped.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    let at = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
                    let said = json!({ "at": at, "level": "WARN", "target": module_path!(),
                                       "message": "log lines dropped", "dropped": lost });
                    let _ = out.write_all(format!("{said}\n").as_bytes());
                }
            }
            Item::Flush(written) => {
                let _ = out.flush();
                let _ = written.try_send(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use super::*;

    /// Takes nothing while the test holds it.
    #[derive(Clone, Default)]
    struct Pipe(Arc<Mutex<Vec<u8>>>);

    impl Pipe {
        fn hold(&self) -> MutexGuard<'_, Vec<u8>> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.hold().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_log_that_nobody_reads_holds_nobody_up_and_says_what_it_lost() {
        let pipe = Pipe::default();
        let log = LogWriter::start(10, pipe.clone()).unwrap();
        let held = pipe.hold();
        for number in 0..100 {
            log.write(format!("{number}\n").into_bytes());
        }
        // Ten in the queue, and at most one in the thread's hands.
        let lost = log.dropped.load(Ordering::Relaxed);
        assert!((89..=90).contains(&lost), "{lost}");
        assert!(!log.flush(Duration::from_millis(50)), "nothing is written");
        drop(held);
        assert!(log.flush(Duration::from_secs(20)));
        let text = String::from_utf8(pipe.hold().clone()).unwrap();
        assert!(text.starts_with("0\n"), "{text}");
        assert!(text.contains(&format!("\"dropped\":{lost}")), "{text}");
        log.write(b"100\n".to_vec());
        assert!(log.flush(Duration::from_secs(20)));
        assert!(String::from_utf8(pipe.hold().clone()).unwrap().ends_with("100\n"));
    }
}
