//! Whether a request ended as its test expects.

use super::Mode;
use super::exchange::Answer;
use super::ftw::Expect;
use super::gateway::Told;

/// What the guard in front of the rules says of a request, and the rules that say the same of it.
const FRAMING: &[(&str, &[u64])] = &[
    ("the method is not a known form", &[920_100]),
    ("the start line is malformed", &[920_100, 920_430]),
    ("the request target has a fragment", &[920_100, 920_610]),
    ("this HTTP version is not spoken", &[920_430]),
    ("the host is not a name or address", &[920_290]),
    ("the path is not UTF-8", &[920_250, 920_271, 920_272]),
    ("the path has a control character", &[920_270, 920_271, 920_272, 921_190]),
    ("the path is encoded twice", &[920_230]),
    ("the path has an invalid percent-encoding", &[920_220]),
    ("the Content-Length is not one plain decimal number", &[920_160]),
    ("both Content-Length and Transfer-Encoding", &[920_181]),
    ("a field that may appear once appears twice", &[920_620]),
];

/// Why it did not end as expected, if so. `elsewhere` is the status that other front ends answer with.
pub(super) fn judge(
    mode: Mode,
    expect: &Expect,
    elsewhere: Option<u16>,
    answer: &Answer,
    told: Option<&Told>,
) -> Result<(), String> {
    let none = Told::default();
    let told = told.unwrap_or(&none);
    let guard = told.refused.as_ref().filter(|(rule, _)| rule == "framing");
    match (answer, guard) {
        // Bytes behind a request that was answered are another one, which no test means.
        (Answer::Status(..400), _) => {}
        // That a method is not offered is no matter of framing: any server answers so.
        (Answer::Status(405), _) => {}
        (_, Some((_, reason))) => return by_guard(expect, elsewhere, answer, reason),
        (Answer::None, None) => return Err("no answer".to_owned()),
        (Answer::Status(status), None) if told.refused.is_none() => {
            return Err(format!("{status} without an event"));
        }
        (Answer::Status(_), None) => {}
    }
    let Answer::Status(status) = *answer else { return Err("no answer".to_owned()) };
    match mode {
        Mode::Observe => observed(expect, elsewhere, status, told),
        Mode::Enforce => enforced(expect, status, told),
    }
}

/// The guard refused it: as expected where the test expects an error, 400, or a rule that says the same.
fn by_guard(expect: &Expect, elsewhere: Option<u16>, answer: &Answer, reason: &str) -> Result<(), String> {
    let same = FRAMING.iter().find(|(says, _)| reason.starts_with(says)).map_or(&[][..], |(_, ids)| ids);
    let named = expect.ids.iter().any(|id| same.contains(id));
    let refused = |status: Option<u16>| status.is_some_and(|status| status >= 400);
    if expect.error || refused(expect.status) || refused(elsewhere) || named {
        return Ok(());
    }
    Err(format!("{answer:?}: {reason}"))
}

fn observed(expect: &Expect, elsewhere: Option<u16>, status: u16, told: &Told) -> Result<(), String> {
    let refused = |wanted: u16| wanted >= 400 && status >= 400;
    match (expect.status, elsewhere) {
        (Some(wanted), other) if wanted != status && !refused(wanted) && !other.is_some_and(refused) => {
            Err(format!("answered {status} instead of {wanted}"))
        }
        _ => matched(expect, told),
    }
}

fn matched(expect: &Expect, told: &Told) -> Result<(), String> {
    let missing: Vec<_> = expect.ids.iter().filter(|id| !told.ids.contains(id)).collect();
    let surplus: Vec<_> = expect.no_ids.iter().filter(|id| told.ids.contains(id)).collect();
    if !missing.is_empty() || !surplus.is_empty() {
        return Err(format!("missing {missing:?}, must not match {surplus:?}, matched {:?}", told.ids));
    }
    if let Some(pattern) = &expect.log {
        let regex =
            regex_automata::meta::Regex::new(pattern).map_err(|error| format!("{pattern}: {error}"))?;
        if !told.lines.iter().any(|line| regex.is_match(line.as_str())) {
            return Err(format!("nothing told matches {pattern}: {:?}", told.lines));
        }
    }
    Ok(())
}

/// An attack is answered with 403. What is none is let pass, or refused for another reason than the one that it is free of.
fn enforced(expect: &Expect, status: u16, told: &Told) -> Result<(), String> {
    let attack = !expect.ids.is_empty() || expect.log.is_some();
    match (attack, status) {
        (true, 403) => Ok(()),
        (true, _) => Err(format!("an attack was answered with {status}, matched {:?}", told.ids)),
        (false, 403) if told.ids.iter().any(|id| !expect.no_ids.contains(id)) => matched(expect, told),
        (false, 403) => Err("refused without a reason".to_owned()),
        (false, _) => matched(expect, told),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guarded(expect: &Expect, elsewhere: Option<u16>) -> bool {
        let told = Told {
            refused: Some(("framing".into(), "the path has a control character".into())),
            ..Told::default()
        };
        judge(Mode::Observe, expect, elsewhere, &Answer::Status(400), Some(&told)).is_ok()
    }

    #[test]
    fn a_request_that_the_guard_refuses_passes_only_where_the_test_says_so() {
        let none = Expect::default();
        assert!(!guarded(&none, None) && !guarded(&none, Some(200)) && guarded(&none, Some(400)));
        assert!(guarded(&Expect { status: Some(400), ..Expect::default() }, None));
        assert!(guarded(&Expect { error: true, ..Expect::default() }, None));
        assert!(guarded(&Expect { ids: vec![921_190], ..Expect::default() }, None));
        assert!(!guarded(&Expect { ids: vec![942_100], ..Expect::default() }, None));
        assert!(!guarded(&Expect { no_ids: vec![921_190], ..Expect::default() }, None));
    }

    #[test]
    fn what_is_told_decides_where_rules_were_asked() {
        let told = Told { ids: vec![942_100], ..Told::default() };
        let ask = |mode, ids: &[u64], no_ids: &[u64], status, told: &Told| {
            let expect = Expect { ids: ids.to_vec(), no_ids: no_ids.to_vec(), ..Expect::default() };
            judge(mode, &expect, None, &Answer::Status(status), Some(told)).is_ok()
        };
        assert!(ask(Mode::Observe, &[942_100], &[], 200, &told));
        assert!(!ask(Mode::Observe, &[942_101], &[], 200, &told));
        assert!(!ask(Mode::Observe, &[], &[942_100], 200, &told));
        assert!(!ask(Mode::Enforce, &[942_100], &[], 200, &told));
        let refused = Told {
            refused: Some(("waf.942100".into(), String::new())),
            ids: vec![942_100],
            ..Told::default()
        };
        assert!(ask(Mode::Enforce, &[942_100], &[], 403, &refused));
        assert!(!ask(Mode::Enforce, &[], &[942_100], 403, &refused));
        assert!(ask(Mode::Enforce, &[], &[941_100], 403, &refused));
    }
}
