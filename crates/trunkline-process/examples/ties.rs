//! Two nodes' books: a process of one is linked to a process of the other, which fails.

use trunkline_process::{Effect, Exit, Notice, Request, Ties};
use trunkline_term::Term;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut app, mut db) = (Ties::new("app@lab".parse()?, 1), Ties::new("db@lab".parse()?, 1));
    let (caller, worker) = (app.begin(), db.begin());

    // The node of the caller notes the link and asks the other one.
    app.link(caller.number, &worker)?;
    let request = Request::Link((caller.number, caller.creation), (worker.number, worker.creation));
    println!("app@lab asks: {:?}", Term::from(&request));
    db.link(db.own(worker.number, worker.creation)?, &caller)?;

    for effect in db.end(worker.number, &Exit::Failed("out of disk".into())) {
        let Effect::ExitThere { to, from, exit } = effect else { continue };
        let notice = Notice::Exit((from, worker.creation), (to.number, to.creation), exit.clone());
        println!("db@lab says: {:?}", Term::from(&notice));
        println!("to be done at app@lab: {:?}", app.exit_there(worker.clone(), to.number, exit));
    }
    Ok(())
}
