//! The operations over HTTP.

use std::fs::{File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use trunkline_config::{AdminConfig, AdminToken};

use crate::api::{
    AddProxyRoute, AddRoute, ApplicationRequest, DisconnectRequest, EndForward, Failure, ForwardRequest,
    MessageRequest, PingRequest, RemoveRoute, SpawnRequest, StopApplication, TraceRequest,
};
use crate::ops::{Kind, OpError, Operations};

/// The largest request: a message of the largest size in base64, and some.
const MAX_REQUEST: usize = 12 * 1024 * 1024;
/// How long the last answers may take to be written once the node has left.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// A running operations API. Dropping it stops it at once and removes its socket; see also
/// [`AdminServer::while_leaving`].
#[derive(Debug)]
pub struct AdminServer {
    task: JoinHandle<()>,
    stop: oneshot::Sender<()>,
    address: AdminAddress,
    _file: Option<SocketFile>,
}

/// Where it can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminAddress {
    /// A Unix socket.
    Socket(PathBuf),
    /// TCP with a bearer token.
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

/// Why the operations API does not run.
#[derive(Debug, thiserror::Error)]
#[error("the operations API cannot listen at {address}: {cause}; {remedy}")]
pub struct AdminError {
    address: String,
    cause: io::Error,
    remedy: &'static str,
}

/// A bound operations API that serves nobody yet: callers wait. Dropping it removes its socket.
#[derive(Debug)]
pub struct AdminListener {
    bound: Bound,
    address: AdminAddress,
}

#[derive(Debug)]
enum Bound {
    Socket(UnixListener, SocketFile),
    Tcp(TcpListener, AdminToken),
}

impl AdminListener {
    /// Binds what the configuration says; `None` when it says `none`. Bind before the node starts: a node whose
    /// place is taken then never appears.
    ///
    /// # Errors
    /// [`AdminError`] names the place and the remedy.
    pub async fn bind(config: &AdminConfig) -> Result<Option<Self>, AdminError> {
        match config {
            AdminConfig::Socket(path) => {
                let (listener, file) = bind_socket(path).await?;
                let address = AdminAddress::Socket(path.clone());
                Ok(Some(Self { bound: Bound::Socket(listener, file), address }))
            }
            AdminConfig::Tcp { listen, token } => {
                let failed = |cause| AdminError {
                    address: listen.to_string(),
                    cause,
                    remedy: "choose another node.admin.listen",
                };
                let listener = TcpListener::bind((listen.host.as_str(), listen.port.get())).await.map_err(failed)?;
                let address = AdminAddress::Tcp(listener.local_addr().map_err(failed)?);
                Ok(Some(Self { bound: Bound::Tcp(listener, token.clone()), address }))
            }
            _ => Ok(None),
        }
    }

    /// Serves these operations from now on.
    pub fn serve(self, operations: Arc<Operations>) -> AdminServer {
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async {
            let _ = stopped.await;
        };
        let (task, file) = match self.bound {
            Bound::Socket(listener, file) => {
                let serving = axum::serve(listener, router(operations)).with_graceful_shutdown(stopped);
                (tokio::spawn(async { drop(serving.await) }), Some(file))
            }
            Bound::Tcp(listener, token) => {
                let app = router(operations).layer(middleware::from_fn_with_state(Arc::new(token), authorize));
                let serving = axum::serve(listener, app).with_graceful_shutdown(stopped);
                (tokio::spawn(async { drop(serving.await) }), None)
            }
        };
        AdminServer { task, stop, address: self.address, _file: file }
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl AdminServer {
    /// Binds and serves in one go; `None` when the configuration says `none`.
    ///
    /// # Errors
    /// [`AdminError`] names the place and the remedy.
    pub async fn start(operations: Arc<Operations>, config: &AdminConfig) -> Result<Option<Self>, AdminError> {
        Ok(AdminListener::bind(config).await?.map(|listener| listener.serve(operations)))
    }

    /// Where it can be reached.
    pub fn address(&self) -> &AdminAddress {
        &self.address
    }

    /// Removes the socket and takes no further requests while the node leaves; those under way get their answers
    /// when it has left, at most a second later.
    pub async fn while_leaving<T>(mut self, leaving: impl Future<Output = T>) -> T {
        self._file = None;
        let stop = std::mem::replace(&mut self.stop, oneshot::channel().0);
        let _ = stop.send(());
        let left = leaving.await;
        let _ = tokio::time::timeout(LAST_ANSWERS, &mut self.task).await;
        left
    }
}

/// The file of a bound socket; removed when dropped, unless another process put its own there.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    id: Option<(u64, u64)>,
    /// The directory, if it was made for this socket.
    made: Option<PathBuf>,
}

impl SocketFile {
    fn id(path: &Path) -> Option<(u64, u64)> {
        std::fs::symlink_metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.id.is_some() && Self::id(&self.path) == self.id {
            let _ = std::fs::remove_file(&self.path);
        }
        if let Some(directory) = &self.made {
            // Only if nothing else is in it.
            let _ = std::fs::remove_dir(directory);
        }
    }
}

/// What Linux has room for, without the zero at the end.
const LONGEST_SOCKET_PATH: usize = 107;

/// Binds a socket only this user can open. One left behind by a dead process is replaced, a live one is not, nor is
/// a file that is no socket.
async fn bind_socket(path: &Path) -> Result<(UnixListener, SocketFile), AdminError> {
    let failed = |cause, remedy| AdminError { address: path.display().to_string(), cause, remedy };
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let remedy = "give the node a node.data_dir it may write to, with a short path";
    let len = path.as_os_str().len();
    if len > LONGEST_SOCKET_PATH {
        let cause = format!("the path has {len} bytes, and that of a socket at most {LONGEST_SOCKET_PATH}");
        let cause = io::Error::new(io::ErrorKind::InvalidInput, cause);
        return Err(failed(cause, "give the node a shorter node.data_dir or node.admin.socket"));
    }
    // Made before anything can fail, so that whatever fails takes it away again.
    let mut file = SocketFile { path: path.to_owned(), id: None, made: None };
    if !directory.exists() {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|e| failed(e, remedy))?;
        file.made = Some(directory.to_owned());
    }
    let _turn = turn(directory).await;
    match UnixStream::connect(path).await.map_err(|error| error.kind()) {
        Err(io::ErrorKind::NotFound) => {}
        Err(io::ErrorKind::ConnectionRefused) => {
            let stale = std::fs::symlink_metadata(path).map_err(|e| failed(e, remedy))?;
            if !stale.file_type().is_socket() {
                let cause = io::Error::new(io::ErrorKind::AlreadyExists, "a file that is no socket stands there");
                return Err(failed(cause, "remove it, or choose another node.admin.socket"));
            }
            std::fs::remove_file(path).map_err(|e| failed(e, remedy))?;
        }
        Err(io::ErrorKind::PermissionDenied) => {
            let cause = io::Error::new(io::ErrorKind::PermissionDenied, "another user's socket stands there");
            return Err(failed(cause, "run the node as that user, or give it another node.data_dir"));
        }
        // A node too busy to take the connection is alive too.
        Ok(_) | Err(io::ErrorKind::WouldBlock) => {
            let cause = io::Error::new(io::ErrorKind::AddrInUse, "a running node answers there");
            return Err(failed(cause, "stop that node, or give this one another node.data_dir"));
        }
        Err(other) => return Err(failed(other.into(), remedy)),
    }
    // Bound under a name nobody knows yet, so that nobody connects before the mode is set. It is no longer than the
    // usual name: what the system allows is short.
    let staging = path.with_file_name(format!(".{}", std::process::id()));
    let _ = std::fs::remove_file(&staging);
    let listener = UnixListener::bind(&staging).map_err(|e| failed(e, remedy))?;
    let private = std::fs::Permissions::from_mode(0o600);
    let placed = std::fs::set_permissions(&staging, private).and_then(|()| std::fs::rename(&staging, path));
    if let Err(error) = placed {
        let _ = std::fs::remove_file(&staging);
        return Err(failed(error, remedy));
    }
    file.id = SocketFile::id(path);
    Ok((listener, file))
}

/// Waits a moment for other nodes that bind in this directory. Where it cannot be locked, nobody waits.
async fn turn(directory: &Path) -> Option<File> {
    let file = File::open(directory).ok()?;
    for _ in 0..50 {
        match file.try_lock() {
            Ok(()) => return Some(file),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(TryLockError::Error(_)) => return None,
        }
    }
    None
}

async fn authorize(State(token): State<Arc<AdminToken>>, request: Request, next: Next) -> Response {
    let shown =
        request.headers().get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    if shown.is_some_and(|shown| token.matches(shown)) {
        return next.run(request).await;
    }
    let failure = Failure::new(
        "a valid token is needed: Authorization: Bearer TOKEN, or TRUNKLINE_ADMIN_TOKEN for the command line",
    );
    (StatusCode::UNAUTHORIZED, Json(failure)).into_response()
}

type Shared = State<Arc<Operations>>;

fn router(operations: Arc<Operations>) -> Router {
    Router::new()
        .route("/v1/status", get(async |State(ops): Shared| Json(ops.status())))
        .route("/v1/nodes", get(async |State(ops): Shared| Json(ops.nodes())))
        .route(
            "/v1/routes",
            get(async |State(ops): Shared| Json(ops.routes())).post(
                async |State(ops): Shared, Body(request): Body<AddRoute>| {
                    blocking(ops, move |ops| ops.add_route(&request)).await
                },
            ),
        )
        .route(
            "/v1/routes/remove",
            post(async |State(ops): Shared, Body(request): Body<RemoveRoute>| {
                blocking(ops, move |ops| ops.remove_route(&request)).await
            }),
        )
        .route(
            "/v1/routes/drain",
            post(async |State(ops): Shared, Body(request): Body<RemoveRoute>| answer(ops.drain_route(request).await)),
        )
        .route("/v1/explain", get(async |State(ops): Shared, Name(name): Name| answer(ops.explain(&name))))
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
                    blocking(ops, move |ops| ops.add_proxy_route(&request)).await
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
            post(async |State(ops): Shared, Body(request): Body<RemoveRoute>| answer(ops.remove_proxy_route(&request))),
        )
        .route(
            "/v1/forwards",
            post(async |State(ops): Shared, Body(request): Body<ForwardRequest>| answer(ops.forward(&request).await)),
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
        .route("/v1/reload", post(async |State(ops): Shared| blocking(ops, Operations::reload).await))
        .fallback(async || {
            failed(StatusCode::NOT_FOUND, "there is no such operation; they are listed in docs/ADMIN.md")
        })
        .method_not_allowed_fallback(async || {
            failed(StatusCode::METHOD_NOT_ALLOWED, "that operation takes another method")
        })
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
        .with_state(operations)
}

fn failed(status: StatusCode, error: impl ToString) -> Response {
    (status, Json(Failure::new(error))).into_response()
}

/// The `name` of a query.
struct Name(String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        #[derive(Deserialize)]
        struct Asked {
            name: String,
        }
        match Query::<Asked>::from_request_parts(parts, state).await {
            Ok(Query(Asked { name })) => Ok(Self(name)),
            Err(_) => Err(failed(StatusCode::BAD_REQUEST, "name: it is missing; write ?name=NAME, percent-encoded")),
        }
    }
}

/// A JSON body, whatever its declared type; its rejection is one of our failures.
struct Body<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status() {
            status @ StatusCode::PAYLOAD_TOO_LARGE => {
                failed(status, format!("the request has more than {MAX_REQUEST} bytes; send less at a time"))
            }
            status => failed(status, rejection.body_text()),
        })?;
        match Json::<T>::from_bytes(&bytes) {
            Ok(Json(value)) => Ok(Self(value)),
            Err(rejection) => {
                let text = rejection.body_text();
                let cause = text.split_once(": ").map_or(text.as_str(), |(_, cause)| cause);
                Err(failed(StatusCode::BAD_REQUEST, format!("the request cannot be used: {cause}")))
            }
        }
    }
}

/// Runs what reads and writes files where it holds up nobody else.
async fn blocking<T: Serialize + Send + 'static>(
    operations: Arc<Operations>,
    run: impl FnOnce(&Operations) -> Result<T, OpError> + Send + 'static,
) -> Response {
    match tokio::task::spawn_blocking(move || run(&operations)).await {
        Ok(result) => answer(result),
        Err(_) => failed(StatusCode::INTERNAL_SERVER_ERROR, "the operation failed unexpectedly; this is a bug"),
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
