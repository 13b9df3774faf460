//! Every order of events, by a clock that the test holds.

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn trip() -> Trip {
    Trip { failures: Some(3), rate: None, open: SECOND, longest: 5 * SECOND }
}

fn passes(circuit: &mut Circuit, now: Duration) -> Pass {
    match circuit.enter(now) {
        Entry::Pass(pass) => pass,
        other => panic!("{other:?}"),
    }
}

fn one(circuit: &mut Circuit, ended: Ended, now: Duration) -> Option<Change> {
    let pass = passes(circuit, now);
    circuit.end(pass, ended, now).0
}

#[test]
fn failures_in_a_row_open_it_and_one_request_tries_whether_it_is_well() {
    let mut circuit = Circuit::new(None, Some(trip()));
    for ended in [Ended::Failed, Ended::Failed, Ended::Well, Ended::Failed, Ended::Neither, Ended::Failed] {
        assert_eq!(one(&mut circuit, ended, SECOND), None);
    }
    let opened = one(&mut circuit, Ended::Failed, SECOND);
    assert_eq!(opened, Some(Change::Opened { time: SECOND, cause: Cause::Row(3) }));
    assert_eq!(circuit.enter(SECOND * 3 / 2), Entry::Refused(Refused::Open(SECOND / 2)));
    let probe = passes(&mut circuit, 2 * SECOND);
    assert_eq!(circuit.enter(2 * SECOND), Entry::Refused(Refused::Probing), "one, and no more");
    assert_eq!(circuit.end(probe, Ended::Neither, 2 * SECOND).0, None);
    let probe = passes(&mut circuit, 2 * SECOND);
    assert_eq!(circuit.end(probe, Ended::Well, 2 * SECOND).0, Some(Change::Closed));
    passes(&mut circuit, 2 * SECOND);
}

#[test]
fn it_opens_for_longer_each_time_up_to_the_longest_and_calm_is_remembered() {
    let mut circuit = Circuit::new(None, Some(trip()));
    let mut now = SECOND;
    (0..2).for_each(|_| assert_eq!(one(&mut circuit, Ended::Failed, now), None));
    for seconds in [1, 2, 4, 5, 5] {
        let Some(Change::Opened { time, .. }) = one(&mut circuit, Ended::Failed, now) else { panic!() };
        assert_eq!(time, seconds * SECOND);
        now += time;
    }
    assert_eq!(one(&mut circuit, Ended::Well, now), Some(Change::Closed));
    // At once again: it was not well.
    (0..2).for_each(|_| assert_eq!(one(&mut circuit, Ended::Failed, now), None));
    let again = one(&mut circuit, Ended::Failed, now);
    assert_eq!(again, Some(Change::Opened { time: 5 * SECOND, cause: Cause::Row(3) }));
    now += 5 * SECOND;
    assert_eq!(one(&mut circuit, Ended::Well, now), Some(Change::Closed));
    now += 6 * SECOND;
    (0..2).for_each(|_| assert_eq!(one(&mut circuit, Ended::Failed, now), None));
    let after = one(&mut circuit, Ended::Failed, now);
    assert_eq!(after, Some(Change::Opened { time: SECOND, cause: Cause::Row(3) }), "after calm as at first");
}

#[test]
fn what_was_sent_before_it_opened_says_nothing_about_afterwards() {
    let mut circuit = Circuit::new(None, Some(trip()));
    let before: Vec<Pass> = (0..9).map(|_| passes(&mut circuit, SECOND)).collect();
    let mut changes = before[..8].iter().filter_map(|pass| circuit.end(*pass, Ended::Failed, SECOND).0);
    assert_eq!(
        (changes.next(), changes.next()),
        (Some(Change::Opened { time: SECOND, cause: Cause::Row(3) }), None)
    );
    let probe = passes(&mut circuit, 2 * SECOND);
    assert_eq!(circuit.end(before[8], Ended::Well, 2 * SECOND).0, None, "no answer to the probe");
    assert!(circuit.is_open());
    assert_eq!(
        circuit.end(probe, Ended::Failed, 2 * SECOND).0,
        Some(Change::Opened { time: 2 * SECOND, cause: Cause::Probe })
    );
}

