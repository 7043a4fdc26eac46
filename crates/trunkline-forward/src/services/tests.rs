use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use trunkline_route::Cookie;
use trunkline_stack::{BoxFuture, HostNames, Link, LinkInfo, LocalLimits, LocalLink, Mailboxes, PeerLog};

use super::*;

const SOON: Duration = Duration::from_secs(10);

/// A node that reaches itself only, over links that the tests may end.
struct Alone {
    mailboxes: Arc<Mailboxes>,
    links: Mutex<Vec<Arc<LocalLink>>>,
    asked: AtomicUsize,
    leaving: watch::Sender<bool>,
    names: HostNames,
    log: PeerLog,
}

impl StreamHost for Alone {
    fn link(self: Arc<Self>, _: NodeName, _: Duration) -> BoxFuture<'static, Result<Link, ConnectError>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let mut links = self.links.lock().unwrap();
        let link = if links.len() > 1 { links.remove(0) } else { links[0].clone() };
        Box::pin(std::future::ready(Ok(link.link())))
    }

    fn shutting_down(&self) -> watch::Receiver<bool> {
        self.leaving.subscribe()
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }

    fn host_names(&self) -> &HostNames {
        &self.names
    }

    fn peer_log(&self) -> &PeerLog {
        &self.log
    }
}

impl Alone {
    fn new_link(&self) -> Arc<LocalLink> {
        let cookie = Cookie::new("a cookie of some length").unwrap();
        let info = LinkInfo::local("a@h".parse().unwrap(), [7; 16], cookie);
        LocalLink::start(info, self.mailboxes.clone(), LocalLimits::default())
    }
}

fn node() -> (Arc<Alone>, Arc<Services>) {
    let node = Arc::new(Alone {
        mailboxes: Arc::default(),
        links: Mutex::default(),
        asked: AtomicUsize::new(0),
        leaving: watch::Sender::new(false),
        names: HostNames::of_the_system(),
        log: PeerLog::default(),
    });
    node.links.lock().unwrap().push(node.new_link());
    let services = Arc::new(Services::new(Arc::downgrade(&node) as Weak<dyn StreamHost>, SOON));
    let of_the_node = services.clone();
    node.mailboxes.accept_streams(Some(Arc::new(move |incoming| of_the_node.dispatch(incoming))));
    (node, services)
}

fn names(text: &str) -> Vec<AccessPattern> {
    vec![AccessPattern::new(text).unwrap()]
}

/// A TCP server that sends back what it reads, and its place.
async fn echo() -> SocketPlace {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = listener.local_addr().unwrap().to_string().parse().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = socket.split();
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
                let _ = writer.shutdown().await;
            });
        }
    });
    place
}

fn refused(error: StreamError) -> (StreamCode, String) {
    match error {
        StreamError::Open(OpenError::Refused { code, text, .. }) => (code, text),
        other => panic!("{other}"),
    }
}

/// Waits until a condition holds; each turn lets the other tasks run.
async fn until(holds: impl Fn() -> bool) {
    let turns = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, turns).await.expect("the condition holds soon");
}

#[tokio::test]
async fn a_forwarded_connection_reaches_the_place_of_the_service_and_both_count_its_bytes() {
    let (_node, services) = node();
    services.serve("echo", echo().await, names("a@h")).unwrap();
    let forward = services.forward("127.0.0.1:0".parse().unwrap(), "a@h", "echo").await.unwrap();
    let LocalPlace::Tcp(address) = forward.place() else { panic!("it is a TCP socket") };
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"hello").await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "hello");
    until(|| forward.traffic().open == 0 && services.list()[0].traffic.open == 0).await;
    for traffic in [forward.traffic(), services.list()[0].traffic] {
        assert_eq!((traffic.all, traffic.sent, traffic.received, traffic.refused), (1, 5, 5, 0));
    }
}

#[tokio::test]
async fn a_service_is_for_the_peers_that_it_allows() {
    let (_node, services) = node();
    services.serve("mine", echo().await, names("b@h")).unwrap();
    let (code, _) = refused(services.open("a@h", "mine", SOON).await.unwrap_err());
    assert_eq!((code, services.list()[0].traffic.refused), (StreamCode::NotAllowed, 1));
    let (code, _) = refused(services.open("a@h", "other", SOON).await.unwrap_err());
    assert_eq!(code, StreamCode::NoService);
}

#[tokio::test]
async fn a_place_that_refuses_is_told_by_the_kind_of_error_alone() {
    let (_node, services) = node();
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    services.serve("gone", gone.parse().unwrap(), names(".*")).unwrap();
    let (code, text) = refused(services.open("a@h", "gone", SOON).await.unwrap_err());
    assert_eq!((code, text), (StreamCode::Unreachable, "connection refused".to_owned()));
}

#[tokio::test]
async fn a_name_is_offered_once_and_withdrawn_once() {
    let (_node, services) = node();
    for (name, len) in [(String::new(), 0), ("x".repeat(256), 256)] {
        assert_eq!(services.accept(&name, Vec::new()).unwrap_err(), ServiceError::BadName { len });
    }
    let _streams = services.accept("one", Vec::new()).unwrap();
    assert_eq!(services.accept("one", Vec::new()).unwrap_err(), ServiceError::Taken("one".into()));
    assert!(services.withdraw("one") && !services.withdraw("one"));
    services.accept("one", Vec::new()).unwrap();
}

