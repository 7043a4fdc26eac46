//! HTTP server of the operations API.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::HttpBody;
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use trunkline_config::{AdminConfig, AdminToken};
use trunkline_stack::{AcceptFailures, LogLimit, SocketError, SocketFile, bind_unix, listen_tcp};

use crate::api::{
    AddProxyRoute, AddRoute, Announce, ApplicationRequest, ClusterOperation, DisconnectRequest, EndForward, Failure,
    ForwardRequest, Forwarding, MessageRequest, PingRequest, RegistrarChange, RegistrarQuery, RemoveRoute,
    ResolveQuery, RevokeToken, ServicesQuery, SpawnRequest, StopApplication, TokenRequest, TraceRequest,
};
use crate::ops::{AttachedForward, Kind, OpError, Operations};
use crate::places::{self, MAX_CONNECTIONS, MAX_REQUESTS, Place, Places};

/// Largest request accepted, in bytes: the largest message in base64 with some room for the other fields.
const MAX_REQUEST: usize = 12 * 1024 * 1024;
/// Timeout of a request's head, from the begin of the connection or from the previous answer. A client that wants
/// something sends its request at once.
const HEAD: Duration = Duration::from_secs(10);
/// Timeout of a request's body after its head, enough for the largest one at 400 KiB a second.
const BODY: Duration = Duration::from_secs(30);
/// Timeout for writing the last answers once the node has stopped.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// Interval of log lines about refused tokens, per address.
const REFUSALS: Duration = Duration::from_secs(10);

/// Running server of the operations API. Dropping it stops it at once and removes its socket; see also
/// [`AdminServer::while_leaving`].
#[derive(Debug)]
pub struct AdminServer {
    task: JoinHandle<()>,
    stop: watch::Sender<bool>,
    address: AdminAddress,
    _file: Option<SocketFile>,
}

/// Address of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminAddress {
    /// Unix socket at this path.
    Socket(PathBuf),
    /// TCP address; requests need a bearer token.
    Tcp(SocketAddr),
}

impl std::fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Tcp(address) => write!(f, "{address}"),
        }
    }
}

/// Error returned when the operations API cannot start.
#[derive(Debug, thiserror::Error)]
#[error("the operations API cannot listen at {address}; {remedy}")]
pub struct AdminError {
    address: String,
    #[source]
    cause: SocketError,
    remedy: &'static str,
}

/// Bound socket of the operations API that is not served yet, so clients wait. Dropping it removes its socket.
#[derive(Debug)]
pub struct AdminListener {
    bound: Bound,
    address: AdminAddress,
}

#[derive(Debug)]
enum Bound {
    Socket(UnixListener, SocketFile),
    Tcp(Vec<TcpListener>, AdminToken),
}

impl AdminListener {
    /// Binds the configured address; returns `None` if the API is disabled. Bind before the node starts, so that a node
    /// whose address is taken never appears to others.
    ///
    /// # Errors
    /// [`AdminError`] names the address and the remedy.
    pub async fn bind(config: &AdminConfig) -> Result<Option<Self>, AdminError> {
        match config {
            AdminConfig::Socket(path) => {
                let (listener, file) = bind_socket(path).await?;
                let address = AdminAddress::Socket(path.clone());
                Ok(Some(Self { bound: Bound::Socket(listener, file), address }))
            }
            AdminConfig::Tcp { listen, token } => {
                let failed = |cause: io::Error| AdminError {
                    address: listen.to_string(),
                    cause: cause.into(),
                    remedy: "choose another node.admin.listen",
                };
                // A name such as localhost may have several addresses.
                let addresses = tokio::net::lookup_host((listen.host.as_str(), listen.port.get())).await;
                let addresses: BTreeSet<_> = addresses.map_err(failed)?.collect();
                let listeners = listen_all(addresses).map_err(failed)?;
                let first = listeners.first().ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
                let address = AdminAddress::Tcp(first.local_addr().map_err(failed)?);
                Ok(Some(Self { bound: Bound::Tcp(listeners, token.clone()), address }))
            }
            _ => Ok(None),
        }
    }

    /// Serves these operations.
    pub fn serve(self, operations: Arc<Operations>) -> AdminServer {
        let (stop, stopping) = watch::channel(false);
        let (doors, file, app) = match self.bound {
            Bound::Socket(listener, file) => (vec![Door::Unix(listener)], Some(file), router(operations)),
            Bound::Tcp(listeners, token) => {
                let refusals = LogLimit::new(1, REFUSALS);
                let checked = middleware::from_fn_with_state(Arc::new(Tokens { token, refusals }), authorize);
                (listeners.into_iter().map(Door::Tcp).collect(), None, router(operations).layer(checked))
            }
        };
        let places = Arc::<Places>::default();
        let mut loops = JoinSet::new();
        for door in doors {
            loops.spawn(accept(door, app.clone(), places.clone(), stopping.clone()));
        }
        let task = tokio::spawn(async move { while loops.join_next().await.is_some() {} });
        AdminServer { task, stop, address: self.address, _file: file }
    }
}

