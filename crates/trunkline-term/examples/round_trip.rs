//! A term, its bytes, the same term under other names, and as a value of Rust.

use std::collections::BTreeMap;

use trunkline_term::{Atom, Limits, Term, TermError, from_term};

fn main() -> Result<(), TermError> {
    let limits = Limits::default();
    let request = Term::tuple([
        Term::atom("process_manager")?,
        Term::map([(Term::atom("priority")?, Term::from(7)), (Term::atom("job")?, Term::from("index"))]),
    ]);
    let bytes = request.encode(&limits)?;
    println!("{} bytes: {request:?}", bytes.len());

    let other = Atom::new("proc_mgr")?;
    let renamed = Term::decode(&bytes, &limits)?
        .replace_atoms(&mut |atom| (atom.as_str() == "process_manager").then(|| other.clone()));
    println!("{renamed:?}");

    let (service, job): (String, BTreeMap<String, serde_json::Value>) = from_term(&renamed)?;
    println!("{service}: {job:?}");
    Ok(())
}
