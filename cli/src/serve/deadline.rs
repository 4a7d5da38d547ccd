//! The end of the time that a request has.

use std::future::Future;
use std::time::Instant;

use tokio::time::timeout_at;

/// What `work` gives, or `None` once the deadline is over. Unlike with [`timeout_at`], what is ready then comes too late: pieces that are
/// always ready would go on without an end.
pub async fn within<T>(deadline: Option<Instant>, work: impl Future<Output = T>) -> Option<T> {
    match deadline {
        None => Some(work.await),
        Some(deadline) if Instant::now() >= deadline => None,
        Some(deadline) => timeout_at(deadline.into(), work).await.ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_ready_after_the_deadline_comes_too_late() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let now = Instant::now();
            assert_eq!(within(Some(now), ready(1)).await, None);
            assert_eq!(within(Some(now + Duration::from_secs(60)), ready(1)).await, Some(1));
            assert_eq!(within(None, ready(1)).await, Some(1));
            let soon = Some(now + Duration::from_millis(10));
            assert_eq!(within(soon, pending::<()>()).await, None);
        });
    }
}