#[test]
fn a_rate_needs_enough_requests_and_forgets() {
    let rate = Trip { failures: None, rate: Some(50), ..trip() };
    let mut circuit = Circuit::new(None, Some(rate));
    let mut opened = 0;
    for at in 0..19 {
        opened += u32::from(one(&mut circuit, Ended::Failed, SECOND * at / 10).is_some());
    }
    assert_eq!(opened, 0, "fewer than twenty");
    assert_eq!(one(&mut circuit, Ended::Failed, 20 * SECOND), None, "they are too long ago");
    for _ in 0..40 {
        assert_eq!(one(&mut circuit, Ended::Well, 21 * SECOND), None);
    }
    let changes = (0..39).filter_map(|_| one(&mut circuit, Ended::Failed, 22 * SECOND)).count();
    assert_eq!(changes, 1, "half of them");
    assert!(circuit.is_open());
}

#[test]
fn who_waits_goes_on_in_turn_or_leaves_or_is_turned_away() {
    let bound = Bound { requests: 1, pending: 2, queue: SECOND };
    let mut circuit = Circuit::new(Some(bound), Some(trip()));
    let first = passes(&mut circuit, SECOND);
    let tickets = [circuit.enter(SECOND), circuit.enter(SECOND)];
    let [Entry::Wait(second), Entry::Wait(third)] = tickets else { panic!("{tickets:?}") };
    assert_eq!(circuit.enter(SECOND), Entry::Refused(Refused::Full));
    assert!(circuit.leave(second, false).is_empty());
    circuit.end(first, Ended::Well, SECOND);
    let pass = circuit.look(third, SECOND, Waker::noop()).unwrap().unwrap();
    let Entry::Wait(fourth) = circuit.enter(SECOND) else { panic!() };
    circuit.leave(fourth, true);
    assert_eq!(circuit.enter(SECOND), Entry::Refused(Refused::Late), "nobody waits for nothing");
    circuit.end(pass, Ended::Failed, SECOND);
    for _ in 0..2 {
        let pass = passes(&mut circuit, SECOND);
        let Entry::Wait(ticket) = circuit.enter(SECOND) else { panic!("the queue is open again") };
        circuit.end(pass, Ended::Failed, SECOND);
        let got = circuit.look(ticket, SECOND, Waker::noop()).unwrap();
        match got {
            Ok(pass) => drop(circuit.end(pass, Ended::Neither, SECOND)),
            Err(refused) => assert_eq!(refused, Refused::Open(SECOND)),
        }
    }
    assert!(circuit.is_open());
    assert_eq!(circuit.busy(), (0, 0));
}

proptest! {
    #[test]
    fn nobody_is_lost_and_nothing_is_exceeded(
        requests in 1..4_u32,
        pending in 0..4_u32,
        steps in proptest::collection::vec((0..6_u8, any::<prop::sample::Index>(), 0..3_u8), 1..200),
    ) {
        let bound = Bound { requests, pending, queue: SECOND };
        let mut circuit = Circuit::new(Some(bound), Some(trip()));
        let (mut under_way, mut waiting, mut now) = (Vec::new(), Vec::new(), SECOND);
        for (step, index, ended) in steps {
            let ended = [Ended::Well, Ended::Failed, Ended::Neither][ended as usize];
            match step {
                0 | 1 => match circuit.enter(now) {
                    Entry::Pass(pass) => under_way.push(pass),
                    Entry::Wait(ticket) => waiting.push(ticket),
                    Entry::Refused(Refused::Full) => prop_assert!(!under_way.is_empty() || !waiting.is_empty()),
                    Entry::Refused(Refused::Late) => prop_assert_eq!(circuit.busy().0, requests),
                    Entry::Refused(_) => prop_assert!(circuit.is_open()),
                },
                2 if !under_way.is_empty() => {
                    let pass = under_way.swap_remove(index.index(under_way.len()));
                    circuit.end(pass, ended, now);
                }
                3 if !waiting.is_empty() => {
                    let ticket = waiting.remove(index.index(waiting.len()));
                    circuit.leave(ticket, ended == Ended::Failed);
                }
                4 => now += SECOND / 2,
                _ => waiting.retain(|ticket| match circuit.look(*ticket, now, Waker::noop()) {
                    None => true,
                    Some(Ok(pass)) => {
                        under_way.push(pass);
                        false
                    }
                    Some(Err(_)) => false,
                }),
            }
            let (running, queued) = circuit.busy();
            prop_assert!(running <= requests && queued <= pending as usize);
            prop_assert!(queued == 0 || running == requests, "somebody waits for a free place");
        }
        // Whatever happened, once all have ended and the time is over, a request passes.
        for ticket in waiting {
            circuit.leave(ticket, false);
        }
        for pass in under_way {
            circuit.end(pass, Ended::Neither, now);
        }
        prop_assert_eq!(circuit.busy(), (0, 0));
        prop_assert!(circuit.called.is_empty());
        prop_assert!(matches!(circuit.enter(now + 5 * SECOND), Entry::Pass(_)));
    }
}
