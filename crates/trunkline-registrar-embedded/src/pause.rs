//! Pauses between attempts to reach a registrar that is lost.

use std::time::Duration;

use trunkline_link::random_16;

/// Delay before the first attempt to reach a lost registrar again; doubles up to [`SLOWEST`], with jitter.
const FASTEST: Duration = Duration::from_millis(50);
const SLOWEST: Duration = Duration::from_secs(5);

/// Pauses that grow.
pub(crate) struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(FASTEST)
    }
}

impl Pause {
    /// Waits for half to all of the pause, and makes the next one longer: the nodes of a host must not all come at once.
    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.0.mul_f64(0.5 + f64::from(random_16()[0]) / 512.0)).await;
        self.0 = (self.0 * 2).min(SLOWEST);
    }
}
