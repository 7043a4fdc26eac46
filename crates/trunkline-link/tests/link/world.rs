//! Two nodes in one process, over real loopback sockets.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use trunkline_link::{
    DialError, DialTimes, Dialed, Hooks, KeepAlive, Listener, Native, NativeLimits, Offered, Standing,
};
use trunkline_route::{Address, Attempt, Claims, Cookie, LinkPolicy, NodeName, TlsMode, Version};
use trunkline_stack::{Link, Mailboxes};
use trunkline_tls::{ClientTls, ServerTls, TlsProfile};
use trunkline_wire::handshake::{Credential, Mode};

pub(crate) const COOKIE: &str = "a cookie that both ends hold";

/// What must happen, and does not take long when it does.
pub(crate) async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("it happens soon")
}

pub(crate) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(crate) fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

pub(crate) fn cookie(text: &str) -> Cookie {
    Cookie::new(text).unwrap()
}

pub(crate) fn short_times() -> DialTimes {
    DialTimes { tcp: ms(200), tls: ms(200), handshake: ms(200) }
}

pub(crate) fn limits(window: u64, max_message: usize) -> NativeLimits {
    let mut limits = NativeLimits::default();
    (limits.window.link, limits.window.mailbox, limits.window.max_message) = (4 * window, window, max_message);
    limits
}

pub(crate) fn keep_alive(idle: u64, dead: u64) -> NativeLimits {
    NativeLimits {
        keep_alive: KeepAlive { idle: ms(idle), dead: ms(dead), ..KeepAlive::default() },
        ..NativeLimits::default()
    }
}

pub(crate) fn client_tls() -> ClientTls {
    ClientTls::new(&TlsProfile::default().no_roots()).unwrap()
}

pub(crate) fn attempt(target: &NodeName, address: SocketAddr) -> Attempt {
    Attempt {
        target: target.clone(),
        via: None,
        address: Address::new(address.ip().to_string(), address.port()).unwrap(),
        tls: TlsMode::CookieOnly,
        version: Version::native(1),
        cookie: cookie(COOKIE),
        policy: LinkPolicy::default(),
    }
}

/// The cookie that a port demands.
#[derive(Clone)]
pub(crate) struct CookieCell(Arc<Mutex<Cookie>>);

impl CookieCell {
    pub(crate) fn set(&self, cookie: Cookie) {
        *self.0.lock().unwrap() = cookie;
    }
}

/// A listening node. Closed when dropped.
pub(crate) struct Port {
    pub(crate) native: Arc<Native>,
    pub(crate) address: SocketAddr,
    pub(crate) offered: mpsc::UnboundedReceiver<Offered>,
    pub(crate) cookie: CookieCell,
    server: JoinHandle<()>,
}

impl Port {
    pub(crate) fn open(node: &str) -> Self {
        Self::with(node, NativeLimits::default(), ServerTls::ephemeral().unwrap())
    }

    pub(crate) fn with(node: &str, limits: NativeLimits, tls: ServerTls) -> Self {
        Self::of(Native::new(name(node), limits), tls)
    }

    pub(crate) fn of(native: Arc<Native>, tls: ServerTls) -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let demanded = CookieCell(Arc::new(Mutex::new(cookie(COOKIE))));
        let current = demanded.clone();
        let credentials = Box::new(move |_: &NodeName, _: &str| Credential::Cookie(current.0.lock().unwrap().clone()));
        let listener = Listener::bind(any, Mode::Node, tls, credentials).unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, offered) = mpsc::unbounded_channel();
        let server = tokio::spawn(listener.serve(native.clone(), move |offer| {
            let sender = sender.clone();
            async move { drop(sender.send(offer)) }
        }));
        Self { native, address, offered, cookie: demanded, server }
    }

    pub(crate) fn attempt(&self) -> Attempt {
        attempt(self.native.name(), self.address)
    }

    pub(crate) async fn offer(&mut self) -> Offered {
        soon(self.offered.recv()).await.expect("the listener serves")
    }

    /// A dial by `from` that this port accepts.
    pub(crate) async fn link_from(&mut self, from: &Native) -> (Standing, Standing) {
        let dialed = dial(from, &self.attempt()).await.unwrap();
        let (finished, accepted) = tokio::join!(soon(dialed.finish(Claims::default())), async {
            soon(self.offer().await.accept(1, LinkPolicy::default())).await
        });
        (finished.unwrap(), accepted.unwrap())
    }

    pub(crate) fn is_serving(&self) -> bool {
        !self.server.is_finished()
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.server.abort();
    }
}

pub(crate) async fn dial(from: &Native, attempt: &Attempt) -> Result<Dialed, DialError> {
    dial_with(from, attempt, &client_tls(), DialTimes::default()).await
}

pub(crate) async fn dial_with(
    from: &Native,
    attempt: &Attempt,
    tls: &ClientTls,
    times: DialTimes,
) -> Result<Dialed, DialError> {
    let address = SocketAddr::new(attempt.address.host.as_str().parse().unwrap(), attempt.address.port.get());
    soon(from.dial(address, attempt, Mode::Node, tls, times)).await
}

/// One end of a link whose task runs.
pub(crate) struct End {
    pub(crate) link: Link,
    pub(crate) directory: Arc<Mailboxes>,
    pub(crate) task: JoinHandle<()>,
}

impl End {
    pub(crate) fn start(standing: Standing, hooks: Hooks) -> Self {
        let directory = Arc::new(Mailboxes::default());
        let (link, task) = standing.start(directory.clone(), hooks);
        Self { link, directory, task: tokio::spawn(task) }
    }

    pub(crate) fn mailbox(&self, name: &str) -> trunkline_stack::Mailbox {
        self.directory.register(name).unwrap()
    }
}

/// Two ends of one link: the dialer's and the listener's.
pub(crate) async fn pair() -> (End, End) {
    pair_with(NativeLimits::default(), NativeLimits::default(), Hooks::default(), Hooks::default()).await
}

pub(crate) async fn pair_of(limits: NativeLimits) -> (End, End) {
    pair_with(limits, limits, Hooks::default(), Hooks::default()).await
}

pub(crate) async fn pair_with(a: NativeLimits, b: NativeLimits, of_a: Hooks, of_b: Hooks) -> (End, End) {
    let mut port = Port::with("b@host", b, ServerTls::ephemeral().unwrap());
    let (ours, theirs) = port.link_from(&Native::new(name("a@host"), a)).await;
    (End::start(ours, of_a), End::start(theirs, of_b))
}
