//! Command `trunkline forward`: forwards a local socket to a service of another node.

use std::time::Duration;

use trunkline::LocalPlace;
use trunkline_admin::api::{Changed, EndForward, ForwardRequest, Forwarding};

use crate::args::{Admin, At};
use crate::commands::{changed, checked_target};
use crate::output::{Failed, Output};
use crate::serve::ToldToEnd;
use crate::target::{Target, client, leave};

/// Makes a Unix socket path absolute, because the node has another working directory than this command.
fn absolute(place: LocalPlace) -> LocalPlace {
    match place {
        LocalPlace::Unix(path) => LocalPlace::Unix(std::path::absolute(&path).unwrap_or(path)),
        tcp => tcp,
    }
}

pub(crate) async fn forward(at: At, request: ForwardRequest, background: bool, output: &Output) -> Result<(), Failed> {
    checked_target(&request.name)?;
    let mut told_to_end = ToldToEnd::listen()?;
    let say = |told: &Forwarding| {
        // Printed on one line, so that a program that waits for it can read one line and parse that.
        if output.json {
            return output.document(&serde_json::to_string(told).map_err(Failed::because)?);
        }
        let end = if background { "end it with `trunkline end-forward`" } else { "it ends with this command" };
        output.line(&format!("{} is forwarded to {} at {}; {end}", told.listen, told.service, told.name))
    };
    match Target::find(at).await? {
        Target::Running(client) if background => say(&client.post("/v1/forwards", &request).await?),
        Target::Running(client) => {
            let request = ForwardRequest { attached: true, ..request };
            // The end of this connection ends the forward, even if this command is killed.
            let (told, mut hold) = client.hold::<Forwarding>("/v1/forwards", &request).await?;
            say(&told)?;
            tokio::select! {
                () = told_to_end.wait() => {}
                () = hold.ended() => return Err(Failed::because(format!(
                    "{} is no longer forwarded to {} at {}: the node ended it or stopped; run this command again once the node is running",
                    told.listen, told.service, told.name
                ))),
            }
            let ended = client.post::<Changed>("/v1/forwards/remove", &EndForward { listen: told.listen }).await;
            ended.map(drop).map_err(Failed::from)
        }
        Target::ShortLived(running) => {
            say(&running.operations().forward(&request).await?)?;
            told_to_end.wait().await;
            leave(running).await;
            Ok(())
        }
    }
}

pub(crate) async fn end(at: Admin, local: LocalPlace, output: &Output) -> Result<(), Failed> {
    let request = EndForward { listen: absolute(local).to_string() };
    changed(client(at)?.post("/v1/forwards/remove", &request).await?, output)
}

pub(crate) fn request(local: LocalPlace, name: String, service: String, idle: Option<Duration>) -> ForwardRequest {
    let idle_ms = idle.map(|idle| idle.as_millis() as u64);
    ForwardRequest { listen: absolute(local).to_string(), name, service, attached: false, idle_ms }
}
