//! The other end of the operations API.

use std::path::PathBuf;
use std::time::Duration;

use axum::http::{Method, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use trunkline::LocalPlace;

use crate::api::Failure;

/// The largest answer taken.
const MAX_ANSWER: usize = 32 * 1024 * 1024;
/// How long an answer may take that the node has at hand.
const ANSWER: Duration = Duration::from_secs(10);

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
        answer.unwrap_or_else(|_| Err(self.lost(format!("it was silent for {ANSWER:?}"))))
    }

    /// Has something done. Waits as long as the node does.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|e| self.strange(e))?;
        self.request(Method::POST, path, body.into()).await
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
        let unreachable = |e: std::io::Error| ClientError::Unreachable { address: self.address(), text: e.to_string() };
        let (status, body) = match self {
            Self::Socket(socket) => {
                let stream = UnixStream::connect(socket).await.map_err(unreachable)?;
                self.exchange(stream, method, path, body).await?
            }
            Self::Tcp { address, .. } => {
                let stream = match address.parse() {
                    // Also one whose zone is the name of an interface.
                    Ok(LocalPlace::Tcp(address)) => TcpStream::connect(address).await,
                    _ => TcpStream::connect(address).await,
                };
                let stream = stream.map_err(unreachable)?;
                self.exchange(stream, method, path, body).await?
            }
        };
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|e| self.strange(e));
        }
        match serde_json::from_slice(&body) {
            Ok(failure) => Err(ClientError::Failed { status: status.as_u16(), failure }),
            Err(_) => Err(self.strange(status)),
        }
    }

    async fn exchange<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        stream: S,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), ClientError> {
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
        let driver = tokio::spawn(connection);
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|e| self.broken(&e))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(|e| self.strange(e))?;
            Ok((status, body.to_bytes()))
        };
        let result = exchange.await;
        driver.abort();
        result
    }
}