/// Listens at all these addresses. Skips an address that this machine does not have, such as `::1` without IPv6, as
/// long as another one works.
fn listen_all(addresses: BTreeSet<SocketAddr>) -> io::Result<Vec<TcpListener>> {
    let several = addresses.len() > 1;
    let missing = [io::ErrorKind::AddrNotAvailable, io::ErrorKind::Unsupported];
    let (mut listeners, mut left_out) = (Vec::new(), None);
    for address in addresses {
        match listen_tcp(address) {
            Ok(listener) => listeners.push(listener),
            Err(error) if several && missing.contains(&error.kind()) => left_out = Some(error),
            Err(error) => return Err(error),
        }
    }
    match left_out.filter(|_| listeners.is_empty()) {
        Some(error) => Err(error),
        None => Ok(listeners),
    }
}

/// Listening socket.
enum Door {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Accepted connection.
enum Accepted {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

impl Door {
    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let (tcp, address) = listener.accept().await?;
                let _ = tcp.set_nodelay(true);
                crate::keep_alive(&tcp);
                Ok(Accepted::Tcp(tcp, address))
            }
            Self::Unix(listener) => Ok(Accepted::Unix(listener.accept().await?.0)),
        }
    }
}

/// Accepts connections until told to stop, and then waits for the requests in progress.
async fn accept(door: Door, app: Router, places: Arc<Places>, mut stopping: watch::Receiver<bool>) {
    let (mut connections, mut failures) = (JoinSet::new(), AcceptFailures::default());
    loop {
        let accepted = tokio::select! {
            // Also resolves when the server was dropped.
            _ = stopping.wait_for(|stop| *stop) => break,
            Some(_) = connections.join_next() => continue,
            accepted = door.accept() => accepted,
        };
        let (app, stopping) = (app.clone(), stopping.clone());
        match accepted {
            Ok(Accepted::Tcp(tcp, address)) => {
                connections.spawn(connection(tcp, places.take(Some(address.ip())), app, stopping));
            }
            Ok(Accepted::Unix(unix)) => drop(connections.spawn(connection(unix, places.take(None), app, stopping))),
            Err(error) => {
                failures.failed(&"the operations API", &error).await;
                continue;
            }
        }
        failures.accepted();
        // Connections that were told to close hold their socket until they end.
        while connections.len() > MAX_CONNECTIONS {
            connections.join_next().await;
        }
    }
    drop(door);
    while connections.join_next().await.is_some() {}
}

/// True once the server stops. Answers that last end then.
#[derive(Clone)]
struct Stopping(watch::Receiver<bool>);

