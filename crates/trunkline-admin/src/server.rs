//! The operations over HTTP.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, FromRequest, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::AbortHandle;
use trunkline_config::{AdminConfig, AdminToken};

use crate::api::{AddRoute, DisconnectRequest, Failure, MessageRequest, PingRequest, RemoveRoute};
use crate::ops::{Kind, OpError, Operations};

/// The largest request: a message of the largest size in base64, and some.
const MAX_REQUEST: usize = 12 * 1024 * 1024;

/// A running operations API. Dropping it stops it and removes its socket.
#[derive(Debug)]
pub struct AdminServer {
    task: AbortHandle,
    address: AdminAddress,
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
#[error("the operations API cannot listen at {address}: {source}; {remedy}")]
pub struct AdminError {
    address: String,
    source: io::Error,
    remedy: &'static str,
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        self.task.abort();
        if let AdminAddress::Socket(path) = &self.address {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl AdminServer {
    /// Serves the operations as configured; `None` when the configuration says `none`.
    ///
    /// # Errors
    /// [`AdminError`] names the place and the remedy.
    pub async fn start(operations: Arc<Operations>, config: &AdminConfig) -> Result<Option<Self>, AdminError> {
        match config {
            AdminConfig::Socket(path) => {
                let listener = bind_socket(path).await?;
                let task = tokio::spawn(async move {
                    let _ = axum::serve(listener, router(operations)).await;
                });
                Ok(Some(Self { task: task.abort_handle(), address: AdminAddress::Socket(path.clone()) }))
            }
            AdminConfig::Tcp { listen, token } => {
                let failed = |source| AdminError {
                    address: listen.to_string(),
                    source,
                    remedy: "choose another node.admin.listen",
                };
                let listener = TcpListener::bind((listen.host.as_str(), listen.port.get())).await.map_err(failed)?;
                let address = listener.local_addr().map_err(failed)?;
                let token = Arc::new(token.clone());
                let app = router(operations).layer(middleware::from_fn_with_state(token, authorize));
                let task = tokio::spawn(async move {
                    let _ = axum::serve(listener, app).await;
                });
                Ok(Some(Self { task: task.abort_handle(), address: AdminAddress::Tcp(address) }))
            }
            _ => Ok(None),
        }
    }

    /// Where it can be reached.
    pub fn address(&self) -> &AdminAddress {
        &self.address
    }
}

/// Binds a socket only this user can open. One left behind by a dead process is replaced, a live one is not.
async fn bind_socket(path: &Path) -> Result<UnixListener, AdminError> {
    let failed = |source, remedy| AdminError { address: path.display().to_string(), source, remedy };
    if tokio::net::UnixStream::connect(path).await.is_ok() {
        let source = io::Error::new(io::ErrorKind::AddrInUse, "a running node answers there");
        return Err(failed(source, "stop that node, or give this one another node.data_dir"));
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let remedy = "give the node a node.data_dir it may write to, with a short path";
    if !directory.exists() {
        std::fs::create_dir_all(directory).map_err(|e| failed(e, remedy))?;
        let private = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(directory, private).map_err(|e| failed(e, remedy))?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error, remedy)),
        _ => {}
    }
    // Bound under a name nobody knows yet, so that nobody connects before the mode is set.
    let staging = path.with_extension(format!("{}.tmp", std::process::id()));
    let _ = std::fs::remove_file(&staging);
    let listener = UnixListener::bind(&staging).map_err(|e| failed(e, remedy))?;
    std::fs::set_permissions(&staging, std::fs::Permissions::from_mode(0o600)).map_err(|e| failed(e, remedy))?;
    std::fs::rename(&staging, path).map_err(|e| failed(e, remedy))?;
    Ok(listener)
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
            get(async |State(ops): Shared| Json(ops.routes()))
                .post(async |State(ops): Shared, Body(request): Body<AddRoute>| answer(ops.add_route(&request))),
        )
        .route(
            "/v1/routes/remove",
            post(async |State(ops): Shared, Body(request): Body<RemoveRoute>| answer(ops.remove_route(&request))),
        )
        .route(
            "/v1/explain",
            get(async |State(ops): Shared, Query(query): Query<Name>| answer(ops.explain(&query.name))),
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
            "/v1/disconnect",
            post(async |State(ops): Shared, Body(request): Body<DisconnectRequest>| {
                answer(ops.disconnect(&request.name))
            }),
        )
        .route("/v1/reload", post(async |State(ops): Shared| answer(ops.reload())))
        .fallback(async || {
            failed(StatusCode::NOT_FOUND, "there is no such operation; they are listed in docs/ADMIN.md")
        })
        .method_not_allowed_fallback(async || {
            failed(StatusCode::METHOD_NOT_ALLOWED, "that operation takes another method")
        })
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
        .with_state(operations)
}

#[derive(Deserialize)]
struct Name {
    name: String,
}

fn failed(status: StatusCode, error: impl ToString) -> Response {
    (status, Json(Failure::new(error))).into_response()
}

/// A JSON body whose rejection is one of our failures.
struct Body<T>(T);

impl<S: Send + Sync, T: serde::de::DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(value)) => Ok(Self(value)),
            Err(JsonRejection::BytesRejection(rejection)) => Err(failed(rejection.status(), rejection.body_text())),
            Err(rejection) => Err(failed(StatusCode::BAD_REQUEST, rejection.body_text())),
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
