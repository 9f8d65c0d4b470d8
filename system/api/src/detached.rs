//! Work that must not stop half-way because the client hung up: it runs in a task of its own.

use crate::error::ApiError;

/// Runs `work` to its end, whether or not anybody still waits for it.
///
/// # Errors
/// Those of `work`; 500 if it panicked.
pub(crate) async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::spawn(work).await.unwrap_or_else(|_| Err(ApiError::internal("a detached task ended early")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_goes_on_when_the_caller_is_dropped() {
        let (started, when_started) = tokio::sync::oneshot::channel();
        let (go_on, may_go_on) = tokio::sync::oneshot::channel::<()>();
        let (done, when_done) = tokio::sync::oneshot::channel();
        let caller = tokio::spawn(detached(async move {
            started.send(()).unwrap();
            may_go_on.await.unwrap();
            done.send(()).unwrap();
            Ok(())
        }));
        when_started.await.unwrap();
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
        go_on.send(()).unwrap();
        when_done.await.unwrap();
    }
}
