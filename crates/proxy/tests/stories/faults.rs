//! What goes wrong on purpose goes wrong as often as the fence says, is told as that, and ends with it.

use std::time::{Duration, Instant};

use crate::handling::{Client, OK, Service, fence, rig};
use crate::rig::{Rig, eventually, field};

fn faults(rig: &Rig) -> Option<u64> {
    let stats = rig.control.stats.lock().unwrap();
    stats.iter().flat_map(|stats| &stats.edges).find_map(|edge| edge.faults)
}

#[test]
fn every_other_request_is_answered_in_place_of_being_sent_until_the_fence_says_otherwise() {
    let (service, port) = Service::start(&[OK]);
    let rig = rig(port, "retries: { budget: 100 }, fault: { abort: 503, percent: 50 }");
    eventually("that faults are injected is told before the first", || (faults(&rig)? == 0).then_some(()));
    let mut client = Client::of(&rig);
    let ask =
        |client: &mut Client, path| (0..20).filter(|_| client.ask("GET", path, "", "").0 == 503).count();
    assert_eq!(ask(&mut client, "/a"), 10);
    assert_eq!(service.count(), 10, "the others are sent, and none is tried again");
    let refused = rig.event("one", |r| field(r, "/firewall_rule/uid") == "fault.abort");
    assert!(refused.line().contains("ringfence.yaml:8:"), "{}", refused.line());
    eventually("the count", || (faults(&rig)? == 10).then_some(()));
    rig.apply(&fence(port, "fault: { abort: 503, percent: 50, mode: observe }"));
    assert_eq!(ask(&mut client, "/observed"), 0);
    rig.event("what would have been", |r| {
        field(r, "/http_request/url/path") == "/observed"
            && r.json.to_string().contains("it would be answered with 503")
    });
    eventually("nobody injects any more", || faults(&rig).is_none().then_some(()));
    rig.apply(&fence(port, "fault: { abort: 503, percent: 100, mode: off }"));
    assert_eq!(ask(&mut client, "/off"), 0);
}

#[test]
fn a_request_that_is_held_up_takes_its_time_and_no_more_than_it_may() {
    let (service, port) = Service::start(&[OK]);
    let rig = rig(port, "fault: { delay: 700ms, percent: 100 }");
    let mut client = Client::of(&rig);
    let begun = Instant::now();
    assert_eq!(client.ask("POST", "/held", "", "with a body").0, 200);
    assert!(begun.elapsed() >= Duration::from_millis(700));
    assert!(service.last().ends_with("with a body"));
    rig.event("that it was", |r| {
        field(r, "/http_request/url/path") == "/held"
            && r.json.to_string().contains("it was held up for 700ms")
    });
    // A minute would be too long for what may take a second.
    rig.apply(&fence(port, "timeout: 1s, fault: { delay: 60s, percent: 100 }"));
    let (status, answer) = client.ask("GET", "/late", "", "");
    assert_eq!(status, 504, "{answer}");
    assert_eq!(service.count(), 1, "it is not sent after its time");
}
