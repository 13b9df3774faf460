//! What a store lets pass is what its limits say: on a clock of the test's own, by several threads at once, and under millions of
//! strange keys.
#![allow(
    missing_docs,
    clippy::allow_attributes,
    clippy::unwrap_used,
    reason = "tests: a step that fails fails the test"
)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use proptest::prelude::*;
use ringfence_limit::{
    Ask, Concurrent, Full, Held, Key, Keys, Limit, Local, Quota, Rate, Seed, Standing, Store, Time,
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn rate(units: u64, window: Duration, burst: u64) -> Limit {
    Limit::Rate(Rate::new(units, window, burst).unwrap())
}

fn quota(units: u64, window: Duration) -> Limit {
    Limit::Quota(Quota::new(units, window).unwrap())
}

fn concurrent(most: u32) -> Limit {
    Limit::Concurrent(Concurrent::new(most).unwrap())
}

struct Rules {
    keys: Keys,
    seed: Seed,
}

impl Rules {
    fn new() -> Self {
        let keys = Keys::default();
        Self { seed: keys.seed("a rule"), keys }
    }

    fn key(&self, n: u64) -> Key {
        self.keys.key(self.seed, n)
    }
}

fn ask(limit: Limit, key: Key) -> Ask {
    Ask { limit, key, cost: 1, observed: false, full: Full::Closed }
}

fn take(store: &dyn Store, ask: Ask, now: Time) -> (bool, Standing) {
    let mut standing = [Standing::default()];
    let passes = store.take(&[ask], now, &mut standing);
    (passes, standing[0])
}

#[test]
fn over_an_hour_what_passes_is_the_rate_to_a_thousandth() {
    let rules = Rules::new();
    let store = Local::new(1 << 20);
    for (n, (units, window, burst)) in [
        (1, SECOND, 1),
        (7, SECOND, 7),
        (100, MINUTE, 20),
        (3_333, MINUTE, 10),
        (997, SECOND, 100),
        (3_000_000, Duration::from_secs(3600), 5),
    ]
    .into_iter()
    .enumerate()
    {
        let limit = rate(units, window, burst);
        let per_second = units as f64 / window.as_secs_f64();
        // At moments that no interval divides. With nothing saved up, what comes is served by whoever asks next.
        let (intervals, often) = if burst == 1 { (2_000.0, 2_000.0) } else { (1.0e5, 3.0) };
        let lasts = intervals / per_second;
        let step = 1.0 / (per_second * often) * 0.9973;
        let (mut now, mut passed) = (0.0, 0_u64);
        while now < lasts {
            let time = Time::after(Duration::from_secs_f64(now));
            passed += u64::from(take(&store, ask(limit, rules.key(n as u64)), time).0);
            now += step;
        }
        let expected = per_second * lasts + burst as f64;
        let error = (passed as f64 - expected).abs() / expected;
        assert!(error <= 0.001, "{units} in {window:?}: {passed} passed, {expected} may: {error}");
    }
}

#[test]
fn a_quota_begins_with_the_first_and_not_with_a_day() {
    let (rules, store) = (Rules::new(), Local::new(1 << 16));
    let (limit, key) = (quota(1000, Duration::from_secs(86_400)), rules.key(1));
    let at = |hours: f64| Time::after(Duration::from_secs_f64(hours * 3600.0));
    let mut passed = 0;
    for n in 0..2000 {
        passed += u32::from(take(&store, ask(limit, key), at(5.0 + f64::from(n) * 0.01)).0);
    }
    assert_eq!(passed, 1000);
    let (passes, standing) = take(&store, ask(limit, key), at(28.9));
    assert!(!passes && standing.remaining == 0);
    assert_eq!((standing.retry, standing.reset), (standing.reset, standing.reset));
    assert!((359..=361).contains(&standing.retry.as_secs_up()), "{}", standing.retry.as_secs_up());
    let expensive = Ask { cost: 999, ..ask(limit, key) };
    assert!(take(&store, expensive, at(29.01)).0);
    assert_eq!(take(&store, expensive, at(29.02)).1.remaining, 1);
}

#[test]
fn what_runs_at_once_is_counted_until_it_ends() {
    let (rules, key_of) = (Rules::new(), |n| n);
    let store: Arc<dyn Store> = Arc::new(Local::new(1 << 16));
    let ask = ask(concurrent(3), rules.key(key_of(1)));
    let begin = || {
        let mut standing = [Standing::default()];
        let passes = store.take(&[ask], Time::default(), &mut standing);
        (passes, Held::of(&store, &[ask], &standing))
    };
    let mut running: Vec<_> = (0..3).map(|_| begin()).collect();
    assert!(running.iter().all(|(passes, held)| *passes && held.is_some()));
    let (passes, held) = begin();
    assert!(!passes && held.is_none());
    running.pop();
    let (passes, held) = begin();
    assert!(passes && held.is_some());
    drop((running, held));
    assert_eq!(store.look(&ask, Time::default()).remaining, 2, "all but the one that would be");
}

#[test]
fn a_table_takes_memory_as_keys_come_and_never_more_than_it_may() {
    let (rules, bytes) = (Rules::new(), 4 << 20);
    let store = Local::new(bytes);
    let limit = rate(100, MINUTE, 20);
    assert!(store.bytes() <= bytes / 32, "{} bytes of an empty table", store.bytes());
    let mut before = 0;
    for (keys, most) in [(1_000, bytes / 32), (10_000, bytes / 8), (100_000, bytes), (2_000_000, bytes)] {
        for n in before..keys {
            assert!(take(&store, ask(limit, rules.key(n)), Time::default()).0);
        }
        assert!(store.bytes() <= most, "{} bytes for {keys} keys", store.bytes());
        before = keys;
    }
    // Whoever came before a table grew is known after it.
    let store = Local::new(bytes);
    for round in 1..=20 {
        for n in 0..20_000 {
            let (_, standing) = take(&store, ask(limit, rules.key(n)), Time::default());
            assert_eq!(standing.remaining, 20 - round, "key {n}");
        }
    }
    assert!(!take(&store, ask(limit, rules.key(7)), Time::default()).0);
}

#[test]
fn of_several_limits_all_count_or_none() {
    let (rules, store) = (Rules::new(), Local::new(1 << 20));
    let (fast, slow) = (rate(10, SECOND, 10), rate(5, MINUTE, 5));
    let asks = [ask(fast, rules.key(1)), ask(slow, rules.key(2))];
    let mut standings = [Standing::default(); 2];
    let now = Time::after(SECOND);
    for n in 0..5 {
        assert!(store.take(&asks, now, &mut standings));
        assert_eq!((standings[0].remaining, standings[1].remaining), (9 - n, 4 - n));
    }
    for _ in 0..20 {
        assert!(!store.take(&asks, now, &mut standings));
        assert!(standings[0].passes && !standings[0].counted && !standings[1].passes);
        assert_eq!(standings[1].retry.as_secs_up(), 12);
    }
    // What the slow one refused, the fast one did not count.
    assert_eq!(store.look(&asks[0], now).remaining, 4);
    // One that only watches refuses nothing, and counts what it would let pass.
    let watching = [asks[0], Ask { observed: true, ..asks[1] }];
    assert!(store.take(&watching, now, &mut standings));
    assert!(standings[0].counted && !standings[1].passes && !standings[1].counted);
}

#[test]
fn what_costs_more_than_there_ever_is_never_passes() {
    let (rules, store) = (Rules::new(), Local::new(1 << 16));
    let expensive = Ask { cost: 11, ..ask(rate(10, SECOND, 10), rules.key(1)) };
    for n in 0..10 {
        let (passes, standing) = take(&store, expensive, Time::after(n * MINUTE));
        assert!(!passes && standing.remaining == 10 && standing.retry > Time::default());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Against a bucket that is filled drop by drop, in numbers that cannot round.
    #[test]
    fn it_is_a_bucket_that_fills_evenly(
        units in 1_u64..50,
        burst in 1_u64..50,
        steps in proptest::collection::vec((0_u64..5_000, 0_u64..3, 1_u32..6), 1..300),
    ) {
        let (rules, store) = (Rules::new(), Local::new(1 << 16));
        // One unit per `units` milliseconds.
        let limit = rate(1, Duration::from_millis(units), burst);
        let mut buckets = [(0_u64, burst * units); 3];
        let mut now = 0;
        for (after, key, cost) in steps {
            now += after / 50;
            let (seen, filled) = &mut buckets[key as usize];
            *filled = (*filled + now - *seen).min(burst * units);
            *seen = now;
            let may = u64::from(cost) * units <= *filled;
            let asked = Ask { cost, ..ask(limit, rules.key(key)) };
            let (passes, standing) = take(&store, asked, Time::after(Duration::from_millis(now)));
            prop_assert_eq!(passes, may);
            *filled -= if may { u64::from(cost) * units } else { 0 };
            prop_assert_eq!(standing.remaining, *filled / units);
            prop_assert_eq!(standing.reset, Time::after(Duration::from_millis(burst * units - *filled)));
        }
    }

    /// Threads that ask as fast as they can get exactly what one would, of each key, at each moment.
    #[test]
    fn threads_together_get_what_one_would(
        burst in 1_u64..200,
        keys in 1_u64..4,
        advances in proptest::collection::vec(0_u64..40, 1..6),
    ) {
        const THREADS: usize = 4;
        let rules = Rules::new();
        let store: Arc<Local> = Arc::new(Local::new(1 << 16));
        let (limit, total) = (rate(1, Duration::from_millis(1), burst), rate(1, Duration::from_millis(1), burst * keys));
        let clock = AtomicU64::new(1_000);
        let passed: Vec<AtomicU64> = (0..keys).map(|_| AtomicU64::new(0)).collect();
        let barrier = Barrier::new(THREADS);
        let mut model = vec![(1_000_u64, burst); keys as usize];
        let mut expected = vec![0; keys as usize];
        for advance in [0].iter().chain(&advances) {
            clock.fetch_add(*advance, Ordering::SeqCst);
            std::thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| {
                        barrier.wait();
                        let now = Time::after(Duration::from_millis(clock.load(Ordering::SeqCst)));
                        for n in 0..burst * keys {
                            let key = n % keys;
                            // Beside one for all, so that several locks are held at once.
                            let asks = [ask(limit, rules.key(key)), ask(total, rules.key(99))];
                            let asks = if n % 2 == 0 { asks } else { [asks[1], asks[0]] };
                            let mut standings = [Standing::default(); 2];
                            if store.take(&asks, now, &mut standings) {
                                passed[key as usize].fetch_add(1, Ordering::SeqCst);
                            }
                        }
                    });
                }
            });
            for (key, (seen, filled)) in model.iter_mut().enumerate() {
                let now = clock.load(Ordering::SeqCst);
                *filled = (*filled + now - *seen).min(burst);
                *seen = now;
                // Each is asked for as often as its burst by every thread, which is more than it may.
                expected[key] += *filled;
                *filled = 0;
            }
            let passed: Vec<u64> = passed.iter().map(|n| n.load(Ordering::SeqCst)).collect();
            // The one for all is filled as fast as one key: with several, it is the one that refuses.
            if keys == 1 {
                prop_assert_eq!(&passed, &expected);
            }
            let all: u64 = passed.iter().sum();
            let now = clock.load(Ordering::SeqCst);
            prop_assert!(all <= burst * keys + now - 1_000);
        }
    }
}

