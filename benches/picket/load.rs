//! How hard is driven, the same for all who are compared.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep};

use crate::process::Process;
use crate::target::Target;

/// What passes before anything is counted.
pub(crate) const WARM_UP: Duration = Duration::from_millis(1500);
/// How long is counted.
const WINDOW: Duration = Duration::from_secs(4);

/// So many requests at once, each held so long by the target: their quotient is the rate.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) tls: bool,
    pub(crate) in_flight: u32,
    pub(crate) hold: Duration,
    pub(crate) address: SocketAddr,
}

impl Load {
    /// At one, 32 and 256 in flight.
    pub(crate) fn levels(tls: bool, address: SocketAddr) -> [Self; 3] {
        [(1, 2), (32, 31), (256, 255)].map(|(in_flight, hold)| Self {
            tls,
            in_flight,
            hold: Duration::from_millis(hold),
            address,
        })
    }

    /// The runs of a second that keep so many in flight.
    pub(crate) fn rate(&self) -> u32 {
        // The target's timer and the request itself add about a millisecond.
        let each = self.hold.as_millis() + 1;
        u32::try_from(u128::from(self.in_flight) * 1000 / each).unwrap_or(1)
    }

    /// When one of the drivers asks: at its turns, as an agent's probes do. Drivers that only wait for one another
    /// end up as a herd, which is cheaper than what an agent sees.
    pub(crate) fn turns(&self, driver: u32) -> Interval {
        let period = Duration::from_secs(1) * self.in_flight / self.rate();
        let mut turns = interval_at(Instant::now() + period * driver / self.in_flight, period);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        turns
    }

    /// What is asked for.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}/hold/{}", self.address, self.hold.as_millis())
    }
}

/// The CPU that a process uses for each of the probes that the target answers.
pub(crate) async fn cost_of_each(
    process: &Process,
    target: &Target,
) -> Result<Duration, Box<dyn Error>> {
    sleep(WARM_UP).await;
    let (before, served_before) = (process.cpu()?, target.served().await?);
    sleep(WINDOW).await;
    let used = process.cpu()?.since(&before);
    Ok(used / (target.served().await? - served_before).max(1))
}
