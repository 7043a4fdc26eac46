//! Terms, and names that are mapped on one connection.

use std::time::Duration;

use trunkline::term::{Atom, Pid};
use trunkline::{AtomMapping, CallError, MappingError, Node, SendError, Term, TermError};
use trunkline_tests::support::*;

const DB: &str = "db@127.0.0.1";
const WAIT: Duration = Duration::from_secs(20);

fn mapping() -> AtomMapping {
    AtomMapping::new([("process_manager", "proc_mgr"), ("app@127.0.0.1", "client@outside")]).unwrap()
}

fn atom(text: &str) -> Term {
    Term::atom(text).unwrap()
}

/// Returns a term with a process name and a node name in every possible place, 60 levels deep.
fn deep(process: &str, node: &str) -> Term {
    let pid = Pid { node: Atom::new(node).unwrap(), id: 7, serial: 0, creation: 1 };
    let inner = Term::map([(atom(process), Term::Pid(pid)), (Term::from("process_manager"), atom("untouched"))]);
    (0..56).fold(inner, |term, _| Term::list([term, atom(process)]))
}

async fn term(mailbox: &mut trunkline::Mailbox) -> (String, Term) {
    let message = soon(mailbox.recv()).await.unwrap();
    (message.sender().to_owned(), message.term().unwrap().unwrap())
}

/// Answers every call with the term that it carries.
fn echoes(node: &Node, service: &str) {
    let mut mailbox = node.register(service).unwrap();
    tokio::spawn(async move {
        while let Some(message) = mailbox.recv().await {
            let term = message.term().unwrap().unwrap();
            message.reply_term(&term).unwrap();
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn c12_names_and_atoms_are_replaced_and_restored_on_that_connection_alone() {
    let (db, web) = (start(listener(DB)).await, start(listener("web@127.0.0.1")).await);
    let app = dialer("app@127.0.0.1").route("^db@", route_to(&db).atom_mapping(mapping()), 1).route(
        "^web@",
        route_to(&web),
        1,
    );
    let app = start(app).await;
    let (here, there) = (deep("process_manager", "app@127.0.0.1"), deep("proc_mgr", "client@outside"));
    let to_db = soon(app.connect(DB)).await.unwrap();

    // The sent parts are mapped: the service, the sender and the atoms.
    let mut at_db = db.register("proc_mgr").unwrap();
    soon(to_db.send_term("process_manager", "process_manager", &here)).await.unwrap();
    assert_eq!(term(&mut at_db).await, ("proc_mgr".to_owned(), there.clone()));

    // The received parts are mapped: the other end knows nothing of the mapping.
    until(|| db.connection(app.name()).is_some()).await;
    let mut at_app = app.register("process_manager").unwrap();
    let back = db.connection(app.name()).unwrap();
    soon(back.send_term("proc_mgr", "proc_mgr", &there)).await.unwrap();
    assert_eq!(term(&mut at_app).await, ("process_manager".to_owned(), here.clone()));

    // Answers are mapped, whichever end calls.
    echoes(&db, "echo");
    assert_eq!(soon(to_db.call_term("echo", "", &here, WAIT)).await, Ok(here.clone()));
    echoes(&app, "echo");
    assert_eq!(soon(back.call_term("echo", "", &there, WAIT)).await, Ok(there));

    // Bytes are not mapped.
    soon(to_db.send("process_manager", "", b"process_manager")).await.unwrap();
    assert_eq!(text(&mut at_db).await, "process_manager");

    // Another connection of the same node has no mapping.
    let mut at_web = web.register("process_manager").unwrap();
    let to_web = soon(app.connect("web@127.0.0.1")).await.unwrap();
    soon(to_web.send_term("process_manager", "process_manager", &here)).await.unwrap();
    assert_eq!(term(&mut at_web).await, ("process_manager".to_owned(), here));
}

#[tokio::test(flavor = "multi_thread")]
async fn c12_a_mapping_belongs_to_the_name_also_when_the_peer_dials() {
    let db = start(listener(DB).route("^app@", route_at(nobody()).atom_mapping(mapping()), 1)).await;
    let app = start(dialer("app@127.0.0.1").route("^db@", route_to(&db), 1)).await;
    let mut at_db = db.register("process_manager").unwrap();
    let connection = soon(app.connect(DB)).await.unwrap();
    soon(connection.send_term("proc_mgr", "", &atom("proc_mgr"))).await.unwrap();
    assert_eq!(term(&mut at_db).await.1, atom("process_manager"));
}

#[test]
fn c12_a_mapping_that_cannot_be_reversed_is_refused() {
    let refused = AtomMapping::new([("a", "x"), ("b", "x")]).unwrap_err();
    let [one, other, target] = ["a", "b", "x"].map(str::to_owned);
    assert_eq!(refused, MappingError::NotInjective { one, other, target });
    assert!(matches!(AtomMapping::new([("a", "")]), Err(MappingError::Len { len: 0, .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_term_does_not_end_the_connection_and_bytes_are_not_read_as_a_term() {
    let db = start(listener(DB)).await;
    let app = start(dialer("app@127.0.0.1").route("^db@", route_to(&db), 1)).await;
    let connection = soon(app.connect(DB)).await.unwrap();
    let too_deep = (0..64).fold(atom("a"), |term, _| Term::list([term]));
    let why = TermError::Depth { limit: 64 };
    let refused = soon(connection.send_term("in", "", &too_deep)).await;
    assert_eq!(refused, Err(SendError::BadTerm(why.clone())));
    let refused = soon(connection.call_term("in", "", &too_deep, WAIT)).await;
    assert_eq!(refused, Err(CallError::NotSent(SendError::BadTerm(why.clone()))));

    // One service answers with bytes, and one with an invalid term: the caller loses nothing and does not wait.
    let mut mailbox = db.register("in").unwrap();
    let serve = tokio::spawn(async move {
        soon(mailbox.recv()).await.unwrap().reply("bytes");
        let message = soon(mailbox.recv()).await.unwrap();
        assert!(message.term().unwrap().is_ok());
        assert_eq!(message.reply_term(&too_deep), Err(why));
        let message = soon(mailbox.recv()).await.unwrap();
        assert!(message.term().is_none(), "bytes are not read as a term");
    });
    let plain = soon(connection.call_term("in", "", &atom("a"), WAIT)).await;
    assert_eq!(plain, Err(CallError::PlainAnswer("bytes".into())));
    let failed = soon(connection.call_term("in", "", &atom("a"), WAIT)).await;
    assert!(matches!(&failed, Err(CallError::Failed(text)) if text.contains("64 levels")), "{failed:?}");
    let as_bytes = atom("a").encode(&trunkline::term::Limits::default()).unwrap();
    soon(connection.send("in", "", &as_bytes)).await.unwrap();
    soon(serve).await.unwrap();
    assert!(connection.is_up());
}
