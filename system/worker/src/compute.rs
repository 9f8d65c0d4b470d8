//! Threads for computations. Not the runtime's pool of blocking threads: that is bounded and also resolves the
//! database's name, so that computations could keep heartbeats from connecting.

use std::sync::Arc;

use tokio::runtime::{Builder, Handle, Runtime};

/// The computation panicked, or the system gave no thread for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoAnswer;

/// A thread for each of so many computations at once. They stay for a while after the last one: an allocator's
/// memory belongs to its thread, and a new one's is cold.
#[derive(Clone)]
pub(crate) struct Compute {
    handle: Handle,
    _threads: Arc<Threads>,
}

/// A runtime that runs nothing but blocking work.
struct Threads(Option<Runtime>);

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Whoever is let go computes to its end, and nobody waits for it.
            runtime.shutdown_background();
        }
    }
}

impl Compute {
    /// # Errors
    /// The system's, where it gives no descriptors for a runtime.
    pub(crate) fn new(computations_max: u32) -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread()
            .thread_name("compute")
            .max_blocking_threads(computations_max.max(1) as usize)
            .build()?;
        Ok(Self { handle: runtime.handle().clone(), _threads: Arc::new(Threads(Some(runtime))) })
    }

    /// Runs `work` on one of the threads and waits for its answer without blocking. Dropped, it is not waited for.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NoAnswer> {
        // A panic ends here; the panic hook has told where it was.
        self.handle.spawn_blocking(work).await.map_err(|_| NoAnswer)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_no_answer_and_ends_nothing_else() {
        let compute = Compute::new(1).unwrap();
        assert_eq!(compute.run(|| 7).await, Ok(7));
        assert_eq!(compute.run::<u32>(|| panic!("on purpose")).await, Err(NoAnswer));
        assert_eq!(compute.run(|| 8).await, Ok(8));
    }

    #[tokio::test]
    async fn computations_run_at_once_and_a_later_one_finds_a_warm_thread() {
        let compute = Compute::new(2).unwrap();
        let both = Arc::new(Barrier::new(2));
        let meet = || {
            let both = Arc::clone(&both);
            compute.run(move || {
                both.wait();
                thread::current().id()
            })
        };
        let (one, other) = tokio::join!(meet(), meet());
        assert_ne!(one, other);
        let later = compute.run(|| thread::current().id()).await;
        assert!(later == one || later == other);
    }
}
