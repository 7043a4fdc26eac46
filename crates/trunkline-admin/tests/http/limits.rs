//! Tests of the limits on callers of the operations API.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::Instant;

use crate::World;

/// Sends `sent` and nothing more. Returns the answer and the time until the server closed the connection, on the test
/// clock.
async fn left_there(world: &World, sent: &str) -> (String, Duration) {
    let mut stream = UnixStream::connect(world.socket()).await.unwrap();
    stream.write_all(sent.as_bytes()).await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "the time-out is measured")]
    let began = Instant::now();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    (answer, began.elapsed())
}

#[tokio::test]
async fn a_connection_without_a_complete_request_is_closed_after_a_timeout() {
    let world = World::new().await;
    // From here on, the clock advances whenever all tasks wait.
    tokio::time::pause();
    for (sent, answer, within) in [
        ("", "", 10),
        ("GET /v1/status HTTP/1.1\r\nHost: x\r\n", "", 10),
        ("POST /v1/ping HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n{", "HTTP/1.1 408 ", 40),
        ("GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 ", 10),
    ] {
        let (told, took) = left_there(&world, sent).await;
        assert!(told.starts_with(answer) && told.is_empty() == answer.is_empty(), "{sent:?}: {told}");
        let within = Duration::from_secs(within);
        assert!(took <= within + Duration::from_secs(1), "{sent:?}: {took:?}");
    }
}
