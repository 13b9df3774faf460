//! Cases of operators and transformations of SecLang, one JSON file for each of them.

use std::path::Path;

use ringfence_waf::operator::{Captures, Operator};
use ringfence_waf::transform::Transformation;
use serde::Deserialize;

use super::Outcome;

#[derive(Deserialize)]
struct Case {
    name: String,
    input: String,
    #[serde(default)]
    param: String,
    #[serde(default)]
    output: String,
    ret: i32,
    #[serde(default)]
    re_groups: Option<Vec<String>>,
}

/// The phrases of the cases of `@pmFromFile`, whose file is not among the golden data.
const PHRASES: (&str, &[u8]) = ("pmFromFile-01.dat", b"# phrases\n\nabc\ndef\nghi\nxxx yyy zzz\n");

/// Runs every case of the two folders.
pub(crate) fn run(folder: &Path) -> Result<Vec<Outcome>, String> {
    let mut outcomes = Vec::new();
    for (kind, judge) in [
        ("operators", operator as fn(&Case, &str) -> Result<(), String>),
        ("transformations", transformation),
    ] {
        for (file, cases) in read(&folder.join(kind))? {
            for (index, case) in cases.iter().enumerate() {
                let verdict = judge(case, &file);
                outcomes.push(Outcome {
                    case: format!("{kind}/{file}/{index}"),
                    expected_accept: true,
                    verdict,
                });
            }
        }
    }
    Ok(outcomes)
}

fn read(folder: &Path) -> Result<Vec<(String, Vec<Case>)>, String> {
    let failed = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| failed(folder, &error))? {
        let path = entry.map_err(|error| failed(folder, &error))?.path();
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let text = std::fs::read(&path).map_err(|error| failed(&path, &error))?;
        files.push((name, serde_json::from_slice(&text).map_err(|error| failed(&path, &error))?));
    }
    files.sort_by(|(left, _), (right, _)| left.cmp(right));
    if files.is_empty() {
        return Err(format!("{}: no cases", folder.display()));
    }
    Ok(files)
}

fn operator(case: &Case, file: &str) -> Result<(), String> {
    let (parameter, input) = (bytes(&case.param), bytes(&case.input));
    let files = |name: &str| (name == PHRASES.0).then(|| PHRASES.1.to_vec());
    let name = if case.name.is_empty() { file } else { &case.name };
    let operator = Operator::compile(name, &parameter, &files).map_err(|error| error.to_string())?;
    let mut captures = Captures::default();
    let found = operator.evaluate(&input, &parameter, Some(&mut captures));
    if found != operator.evaluate(&input, &parameter, None) {
        return Err("captures change the answer".into());
    }
    if found != (case.ret == 1) {
        return Err(format!("answers {found}"));
    }
    if let Some(groups) = &case.re_groups {
        let mine: Vec<_> =
            (0..captures.len()).map(|index| captures.get(index, &input).unwrap_or(b"")).collect();
        let theirs: Vec<&[u8]> = groups.iter().map(String::as_bytes).collect();
        if mine != theirs {
            return Err(format!("captures {mine:?}, not {theirs:?}"));
        }
    }
    Ok(())
}

fn transformation(case: &Case, file: &str) -> Result<(), String> {
    // Some cases are named after what they show.
    let transformation = Transformation::parse(&case.name).or_else(|| Transformation::parse(file));
    let transformation = transformation.ok_or("no such transformation")?;
    let (input, expected) = (bytes(&case.input), bytes(&case.output));
    let mut out = b"left over".to_vec();
    let changed = transformation.apply(&input, &mut out);
    let value = if changed { &out } else { &input };
    if changed == (*value == input) {
        return Err(format!("says that it {} the value", if changed { "changed" } else { "did not change" }));
    }
    if *value != expected {
        return Err(format!("is \"{}\", not \"{}\"", value.escape_ascii(), expected.escape_ascii()));
    }
    Ok(())
}

/// The bytes of a text in which `\xHH` and `\u0000` may stand for what JSON cannot say.
fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        let escaped = rest.strip_prefix(b"\\u00").or_else(|| rest.strip_prefix(b"\\x"));
        let escaped = escaped.filter(|_| !rest.starts_with(b"\\u") || rest.starts_with(b"\\u0000"));
        let digit = |at: usize| escaped?.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        if let (Some(after), Some(high), Some(low)) = (escaped, digit(0), digit(1)) {
            bytes.push((high * 16 + low) as u8);
            rest = &after[2..];
        } else {
            bytes.push(*byte);
            rest = tail;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_bytes_are_read_and_others_stay() {
        assert_eq!(bytes(r"a\x00\xffb\u0000"), b"a\x00\xffb\x00");
        assert_eq!(bytes(r"\n\xg0\u0041"), br"\n\xg0\u0041");
    }

    #[test]
    fn a_wrong_answer_is_told() {
        let case = |json: &str| serde_json::from_str::<Case>(json).unwrap();
        let lower = case(r#"{"name": "lowercase", "input": "AB", "output": "ab", "ret": 1}"#);
        assert_eq!(transformation(&lower, "lowercase"), Ok(()));
        let wrong = case(r#"{"name": "lowercase", "input": "AB", "output": "aB", "ret": 1}"#);
        assert!(transformation(&wrong, "lowercase").is_err());
        let refused = case(r#"{"name": "rbl", "input": "a", "param": "b", "ret": 1}"#);
        assert!(operator(&refused, "rbl").is_err());
    }
}
