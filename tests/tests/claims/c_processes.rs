//! Processes across nodes: spawned, linked and monitored, as far as the flags of the connection allow it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use trunkline::{
    AccessPattern, Application, ApplicationError, AtomMapping, Exit, Flag, NoProcess, Node, Pid, Process, Signal,
    SpawnError, Term, TieError,
};
use trunkline_tests::support::*;

const DB: &str = "db@127.0.0.1";
const APP: &str = "app@127.0.0.1";

fn all() -> Vec<AccessPattern> {
    vec![AccessPattern::new(".*").unwrap()]
}

/// Process that ends as a message tells it.
async fn obedient(mut process: Process) -> Result<(), String> {
    while let Some(signal) = process.recv().await {
        let Signal::Message(message) = signal else { continue };
        match String::from_utf8_lossy(message.body()).as_ref() {
            "end" => return Ok(()),
            "fail" => return Err("as told".into()),
            "panic" => panic!("as told"),
            _ if message.is_call() => message.reply(process.pid().to_string()),
            _ => {}
        }
    }
    Ok(())
}

/// Starts a process that is linked to another and records every notice that it receives.
async fn attentive(node: &Node, other: &Pid) -> (Pid, mpsc::UnboundedReceiver<(Pid, Exit)>) {
    let (heard, hears) = mpsc::unbounded_channel();
    let (linked, is_linked) = oneshot::channel();
    let other = other.clone();
    let pid = node.spawn(move |mut process| async move {
        linked.send(process.link(&other).await).unwrap();
        while let Some(signal) = process.recv().await {
            if let Signal::Exit { from, exit } = signal {
                let _ = heard.send((from, exit));
            }
        }
    });
    assert_eq!(soon(is_linked).await.unwrap(), Ok(()));
    (pid.unwrap(), hears)
}

/// Starts a node that offers workers, behind a door, and one that dials it.
async fn pair() -> (Node, Door, Node) {
    let db = start(listener(DB)).await;
    db.enable_spawn("worker", all(), |process, _| obedient(process)).unwrap();
    let door = Door::to(address(&db)).await;
    let app = start(dialer(APP).route("^db@", route_at(door.address), 1)).await;
    (db, door, app)
}

