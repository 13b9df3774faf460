//! Clients and scopes of keys: the same few texts for a million of them.

use std::collections::HashMap;
use std::sync::Arc;

/// Texts that many keys share, counted.
#[derive(Default)]
pub(super) struct Names {
    pub(super) numbers: HashMap<Arc<str>, u32>,
    texts: Vec<(Arc<str>, u32)>,
    free: Vec<u32>,
}

impl Names {
    pub(super) fn add(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            self.texts[*number as usize].1 += 1;
            return *number;
        }
        let text: Arc<str> = text.into();
        let number = match self.free.pop() {
            Some(number) => {
                self.texts[number as usize] = (text.clone(), 1);
                number
            }
            None => {
                self.texts.push((text.clone(), 1));
                // Two of them for each of at most 2^31 rows.
                (self.texts.len() - 1) as u32
            }
        };
        self.numbers.insert(text, number);
        number
    }

    pub(super) fn release(&mut self, number: u32) {
        let (text, count) = &mut self.texts[number as usize];
        *count -= 1;
        if *count == 0 {
            self.numbers.remove(text);
            *text = "".into();
            self.free.push(number);
        }
    }

    pub(super) fn text(&self, number: u32) -> Arc<str> {
        self.texts[number as usize].0.clone()
    }
}
