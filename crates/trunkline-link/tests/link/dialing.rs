//! From a socket to a link, and every way in which it does not come to that.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket};
use trunkline_link::{DialError, DialTimes, Native, NativeLimits};
use trunkline_route::{Claims, CloseCode, RejectCode, Role, TlsMode, Version};
use trunkline_stack::AttemptError;
use trunkline_tls::{ClientTls, Identity, ServerTls, TlsProfile};
use trunkline_wire::handshake::HandshakeError;

use crate::world::*;

fn a() -> std::sync::Arc<Native> {
    Native::new(name("a@host"), NativeLimits::default())
}

#[tokio::test]
async fn p1_both_ends_agree_on_the_link_and_on_who_is_who() {
    let mut port = Port::open("b@host");
    let node = a();
    let (ours, theirs) = port.link_from(&node).await;
    let (ours, theirs) = (ours.info(), theirs.info());
    assert_eq!(ours.id, theirs.id);
    assert_eq!((ours.peer.as_str(), theirs.peer.as_str()), ("b@host", "a@host"));
    assert_eq!((ours.incarnation, theirs.incarnation), (port.native.incarnation(), node.incarnation()));
    assert_eq!((&ours.version, ours.epoch), (&theirs.version, theirs.epoch));
    assert_eq!((ours.role, theirs.role), (Role::Initiator, Role::Responder));
    assert!(ours.software.starts_with("trunkline/") && ours.software == theirs.software);
}

#[tokio::test]
async fn p3_a_wrong_cookie_is_named_and_nothing_comes_up() {
    let mut port = Port::open("b@host");
    let mut attempt = port.attempt();
    attempt.cookie = cookie("another cookie than theirs");
    let error = dial(&a(), &attempt).await.unwrap_err();
    assert!(matches!(error, DialError::Handshake(HandshakeError::WrongCookie)), "{error}");
    assert!(port.offered.try_recv().is_err());
    port.link_from(&a()).await;
}

#[tokio::test]
async fn p3_a_name_other_than_the_listeners_is_refused_and_told() {
    let port = Port::open("b@host");
    let mut attempt = port.attempt();
    attempt.target = name("c@host");
    match dial(&a(), &attempt).await.unwrap_err() {
        DialError::Handshake(HandshakeError::WrongName { expected, actual }) => {
            assert_eq!((expected.as_str(), actual.as_str()), ("c@host", "b@host"));
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_node_that_dials_itself_is_told_so() {
    let port = Port::open("b@host");
    let error = dial(&port.native, &port.attempt()).await.unwrap_err();
    assert!(
        matches!(error, DialError::Handshake(HandshakeError::Rejected { code: RejectCode::Myself, .. })),
        "{error}"
    );
}

#[tokio::test]
async fn a_caller_sent_away_after_its_proof_learns_the_reason() {
    let mut port = Port::open("b@host");
    let dialed = dial(&a(), &port.attempt()).await.unwrap();
    let (finished, ()) = tokio::join!(soon(dialed.finish(Claims::default())), async {
        soon(port.offer().await.close(CloseCode::Duplicate)).await;
    });
    let error = finished.unwrap_err();
    let expected = |code: &CloseCode| *code == CloseCode::Duplicate;
    assert!(matches!(&error, DialError::Handshake(HandshakeError::Closed { code, .. }) if expected(code)), "{error}");
}

#[tokio::test]
async fn a_dial_given_up_after_the_proof_comes_to_no_offer_and_counts_as_no_guess() {
    let mut port = Port::open("b@host");
    let a = a();
    for _ in 0..12 {
        drop(dial(&a, &port.attempt()).await.unwrap());
    }
    port.link_from(&a).await;
    assert!(port.offered.try_recv().is_err());
}

#[tokio::test]
async fn an_unknown_version_is_refused_by_its_name() {
    let port = Port::open("b@host");
    let mut attempt = port.attempt();
    attempt.version = Version::native(9);
    let error = dial(&a(), &attempt).await.unwrap_err();
    assert!(matches!(error, DialError::UnknownVersion(..)));
    assert!(error.to_string().contains("TLK/9") && error.to_string().contains("TLK/1"), "{error}");
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_a_tcp_error() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let error = dial(&a(), &attempt(&name("b@host"), address)).await.unwrap_err();
    assert!(matches!(error, DialError::Connect(AttemptError::Tcp(_))), "{error}");
}

#[tokio::test]
async fn a_full_backlog_is_a_tcp_timeout() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let full = socket.listen(1).unwrap();
    let address = full.local_addr().unwrap();
    let mut held = vec![];
    for _ in 0..4 {
        held.push(tokio::time::timeout(ms(50), tokio::net::TcpStream::connect(address)).await);
    }
    let error = dial_with(&a(), &attempt(&name("b@host"), address), &client_tls(), short_times()).await.unwrap_err();
    assert!(matches!(error, DialError::Connect(AttemptError::TcpTimeout(_))), "{error}");
}

#[tokio::test]
async fn a_listener_that_says_nothing_is_a_tls_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let attempt = attempt(&name("b@host"), silent.local_addr().unwrap());
    let error = dial_with(&a(), &attempt, &client_tls(), short_times()).await.unwrap_err();
    assert!(matches!(error, DialError::TlsTimeout(_)), "{error}");
}

/// Speaks TLS with our protocol name, then says nothing, or lets go.
async fn tls_only(alpn: &[u8], answer: Option<&'static [u8]>) -> SocketAddr {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["x".into()]).unwrap().self_signed(&key).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
        .unwrap();
    config.alpn_protocols = if alpn.is_empty() { vec![] } else { vec![alpn.to_vec()] };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
        let tcp = listener.accept().await.unwrap().0;
        let Ok(mut tls) = acceptor.accept(tcp).await else { return };
        if let Some(answer) = answer {
            let _ = tls.write_all(answer).await;
            let _ = tls.flush().await;
        }
        std::future::pending::<()>().await;
    });
    address
}

