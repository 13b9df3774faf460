//! YAML as a tree of text: what the tests of the Core Rule Set need of it.

use saphyr_parser::{Event, Parser};

#[derive(Debug)]
pub(super) enum Value {
    Text(String),
    Null,
    List(Vec<Self>),
    Map(Vec<(String, Self)>),
}

impl Value {
    pub(super) fn field(&self, wanted: &str) -> Option<&Self> {
        self.fields().iter().find(|(name, _)| name == wanted).map(|(_, value)| value)
    }

    pub(super) fn fields(&self) -> &[(String, Self)] {
        if let Self::Map(fields) = self { fields } else { &[] }
    }

    pub(super) fn items(&self) -> &[Self] {
        if let Self::List(items) = self { items } else { &[] }
    }

    pub(super) fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub(super) fn is_true(&self) -> bool {
        self.text() == Some("true")
    }
}

/// The first document; `None` when there is none.
pub(super) fn parse(text: &str) -> Result<Option<Value>, String> {
    let mut parser = Parser::new_from_str(text);
    let mut open: Vec<(Value, Option<String>)> = Vec::new();
    while let Some(event) = parser.next_event() {
        let (event, _) = event.map_err(|error| error.to_string())?;
        let value = match event {
            Event::Scalar(text, style, ..) => {
                let plain = matches!(style, saphyr_parser::ScalarStyle::Plain);
                if plain && matches!(&*text, "" | "~" | "null") {
                    Value::Null
                } else {
                    Value::Text(text.into_owned())
                }
            }
            Event::MappingStart(..) => {
                open.push((Value::Map(Vec::new()), None));
                continue;
            }
            Event::SequenceStart(..) => {
                open.push((Value::List(Vec::new()), None));
                continue;
            }
            Event::MappingEnd | Event::SequenceEnd => match open.pop() {
                Some((value, _)) => value,
                None => return Err("an end without a beginning".into()),
            },
            Event::Alias(_) => return Err("an alias, which no test uses".into()),
            _ => continue,
        };
        match open.last_mut() {
            None => return Ok(Some(value)),
            Some((Value::List(items), _)) => items.push(value),
            Some((Value::Map(fields), key)) => match (key.take(), value) {
                (Some(name), value) => fields.push((name, value)),
                (None, Value::Text(name)) => *key = Some(name),
                (None, _) => return Err("a key that is not text".into()),
            },
            Some(_) => {}
        }
    }
    Ok(None)
}
