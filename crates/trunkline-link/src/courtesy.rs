//! A dial that is given up half-way still proves itself, so that the listener does not count it as a guess.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::handshake::Initiator;
use crate::mailbox::lock;
use crate::pipe::Pipe;

/// How long a dial that was given up may take to say so.
const FAREWELL: Duration = Duration::from_secs(1);

/// The farewells under way; dropping the last handle cuts them short.
#[derive(Clone, Default)]
pub(crate) struct Farewells(Arc<Mutex<JoinSet<()>>>);

/// A connection and its half of the handshake.
pub(crate) struct Half {
    pub(crate) pipe: Pipe,
    pub(crate) machine: Initiator,
    /// The peer has proven itself; FINISH is next.
    pub(crate) verified: bool,
}

/// A half-done handshake that says farewell when it is dropped.
pub(crate) struct Courtesy {
    half: Option<Box<Half>>,
    farewells: Farewells,
}

impl Courtesy {
    pub(crate) fn new(pipe: Pipe, machine: Initiator, farewells: Farewells) -> Self {
        Self { half: Some(Box::new(Half { pipe, machine, verified: false })), farewells }
    }

    pub(crate) fn half(&mut self) -> &mut Half {
        self.half.as_mut().expect("only into_pipe and drop take it, and both consume self")
    }

    /// The handshake is done; nothing is left to say.
    pub(crate) fn into_pipe(mut self) -> Pipe {
        self.half.take().expect("only into_pipe and drop take it, and both consume self").pipe
    }
}

impl Drop for Courtesy {
    fn drop(&mut self) {
        let Some(half) = self.half.take() else { return };
        // Outside a runtime nobody could move the bytes.
        let Ok(runtime) = Handle::try_current() else { return };
        let mut farewells = lock(&self.farewells.0);
        while farewells.try_join_next().is_some() {}
        farewells.spawn_on(farewell(half), &runtime);
    }
}

async fn farewell(mut half: Box<Half>) {
    let whole = async {
        if !half.verified {
            let hello2 = half.pipe.message().await.ok()?;
            half.machine.hello2(&hello2).ok()?;
        }
        // After FINISH there is nothing to prove any more, and this refuses.
        let abandon = half.machine.abandon().ok()?;
        half.pipe.send(&abandon).await.ok()?;
        half.pipe.end().await;
        Some(())
    };
    let _ = tokio::time::timeout(FAREWELL, whole).await;
}