#[tokio::test]
async fn tls_without_an_answer_is_a_handshake_timeout() {
    let attempt = attempt(&name("b@host"), tls_only(b"tlk/1", None).await);
    let error = dial_with(&a(), &attempt, &client_tls(), short_times()).await.unwrap_err();
    assert!(matches!(error, DialError::HandshakeTimeout(_)), "{error}");
}

#[tokio::test]
async fn tls_that_does_not_speak_trunkline_is_named() {
    let address = tls_only(b"", None).await;
    let error = dial(&a(), &attempt(&name("b@host"), address)).await.unwrap_err();
    assert!(matches!(&error, DialError::Tls(text) if text.to_string().contains("not trunkline")), "{error}");
    let address = tls_only(b"h2", None).await;
    assert!(matches!(dial(&a(), &attempt(&name("b@host"), address)).await.unwrap_err(), DialError::Tls(_)));
    let address = tls_only(b"tlk/1", Some(b"\x00\x04junk")).await;
    let error = dial(&a(), &attempt(&name("b@host"), address)).await.unwrap_err();
    assert!(matches!(error, DialError::Handshake(HandshakeError::Malformed(_))), "{error}");
}

#[tokio::test]
async fn a_plain_text_peer_and_garbage_are_named() {
    for (words, named) in [
        (&b"SSH-2.0-OpenSSH_9.2\r\n"[..], "does not speak TLS"),
        (b"\xff\xfe\x00\x01\x02\x03\x04\x05\x06\x07", "does not speak TLS"),
        (b"", "closed"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let attempt = attempt(&name("b@host"), listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let mut tcp = listener.accept().await.unwrap().0;
            tcp.write_all(words).await.unwrap();
            tcp.shutdown().await.unwrap();
            let mut sink = vec![];
            let _ = tokio::io::AsyncReadExt::read_to_end(&mut tcp, &mut sink).await;
        });
        let error = dial(&a(), &attempt).await.unwrap_err();
        assert!(matches!(&error, DialError::Tls(text) if text.to_string().contains(named)), "{error}");
        soon(server).await.unwrap();
    }
}

#[tokio::test]
async fn a_dropped_dial_closes_its_socket() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let attempt = attempt(&name("b@host"), listener.local_addr().unwrap());
    let node = a();
    let dialling = tokio::spawn(async move { dial(&node, &attempt).await.map(|_| ()) });
    let mut tcp = soon(listener.accept()).await.unwrap().0;
    dialling.abort();
    let mut sink = vec![];
    soon(tokio::io::AsyncReadExt::read_to_end(&mut tcp, &mut sink)).await.unwrap();
}

struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pem: String,
}

impl Authority {
    fn new(called: &str) -> Self {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, called);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: rcgen::Issuer::new(params, key), pem }
    }

    fn issue(&self, until_year: i32) -> ServerTls {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".into(), "b.example".into()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(until_year, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let identity = Identity::from_pem(certificate.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        // It may have run out since the listener began to show it.
        let begun = SystemTime::UNIX_EPOCH + Duration::from_secs(1_590_969_600);
        ServerTls::as_of(&identity.into(), begun).unwrap()
    }

    fn trusted(&self) -> TlsProfile {
        TlsProfile::default().roots_pem(self.pem.as_bytes()).unwrap()
    }
}

async fn dial_tls(port: &Port, tls: TlsMode, profile: &TlsProfile) -> Result<(), DialError> {
    let mut attempt = port.attempt();
    attempt.tls = tls;
    let tls = ClientTls::new(profile).unwrap();
    dial_with(&a(), &attempt, &tls, DialTimes::default()).await.map(|_| ())
}

fn open(tls: ServerTls) -> Port {
    Port::with("b@host", NativeLimits::default(), tls)
}

#[tokio::test]
async fn a_certificate_of_the_right_authority_is_taken_by_address_and_by_name() {
    let ca = Authority::new("ours");
    let port = open(ca.issue(2099));
    dial_tls(&port, TlsMode::Verify(None), &ca.trusted()).await.unwrap();
    dial_tls(&port, TlsMode::Verify(None), &ca.trusted().server_name("b.example")).await.unwrap();
    let error = dial_tls(&port, TlsMode::Verify(None), &ca.trusted().server_name("c.example")).await.unwrap_err();
    assert!(matches!(&error, DialError::Tls(text) if text.to_string().contains("certificate")), "{error}");
}

#[tokio::test]
async fn an_expired_certificate_and_a_wrong_authority_are_refused_unless_verification_is_skipped() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let (expired, foreign) = (open(ours.issue(2021)), open(theirs.issue(2099)));
    for port in [&expired, &foreign] {
        let error = dial_tls(port, TlsMode::Verify(None), &ours.trusted()).await.unwrap_err();
        assert!(matches!(&error, DialError::Tls(text) if text.to_string().contains("certificate")), "{error}");
        dial_tls(port, TlsMode::DangerousSkipVerify(None), &ours.trusted()).await.unwrap();
        dial_tls(port, TlsMode::CookieOnly, &ours.trusted()).await.unwrap();
    }
}
