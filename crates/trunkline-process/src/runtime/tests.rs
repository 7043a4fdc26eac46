use std::any::Any;
use std::sync::atomic::{AtomicUsize, Ordering};

use trunkline_dial::{Sessions, SessionsConfig};
use trunkline_route::Cookie;
use trunkline_stack::CallError;

use super::*;

const ME: &str = "app@lab";
const SOON: Duration = Duration::from_secs(10);

/// A node that reaches itself only: peers ask it under its own name.
fn node() -> (Arc<Sessions>, Arc<Processes>) {
    let cookie = Cookie::new("a cookie of some length").unwrap();
    let node = Sessions::new(SessionsConfig::new(ME.parse().unwrap(), [7; 16], cookie), |_| {});
    let processes = Processes::new(node.name().clone(), [7; 16].into(), node.mailboxes().clone());
    node.spawn(processes.serve(Arc::downgrade(&node) as _).unwrap());
    (node, processes)
}

fn names(text: &str) -> Vec<AccessPattern> {
    vec![AccessPattern::new(text).unwrap()]
}

/// Runs until it is stopped.
async fn wait(mut process: Process) {
    while process.recv().await.is_some() {}
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, what).await.expect("it happens soon")
}

#[tokio::test]
async fn a_watcher_is_told_how_a_process_ended() {
    let (_node, processes) = node();
    let ok = processes.spawn(|_| async {}).unwrap();
    let failed = processes.spawn(|_| async { Err("out of disk") }).unwrap();
    let panicked = processes.spawn(|process| async move { assert!(process.peer().is_some(), "a bug") }).unwrap();
    let stopped = processes.spawn(wait).unwrap();
    assert_eq!(processes.live(), [&ok, &failed, &panicked, &stopped].map(Clone::clone));
    let mut monitors = Vec::new();
    for pid in [&ok, &failed, &panicked, &stopped] {
        monitors.push(processes.monitor(pid).await);
    }
    processes.stop(&stopped).unwrap();
    let expected = [Exit::Normal, Exit::Failed("out of disk".into()), Exit::Panicked, Exit::Killed];
    for (monitor, exit) in monitors.into_iter().zip(expected) {
        assert_eq!(soon(monitor.down()).await, exit);
    }
    assert!(processes.live().is_empty());
    assert_eq!(soon(processes.monitor(&ok).await.down()).await, Exit::NoProcess);
    assert_eq!(processes.stop(&ok), Err(NoProcess));
}

#[tokio::test]
async fn linked_processes_tell_each_other_their_end_until_they_are_unlinked() {
    let (_node, processes) = node();
    for is_linked in [true, false] {
        let worker = processes.spawn(wait).unwrap();
        let (told, exits) = oneshot::channel();
        let (ready, is_ready) = oneshot::channel();
        let watched = worker.clone();
        processes
            .spawn(|mut process| async move {
                process.link(&watched).await.unwrap();
                if !is_linked {
                    process.unlink(&watched);
                }
                ready.send(process.pid().clone()).unwrap();
                let _ = told.send(process.recv().await);
            })
            .unwrap();
        let watcher = is_ready.await.unwrap();
        assert_eq!(
            (processes.ties(&worker).unwrap(), processes.ties(&watcher).unwrap()),
            match is_linked {
                true => (1, 1),
                false => (0, 0),
            }
        );
        processes.stop(&worker).unwrap();
        if is_linked {
            let Some(Signal::Exit { from, exit }) = soon(exits).await.unwrap() else { panic!("it is told the end") };
            assert_eq!((from, exit), (worker, Exit::Killed));
        } else {
            processes.stop(&watcher).unwrap();
            assert!(soon(exits).await.is_err());
        }
    }
}

#[tokio::test]
async fn a_peer_begins_the_processes_that_it_is_offered_within_their_limits() {
    let (_node, processes) = node();
    let limits = SpawnLimits { max: Some(1) };
    processes.enable_spawn_with("worker", names(ME), limits, |process, _| wait(process)).unwrap();
    processes.enable_spawn("other", names("other@lab"), |process, _| wait(process)).unwrap();
    let taken = processes.enable_spawn("worker", Vec::new(), |process, _| wait(process)).unwrap_err();
    assert!(matches!(taken, RegisterError::Taken { .. }), "{taken}");
    let begin = |name: &'static str| {
        let processes = processes.clone();
        async move { processes.spawn_on(ME, name, &Term::from(0), SOON).await }
    };
    let pid = begin("worker").await.unwrap();
    assert_eq!(processes.live(), std::slice::from_ref(&pid));
    let full = begin("worker").await.unwrap_err();
    assert!(matches!(&full, SpawnError::Overloaded(text) if text.contains("worker")), "{full}");
    assert!(matches!(begin("other").await.unwrap_err(), SpawnError::NotAllowed(_)));
    assert_eq!(begin("nothing").await.unwrap_err(), SpawnError::Unknown("nothing".into()));
    let monitor = processes.monitor(&pid).await;
    processes.stop(&pid).unwrap();
    soon(monitor.down()).await;
    begin("worker").await.unwrap();
    assert!(processes.disable_spawn("worker") && !processes.disable_spawn("worker"));
    assert_eq!(processes.spawns(), ["other"]);
}