#[test]
fn running_counts_are_exact_under_threads() {
    let rules = Rules::new();
    let store: Arc<dyn Store> = Arc::new(Local::new(1 << 16));
    let (running, most) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for n in 0..20_000 {
                    let asks =
                        [ask(concurrent(3), rules.key(7)), ask(concurrent(2), rules.key(n % 50 + 100))];
                    let mut standings = [Standing::default(); 2];
                    if store.take(&asks, Time::default(), &mut standings) {
                        let held = Held::of(&store, &asks, &standings);
                        let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                        most.fetch_max(now, Ordering::SeqCst);
                        running.fetch_sub(1, Ordering::SeqCst);
                        drop(held);
                    }
                }
            });
        }
    });
    assert!((1..=3).contains(&most.load(Ordering::SeqCst)));
    assert_eq!(store.look(&ask(concurrent(3), rules.key(7)), Time::default()).remaining, 2);
}

/// A table of few thousand keys, asked for millions of others: the one that is limited stays so, to the last request.
fn flooded(flood: Limit, times: u64, hot: Limit, burst: u64, per_second: u64) -> (u64, u64) {
    let rules = Rules::new();
    let store = Local::new(1 << 18);
    let (mut passed, mut now) = (0, Duration::ZERO);
    for n in 0..1_000_000_u64 {
        now = Duration::from_micros(n * 10);
        let strange = Ask { full: Full::Open, ..ask(flood, rules.key(1_000 + n / times)) };
        take(&store, strange, Time::after(now));
        // A thousand times a second, which is far too often.
        if n.is_multiple_of(100) {
            passed += u64::from(take(&store, ask(hot, rules.key(1)), Time::after(now)).0);
        }
    }
    let may = burst + (per_second as f64 * now.as_secs_f64()) as u64;
    (passed, may)
}