/// Serves one connection until it ends, is closed for another one, or the server stops.
async fn connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    place: Place,
    app: Router,
    mut stopping: watch::Receiver<bool>,
) {
    let app = app.layer(Extension(place.clone())).layer(Extension(Stopping(stopping.clone())));
    let mut http = hyper::server::conn::http1::Builder::new();
    let http = http.timer(TokioTimer::new()).header_read_timeout(HEAD);
    let served = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
    let mut served = pin!(served);
    tokio::select! {
        _ = &mut served => return,
        () = place.gives_way() => return,
        _ = stopping.wait_for(|stop| *stop) => served.as_mut().graceful_shutdown(),
    }
    let _ = served.await;
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl AdminServer {
    /// Binds and serves in one step; returns `None` if the API is disabled.
    ///
    /// # Errors
    /// [`AdminError`] names the address and the remedy.
    pub async fn start(operations: Arc<Operations>, config: &AdminConfig) -> Result<Option<Self>, AdminError> {
        Ok(AdminListener::bind(config).await?.map(|listener| listener.serve(operations)))
    }

    /// Returns the address of the server.
    pub fn address(&self) -> &AdminAddress {
        &self.address
    }

    /// Removes the socket and accepts no further requests while the node is stopping. Requests in progress are answered
    /// when the node has stopped, at most a second later.
    pub async fn while_leaving<T>(mut self, leaving: impl Future<Output = T>) -> T {
        self._file = None;
        self.stop.send_replace(true);
        let left = leaving.await;
        let _ = tokio::time::timeout(LAST_ANSWERS, &mut self.task).await;
        left
    }
}

/// Binds a socket that only this user can open.
async fn bind_socket(path: &Path) -> Result<(UnixListener, SocketFile), AdminError> {
    bind_unix(path, true).await.map_err(|cause| {
        let remedy = match cause {
            SocketError::TooLong { .. } => "set a shorter node.data_dir or node.admin.socket",
            SocketError::NotASocket => "remove that file, or set another node.admin.socket",
            SocketError::OtherUser => "run the node as that user, or set another node.data_dir",
            SocketError::Answered => "stop that node, or set another node.data_dir for this one",
            _ => "set a node.data_dir that the node may write to",
        };
        AdminError { address: path.display().to_string(), cause, remedy }
    })
}

/// Accepted token, and the rate limit of log lines about wrong ones.
struct Tokens {
    token: AdminToken,
    refusals: LogLimit<Option<IpAddr>>,
}

#[expect(clippy::disallowed_methods, reason = "the log limit takes the time")]
async fn authorize(
    State(tokens): State<Arc<Tokens>>,
    Extension(place): Extension<Place>,
    request: Request,
    next: Next,
) -> Response {
    let shown =
        request.headers().get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    if shown.is_some_and(|shown| tokens.token.matches(shown)) {
        return next.run(request).await;
    }
    if let (Some(address), Some(suppressed)) =
        (place.address(), tokens.refusals.allow(Instant::now(), &place.address()))
    {
        let shown = if shown.is_some() { "a wrong token" } else { "no token" };
        tracing::warn!(%address, suppressed, "the operations API refused a request with {shown}");
    }
    failed(
        StatusCode::UNAUTHORIZED,
        "the request has no valid token; send `Authorization: Bearer TOKEN`, or set TRUNKLINE_ADMIN_TOKEN for the command line",
    )
}

/// Counts a request until its answer is written; refuses it if too many are in progress.
async fn count(Extension(place): Extension<Place>, request: Request, next: Next) -> Response {
    let Some(counted) = place.request() else {
        let error = format!("{MAX_REQUESTS} requests are in progress, which is the maximum; try again later");
        return failed(StatusCode::SERVICE_UNAVAILABLE, error);
    };
    next.run(request).await.map(|body| axum::body::Body::new(Answer { body, _counted: counted }))
}

/// Body of an answer; its request counts as in progress until the body is written completely.
struct Answer {
    body: axum::body::Body,
    _counted: places::Request,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Answer to a request for an attached forward: its description, and then nothing until the forward ends.
struct Attachment {
    told: Option<Bytes>,
    attached: AttachedForward,
}

impl HttpBody for Attachment {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.told.take() {
            Some(told) => Poll::Ready(Some(Ok(Frame::data(told)))),
            None => self.attached.poll_ended(cx).map(|()| None),
        }
    }
}

async fn forward(operations: Arc<Operations>, request: ForwardRequest) -> Response {
    if !request.attached {
        return answer(operations.forward(&request).await);
    }
    let attached = match operations.forward_attached(&request).await {
        Ok(attached) => attached,
        Err(error) => return answer::<Forwarding>(Err(error)),
    };
    let mut told = serde_json::to_vec(attached.forwarding()).unwrap_or_default();
    // The line break tells the client that the description is complete.
    told.push(b'\n');
    let body = axum::body::Body::new(Attachment { told: Some(told.into()), attached });
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// Answer that lasts: a line of JSON for each change of what a registrar knows, until the client leaves.
struct Changes(mpsc::Receiver<Bytes>);

impl HttpBody for Changes {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}

fn watch_registrar(operations: &Operations, query: &RegistrarQuery, Stopping(mut stopping): Stopping) -> Response {
    let mut watch = match operations.watch_registrar(query) {
        Ok(watch) => watch,
        Err(error) => return answer::<()>(Err(error)),
    };
    // A client that reads slowly is told the latest announcement of a node only.
    let (lines, body) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let change = tokio::select! {
                change = watch.next() => change,
                () = lines.closed() => return,
                _ = stopping.wait_for(|stop| *stop) => return,
            };
            let Some(change) = RegistrarChange::new(&change) else { continue };
            let mut line = serde_json::to_vec(&change).unwrap_or_default();
            line.push(b'\n');
            tokio::select! {
                sent = lines.send(line.into()) => if sent.is_err() { return },
                _ = stopping.wait_for(|stop| *stop) => return,
            }
        }
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], axum::body::Body::new(Changes(body))).into_response()
}

