use super::*;

mod two;

const ME: Incarnation = Incarnation::new([1; 16]);
const PEER: Incarnation = Incarnation::new([2; 16]);
const REBORN: Incarnation = Incarnation::new([3; 16]);

fn id(n: u8) -> LinkId {
    LinkId::new([n; 16])
}

fn link(n: u8, epoch: u64, dialled: bool) -> LinkRef {
    LinkRef { id: id(n), epoch, incarnation: PEER, dialled }
}

fn up(dialled: bool, epoch: u64) -> Pair {
    Pair { up: Some(link(9, epoch, dialled)), seen: Some((PEER, epoch, id(9))), ..Pair::default() }
}

fn accept(epoch: u64, cancel: Option<FlightId>) -> OnOffer {
    OnOffer::Accept { epoch, cancel, dropped: None }
}

fn known(known_epoch: u64) -> Claims {
    Claims { known_epoch, ..Claims::default() }
}

#[test]
fn an_idle_entry_accepts() {
    let mut pair = Pair::default();
    assert_eq!(pair.offer(id(1), PEER, Some(known(4)), false, None), accept(5, None));
    assert_eq!(pair.up(), None, "provisional until the first frame");
    assert_eq!(pair.confirmed(id(1)), Some(None));
    assert_eq!(pair.up().unwrap().epoch, 5);
}

#[test]
fn a_dial_that_sent_no_finish_gives_way() {
    let mut pair = Pair::default();
    pair.dial_begins(7);
    assert_eq!(pair.offer(id(1), PEER, Some(known(0)), false, None), accept(1, Some(7)));
    assert_eq!(pair.may_finish(7, id(2), PEER, false), MayFinish::Adopt);
}

#[test]
fn of_two_finishes_the_greater_names_stands() {
    let mut lesser = Pair::default();
    lesser.dial_begins(7);
    assert!(matches!(lesser.may_finish(7, id(2), PEER, false), MayFinish::Finish(_)));
    let mut greater = lesser.clone();
    assert_eq!(lesser.offer(id(1), PEER, Some(known(0)), true, None), accept(1, Some(7)));
    assert_eq!(greater.offer(id(1), PEER, Some(known(0)), false, None), OnOffer::LostTie);
    assert_eq!(lesser.accepted(7, link(2, 1, true)), OnAccept::Discard);
    assert_eq!(greater.accepted(7, link(2, 1, true)), OnAccept::Up(None));
}

#[test]
fn the_rows_for_a_live_link_to_the_same_life() {
    let replaces = Claims { replaces: Some(id(9)), known_epoch: 3, ..Claims::default() };
    let mut pair = up(true, 3);
    assert_eq!(pair.offer(id(1), PEER, Some(replaces), false, None), accept(4, None));
    assert_eq!(pair.up().unwrap().id, id(9), "the live link stays until the first frame");
    assert_eq!(pair.confirmed(id(1)), Some(Some(Retire { id: id(9), alive: true })));

    let have = Claims { have_link: Some(id(9)), ..Claims::default() };
    assert_eq!(up(true, 3).offer(id(1), PEER, Some(have), false, None), OnOffer::Duplicate);

    let mut dead_there = up(true, 3);
    let saw = Claims { last_link: Some(id(9)), ..known(3) };
    assert_eq!(dead_there.offer(id(1), PEER, Some(saw), false, None), accept(4, None));
    assert_eq!(dead_there.confirmed(id(1)), Some(Some(Retire { id: id(9), alive: false })));

    assert_eq!(up(true, 3).offer(id(1), PEER, Some(known(2)), false, None), OnOffer::LostTie);
}

#[test]
fn a_caller_that_shows_only_the_incarnation_of_a_live_peer_is_let_in_only_when_the_old_link_is_silent() {
    for (dialled, claims) in [(true, known(3)), (true, known(u64::MAX)), (false, known(0)), (false, known(3))] {
        let another = Claims { last_link: Some(id(8)), ..claims };
        for claims in [claims, another] {
            let mut pair = up(dialled, 3);
            assert_eq!(pair.offer(id(1), PEER, Some(claims), false, None), OnOffer::Challenge(id(9)));
            assert_eq!(pair.offer(id(1), PEER, Some(claims), false, Some((id(9), true))), OnOffer::NameInUse);
            assert!(matches!(
                pair.offer(id(1), PEER, Some(claims), false, Some((id(9), false))),
                OnOffer::Accept { .. }
            ));
            assert_eq!(pair.confirmed(id(1)), Some(Some(Retire { id: id(9), alive: false })));
        }
    }
}