#[test]
fn millions_of_strange_keys_reset_no_limited_one() {
    let (hot, day) = (rate(5, SECOND, 10), Duration::from_secs(86_400));
    // Keys that use little of what they may, that use all of it at once, and that do so again and again.
    for (flood, times) in [
        (rate(100, SECOND, 100), 1),
        (rate(1, MINUTE, 1), 1),
        (rate(1, MINUTE, 1), 4),
        (rate(1, MINUTE, 3), 3),
        (quota(1, day), 4),
    ] {
        let (passed, may) = flooded(flood, times, hot, 10, 5);
        assert_eq!(passed, may, "{flood:?}");
        let (passed, may) = flooded(flood, times, quota(50, day), 50, 0);
        assert_eq!(passed, may, "{flood:?}");
    }
    // One whose time is over has nothing that could be kept. It may find no room; more than it may it never gets.
    let (passed, may) = flooded(rate(1, MINUTE, 3), 3, rate(1, SECOND, 1), 1, 1);
    assert!((1..=may).contains(&passed), "{passed} of {may}");
}

#[test]
fn where_nothing_may_be_forgotten_the_rule_says_what_becomes_of_the_next() {
    let (rules, store) = (Rules::new(), Local::new(1 << 14));
    let day = quota(1, Duration::from_secs(86_400));
    // Each has used all that it may, and was asked for again.
    for n in 0..20_000 {
        for _ in 0..2 {
            take(&store, Ask { full: Full::Open, ..ask(day, rules.key(n)) }, Time::after(SECOND));
        }
    }
    let of = |full, n| take(&store, Ask { full, ..ask(day, rules.key(n)) }, Time::after(SECOND));
    let (passes, standing) = of(Full::Closed, 50_000);
    assert!(!passes && standing.full && !standing.counted);
    let (passes, standing) = of(Full::Open, 50_000);
    assert!(passes && standing.full && !standing.counted);
    // Those that are there are judged as ever; when their day is over there is room again.
    let first = (0..20_000).find(|n| !of(Full::Open, *n).0);
    assert!(first.is_some());
    let (passes, standing) =
        take(&store, ask(day, rules.key(50_000)), Time::after(Duration::from_secs(90_000)));
    assert!(passes && standing.counted);
}

#[test]
fn keys_of_two_rules_or_two_processes_have_nothing_in_common() {
    let (ours, theirs) = (Keys::default(), Keys::default());
    assert_eq!(ours.key(ours.seed("a"), "x"), ours.key(ours.seed("a"), "x"));
    assert_ne!(ours.key(ours.seed("a"), "x"), ours.key(ours.seed("b"), "x"));
    assert_ne!(ours.key(ours.seed("a"), "x"), theirs.key(theirs.seed("a"), "x"));
}

#[test]
fn limits_that_say_nothing_are_none() {
    assert!(Rate::new(0, SECOND, 1).is_none() && Rate::new(1, SECOND, 0).is_none());
    assert!(Rate::new(1, Duration::ZERO, 1).is_none() && Rate::new(10_000_001, SECOND, 1).is_none());
    assert!(Rate::new(10_000_000, SECOND, 1).is_some() && Rate::new(1, Duration::MAX, 1).is_none());
    assert!(Quota::new(0, SECOND).is_none() && Quota::new(1 << 28, SECOND).is_none());
    assert!(Quota::new(1, Duration::from_millis(10)).is_none() && Concurrent::new(0).is_none());
}