async fn cluster_operation(ops: &Arc<Operations>, operation: ClusterOperation) -> Response {
    match operation {
        ClusterOperation::ClusterStatus => Json(ops.cluster()).into_response(),
        ClusterOperation::ClusterGetRoutes => Json(ops.cluster_routes()).into_response(),
        ClusterOperation::ClusterSetRoutes(request) => {
            answer(ops.blocking(move |ops| ops.set_cluster_routes(&request)).await)
        }
        ClusterOperation::ClusterDeleteRoutes(request) => {
            answer(ops.blocking(move |ops| ops.delete_cluster_routes(&request)).await)
        }
        ClusterOperation::SetConfiguration(keys) => answer(ops.blocking(move |ops| ops.set_configuration(&keys)).await),
        ClusterOperation::ClusterNetwork(request) => answer(ops.cluster_network(&request).await),
        ClusterOperation::ClusterForget { node_name } => answer(ops.forget(&node_name)),
    }
}

type Shared = State<Arc<Operations>>;

fn router(operations: Arc<Operations>) -> Router {
    Router::new()
        .route("/v1/status", get(async |State(ops): Shared| Json(ops.status())))
        .route("/v1/cluster", get(async |State(ops): Shared| Json(ops.cluster())))
        .route(
            "/",
            post(async |State(ops): Shared, Body(operation): Body<ClusterOperation>| {
                cluster_operation(&ops, operation).await
            }),
        )
        .route(
            "/v1/cluster/tokens",
            get(async |State(ops): Shared| answer(ops.blocking(|ops| Ok(ops.tokens())).await)).post(
                async |State(ops): Shared, Body(request): Body<TokenRequest>| {
                    answer(ops.blocking(move |ops| ops.issue_token(&request)).await)
                },
            ),
        )
        .route(
            "/v1/cluster/tokens/revoke",
            post(async |State(ops): Shared, Body(request): Body<RevokeToken>| {
                answer(ops.blocking(move |ops| ops.revoke_token(&request.id)).await)
            }),
        )
        .route("/v1/registrars", get(async |State(ops): Shared| Json(ops.registrars())))
        .route(
            "/v1/registrars/nodes",
            get(async |State(ops): Shared, Asked(query): Asked<RegistrarQuery>| answer(ops.announced(&query).await)),
        )
        .route(
            "/v1/registrars/resolve",
            get(async |State(ops): Shared, Asked(query): Asked<ResolveQuery>| answer(ops.resolve(&query).await)),
        )
        .route(
            "/v1/registrars/services",
            get(async |State(ops): Shared, Asked(query): Asked<ServicesQuery>| answer(ops.services(&query).await)),
        )
        .route(
            "/v1/announce",
            post(async |State(ops): Shared, Body(request): Body<Announce>| {
                answer(ops.announce_service(&request).await)
            }),
        )
        .route(
            "/v1/registrars/watch",
            get(
                async |State(ops): Shared,
                       Extension(stopping): Extension<Stopping>,
                       Asked(query): Asked<RegistrarQuery>| { watch_registrar(&ops, &query, stopping) },
            ),
        )
        .route("/v1/nodes", get(async |State(ops): Shared| Json(ops.nodes())))
        .route(
            "/v1/routes",
            get(async |State(ops): Shared| Json(ops.routes())).post(
                async |State(ops): Shared, Body(request): Body<AddRoute>| {
                    answer(ops.blocking(move |ops| ops.add_route(&request)).await)
                },
            ),
        )
        .route(
            "/v1/routes/remove",
            post(async |State(ops): Shared, Body(request): Body<RemoveRoute>| {
                answer(ops.blocking(move |ops| ops.remove_route(&request)).await)
            }),
        )
        .route(
            "/v1/routes/drain",
            post(async |State(ops): Shared, Body(request): Body<RemoveRoute>| answer(ops.drain_route(request).await)),
        )
        .route(
            "/v1/explain",
            get(async |State(ops): Shared, Asked(Name { name }): Asked<Name>| answer(ops.explain(&name).await)),
        )
        .route(
            "/v1/trace",
            post(async |State(ops): Shared, Body(request): Body<TraceRequest>| answer(ops.trace(&request).await)),
        )
        .route(
            "/v1/ping",
            post(async |State(ops): Shared, Body(request): Body<PingRequest>| answer(ops.ping(&request).await)),
        )
        .route(
            "/v1/send",
            post(async |State(ops): Shared, Body(request): Body<MessageRequest>| answer(ops.send(&request).await)),
        )
        .route(
            "/v1/call",
            post(async |State(ops): Shared, Body(request): Body<MessageRequest>| answer(ops.call(&request).await)),
        )
        .route(
            "/v1/spawn",
            post(async |State(ops): Shared, Body(request): Body<SpawnRequest>| answer(ops.spawn(&request).await)),
        )
        .route(
            "/v1/applications/start",
            post(async |State(ops): Shared, Body(request): Body<ApplicationRequest>| {
                answer(ops.start_application(&request).await)
            }),
        )
        .route(
            "/v1/applications/stop",
            post(async |State(ops): Shared, Body(request): Body<StopApplication>| {
                answer(ops.stop_application(&request.application))
            }),
        )
        .route(
            "/v1/proxy-routes",
            get(async |State(ops): Shared| Json(ops.proxy_routes())).post(
                async |State(ops): Shared, Body(request): Body<AddProxyRoute>| {
                    answer(ops.blocking(move |ops| ops.add_proxy_route(&request)).await)
                },
            ),
        )
        .route(
            "/v1/proxy-routes/drain",
            post(async |State(ops): Shared, Body(request): Body<RemoveRoute>| {
                answer(ops.drain_proxy_route(request).await)
            }),
        )
        .route(
            "/v1/proxy-routes/remove",
            post(async |State(ops): Shared, Body(request): Body<RemoveRoute>| {
                answer(ops.blocking(move |ops| ops.remove_proxy_route(&request)).await)
            }),
        )
        .route(
            "/v1/forwards",
            post(async |State(ops): Shared, Body(request): Body<ForwardRequest>| forward(ops, request).await),
        )
        .route(
            "/v1/forwards/remove",
            post(async |State(ops): Shared, Body(request): Body<EndForward>| answer(ops.end_forward(&request))),
        )
        .route(
            "/v1/disconnect",
            post(async |State(ops): Shared, Body(request): Body<DisconnectRequest>| {
                answer(ops.disconnect(&request.name))
            }),
        )
        .route("/v1/reload", post(async |State(ops): Shared| answer(ops.blocking(Operations::reload).await)))
        .fallback(async || failed(StatusCode::NOT_FOUND, "no such operation; docs/ADMIN.md lists all of them"))
        .method_not_allowed_fallback(async || {
            failed(StatusCode::METHOD_NOT_ALLOWED, "this operation needs another HTTP method")
        })
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
        .layer(middleware::from_fn(count))
        .with_state(operations)
}

