//! `trunkline forward`: a local socket that leads to a service of another node.

use std::time::Duration;

use trunkline::LocalPlace;
use trunkline_admin::api::{Changed, EndForward, ForwardRequest, Forwarding};

use crate::args::{Admin, At};
use crate::commands::{changed, checked};
use crate::output::{Failed, Output};
use crate::serve::Signals;
use crate::target::{Target, client, leave};

/// The node's directory is not the command's.
fn absolute(place: LocalPlace) -> LocalPlace {
    match place {
        LocalPlace::Unix(path) => LocalPlace::Unix(std::path::absolute(&path).unwrap_or(path)),
        tcp => tcp,
    }
}

pub(crate) async fn forward(at: At, request: ForwardRequest, background: bool, output: &Output) -> Result<(), Failed> {
    checked(&request.name)?;
    let mut signals = Signals::listen()?;
    let target = Target::find(at).await?;
    let told: Forwarding = match &target {
        Target::Running(client) => client.post("/v1/forwards", &request).await?,
        Target::ShortLived(operations) => operations.forward(&request).await?,
    };
    // A line, so that a program that waits for it need not parse more.
    if output.json {
        output.line(&serde_json::to_string(&told).map_err(Failed::because)?);
    } else {
        let end = if background { "`trunkline end-forward` ends it" } else { "it ends with this command" };
        output.line(&format!("{} leads to {} at {}; {end}", told.listen, told.service, told.name));
    }
    if background {
        return Ok(());
    }
    signals.stop().await;
    match target {
        Target::Running(client) => {
            let ended = client.post::<Changed>("/v1/forwards/remove", &EndForward { listen: told.listen }).await;
            ended.map(drop).map_err(Failed::from)
        }
        Target::ShortLived(operations) => {
            leave(operations).await;
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
    ForwardRequest { listen: absolute(local).to_string(), name, service, idle_ms }
}