#[tokio::test]
async fn the_end_of_a_process_that_a_peer_began_is_told_however_soon_it_comes() {
    let (_node, processes) = node();
    processes
        .enable_spawn("short", names(ME), |process, _| async move {
            assert_eq!(process.peer().unwrap().as_str(), ME);
            Err("at once")
        })
        .unwrap();
    let monitor = processes.spawn_monitor(ME, "short", &Term::from(0), SOON).await.unwrap();
    assert_eq!(monitor.pid().node.as_str(), ME);
    assert_eq!(soon(monitor.down()).await, Exit::Failed("at once".into()));
}

#[tokio::test]
async fn a_process_of_a_node_that_is_not_reached_counts_as_down() {
    let (_node, processes) = node();
    let far = Pid { node: "far@lab".parse().unwrap(), number: 1, creation: 1 };
    let exit = soon(processes.monitor(&far).await.down()).await;
    assert!(matches!(exit, Exit::NodeDown(_)), "{exit:?}");
    let (told, error) = oneshot::channel();
    processes.spawn(|process| async move { told.send(process.link(&far).await.unwrap_err()).unwrap() }).unwrap();
    assert!(matches!(soon(error).await.unwrap(), TieError::Call(_)));
}

#[tokio::test]
async fn the_processes_of_an_application_begin_in_order_and_end_together() {
    let (_node, processes) = node();
    let began = Arc::new(AtomicUsize::new(0));
    let part = |nth: usize| {
        let began = began.clone();
        move |mut process: Process, _| {
            assert_eq!(began.fetch_add(1, Ordering::Relaxed), nth);
            async move {
                match process.recv().await {
                    Some(_) => Err("told to fail"),
                    None => Ok(()),
                }
            }
        }
    };
    let application =
        Application::new().process("first", Term::from(0), part(0)).process("second", Term::from(0), part(1));
    processes.enable_application("pair", names(ME), application).unwrap();
    processes.start_application_on(ME, "pair", SOON).await.unwrap();
    assert_eq!(processes.start_application("pair"), Err(ApplicationError::Running("pair".into())));
    let running = processes.applications().remove(0).1;
    let mut monitors = Vec::new();
    for pid in &running {
        monitors.push(processes.monitor(pid).await);
    }
    assert_eq!(monitors.len(), 2);
    let host = processes.host().unwrap();
    host.connection(&running[0].node).unwrap().send("second", "", b"fail").await.unwrap();
    let mut exits = Vec::new();
    for monitor in monitors {
        exits.push(soon(monitor.down()).await);
    }
    assert_eq!(exits, [Exit::Killed, Exit::Failed("told to fail".into())]);
    assert_eq!(processes.stop_application("pair"), Err(ApplicationError::NotRunning("pair".into())));
    assert_eq!(processes.start_application("none"), Err(ApplicationError::Unknown("none".into())));
}

#[tokio::test]
async fn an_application_whose_second_process_does_not_begin_stops_the_first() {
    let (node, processes) = node();
    let _taken = node.mailboxes().register("taken").unwrap();
    let application = Application::new().process("free", Term::from(0), |process, _| wait(process)).process(
        "taken",
        Term::from(0),
        |process, _| wait(process),
    );
    processes.enable_application("half", Vec::new(), application).unwrap();
    let error = processes.start_application("half").unwrap_err();
    assert!(matches!(&error, ApplicationError::Process { mailbox, .. } if mailbox == "taken"), "{error}");
    for pid in processes.live() {
        assert_eq!(soon(processes.monitor(&pid).await.down()).await, Exit::Killed);
    }
    assert!(processes.live().is_empty() && processes.applications()[0].1.is_empty());
}

#[tokio::test]
async fn messages_about_processes_that_are_not_understood_are_refused() {
    let (node, processes) = node();
    let connection = node.connection(node.name()).unwrap();
    let plain = connection.call("$process", "", b"hello", SOON).await.unwrap_err();
    let unknown = connection.call_term("$process", "", &Term::from(0), SOON).await.unwrap_err();
    for (error, text) in [(plain, "it is no term"), (unknown, "known here")] {
        assert!(matches!(&error, CallError::Failed(why) if why.contains(text)), "{error}");
    }
    assert!(processes.serve(Arc::downgrade(&node) as _).is_err(), "one task answers");
}

#[tokio::test]
async fn a_process_leads_to_its_node_and_does_not_keep_it() {
    let (node, processes) = node();
    let (own, mut led_to) = mpsc::channel(2);
    let (go_on, gone) = oneshot::channel::<()>();
    processes
        .spawn(|process| async move {
            let host: Option<Arc<dyn Any + Send + Sync>> = process.host().map(|host| host as _);
            own.send(host.and_then(|host| host.downcast::<Sessions>().ok()).map(|node| node.name().clone()))
                .await
                .unwrap();
            gone.await.unwrap();
            own.send(process.host().map(|_| process.pid().node.clone())).await.unwrap();
        })
        .unwrap();
    assert_eq!(soon(led_to.recv()).await.unwrap().unwrap().as_str(), ME);
    drop(node);
    go_on.send(()).unwrap();
    assert_eq!(soon(led_to.recv()).await.unwrap(), None);
    let late = processes.spawn_on(ME, "worker", &Term::from(0), SOON).await.unwrap_err();
    assert_eq!(late, SpawnError::Call(ConnectError::ShuttingDown.into()));
}

#[tokio::test]
async fn nothing_begins_after_every_process_was_stopped() {
    let (_node, processes) = node();
    let pid = processes.spawn(wait).unwrap();
    let monitor = processes.monitor(&pid).await;
    processes.stop_all();
    assert_eq!(soon(monitor.down()).await, Exit::Killed);
    assert_eq!(processes.spawn(wait), Err(SpawnError::ShuttingDown));
}
