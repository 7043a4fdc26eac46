//! The other end of the operations API.

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
use trunkline::LocalPlace;

use crate::api::Failure;

/// The largest answer taken.
const MAX_ANSWER: usize = 32 * 1024 * 1024;
/// How long an answer may take that the node has at hand.
const ANSWER: Duration = Duration::from_secs(10);
/// Shortest silence after which a node is given up: a busy machine needs a moment too.
const LEAST_PATIENCE: Duration = Duration::from_secs(2);

/// Asks a running node over its operations API.
#[derive(Clone)]
pub enum AdminClient {
    /// By its socket.
    Socket(PathBuf),
    /// By `host:port` and a token.
    Tcp {
        /// `host:port`.
        address: String,
        /// The token; not checked here.
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

/// Why an operation did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The node refused or failed, and said why.
    #[error("{}", .failure.error)]
    Failed {
        /// The HTTP status.
        status: u16,
        /// What it said.
        failure: Failure,
    },
    /// Something else answers there.
    #[error("{address} does not answer as a trunkline node does: {text}")]
    Strange {
        /// Where.
        address: String,
        /// What came.
        text: String,
    },
    /// It took the request and gave no answer.
    #[error("the node at {address} gave no answer: {text}; what was asked may have been done")]
    Lost {
        /// Where.
        address: String,
        /// Why.
        text: String,
    },
    /// Nobody answers.
    #[error("no node answers at {address}: {text}; start it with `trunkline node --config FILE`")]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        text: String,
    },
}

impl AdminClient {
    fn address(&self) -> String {
        match self {
            Self::Socket(path) => path.display().to_string(),
            Self::Tcp { address, .. } => address.clone(),
        }
    }

    /// Asks.
    ///
    /// # Errors
    /// [`ClientError`]; a node that does not answer within 10 seconds is [`ClientError::Lost`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let answer = tokio::time::timeout(ANSWER, self.request(Method::GET, path, Bytes::new())).await;
        answer.unwrap_or_else(|_| Err(self.silent_for(ANSWER)))
    }

    /// Requests something for which the node needs no peer. As [`AdminClient::post_within`] with 10 seconds.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        self.post_within(path, body, ANSWER).await
    }

    /// Requests something. Waits as long as the node does, and asks meanwhile whether it still answers: a node that is
    /// silent for as long as `wait`, at least 2 and at most 10 seconds, is given up.
    ///
    /// # Errors
    /// [`ClientError`]; a silent node is [`ClientError::Lost`].
    pub async fn post_within<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        wait: Duration,
    ) -> Result<T, ClientError> {
        let (body, patience) = (self.json(body)?, wait.clamp(LEAST_PATIENCE, ANSWER));
        tokio::select! {
            answer = self.request(Method::POST, path, body) => answer,
            () = self.silence(patience) => Err(self.silent_for(patience)),
        }
    }

    /// Requests something that lasts as long as the connection of the request, such as a forward that is `attached`.
    ///
    /// # Errors
    /// [`ClientError`]; a node that does not answer within 10 seconds is [`ClientError::Lost`].
    pub async fn hold<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<(T, Hold), ClientError> {
        let body = self.json(body)?;
        let answer = async {
            let Response { status, mut body, driver } = self.open(Method::POST, path, body).await?;
            if !status.is_success() {
                return self.read(Response { status, body, driver }).await.map(|told| (told, None));
            }
            let mut line = Vec::new();
            while !line.ends_with(b"\n") {
                let frame = body.frame().await.ok_or_else(|| self.lost("the answer ends early"))?;
                line.extend_from_slice(&frame.map_err(|e| self.lost(e))?.into_data().unwrap_or_default());
                if line.len() > MAX_ANSWER {
                    return Err(self.strange("an answer without an end"));
                }
            }
            let told = serde_json::from_slice(&line).map_err(|e| self.strange(e))?;
            Ok((told, Some(Hold { body, _driver: driver })))
        };
        let answer = tokio::time::timeout(ANSWER, answer).await;
        let (told, hold) = answer.unwrap_or_else(|_| Err(self.silent_for(ANSWER)))?;
        Ok((told, hold.ok_or_else(|| self.strange("a success that is none"))?))
    }

    fn json(&self, body: &impl Serialize) -> Result<Bytes, ClientError> {
        serde_json::to_vec(body).map(Bytes::from).map_err(|e| self.strange(e))
    }

    /// Resolves when the node does not answer a simple question. One that refuses connections is leaving, or gone; the
    /// connections it has tell which.
    async fn silence(&self, patience: Duration) {
        loop {
            tokio::time::sleep(patience / 2).await;
            let asked = self.request::<serde::de::IgnoredAny>(Method::GET, "/v1/status", Bytes::new());
            if tokio::time::timeout(patience / 2, asked).await.is_err() {
                return;
            }
        }
    }

    fn silent_for(&self, time: Duration) -> ClientError {
        self.lost(format!("it was silent for {time:?}"))
    }

    fn strange(&self, error: impl ToString) -> ClientError {
        ClientError::Strange { address: self.address(), text: error.to_string() }
    }

    fn broken(&self, error: &hyper::Error) -> ClientError {
        if error.is_parse() { self.strange(error) } else { self.lost(error) }
    }

    fn lost(&self, error: impl ToString) -> ClientError {
        ClientError::Lost { address: self.address(), text: error.to_string() }
    }

    async fn request<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, ClientError> {
        self.read(self.open(method, path, body).await?).await
    }

    /// Sends a request and waits for the head of the answer.
    async fn open(&self, method: Method, path: &str, body: Bytes) -> Result<Response, ClientError> {
        let unreachable = |e: std::io::Error| ClientError::Unreachable { address: self.address(), text: e.to_string() };
        match self {
            Self::Socket(socket) => {
                let stream = UnixStream::connect(socket).await.map_err(unreachable)?;
                self.exchange(stream, method, path, body).await
            }
            Self::Tcp { address, .. } => {
                let stream = match address.parse() {
                    // Also one whose zone is the name of an interface.
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
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.strange(e))?;
        let mut request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json");
        if let Self::Tcp { token, .. } = self {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::new(body)).map_err(|e| self.strange(e))?;
        let driver = Driver(tokio::spawn(async { drop(connection.await) }));
        let response = sender.send_request(request).await.map_err(|e| self.broken(&e))?;
        Ok(Response { status: response.status(), body: response.into_body(), driver })
    }

    async fn read<T: DeserializeOwned>(&self, response: Response) -> Result<T, ClientError> {
        let Response { status, body, driver: _driver } = response;
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|e| self.strange(e))?.to_bytes();
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|e| self.strange(e));
        }
        match serde_json::from_slice(&body) {
            Ok(failure) => Err(ClientError::Failed { status: status.as_u16(), failure }),
            Err(_) => Err(self.strange(status)),
        }
    }
}

/// The task that moves the bytes of a connection; it ends with this.
#[derive(Debug)]
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An answer whose body is still to be read.
struct Response {
    status: StatusCode,
    body: Incoming,
    driver: Driver,
}

/// The connection of a request that lasts. Dropped, it ends what was begun.
#[derive(Debug)]
pub struct Hold {
    body: Incoming,
    _driver: Driver,
}

impl Hold {
    /// Resolves when the node ended what was begun, or went away.
    pub async fn ended(&mut self) {
        while let Some(Ok(_)) = self.body.frame().await {}
    }
}
