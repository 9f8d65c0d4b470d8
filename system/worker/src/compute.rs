//! A thread of its own for each computation. Not the runtime's pool of blocking threads: that is bounded
//! and also resolves the database's name, so that computations could keep heartbeats from connecting.

use tokio::sync::oneshot;

/// The computation panicked, or the system gave no thread for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoAnswer;

/// Runs `work` on a new thread and waits for its answer without blocking. Dropped, it is not waited for.
pub(crate) async fn on_own_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, NoAnswer> {
    let (answer, answered) = oneshot::channel();
    let thread = std::thread::Builder::new().name("compute".to_owned());
    // A panic drops the sender; the panic hook has told where it was.
    thread.spawn(move || drop(answer.send(work()))).map_err(|_| NoAnswer)?;
    answered.await.map_err(|_| NoAnswer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_no_answer_and_ends_nothing_else() {
        assert_eq!(on_own_thread(|| 7).await, Ok(7));
        assert_eq!(on_own_thread::<u32>(|| panic!("on purpose")).await, Err(NoAnswer));
    }
}