async fn worker(app: &Node) -> Pid {
    soon(app.spawn_on(DB, "worker", &Term::from(0), PATIENCE)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn c10_remote_spawn_is_allowed_over_one_connection_and_not_over_another_of_the_same_node() {
    let db = start(listener(DB).route("^strict@", route_at(nobody()).flag(Flag::RemoteSpawn, false), 1)).await;
    let runs = Arc::new(AtomicUsize::new(0));
    db.enable_spawn("worker", vec![AccessPattern::new("(app|strict|wary)@.*").unwrap()], {
        let runs = runs.clone();
        move |process, _| {
            runs.fetch_add(1, Ordering::SeqCst);
            obedient(process)
        }
    })
    .unwrap();
    let node = |text: &str| dialer(text).route("^db@", route_to(&db), 1);
    let (app, strict, other) =
        (start(node(APP)).await, start(node("strict@127.0.0.1")).await, start(node("other@127.0.0.1")).await);
    let wary = dialer("wary@127.0.0.1").route("^db@", route_to(&db).flag(Flag::RemoteSpawn, false), 1);
    let wary = start(wary).await;

    let pid = worker(&app).await;
    assert_eq!((pid.node.as_str(), db.processes()), (DB, vec![pid.clone()]));
    let answer = soon(app.call_to(&pid, b"who?", PATIENCE)).await.unwrap();
    assert_eq!(answer, pid.to_string());
    for refused in [&strict, &wary] {
        let error = soon(refused.spawn_on(DB, "worker", &Term::from(0), PATIENCE)).await.unwrap_err();
        assert!(matches!(&error, SpawnError::NotAllowed(text) if text.contains("remote_spawn")), "{error}");
        // A request that bypasses the check of the flags is refused too.
        let raw = Term::tuple([Term::atom("spawn").unwrap(), Term::atom("worker").unwrap(), 0.into()]);
        let connection = soon(refused.connect(DB)).await.unwrap();
        let answer = soon(connection.call_term("$process", "", &raw, PATIENCE)).await.unwrap();
        assert!(matches!(&answer, Term::Tuple(parts) if parts[1] == Term::atom("not_allowed").unwrap()), "{answer:?}");
    }
    let error = soon(other.spawn_on(DB, "worker", &Term::from(0), PATIENCE)).await.unwrap_err();
    assert!(matches!(&error, SpawnError::NotAllowed(text) if text.contains("other@127.0.0.1")), "{error}");
    let error = soon(app.spawn_on(DB, "none", &Term::from(0), PATIENCE)).await;
    assert_eq!(error, Err(SpawnError::Unknown("none".into())));
    assert_eq!(runs.load(Ordering::SeqCst), 1);

    assert!(db.disable_spawn("worker"));
    assert!(soon(app.spawn_on(DB, "worker", &Term::from(0), PATIENCE)).await.is_err());
    soon(app.call_to(&pid, b"still there?", PATIENCE)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn c10_applications_start_and_stop_as_one_where_the_connection_allows_it() {
    let db = start(listener(DB)).await;
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let part = |name: &'static str| {
        let order = order.clone();
        move |process: Process, _| {
            order.lock().unwrap().push(name);
            obedient(process)
        }
    };
    let shop = Application::new().process("store", 0.into(), part("store")).process("till", 0.into(), part("till"));
    db.enable_application("shop", vec![AccessPattern::new("(app|wary)@.*").unwrap()], shop.clone()).unwrap();
    let node = |text: &str| dialer(text).route("^db@", route_to(&db), 1);
    let (app, other) = (start(node(APP)).await, start(node("other@127.0.0.1")).await);
    let flag = Flag::RemoteApplicationStart;
    let wary = start(dialer("wary@127.0.0.1").route("^db@", route_to(&db).flag(flag, false), 1)).await;

    for refused in [&wary, &other] {
        let error = soon(refused.start_application_on(DB, "shop", PATIENCE)).await.unwrap_err();
        assert!(matches!(error, ApplicationError::NotAllowed(_)), "{error}");
    }
    let unknown = soon(app.start_application_on(DB, "none", PATIENCE)).await;
    assert_eq!(unknown, Err(ApplicationError::Unknown("none".into())));
    assert!(order.lock().unwrap().is_empty() && db.processes().is_empty());

    soon(app.start_application_on(DB, "shop", PATIENCE)).await.unwrap();
    assert_eq!(*order.lock().unwrap(), ["store", "till"]);
    assert_eq!(db.start_application("shop"), Err(ApplicationError::Running("shop".into())));
    soon(app.call(DB, "till", b"open?", PATIENCE)).await.unwrap();

    // One process fails: the other is stopped as well, and the application can be started again.
    let monitor = soon(app.monitor(&db.processes()[0])).await;
    soon(app.send(DB, "till", b"fail")).await.unwrap();
    assert_eq!(soon(monitor.down()).await, Exit::Killed);
    until(|| db.applications() == [("shop".into(), vec![])]).await;
    until(|| db.start_application("shop").is_ok()).await;
    // A process that ends normally does not affect the other.
    soon(app.send(DB, "store", b"end")).await.unwrap();
    until(|| db.processes().len() == 1).await;
    soon(app.call(DB, "till", b"open?", PATIENCE)).await.unwrap();
    db.stop_application("shop").unwrap();
    until(|| db.processes().is_empty()).await;
    assert_eq!(db.stop_application("shop"), Err(ApplicationError::NotRunning("shop".into())));

    // Either all processes start, or none.
    let taken = db.register("till").unwrap();
    let error = db.start_application("shop").unwrap_err();
    assert!(matches!(&error, ApplicationError::Process { mailbox, .. } if mailbox == "till"), "{error}");
    until(|| db.processes().is_empty()).await;
    drop(taken);
    until(|| db.start_application("shop").is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_and_monitors_report_across_nodes_how_a_process_ended() {
    let (db, _door, app) = pair().await;
    // The process may end immediately.
    db.enable_spawn("brief", all(), |_, _| async { Err::<(), _>("at once") }).unwrap();
    for _ in 0..50 {
        let monitor = soon(app.spawn_monitor(DB, "brief", &Term::from(0), PATIENCE)).await.unwrap();
        assert_eq!(monitor.pid().node.as_str(), DB);
        assert_eq!(soon(monitor.down()).await, Exit::Failed("at once".into()));
    }
    // It may also panic before it has begun; the service continues.
    db.enable_spawn("rash", all(), |_, _| -> std::future::Ready<()> { panic!("at once") }).unwrap();
    let monitor = soon(app.spawn_monitor(DB, "rash", &Term::from(0), PATIENCE)).await.unwrap();
    assert_eq!(soon(monitor.down()).await, Exit::Panicked);
    for (told, exit) in [("end", Exit::Normal), ("fail", Exit::Failed("as told".into())), ("panic", Exit::Panicked)] {
        let pid = worker(&app).await;
        let (own, mut hears) = attentive(&app, &pid).await;
        let monitor = soon(app.monitor(&pid)).await;
        // A dropped monitor is notified of nothing.
        drop(soon(app.monitor(&pid)).await);
        soon(app.send_to(&pid, told.as_bytes())).await.unwrap();
        assert_eq!(soon(hears.recv()).await, Some((pid.clone(), exit.clone())));
        assert_eq!(soon(monitor.down()).await, exit);
        assert_eq!(soon(soon(app.monitor(&pid)).await.down()).await, Exit::NoProcess);
        app.stop(&own).unwrap();
        until(|| app.processes().is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_link_or_monitor_is_forgotten_at_both_ends() {
    let (db, _door, app) = pair().await;
    let pid = worker(&app).await;
    let (untie, untied) = oneshot::channel::<()>();
    let (linked, is_linked) = oneshot::channel();
    let other = pid.clone();
    app.spawn(move |mut process| async move {
        linked.send(process.link(&other).await).unwrap();
        untied.await.unwrap();
        process.unlink(&other);
        while process.recv().await.is_some() {}
    })
    .unwrap();
    assert_eq!(soon(is_linked).await.unwrap(), Ok(()));
    let monitor = soon(app.monitor(&pid)).await;
    assert_eq!((db.ties(&pid), app.ties(&app.processes()[0])), (Ok(2), Ok(1)));
    drop(monitor);
    until(|| db.ties(&pid) == Ok(1)).await;
    // Messages arrive in the order in which they were sent.
    let own = app.processes()[0].clone();
    let (again, is_again) = oneshot::channel();
    let other = pid.clone();
    app.spawn(move |process| async move {
        for _ in 0..50 {
            process.link(&other).await.unwrap();
            process.unlink(&other);
        }
        process.link(&other).await.unwrap();
        again.send(()).unwrap();
        std::future::pending::<()>().await;
    })
    .unwrap();
    soon(is_again).await.unwrap();
    assert_eq!(db.ties(&pid), Ok(2));
    app.stop(&app.processes()[1]).unwrap();
    until(|| db.ties(&pid) == Ok(1)).await;
    untie.send(()).unwrap();
    until(|| db.ties(&pid) == Ok(0)).await;
    assert_eq!((app.ties(&own), app.ties(&pid)), (Ok(0), Err(NoProcess)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_linked_process_is_notified_when_the_other_is_stopped_or_its_node_ends() {
    let (db, door, app) = pair().await;
    // The worker's side is notified as well.
    let (heard, hears) = oneshot::channel();
    let heard = std::sync::Mutex::new(Some(heard));
    db.enable_spawn("listener", all(), move |mut process, _| {
        let heard = heard.lock().unwrap().take().unwrap();
        async move {
            while let Some(signal) = process.recv().await {
                if let Signal::Exit { from, exit } = signal {
                    let _ = heard.send((from, exit));
                    return;
                }
            }
        }
    })
    .unwrap();
    let theirs = soon(app.spawn_on(DB, "listener", &Term::from(0), PATIENCE)).await.unwrap();
    let (own, _) = attentive(&app, &theirs).await;
    app.stop(&own).unwrap();
    assert_eq!(soon(hears).await.unwrap(), (own, Exit::Killed));

    // The connection goes down: processes linked to its node are notified on both sides, and can be linked again.
    let pid = worker(&app).await;
    let (_own, mut hears) = attentive(&app, &pid).await;
    let monitor = soon(app.monitor(&pid)).await;
    let mut node_monitor = Box::pin(app.monitor_node(DB));
    tokio::select! {
        biased;
        down = &mut node_monitor => panic!("{down}"),
        () = std::future::ready(()) => {}
    }
    door.cut();
    assert!(matches!(soon(hears.recv()).await, Some((from, Exit::NodeDown(_))) if from == pid));
    assert!(matches!(soon(monitor.down()).await, Exit::NodeDown(_)));
    assert!(matches!(soon(node_monitor).await, Exit::NodeDown(_)));
    let pid = worker(&app).await;
    let monitor = soon(app.monitor(&pid)).await;
    db.stop(&pid).unwrap();
    assert_eq!(soon(monitor.down()).await, Exit::Killed);

    // The process to link to does not exist.
    let (tried, result) = oneshot::channel();
    app.spawn(move |process| async move { drop(tried.send(process.link(&pid).await)) }).unwrap();
    assert!(matches!(soon(result).await.unwrap(), Err(TieError::NoProcess(_))));
    let far = Pid { node: name("far@127.0.0.1"), number: 1, creation: 1 };
    assert!(matches!(soon(soon(app.monitor(&far)).await.down()).await, Exit::NodeDown(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pid_of_a_former_incarnation_reaches_no_process_and_names_of_factories_are_mapped() {
    let at = own_address();
    let db = dialer(DB).listen(at);
    let db = start(db).await;
    let got = Arc::new(std::sync::Mutex::new(Vec::new()));
    let offer = |db: &Node| {
        let got = got.clone();
        db.enable_spawn("proc_mgr", all(), move |process, arguments| {
            got.lock().unwrap().push(arguments);
            obedient(process)
        })
        .unwrap();
    };
    offer(&db);
    let mapping = AtomMapping::new([("process_manager", "proc_mgr")]).unwrap();
    let app = start(dialer(APP).route("^db@", route_at(at).atom_mapping(mapping), 1)).await;
    let arguments = Term::tuple([Term::atom("process_manager").unwrap(), 1.into()]);
    let pid = soon(app.spawn_on(DB, "process_manager", &arguments, PATIENCE)).await.unwrap();
    assert_eq!(*got.lock().unwrap(), [Term::tuple([Term::atom("proc_mgr").unwrap(), 1.into()])]);

    crash(db).await;
    until(|| app.connection(DB).is_none()).await;
    let db = start(dialer(DB).listen(at)).await;
    offer(&db);
    let next = soon(app.spawn_on(DB, "process_manager", &arguments, PATIENCE)).await.unwrap();
    assert_eq!((next.number, &next.node), (pid.number, &pid.node));
    assert_eq!(soon(soon(app.monitor(&pid)).await.down()).await, Exit::NoProcess);
    assert!(soon(app.call_to(&pid, b"", Duration::from_secs(5))).await.is_err());
    soon(app.call_to(&next, b"", PATIENCE)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_links_to_a_process_endlessly_leaves_room_for_others() {
    let db = start(listener(DB)).await;
    let app = start(dialer(APP).route("^db@", route_to(&db), 1)).await;
    let pid = db.spawn(obedient).unwrap();
    let greedy = super::e_refusal::neighbour("greedy@127.0.0.1", &db, cookie("all")).await;
    until(|| db.connection("greedy@127.0.0.1").is_some()).await;
    let (share, workers) = (trunkline_process::PEER_TIES as u64, 8);
    let mut asking = tokio::task::JoinSet::new();
    for worker in 0..workers {
        let (link, pid) = (greedy.clone(), pid.clone());
        asking.spawn(async move {
            let mut taken = 0;
            for watch in (worker..share + 100).step_by(workers as usize) {
                let request = trunkline_process::Request::Monitor(watch, (pid.number, pid.creation));
                let answer = link.call_term("$process", "", &Term::from(&request), PATIENCE).await.unwrap();
                match trunkline_process::answered(&answer).unwrap() {
                    Ok(_) => taken += 1,
                    Err(refused) => {
                        assert!(refused.text.contains("16384 links and watchers of this node"), "{refused}")
                    }
                }
            }
            taken
        });
    }
    // Other callers are served in the meantime.
    let monitor = soon(app.monitor(&pid)).await;
    assert_eq!(asking.join_all().await.iter().sum::<u64>(), share);
    assert_eq!(db.ties(&pid), Ok(trunkline_process::PEER_TIES + 1));
    let other = soon(app.monitor(&pid)).await;
    assert_eq!(db.ties(&pid), Ok(trunkline_process::PEER_TIES + 2));
    db.stop(&pid).unwrap();
    assert_eq!((soon(monitor.down()).await, soon(other.down()).await), (Exit::Killed, Exit::Killed));
}