fn failed(status: StatusCode, error: impl Into<Box<dyn Error + Send + Sync>>) -> Response {
    (status, Json(Failure::new(error))).into_response()
}

/// Query of a name.
#[derive(Deserialize)]
struct Name {
    name: String,
}

/// Parameters of a query.
struct Asked<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(query)) => Ok(Self(query)),
            Err(rejection) => {
                let text = rejection.body_text();
                let cause = text.split_once(": ").map_or(text.as_str(), |(_, cause)| cause);
                let error = format!("the parameters are invalid: {cause}; write ?name=NAME, percent-encoded");
                Err(failed(StatusCode::BAD_REQUEST, error))
            }
        }
    }
}

/// JSON body, parsed regardless of its declared type; rejections are reported as [`Failure`].
struct Body<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let bytes = tokio::time::timeout(BODY, Bytes::from_request(request, state)).await;
        let late =
            |_| failed(StatusCode::REQUEST_TIMEOUT, format!("the body of the request did not arrive within {BODY:?}"));
        let bytes = bytes.map_err(late)?.map_err(|rejection| match rejection.status() {
            status @ StatusCode::PAYLOAD_TOO_LARGE => {
                failed(status, format!("the request exceeds {MAX_REQUEST} bytes; send a smaller one"))
            }
            status => failed(status, rejection.body_text()),
        })?;
        match Json::<T>::from_bytes(&bytes) {
            Ok(Json(value)) => Ok(Self(value)),
            Err(rejection) => {
                let text = rejection.body_text();
                let cause = text.split_once(": ").map_or(text.as_str(), |(_, cause)| cause);
                Err(failed(StatusCode::BAD_REQUEST, format!("the request body is invalid: {cause}")))
            }
        }
    }
}

fn answer<T: Serialize>(result: Result<T, OpError>) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(OpError { kind, failure }) => {
            let status = match kind {
                Kind::Bad => StatusCode::BAD_REQUEST,
                Kind::Conflict => StatusCode::CONFLICT,
                Kind::Missing => StatusCode::NOT_FOUND,
                Kind::Unreachable => StatusCode::BAD_GATEWAY,
                Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            };
            (status, Json(failure)).into_response()
        }
    }
}
