//! How late picket itself was: what a run lost because its thread was busy with others.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::time::Instant;

/// A run that lost less than this is as good as measured alone.
pub const TELLING: Duration = Duration::from_millis(5);

/// A thread that pauses for less than this did not wait: what it was to do next was there already.
const NO_PAUSE: Duration = Duration::from_micros(50);

thread_local! {
    /// Since when this thread has had something to do without a pause.
    static BUSY_SINCE: Cell<Option<Instant>> = const { Cell::new(None) };
    static PAUSED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Lower than the threads that run probes, on Linux's scale from -20 to 19.
const IN_NO_HURRY: i32 = 10;

/// Lets other threads go before this one: a run that has to wait for the journal or an export measures those.
pub fn give_way() {
    thread_local! {
        static GIVEN: Cell<bool> = const { Cell::new(false) };
    }
    if !GIVEN.replace(true) {
        // Where that is not allowed the thread works as any other.
        rustix::process::setpriority_process(Some(rustix::thread::gettid()), IN_NO_HURRY).ok();
    }
}

/// Has a runtime's threads note when they pause and when they go on.
pub fn watch(runtime: &mut Builder) -> &mut Builder {
    runtime.on_thread_park(|| PAUSED.set(Some(Instant::now()))).on_thread_unpark(|| {
        BUSY_SINCE.set(went_on(BUSY_SINCE.get(), PAUSED.get(), Instant::now()));
    })
}

/// Since when a thread is busy that goes on after a pause.
fn went_on(busy_since: Option<Instant>, paused: Option<Instant>, now: Instant) -> Option<Instant> {
    let waited = paused.is_none_or(|paused| now.saturating_duration_since(paused) >= NO_PAUSE);
    busy_since.filter(|_| !waited).or(Some(now))
}

/// A piece of work, and the time for which it could have gone on but had to wait for its turn.
///
/// Nobody tells when exactly the kernel had news for the work: at the earliest when its thread woke up, or when the
/// work itself had its last turn. What is counted is therefore the most that it can have lost.
#[derive(Debug)]
pub struct Lagging<'a, F> {
    work: F,
    paused: Option<Instant>,
    lag: &'a mut Duration,
}

impl<'a, F: Future + Unpin> Lagging<'a, F> {
    /// Adds what the work loses to `lag`, also when it is dropped before its end.
    pub fn new(work: F, lag: &'a mut Duration) -> Self {
        Self { work, paused: None, lag }
    }
}

impl<F: Future + Unpin> Future for Lagging<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        if let (Some(paused), Some(busy_since)) = (self.paused, BUSY_SINCE.get()) {
            *self.lag += paused.max(busy_since).elapsed();
        }
        let done = Pin::new(&mut self.work).poll(cx);
        self.paused = Some(Instant::now());
        done
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Waker;

    use super::*;

    #[test]
    fn a_pause_that_was_none_does_not_end_a_busy_time() {
        let began = Instant::now();
        let paused = began + Duration::from_millis(7);
        let after =
            |pause: u64| went_on(Some(began), Some(paused), paused + Duration::from_micros(pause));
        assert_eq!(after(10), Some(began));
        assert_eq!(after(400), Some(paused + Duration::from_micros(400)));
        assert_eq!(went_on(None, None, began), Some(began));
    }

    #[test]
    fn a_turn_that_came_late_is_counted_and_a_wait_for_the_target_is_not() {
        let lost = |busy_since: Option<Instant>| {
            let mut lag = Duration::ZERO;
            let mut turns = 0;
            let work = poll_fn(|_| {
                turns += 1;
                if turns == 1 { Poll::Pending } else { Poll::Ready(()) }
            });
            let mut lagging = Lagging::new(work, &mut lag);
            let mut cx = Context::from_waker(Waker::noop());
            assert!(Pin::new(&mut lagging).poll(&mut cx).is_pending());
            // The time that has passed since its last turn, without a wait.
            lagging.paused =
                lagging.paused.and_then(|last| last.checked_sub(Duration::from_mins(1)));
            BUSY_SINCE.set(busy_since);
            assert!(Pin::new(&mut lagging).poll(&mut cx).is_ready());
            lag
        };
        let now = Instant::now();
        assert_eq!(lost(None), Duration::ZERO);
        // The thread has only just got something to do: the minute was the target's.
        assert!(lost(Some(now)) < Duration::from_mins(1));
        let busy = now.checked_sub(Duration::from_secs(10));
        assert!((10..60).contains(&lost(busy).as_secs()));
        let busy_for_longer = now.checked_sub(Duration::from_secs(100));
        assert!((60..100).contains(&lost(busy_for_longer).as_secs()));
    }
}
