//! A dial that is given up half-way still proves itself, so that the listener does not count it as a guess.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinSet;
use trunkline_wire::handshake::Initiator;

use crate::handshake_io::Pipe;
use crate::shell::lock;

/// Longest time that an abandoned dial may take to tell the listener so.
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

/// A half-done handshake that says farewell when it is dropped while it can still prove itself.
pub(crate) struct Courtesy {
    half: Option<Box<Half>>,
    farewells: Farewells,
}

impl Courtesy {
    pub(crate) fn new(pipe: Pipe, machine: Initiator, farewells: Farewells) -> Self {
        Self { half: Some(Box::new(Half { pipe, machine, verified: false })), farewells }
    }

    pub(crate) fn half(&mut self) -> &mut Half {
        self.half.as_mut().expect("only close, into_pipe and drop take it, and all consume self")
    }

    /// The peer said nothing in time, or ended: closes at once.
    pub(crate) fn close(mut self) {
        self.half = None;
    }

    /// The handshake is done; nothing is left to say.
    pub(crate) fn into_pipe(mut self) -> Pipe {
        self.half.take().expect("only close, into_pipe and drop take it, and all consume self").pipe
    }
}

impl Drop for Courtesy {
    fn drop(&mut self) {
        let Some(half) = self.half.take().filter(|half| half.machine.is_open()) else { return };
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
        let abandon = half.machine.abandon().ok()?;
        half.pipe.send(&abandon).await.ok()?;
        half.pipe.end().await;
        Some(())
    };
    let _ = tokio::time::timeout(FAREWELL, whole).await;
}

#[cfg(all(test, feature = "tls-ring"))]
mod tests {
    use tokio::net::{TcpListener, TcpStream};
    use trunkline_route::{Address, Attempt, Cookie, LinkPolicy, TlsMode, Version};
    use trunkline_tls::{ClientTls, ServerTls, TlsProfile};
    use trunkline_wire::handshake::{HandshakeError, InitiatorConfig, Mode};

    use super::*;
    use crate::carrier::Carrier;
    use crate::native::{DialError, DialTimes, Native, NativeLimits};

    fn under_way(farewells: &Farewells) -> usize {
        lock(&farewells.0).len()
    }

    async fn half_done(farewells: &Farewells) -> (Courtesy, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tcp, peer) = tokio::join!(TcpStream::connect(address), listener.accept());
        let tls = ClientTls::new(&TlsProfile::default().no_roots()).unwrap();
        let host = Address::new("127.0.0.1", address.port()).unwrap().host;
        let tls = tls.connection(&TlsMode::CookieOnly, &host).unwrap();
        let cookie = Cookie::new("a cookie both ends hold").unwrap();
        let config = InitiatorConfig::new("a@h".parse().unwrap(), None, cookie, [0; 16], [0; 16]);
        let (machine, _) = <Initiator>::new(config, [0; 32]);
        (
            Courtesy::new(Pipe::new(Carrier::Tcp(tcp.unwrap()), tls.into(), 64), machine, farewells.clone()),
            peer.unwrap().0,
        )
    }

    #[tokio::test]
    async fn only_a_handshake_that_can_still_prove_something_says_farewell() {
        let farewells = Farewells::default();
        let (mut over, _peer) = half_done(&farewells).await;
        assert!(matches!(over.half().machine.hello2(b"junk"), Err(HandshakeError::Malformed(_))));
        drop(over);
        assert_eq!(under_way(&farewells), 0);
        let (given_up, _peer) = half_done(&farewells).await;
        given_up.close();
        assert_eq!(under_way(&farewells), 0);
        let (dropped, _peer) = half_done(&farewells).await;
        drop(dropped);
        assert_eq!(under_way(&farewells), 1);
    }

    #[tokio::test]
    async fn a_dial_that_timed_out_or_was_answered_wrongly_leaves_nothing_behind() {
        for answer in [None, Some(&b""[..]), Some(b"junk")] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let server = tokio::spawn(async move {
                let tcp = listener.accept().await.unwrap().0;
                let tls = ServerTls::ephemeral().unwrap().connection().unwrap();
                let mut pipe = Pipe::new(Carrier::Tcp(tcp), tls.into(), 64 * 1024);
                pipe.handshake(None).await.unwrap();
                pipe.message().await.unwrap();
                match answer {
                    Some(b"") => return,
                    Some(answer) => pipe.send(answer).await.unwrap(),
                    None => {}
                }
                // Until the other end closes.
                while pipe.message().await.is_ok() {}
            });
            let farewells = Farewells::default();
            let mut native = Native::new("a@h".parse().unwrap(), NativeLimits::default());
            std::sync::Arc::get_mut(&mut native).unwrap().farewells = farewells.clone();
            let attempt = Attempt {
                target: "b@h".parse().unwrap(),
                via: None,
                address: Address::new("127.0.0.1", address.port()).unwrap(),
                tls: TlsMode::CookieOnly,
                version: Version::native(1),
                cookie: Cookie::new("a cookie both ends hold").unwrap(),
                policy: LinkPolicy::default(),
            };
            let tls = ClientTls::new(&TlsProfile::default().no_roots()).unwrap();
            let times = DialTimes { handshake: Duration::from_millis(200), ..DialTimes::default() };
            let error = native.dial(address, &attempt, Mode::Node, &tls, times).await.unwrap_err();
            assert_eq!(matches!(error, DialError::HandshakeTimeout(_)), answer.is_none(), "{error}");
            assert_eq!(under_way(&farewells), 0, "{error}");
            server.await.unwrap();
        }
    }
}
