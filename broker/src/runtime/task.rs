//! Tasks and timers of the current shard. Nothing here may be called from another thread.

use std::future::Future;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::future::{Either, select};
use futures_util::pin_mut;

/// Runs `task` on this shard until it ends. If it holds the shard up, it is reported by its name.
pub(crate) fn spawn(name: &'static str, task: impl Future<Output = ()> + 'static) {
    penstock_storage::disk::tasks::spawn(name, task);
}

/// Waits for at least `duration`.
pub(crate) async fn sleep(duration: Duration) {
    glommio::timer::sleep(duration).await;
}

/// Waits until `deadline`; returns at once if it has passed.
pub(crate) async fn sleep_until(deadline: Instant) {
    let left = deadline.saturating_duration_since(Instant::now());
    if !left.is_zero() {
        sleep(left).await;
    }
}

/// Lets the other tasks of this shard run, and what completes meanwhile.
pub(crate) async fn yield_now() {
    penstock_storage::disk::tasks::yield_now().await;
}

/// The output of `future`, or `None` if `deadline` came first.
pub(crate) async fn until<T>(deadline: Instant, future: impl Future<Output = T>) -> Option<T> {
    let timer = sleep_until(deadline);
    pin_mut!(future, timer);
    match select(future, timer).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(_) => None,
    }
}

/// Wall clock time in milliseconds since 1970, as Kafka's timestamps count it.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
