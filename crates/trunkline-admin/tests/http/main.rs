//! Tests of the operations API with a plain HTTP client.

mod limits;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use trunkline::{Chain, Cookie, Mailbox, NetworkRoute, Node};
use trunkline_admin::api::{Body, CallReply, MessageRequest, Status};
use trunkline_admin::{AdminClient, AdminListener, AdminServer, ClientError, Operations};
use trunkline_config::{AdminConfig, Config, Layers};

const COOKIE: &str = "a shared secret of the two, 5994471abb01112afcc1";

struct World {
    dir: tempfile::TempDir,
    node: Node,
    operations: Arc<Operations>,
    admin: AdminServer,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("cookie"), COOKIE).unwrap();
        std::fs::set_permissions(dir.path().join("cookie"), std::fs::Permissions::from_mode(0o600)).unwrap();
        let text = "node: { name: app@127.0.0.1, cookie_file: cookie }";
        let config = Config::parse(text, dir.path(), "app.yaml", &Layers::none()).unwrap();
        let node = node("app").await;
        let operations = Arc::new(Operations::new(node.clone(), &config, None));
        let admin = AdminServer::start(operations.clone(), &config.node.admin).await.unwrap().unwrap();
        Self { dir, node, operations, admin }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("app.data/admin.sock")
    }

    fn client(&self) -> AdminClient {
        AdminClient::Socket(self.socket())
    }

    /// Sends a request and returns the status and the body, which must be JSON.
    async fn ask(&self, method: &str, path: &str, body: impl AsRef<[u8]>) -> (u16, Value) {
        let body = body.as_ref();
        let mut stream = UnixStream::connect(self.socket()).await.unwrap();
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        // The server may refuse the request and close the connection before it has read everything.
        let _ = stream.write_all(body).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.to_ascii_lowercase().contains("content-type: application/json"), "{head}");
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap())
    }

    async fn refused(&self, method: &str, path: &str, body: impl AsRef<[u8]>, status: u16, part: &str) {
        let (got, answer) = self.ask(method, path, body).await;
        let error = answer["error"].as_str().unwrap();
        assert_eq!(got, status, "{method} {path}: {error}");
        assert!(error.contains(part), "{method} {path}: {part:?} is missing in {error:?}");
    }
}

async fn node(name: &str) -> Node {
    let builder = Node::builder(format!("{name}@127.0.0.1")).unwrap().cookie(Cookie::new(COOKIE).unwrap());
    let builder = builder.listen("127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap());
    builder.no_registrar().start().await.unwrap()
}

/// Starts another node, with a service `work`, to which the world's node has a route.
async fn peer(world: &World) -> (Node, Mailbox) {
    let peer = node("peer").await;
    let mailbox = peer.register("work").unwrap();
    let route = NetworkRoute::direct("127.0.0.1", peer.listening()[0].port()).unwrap();
    world.node.add_route("^peer@", route, 100).unwrap();
    (peer, mailbox)
}

fn request(timeout_ms: u64) -> MessageRequest {
    let body = Body::Text("hello".into());
    MessageRequest { name: "peer@127.0.0.1".into(), mailbox: "work".into(), body, timeout_ms, important: false }
}

#[tokio::test]
async fn an_unknown_path_is_404_and_a_wrong_method_405_both_in_json() {
    let world = World::new().await;
    for path in ["/v1", "/v1/nowhere", "/v2/status", "/v1/status/"] {
        world.refused("GET", path, "", 404, "no such operation").await;
    }
    world.refused("GET", "/", "", 405, "another HTTP method").await;
    world.refused("POST", "/v1/status", "{}", 405, "another HTTP method").await;
    world.refused("DELETE", "/v1/routes", "", 405, "another HTTP method").await;
    world.refused("GET", "/v1/reload", "", 405, "another HTTP method").await;
}

#[tokio::test]
async fn every_documented_operation_exists() {
    let world = World::new().await;
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/ADMIN.md")).unwrap();
    let operations: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("### `")?.split_once('`')).collect();
    assert_eq!(operations.len(), 33);
    for (operation, _) in operations {
        let (method, path) = operation.split_once(' ').unwrap();
        let (status, answer) = world.ask(method, &path.replace("NAME", "db%40h"), "").await;
        assert!(status == 200 || status == 400, "{operation}: {status} {answer}");
    }
}

