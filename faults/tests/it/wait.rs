//! Waiting for a condition with a named limit.

use std::time::Duration;

/// Asks until the answer is there; panics with the condition's name at the limit.
pub async fn wait_until<T, F, Fut>(condition: &str, limit: Duration, mut ask: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    let asking = async {
        loop {
            tick.tick().await;
            if let Some(answer) = ask().await {
                return answer;
            }
        }
    };
    match tokio::time::timeout(limit, asking).await {
        Ok(answer) => answer,
        Err(_) => panic!("not within {limit:?}: {condition}"),
    }
}
