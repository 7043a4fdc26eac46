//! Client of the operations API.

use std::marker::PhantomData;
use std::path::PathBuf;
use std::time::Duration;

use axum::http::{Method, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use trunkline::{Cause, LocalPlace};
use trunkline_stack::BoxFuture;

use crate::api::Failure;

/// Largest answer accepted, in bytes.
const MAX_ANSWER: usize = 32 * 1024 * 1024;
/// Timeout of an answer for which the node needs no peer.
const ANSWER: Duration = Duration::from_secs(10);
/// Shortest silence after which a node counts as hung; a busy machine can be silent for a while.
const MIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Client that asks a running node over its operations API.
#[derive(Clone)]
pub enum AdminClient {
    /// Unix socket at this path.
    Socket(PathBuf),
    /// TCP address and token.
    Tcp {
        /// Address, `host:port`.
        address: String,
        /// Bearer token; not checked by the client.
        token: String,
    },
}

impl std::fmt::Debug for AdminClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(path) => f.debug_tuple("Socket").field(path).finish(),
            Self::Tcp { address, .. } => f.debug_tuple("Tcp").field(address).finish(),
        }
    }
}

/// Any error, or a text.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Error returned when an operation did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The node refused the request or failed, with an explanation.
    #[error("{}", .failure.error)]
    Failed {
        /// HTTP status.
        status: u16,
        /// Explanation of the node.
        failure: Failure,
    },
    /// The answer does not come from a trunkline node.
    #[error("the answer of {address} is not one of a trunkline node")]
    Unexpected {
        /// Address that was asked.
        address: String,
        /// Fault of the answer.
        source: Cause,
    },
    /// The node accepted the request and then gave no answer.
    #[error("the node at {address} gave no answer; the operation may have been carried out")]
    Lost {
        /// Address that was asked.
        address: String,
        /// Cause of the failure.
        source: Cause,
    },
    /// No node accepts connections at the address.
    #[error("cannot connect to a node at {address}; start one with `trunkline node --config FILE`")]
    Unreachable {
        /// Address that was asked.
        address: String,
        /// Cause of the failure.
        source: Cause,
    },
}

impl AdminClient {
    fn address(&self) -> String {
        match self {
            Self::Socket(path) => path.display().to_string(),
            Self::Tcp { address, .. } => address.clone(),
        }
    }

