use std::net::SocketAddr;

use trunkline::registrar::RegisterError;
use trunkline::{Node, NodeBuilder, StartError};
use trunkline_link::REGISTRAR_WINDOW;
use trunkline_stack::{CallError, SendError};
use trunkline_tests::support::*;
use trunkline_wire::handshake::Mode;

/// Returns a node that listens on the host in its name, with the embedded registrar there.
fn at_home(node: &str, registrar: SocketAddr) -> NodeBuilder {
    let listen = SocketAddr::new(registrar.ip(), 0);
    dialer(&format!("{node}@{}", registrar.ip())).listen(listen).embedded_registrar(registrar)
}

async fn connects(from: &Node, to: &Node) {
    let connection = soon(from.connect(to.name().clone())).await.unwrap();
    assert_eq!(connection.info().address, address(to));
}

#[tokio::test(flavor = "multi_thread")]
async fn f1_without_a_static_route_the_embedded_registrar_is_asked_and_needs_no_other_process() {
    let registrar = own_address();
    let db = start(at_home("db", registrar)).await;
    let app = start(at_home("app", registrar)).await;
    connects(&app, &db).await;
    assert!(db.status().serves_registrar && !app.status().serves_registrar);
    assert_eq!((db.status().registered, app.status().registered), (Some(true), Some(true)));
    assert_eq!(db.status().registrar_queries, 1);
    until(|| db.connection(app.name()).is_some()).await;
    let back = soon(db.connect(app.name().clone())).await.unwrap();
    assert_eq!(back.info().id, app.connection(db.name()).unwrap().info().id, "one link, whoever asks");
}

#[tokio::test(flavor = "multi_thread")]
async fn f1_the_registrar_on_the_host_in_the_name_is_asked() {
    let here = own_address();
    let there = SocketAddr::new(own_host().into(), here.port());
    let (db, app) = (start(at_home("db", there)).await, start(at_home("app", here)).await);
    connects(&app, &db).await;
    assert_eq!((db.status().registrar_queries, app.status().registrar_queries), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn f1_a_hidden_node_and_a_client_find_others_but_are_not_found() {
    let registrar = own_address();
    let db = start(at_home("db", registrar)).await;
    let client = dialer(&format!("cli@{}", registrar.ip())).embedded_registrar_client(registrar);
    let (hidden, client) = (start(at_home("hidden", registrar).hidden(true)).await, start(client).await);
    connects(&hidden, &db).await;
    connects(&client, &db).await;
    let app = start(at_home("app", registrar)).await;
    no_route(soon(app.connect(hidden.name().clone())).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn f1_a_registrar_with_another_cookie_is_reported_at_start() {
    let registrar = own_address();
    let db = start(at_home("db", registrar)).await;
    let started = soon(at_home("app", registrar).cookie(cookie("others")).start()).await;
    let error = started.map(drop).unwrap_err();
    assert!(matches!(error, StartError::Registrar(RegisterError::WrongCookie(_))), "{error}");
    assert!(error.to_string().contains(&registrar.to_string()), "{error}");
    assert_eq!(db.status().registered, Some(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn f1_a_name_that_a_live_node_holds_is_refused() {
    let registrar = own_address();
    let first = start(at_home("db", registrar)).await;
    let _app = start(at_home("app", registrar)).await;
    for taken in ["db", "app"] {
        let error = soon(at_home(taken, registrar).start()).await.map(drop).unwrap_err();
        assert!(matches!(error, StartError::Registrar(RegisterError::Taken(_))), "{error}");
    }
    assert_eq!(first.status().registered, Some(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn f1_when_the_node_that_served_dies_the_others_register_anew_and_are_found() {
    let registrar = own_address();
    let server = start(at_home("first", registrar)).await;
    let (db, app) = (start(at_home("db", registrar)).await, start(at_home("app", registrar)).await);
    assert!(server.status().serves_registrar);
    drop(server);
    let served = || [&db, &app].iter().filter(|node| node.status().serves_registrar).count();
    let registered = || [&db, &app].iter().all(|node| node.status().registered == Some(true));
    until(|| served() == 1 && registered()).await;
    connects(&app, &db).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f1_a_session_with_the_registrar_takes_no_more_than_its_questions_need() {
    let registrar = own_address();
    let db = start(at_home("db", registrar)).await;
    let cookie = cookie("all");
    let session = super::e_refusal::dials("app@elsewhere", db.name(), registrar, Mode::Registrar, cookie).await;
    let ask = async |body: &[u8]| soon(session.call("$registrar", "", body, PATIENCE)).await;
    let resolve = [&[1, 1, db.name().as_str().len() as u8], db.name().as_str().as_bytes()].concat();
    assert!(ask(&resolve).await.is_ok());
    let most = REGISTRAR_WINDOW.max_message;
    assert!(ask(&vec![1; most]).await.is_ok(), "it is answered that this cannot be read");
    let too_large = CallError::NotSent(SendError::TooLarge { len: most + 1, limit: most });
    assert_eq!(ask(&vec![1; most + 1]).await, Err(too_large));
}