#[tokio::test]
async fn a_program_gets_the_streams_that_are_still_wanted_up_to_a_limit() {
    let (_node, services) = node();
    let mut streams = services.accept("slow", names(".*")).unwrap();
    let waiting: Vec<_> = (0..WAITING)
        .map(|_| {
            let services = services.clone();
            tokio::spawn(async move { services.open("a@h", "slow", SOON).await })
        })
        .collect();
    until(|| streams.0.len() == WAITING).await;
    let (code, _) = refused(services.open("a@h", "slow", SOON).await.unwrap_err());
    assert_eq!(code, StreamCode::Overloaded);
    // The callers of all but the last one give up.
    for given_up in &waiting[..WAITING - 1] {
        given_up.abort();
    }
    until(|| waiting[..WAITING - 1].iter().all(|task| task.is_finished())).await;
    streams.next().await.unwrap().accept();
    waiting.into_iter().next_back().unwrap().await.unwrap().unwrap();
    assert!(streams.0.is_empty());
    drop(streams);
    let (code, _) = refused(services.open("a@h", "slow", SOON).await.unwrap_err());
    assert_eq!(code, StreamCode::NoService);
}

#[tokio::test]
async fn a_stream_is_opened_over_another_link_if_the_first_one_ended() {
    let (node, services) = node();
    services.serve("echo", echo().await, names(".*")).unwrap();
    let ended = node.new_link();
    ended.shut_down();
    node.links.lock().unwrap().insert(0, ended);
    let first = First { bytes: b"first", is_all: true };
    let mut stream = services.open_with("a@h", "echo", first, SOON).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!((answer.as_str(), node.asked.load(Ordering::Relaxed)), ("first", 2));
}

#[tokio::test]
async fn bytes_that_the_service_may_have_read_are_not_sent_over_another_link() {
    for (bytes, links_asked_for) in [(&b"first"[..], 1), (b"", 2)] {
        let (node, services) = node();
        let mut streams = services.accept("slow", names(".*")).unwrap();
        let first = node.links.lock().unwrap()[0].clone();
        node.links.lock().unwrap().push(node.new_link());
        let opened = tokio::spawn({
            let services = services.clone();
            async move { services.open_with("a@h", "slow", First { bytes, is_all: false }, SOON).await }
        });
        let _unanswered = streams.next().await.unwrap();
        first.shut_down();
        if bytes.is_empty() {
            streams.next().await.unwrap().accept();
            opened.await.unwrap().unwrap();
        } else {
            let error = opened.await.unwrap().unwrap_err();
            assert!(matches!(error, StreamError::Open(OpenError::Down(_))), "{error}");
        }
        assert_eq!(node.asked.load(Ordering::Relaxed), links_asked_for);
    }
}

#[tokio::test]
async fn nothing_begins_at_a_node_that_shuts_down_or_is_gone() {
    let (node, services) = node();
    let place: LocalPlace = "127.0.0.1:0".parse().unwrap();
    let forward = services.forward(place.clone(), "a@h", "echo").await.unwrap();
    node.leaving.send_replace(true);
    assert_eq!(services.accept("late", Vec::new()).unwrap_err(), ServiceError::ShuttingDown);
    let late = services.forward(place.clone(), "a@h", "echo").await.unwrap_err();
    assert!(matches!(late, ForwardError::ShuttingDown), "{late}");
    // The socket of the forward is closed.
    let LocalPlace::Tcp(address) = forward.place() else { panic!("it is a TCP socket") };
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    drop(node);
    let gone = services.open("a@h", "echo", SOON).await.unwrap_err();
    assert_eq!(gone, StreamError::Connect(ConnectError::ShuttingDown));
}

#[tokio::test]
async fn a_connection_whose_stream_is_refused_is_reset() {
    let (_node, services) = node();
    let forward = services.forward("127.0.0.1:0".parse().unwrap(), "a@h", "nothing").await.unwrap();
    let LocalPlace::Tcp(address) = forward.place() else { panic!("it is a TCP socket") };
    let mut client = TcpStream::connect(address).await.unwrap();
    let error = client.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!((error.kind(), forward.traffic().refused), (std::io::ErrorKind::ConnectionReset, 1));
}

#[tokio::test]
async fn the_options_of_a_service_and_a_forward_are_reported() {
    let (_node, services) = node();
    let options = StreamOptions { idle: Some(SOON) };
    let place: SocketPlace = "127.0.0.1:1".parse().unwrap();
    services.serve_with("idle", place.clone(), Vec::new(), options).unwrap();
    let _streams = services.accept("own", Vec::new()).unwrap();
    let told: Vec<_> =
        services.list().into_iter().map(|service| (service.name, service.place, service.options)).collect();
    assert_eq!(told, [("idle".into(), Some(place), options), ("own".into(), None, StreamOptions::default())]);
    let forward = services.forward_with("127.0.0.1:0".parse().unwrap(), "a@h", "idle", options).await.unwrap();
    assert_eq!((forward.peer().to_string(), forward.service(), forward.options()), ("a@h".into(), "idle", options));
    let error = services.forward("127.0.0.1:0".parse().unwrap(), "no name", "idle").await.unwrap_err();
    assert!(matches!(error, ForwardError::BadName(_)), "{error}");
}
