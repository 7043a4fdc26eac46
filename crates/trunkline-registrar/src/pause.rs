//! Pauses between attempts to reach a registrar that is lost.

use std::time::Duration;

/// First pause; doubles up to [`SLOWEST`].
const FASTEST: Duration = Duration::from_millis(50);
const SLOWEST: Duration = Duration::from_secs(5);

/// Pauses that grow from 50 ms to 5 s, each shortened at random by up to a half: after an outage, not all nodes come back
/// at once.
///
/// ```
/// use trunkline_registrar::Pause;
///
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let mut pause = Pause::default();
/// pause.wait().await; // 25 to 50 ms
/// pause.wait().await; // 50 to 100 ms
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(FASTEST)
    }
}

impl Pause {
    /// Waits for half to all of the pause, and makes the next one longer.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.0.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        self.0 = (self.0 * 2).min(SLOWEST);
    }
}