    /// Sends a GET request.
    ///
    /// # Errors
    /// [`ClientError`]; a node that does not answer within 10 seconds is reported as [`ClientError::Lost`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let answer = tokio::time::timeout(ANSWER, self.request(Method::GET, path, Bytes::new())).await;
        answer.unwrap_or_else(|_| Err(self.silent_for(ANSWER)))
    }

    /// Sends a POST request for which the node needs no peer, like [`AdminClient::post_with_timeout`] with 10 seconds.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        self.post_with_timeout(path, body, ANSWER).await
    }

    /// Sends a POST request and waits as long as the node works on it. Meanwhile the client checks that the node still
    /// answers; a node that is silent for as long as `timeout`, at least 2 and at most 10 seconds, counts as hung.
    ///
    /// # Errors
    /// [`ClientError`]; a silent node is reported as [`ClientError::Lost`].
    pub async fn post_with_timeout<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        timeout: Duration,
    ) -> Result<T, ClientError> {
        let (body, timeout) = (self.json(body)?, timeout.clamp(MIN_TIMEOUT, ANSWER));
        tokio::select! {
            answer = self.request(Method::POST, path, body) => answer,
            () = self.silence(timeout) => Err(self.silent_for(timeout)),
        }
    }

    /// Sends a POST request that lasts as long as its connection, such as a forward that is `attached`.
    ///
    /// # Errors
    /// [`ClientError`]; a node that does not answer within 10 seconds is reported as [`ClientError::Lost`].
    pub async fn hold<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<(T, Hold), ClientError> {
        let body = self.json(body)?;
        let answer = async {
            let mut lines = self.lines::<T>(Method::POST, path, body).await?;
            let told = lines.next().await?.ok_or_else(|| self.lost("the answer is incomplete"))?;
            Ok((told, Hold(lines.of())))
        };
        tokio::time::timeout(ANSWER, answer).await.unwrap_or_else(|_| Err(self.silent_for(ANSWER)))
    }

    /// Sends a GET request whose answer is a line of JSON for each thing that happens, as long as its connection lasts.
    ///
    /// # Errors
    /// [`ClientError`]; a node that does not answer within 10 seconds is reported as [`ClientError::Lost`].
    pub async fn follow<T: DeserializeOwned>(&self, path: &str) -> Result<Lines<T>, ClientError> {
        let lines = self.lines(Method::GET, path, Bytes::new());
        tokio::time::timeout(ANSWER, lines).await.unwrap_or_else(|_| Err(self.silent_for(ANSWER)))
    }

    /// Sends a request whose answer lasts. One that is refused has its answer at once.
    async fn lines<T>(&self, method: Method, path: &str, body: Bytes) -> Result<Lines<T>, ClientError> {
        let Response { status, body, driver } = self.open(method, path, body).await?;
        if status.is_success() {
            return Ok(Lines { client: self.clone(), body, read: Vec::new(), _driver: driver, _of: PhantomData });
        }
        let (status, body) = self.read(Response { status, body, driver }).await?;
        Err(match self.parsed::<serde::de::IgnoredAny>(status, &body) {
            Ok(_) => self.unexpected("an error status with the body of a success"),
            Err(error) => error,
        })
    }

    fn json(&self, body: &impl Serialize) -> Result<Bytes, ClientError> {
        serde_json::to_vec(body).map(Bytes::from).map_err(|e| self.unexpected(e))
    }

    /// Resolves when the node does not answer a status request in time. A node that refuses connections is not silent:
    /// it is stopping or gone, and then the connection of the request itself fails.
    async fn silence(&self, timeout: Duration) {
        loop {
            tokio::time::sleep(timeout / 2).await;
            let asked = self.request::<serde::de::IgnoredAny>(Method::GET, "/v1/status", Bytes::new());
            if tokio::time::timeout(timeout / 2, asked).await.is_err() {
                return;
            }
        }
    }

    fn silent_for(&self, timeout: Duration) -> ClientError {
        self.lost(format!("it did not respond for {timeout:?}"))
    }

    fn unexpected(&self, error: impl Into<BoxError>) -> ClientError {
        ClientError::Unexpected { address: self.address(), source: error.into().into() }
    }

    fn broken(&self, error: hyper::Error) -> ClientError {
        if error.is_parse() { self.unexpected(error) } else { self.lost(error) }
    }

    fn lost(&self, error: impl Into<BoxError>) -> ClientError {
        ClientError::Lost { address: self.address(), source: error.into().into() }
    }

    async fn request<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, ClientError> {
        let (status, body) = self.exchanged(method, path, body).await?;
        self.parsed(status, &body)
    }

    /// Sends a request and waits for the whole answer. Boxed: a future that is not is compiled again for each type of
    /// answer.
    fn exchanged<'a>(
        &'a self,
        method: Method,
        path: &'a str,
        body: Bytes,
    ) -> BoxFuture<'a, Result<(StatusCode, Bytes), ClientError>> {
        Box::pin(async move { self.read(self.begin(method, path, body).await?).await })
    }

    /// Sends a request and waits for the head of the answer. Boxed as above.
    fn open<'a>(&'a self, method: Method, path: &'a str, body: Bytes) -> BoxFuture<'a, Result<Response, ClientError>> {
        Box::pin(self.begin(method, path, body))
    }

    async fn begin(&self, method: Method, path: &str, body: Bytes) -> Result<Response, ClientError> {
        let unreachable = |e: std::io::Error| ClientError::Unreachable { address: self.address(), source: e.into() };
        match self {
            Self::Socket(socket) => {
                let stream = UnixStream::connect(socket).await.map_err(unreachable)?;
                self.exchange(stream, method, path, body).await
            }
            Self::Tcp { address, .. } => {
                let stream = match address.parse() {
                    // Parsed as a socket address first, which also allows an interface name as zone.
                    Ok(LocalPlace::Tcp(address)) => TcpStream::connect(address).await,
                    _ => TcpStream::connect(address).await,
                };
                let stream = stream.map_err(unreachable)?;
                crate::keep_alive(&stream);
                self.exchange(stream, method, path, body).await
            }
        }
    }

    async fn exchange<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        stream: S,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response, ClientError> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.unexpected(e))?;
        let mut request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json");
        if let Self::Tcp { token, .. } = self {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::new(body)).map_err(|e| self.unexpected(e))?;
        let driver = Driver(tokio::spawn(async { drop(connection.await) }));
        let response = sender.send_request(request).await.map_err(|e| self.broken(e))?;
        Ok(Response { status: response.status(), body: response.into_body(), driver })
    }

    async fn read(&self, response: Response) -> Result<(StatusCode, Bytes), ClientError> {
        let Response { status, body, driver: _driver } = response;
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|e| self.unexpected(e))?.to_bytes();
        Ok((status, body))
    }

    fn parsed<T: DeserializeOwned>(&self, status: StatusCode, body: &[u8]) -> Result<T, ClientError> {
        if status.is_success() {
            return serde_json::from_slice(body).map_err(|e| self.unexpected(e));
        }
        match serde_json::from_slice(body) {
            Ok(failure) => Err(ClientError::Failed { status: status.as_u16(), failure }),
            Err(_) => Err(self.unexpected(status.to_string())),
        }
    }
}

/// Task that moves the bytes of a connection; dropping this ends the task.
#[derive(Debug)]
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Answer whose body is still to be read.
struct Response {
    status: StatusCode,
    body: Incoming,
    driver: Driver,
}

/// Connection of a lasting request. Dropping it ends what the request started.
#[derive(Debug)]
pub struct Hold(Lines<serde::de::IgnoredAny>);

impl Hold {
    /// Resolves when the node ended what the request started, or stopped.
    pub async fn ended(&mut self) {
        while let Ok(Some(_)) = self.0.next().await {}
    }
}

/// Lines of an answer that lasts. Dropping it ends the request.
#[derive(Debug)]
pub struct Lines<T> {
    client: AdminClient,
    body: Incoming,
    /// Bytes that were read, and not yet returned.
    read: Vec<u8>,
    _driver: Driver,
    _of: PhantomData<fn() -> T>,
}

impl<T> Lines<T> {
    /// Returns the lines that follow, as others.
    fn of<U>(self) -> Lines<U> {
        Lines { client: self.client, body: self.body, read: self.read, _driver: self._driver, _of: PhantomData }
    }
}

impl<T: DeserializeOwned> Lines<T> {
    /// Waits for the next line; `None` after the last one. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`ClientError`] when the connection fails, or a line cannot be read.
    pub async fn next(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return serde_json::from_slice(&line).map(Some).map_err(|error| self.client.unexpected(error));
            }
            if self.read.len() > MAX_ANSWER {
                return Err(self.client.unexpected("the answer exceeds 32 MiB"));
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            let data = frame.map_err(|error| self.client.lost(error))?.into_data().unwrap_or_default();
            self.read.extend_from_slice(&data);
        }
    }
}
