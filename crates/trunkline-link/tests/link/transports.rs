//! Links over transports of the program's own, by the traits that every stack implements.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use trunkline_link::{DialTimes, Hooks, Mailboxes, Native, NativeLimits, NativeStack};
use trunkline_route::{Claims, LinkPolicy, NodeName};
use trunkline_stack::{AttemptError, PeerAddress, Stack, Transport};
use trunkline_tls::{ClientProfiles, ServerTls};
use trunkline_wire::handshake::Credential;

use crate::world::*;

const WHILE: Duration = Duration::from_secs(20);

fn stack(of: &str) -> NativeStack {
    let native = Native::new(name(of), NativeLimits::default());
    NativeStack::new(native, Arc::new(ClientProfiles::new(BTreeMap::new()).unwrap()), DialTimes::default())
}

fn credentials(_: &NodeName, _: &str) -> Credential {
    Credential::Cookie(cookie(COOKIE))
}

/// Brings a link up between the two ends of a transport, and echoes 3 MB over it.
async fn echo_over(ours: Transport, theirs: Transport) {
    let address = ours.address().clone();
    let (from, to) = (stack("a@host"), stack("b@host"));
    let anywhere: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let attempt = attempt(&name("b@host"), anywhere);
    let answering = to.answering(ServerTls::ephemeral().unwrap(), Box::new(credentials));
    let dialling = async {
        let proven = from.dial(ours, &attempt).await?;
        let peer = proven.peer().clone();
        let claims = Claims { known_epoch: 4, ..Claims::default() };
        Ok::<_, AttemptError>((peer, proven.finish(claims).await?))
    };
    let accepting = async {
        let caller = answering.answer(theirs).await.unwrap();
        let (peer, claims) = (caller.peer().clone(), caller.claims().unwrap());
        (peer, caller.accept(claims.known_epoch + 1, LinkPolicy::default()).await.unwrap())
    };
    let (dialled, (caller, accepted)) = tokio::join!(soon(dialling), soon(accepting));
    let (peer, up) = dialled.unwrap();
    assert_eq!((peer.name.as_str(), caller.name.as_str(), peer.link), ("b@host", "a@host", caller.link));
    assert_eq!((up.info().epoch, &up.info().address), (5, &address));

    let mailboxes = Arc::new(Mailboxes::default());
    let mut mailbox = mailboxes.register("echo").unwrap();
    let (_theirs, driver) = accepted.start(mailboxes, Hooks::default());
    tokio::spawn(driver);
    tokio::spawn(async move {
        while let Some(message) = mailbox.recv().await {
            let body = message.body().clone();
            message.reply(body);
        }
    });
    let (link, driver) = up.start(Arc::default(), Hooks::default());
    tokio::spawn(driver);
    let body: Vec<u8> = (0..3_000_000).map(|n: usize| (n * 7 + n / 251) as u8).collect();
    assert!(soon(link.call("echo", "", &body, WHILE)).await.unwrap() == body);
}

#[tokio::test]
async fn a_link_comes_up_over_a_unix_socket() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    echo_over(Transport::unix(ours), Transport::unix(theirs)).await;
}

#[tokio::test]
async fn a_link_comes_up_over_a_pipe_in_memory_however_small() {
    let (ours, theirs) = tokio::io::duplex(100);
    let in_memory = |end| Transport::new(end, PeerAddress::Memory);
    echo_over(in_memory(ours), in_memory(theirs)).await;
}

#[tokio::test]
async fn an_attempt_keeps_the_kind_of_a_system_error_and_the_number_of_a_tls_alert() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = soon(stack("a@host").connect(free.into())).await.unwrap_err();
    assert_eq!(refused.io_kind(), Some(std::io::ErrorKind::ConnectionRefused), "{refused}");

    let (ours, theirs) = tokio::io::duplex(4_096);
    // A server of another protocol: it answers with the alert no_application_protocol.
    let other = tokio::spawn(async move {
        let config = other_protocol();
        let _ = tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(theirs).await;
    });
    let anywhere: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let attempt = attempt(&name("b@host"), anywhere);
    let from = stack("a@host");
    let failed = soon(from.dial(Transport::new(ours, PeerAddress::Memory), &attempt)).await.err().unwrap();
    assert!(matches!(failed, AttemptError::Tls(_)), "{failed:?}");
    assert_eq!(failed.tls_alert(), Some(120), "{failed:?}");
    other.await.unwrap();
}

fn other_protocol() -> tokio_rustls::rustls::ServerConfig {
    let own = rcgen::generate_simple_self_signed(["other".to_owned()]).unwrap();
    let key = tokio_rustls::rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let mut config = tokio_rustls::rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}
