//! Bodies of the fuzz targets of this crate. `fuzz/README.md` lists them; `tests/tests/claims/parsers.rs` runs them.

use trunkline_route::NodeName;
use trunkline_term::{Atom, Limits, Term};

use crate::wire::{self, MAX_TEXT, Notice, Refusal, Request, Unwilling};
use crate::{Exit, Pid};

/// A target: its name, its body, which panics when something does not hold, and the inputs to begin with.
pub type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

/// The targets of this crate.
pub const TARGETS: &[Target] = &[("processes", processes, processes_seeds)];

/// The most characters of an exit, its text included.
const MAX_EXIT: usize = MAX_TEXT + 100;

/// Terms of a peer about processes: any term is a request, a notice, an answer or refused, and each is read back from what
/// it is written as.
pub fn processes(bytes: &[u8]) {
    let Ok(term) = Term::decode(bytes, &Limits::new()) else { return };
    if let Ok(request) = Request::try_from(&term) {
        assert_eq!(Request::try_from(&Term::from(&request)), Ok(request));
    }
    if let Ok(notice) = Notice::try_from(&term) {
        if let Notice::Exit(_, _, exit) | Notice::Down(_, exit) = &notice {
            assert!(exit.to_string().chars().count() <= MAX_EXIT, "{exit}");
        }
        assert_eq!(Notice::try_from(&Term::from(&notice)), Ok(notice));
    }
    if let Ok(answered) = wire::answered(&term) {
        if let Err(unwilling) = &answered {
            assert!(unwilling.text.chars().count() <= MAX_TEXT, "{unwilling}");
        }
        let again = match &answered {
            Ok(ids) => Ok(ids.map(|(number, creation)| pid(number, creation))),
            Err(unwilling) => Err(unwilling.clone()),
        };
        assert_eq!(wire::answered(&wire::answer(&again)), Ok(answered));
    }
}

fn pid(number: u64, creation: u32) -> Pid {
    Pid { node: "db@example.com".parse::<NodeName>().expect("it is a name"), number, creation }
}

/// One of each message.
pub fn processes_seeds() -> Vec<Vec<u8>> {
    let atom = |text: &str| Atom::new(text).expect("a short text is an atom");
    let requests = [
        Request::Spawn(atom("count"), Term::from(5), None),
        Request::Spawn(atom("count"), Term::from("x"), Some(1)),
        Request::StartApplication(atom("shop")),
        Request::Link((1, 2), (3, 4)),
        Request::Monitor(u64::MAX, (3, 4)),
    ];
    let notices = [
        Notice::Unlink((1, 2), (3, 4)),
        Notice::Demonitor(1, (3, 4)),
        Notice::Exit((1, 2), (3, 4), Exit::Failed("out of memory".into())),
        Notice::Exit((1, 2), (3, 4), Exit::Normal),
        Notice::Down(9, Exit::NodeDown("timeout".into())),
        Notice::Down(9, Exit::Killed),
    ];
    let refused = Unwilling { refusal: Refusal::NotAllowed, text: "not for you".into() };
    let answers = [wire::answer(&Ok(None)), wire::answer(&Ok(Some(pid(1, 2)))), wire::answer(&Err(refused))];
    let terms = requests.iter().map(Term::from).chain(notices.iter().map(Term::from)).chain(answers);
    terms.map(|term| term.encode(&Limits::new()).expect("it is small")).collect()
}