#[tokio::test]
async fn a_malformed_request_is_400_and_names_the_field() {
    let world = World::new().await;
    let refused = async |path: &str, body: &str, part: &str| world.refused("POST", path, body, 400, part).await;
    refused("/v1/ping", "", "EOF").await;
    refused("/", r#"{"operation": "cluster_restart"}"#, "cluster_restart").await;
    refused("/", "{}", "`operation`").await;
    refused("/v1/ping", "{", "EOF").await;
    refused("/v1/ping", "[", "is invalid").await;
    refused("/v1/ping", "{}", "`name`").await;
    refused("/v1/ping", r#"{"name": 7}"#, "name: ").await;
    refused("/v1/ping", r#"{"name": "no-name"}"#, "no-name").await;
    refused("/v1/ping", r#"{"name": "a@h", "timeout": 1}"#, "`timeout`").await;
    refused("/v1/ping", r#"{"name": "a@h", "timeout_ms": 0}"#, "timeout_ms: 0").await;
    refused("/v1/ping", r#"{"name": "a@h", "timeout_ms": 18446744073709551615}"#, "timeout_ms: 1844").await;
    let body = r#"{"name": "a@h", "mailbox": "s", "body": {"base64": "?"}}"#;
    refused("/v1/send", body, "body.base64").await;
    refused("/v1/call", r#"{"name": "a@h", "mailbox": "s", "body": "x"}"#, "body: ").await;
    refused("/v1/routes", r#"{"route": {"match": "a", "port": 70000}}"#, "route.port: ").await;
    refused("/v1/routes", r#"{"route": {"match": "(", "port": 7}}"#, "match: ").await;
    refused("/v1/routes", r#"{"route": {"match": "a", "port": 7, "cookie": "s3cret"}}"#, "`cookie`").await;
    refused("/v1/routes", r#"{"route": {"match": "a", "port": 7}, "save": true}"#, "not started from a file").await;
    refused("/v1/reload", "", "not started from a file").await;
    world.refused("GET", "/v1/explain", "", 400, "?name=NAME").await;
    world.refused("GET", "/v1/explain?name=no-name", "", 400, "name@host").await;
    assert!(world.operations.routes().is_empty());
}

#[tokio::test]
async fn an_oversized_request_is_413() {
    let world = World::new().await;
    let body = vec![b' '; 12 * 1024 * 1024 + 1];
    world.refused("POST", "/v1/call", body, 413, "exceeds 12582912 bytes").await;
}

#[tokio::test]
async fn a_route_is_added_once_and_removed_once() {
    let world = World::new().await;
    let add = json!({ "route": { "match": "^db@", "host": "::1", "port": 4370 } }).to_string();
    let (status, changed) = world.ask("POST", "/v1/routes", &add).await;
    assert_eq!(status, 200, "{changed}");
    world.refused("POST", "/v1/routes", &add, 409, "remove it first").await;
    let (_, routes) = world.ask("GET", "/v1/routes", "").await;
    assert_eq!(
        (&routes[0]["match"], &routes[0]["weight"], &routes[0]["host"]),
        (&"^db@".into(), &100.into(), &"::1".into())
    );
    let (_, explained) = world.ask("GET", "/v1/explain?name=db%40h", "").await;
    assert_eq!(explained["steps"][0]["address"], "[::1]:4370");
    let remove = r#"{"match": "^db@"}"#;
    assert_eq!(world.ask("POST", "/v1/routes/remove", remove).await.0, 200);
    world.refused("POST", "/v1/routes/remove", remove, 404, "exactly the pattern").await;
    world.refused("POST", "/v1/disconnect", r#"{"name": "db@h"}"#, 404, "no connection to db@h").await;
}

#[tokio::test]
async fn any_bytes_go_to_a_service_and_back() {
    let world = World::new().await;
    let (_peer, mut mailbox) = peer(&world).await;
    tokio::spawn(async move {
        while let Some(message) = mailbox.recv().await {
            let body = message.body().clone();
            message.reply(body);
        }
    });
    let all: Vec<u8> = (0..=255).collect();
    for bytes in [&b"text"[..], b"", &all] {
        let request = MessageRequest { body: Body::new(bytes), ..request(10_000) };
        let reply: CallReply = world.client().post("/v1/call", &request).await.unwrap();
        assert_eq!(reply.body.bytes().unwrap(), bytes);
    }
}

#[tokio::test]
async fn an_unreachable_name_is_502_with_its_attempts_and_a_silent_service_is_502_with_the_timeout() {
    let world = World::new().await;
    let (peer, _mailbox) = peer(&world).await;
    let Err(ClientError::Failed { status, failure }) = world.client().post::<Value>("/v1/call", &request(50)).await
    else {
        panic!("the call was answered");
    };
    assert_eq!(status, 502);
    assert!(
        failure.error.contains("did not answer within 50ms") && failure.error.contains("may have received"),
        "{failure:?}"
    );
    peer.shut_down(Duration::from_millis(1)).await;
    let (status, failure) = world.ask("POST", "/v1/ping", r#"{"name": "peer@127.0.0.1"}"#).await;
    assert_eq!((status, failure["attempts"][0]["stage"].as_str()), (502, Some("tcp")), "{failure}");
}

#[tokio::test]
async fn a_request_in_progress_is_answered_although_the_node_stops() {
    let world = World::new().await;
    let (_peer, mut mailbox) = peer(&world).await;
    let (client, socket) = (world.client(), world.socket());
    let call = tokio::spawn(async move { client.post::<CallReply>("/v1/call", &request(20_000)).await });
    let message = mailbox.recv().await.unwrap();
    let World { node, admin, dir: _dir, .. } = world;
    let leaving = tokio::spawn(admin.while_leaving(node.shut_down(Duration::from_secs(20))));
    while socket.exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    message.reply("at last");
    assert_eq!(call.await.unwrap().unwrap().body, Body::Text("at last".into()));
    assert_eq!(leaving.await.unwrap().drained, 1);
}

#[test]
fn of_many_concurrent_binds_of_one_address_exactly_one_succeeds() {
    const MANY: usize = 8;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data/admin.sock");
    for _ in 0..20 {
        // Create what a killed node leaves behind.
        std::fs::create_dir_all(dir.path().join("data")).unwrap();
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let (start, finish) = (Barrier::new(MANY), Barrier::new(MANY));
        let bind = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            start.wait();
            let bound = runtime.block_on(AdminListener::bind(&AdminConfig::Socket(path.clone())));
            finish.wait();
            bound.map(drop).map_err(|error| Chain(&error).to_string())
        };
        let refused: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..MANY).map(|_| scope.spawn(bind)).collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap().err()).collect()
        });
        assert_eq!(refused.len(), MANY - 1);
        assert!(refused.iter().all(|error| error.contains("a running process answers there")), "{refused:?}");
        assert!(!path.exists());
    }
}

#[tokio::test]
async fn dropping_a_listener_does_not_remove_the_socket_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data/admin.sock");
    let config = AdminConfig::Socket(path.clone());
    let first = AdminListener::bind(&config).await.unwrap();
    std::fs::remove_file(&path).unwrap();
    let second = AdminListener::bind(&config).await.unwrap();
    drop(first);
    assert!(path.exists(), "the second listener's socket");
    drop(second);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_is_refused_with_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let config = AdminConfig::Socket(dir.path().join("d".repeat(120)).join("admin.sock"));
    let error = AdminListener::bind(&config).await.unwrap_err().to_string();
    assert!(error.contains("shorter node.data_dir"), "{error}");
    let config = AdminConfig::Socket(PathBuf::from(format!("{}/d/admin.sock", dir.path().display())));
    AdminListener::bind(&config).await.unwrap();
}

#[tokio::test]
async fn a_client_distinguishes_no_listener_a_foreign_answer_and_a_lost_answer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let client = AdminClient::Socket(path.clone());
    let unreachable = client.get::<Status>("/v1/status").await.unwrap_err();
    let ClientError::Unreachable { source, .. } = unreachable else { panic!("{unreachable}") };
    assert_eq!(source.io_kind(), Some(std::io::ErrorKind::NotFound));

    let listener = UnixListener::bind(&path).unwrap();
    for (answer, lost) in
        [("", true), ("SSH-2.0-x\r\n\r\n", false), ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", false)]
    {
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        let ((), error) = tokio::join!(serve, client.get::<Status>("/v1/status"));
        let error = error.unwrap_err();
        assert_eq!(matches!(error, ClientError::Lost { .. }), lost, "{answer:?}: {error}");
        assert_eq!(matches!(error, ClientError::Unexpected { .. }), !lost, "{answer:?}: {error}");
    }
}
