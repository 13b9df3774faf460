//! Text with macros (`%{TX.0}`), split once at load.

use super::names::Names;
use crate::lang::Variable;

/// A piece of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Bytes(Box<[u8]>),
    /// A member of TX, by its slot.
    Slot(u32),
    /// Another variable; the name of a member is in lower case.
    Variable(Variable, Option<Box<[u8]>>),
    /// `%{rule.id}` and its like.
    Rule(RuleField),
}

/// What a macro can say of the rule it stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RuleField {
    Id,
    Message,
    Severity,
}

/// A text whose macros are expanded when it is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Text {
    pub(crate) pieces: Box<[Piece]>,
}

impl Text {
    /// Splits at macros. What looks like one and names nothing known stays as written, and is told to `unknown`.
    pub(crate) fn parse(text: &[u8], names: &mut Names, mut unknown: impl FnMut(&str)) -> Self {
        let mut pieces = Vec::new();
        let mut plain = Vec::new();
        let mut rest = text;
        while let Some(at) = memchr::memmem::find(rest, b"%{") {
            plain.extend_from_slice(&rest[..at]);
            let Some(length) = memchr::memchr(b'}', &rest[at..]) else {
                rest = &rest[at..];
                break;
            };
            let inner = &rest[at + 2..at + length];
            match macro_piece(inner, names) {
                Some(piece) => {
                    if !plain.is_empty() {
                        pieces.push(Piece::Bytes(std::mem::take(&mut plain).into()));
                    }
                    pieces.push(piece);
                }
                None => {
                    unknown(&String::from_utf8_lossy(inner));
                    plain.extend_from_slice(&rest[at..=at + length]);
                }
            }
            rest = &rest[at + length + 1..];
        }
        plain.extend_from_slice(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Bytes(plain.into()));
        }
        Self { pieces: pieces.into() }
    }

    /// The text itself, when it has no macro.
    pub(crate) fn constant(&self) -> Option<&[u8]> {
        match &*self.pieces {
            [] => Some(b""),
            [Piece::Bytes(bytes)] => Some(bytes),
            _ => None,
        }
    }
}

fn macro_piece(inner: &[u8], names: &mut Names) -> Option<Piece> {
    let split = inner.iter().position(|byte| matches!(byte, b'.' | b':'));
    let (name, member) = match split {
        Some(at) => (&inner[..at], Some(&inner[at + 1..])),
        None => (inner, None),
    };
    let variable = Variable::parse(name.trim_ascii())?;
    match (variable, member) {
        (Variable::Tx, Some(member)) => Some(Piece::Slot(names.slot(member))),
        (Variable::Rule, Some(member)) => match member.to_ascii_lowercase().as_slice() {
            b"id" => Some(Piece::Rule(RuleField::Id)),
            b"msg" => Some(Piece::Rule(RuleField::Message)),
            b"severity" => Some(Piece::Rule(RuleField::Severity)),
            _ => None,
        },
        (variable, None) => Some(Piece::Variable(variable, None)),
        (variable, Some(_)) if !variable.is_collection() => None,
        (variable, Some(member)) => Some(Piece::Variable(variable, Some(member.to_ascii_lowercase().into()))),
    }
}