#[test]
fn another_life_is_let_in_only_when_the_old_link_is_silent() {
    let mut pair = up(true, 3);
    assert_eq!(pair.offer(id(1), REBORN, Some(known(0)), false, None), OnOffer::Challenge(id(9)));
    assert_eq!(pair.offer(id(1), REBORN, Some(known(0)), false, Some((id(9), true))), OnOffer::NameInUse);
    assert_eq!(pair.offer(id(1), REBORN, Some(known(0)), false, Some((id(9), false))), accept(1, None));
    assert_eq!(pair.confirmed(id(1)), Some(Some(Retire { id: id(9), alive: false })));
    assert_eq!(pair.offer(id(5), ME, Some(known(0)), false, Some((id(9), false))), OnOffer::Challenge(id(1)));
}

#[test]
fn a_caller_that_cannot_say_which_links_it_knows_gets_one_when_the_live_link_is_dead() {
    for mut pair in [up(true, 3), up(false, 3)] {
        assert_eq!(pair.offer(id(1), PEER, None, false, None), OnOffer::Challenge(id(9)));
        assert_eq!(pair.offer(id(1), PEER, None, false, Some((id(9), true))), OnOffer::NameInUse);
        assert_eq!(pair.offer(id(1), PEER, None, false, Some((id(9), false))), accept(4, None));
    }
    let mut both_dial = Pair::default();
    both_dial.dial_begins(7);
    assert!(matches!(both_dial.may_finish(7, id(2), PEER, false), MayFinish::Finish(_)));
    assert_eq!(both_dial.offer(id(1), PEER, None, false, None), OnOffer::LostTie);
    assert_eq!(both_dial.offer(id(1), PEER, None, true, None), accept(1, Some(7)));
}

#[test]
fn a_lost_accept_leaves_nothing_standing() {
    let mut pair = Pair::default();
    pair.offer(id(1), PEER, Some(known(0)), false, None);
    pair.down(id(1));
    assert!(pair.is_idle());
    assert_eq!(pair.confirmed(id(1)), None);
}

#[test]
fn one_finish_is_outstanding_at_a_time() {
    let mut pair = Pair::default();
    pair.dial_begins(7);
    assert!(matches!(pair.may_finish(7, id(1), PEER, false), MayFinish::Finish(_)));
    assert_eq!(pair.may_finish(7, id(2), PEER, false), MayFinish::Adopt);
    pair.finish_failed(7, id(1));
    assert!(matches!(pair.may_finish(7, id(2), PEER, false), MayFinish::Finish(_)));
    assert_eq!(pair.may_finish(8, id(3), PEER, false), MayFinish::Adopt, "a cancelled flight");
}

#[test]
fn replacing_retires_the_old_link_on_accept() {
    let mut pair = up(false, 3);
    pair.dial_begins(7);
    let claims = Claims { known_epoch: 3, last_link: Some(id(9)), have_link: None, replaces: Some(id(9)) };
    assert_eq!(pair.may_finish(7, id(2), PEER, true), MayFinish::Finish(claims));
    let on = pair.accepted(7, link(2, 4, true));
    assert_eq!(on, OnAccept::Up(Some(Retire { id: id(9), alive: true })));
    assert_eq!(pair.up().unwrap().id, id(2));
}

#[test]
fn the_greatest_epoch_there_is_does_no_harm() {
    let mut pair = Pair::default();
    assert_eq!(pair.offer(id(1), PEER, Some(known(u64::MAX)), false, None), accept(u64::MAX, None));
    pair.confirmed(id(1)).unwrap();
    let saw = Claims { last_link: Some(id(1)), ..known(u64::MAX) };
    assert_eq!(pair.offer(id(2), PEER, Some(saw), false, None), accept(u64::MAX, None));
}

#[test]
fn an_accepted_link_can_be_taken_back() {
    let mut pair = up(false, 3);
    pair.dial_begins(7);
    pair.may_finish(7, id(2), PEER, true);
    pair.accepted(7, link(2, 4, true));
    pair.revert(id(1), None);
    assert_eq!(pair.up().unwrap().id, id(2), "another link is not meant");
    pair.revert(id(2), Some(link(9, 3, false)));
    assert_eq!(pair.up().unwrap().id, id(9));
}
