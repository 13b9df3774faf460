//! From an offset in a text to line and column.

use std::sync::Arc;

use ringfence_model::Position;

/// Where the lines of a file begin.
#[derive(Debug)]
pub(crate) struct Lines {
    file: Arc<str>,
    text: Arc<str>,
    starts: Vec<usize>,
}

impl Lines {
    pub(crate) fn new(file: Arc<str>, text: Arc<str>) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { file, text, starts }
    }

    /// The place of a byte; of the end, when it lies beyond.
    pub(crate) fn position(&self, offset: usize) -> Position {
        let offset = offset.min(self.text.len());
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let column = self.text.get(start..offset).map_or(0, |before| before.chars().count()) + 1;
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Position::new(Arc::clone(&self.file), small(line), small(column))
    }

    /// How many characters a span has on its first line.
    pub(crate) fn width(&self, offset: usize, length: usize) -> usize {
        let span = self.text.get(offset..offset.saturating_add(length).min(self.text.len())).unwrap_or("");
        span.lines().next().map_or(1, |line| line.trim_end().chars().count()).max(1)
    }

    /// Whether nothing but blanks stands before it on its line.
    pub(crate) fn first_on_line(&self, offset: usize) -> bool {
        let before = self.text.get(..offset).unwrap_or("");
        before.rsplit('\n').next().is_none_or(|line| line.trim().is_empty())
    }

    /// The text of a span, or nothing when it is none.
    pub(crate) fn slice(&self, offset: usize, end: usize) -> &str {
        self.text.get(offset..end).unwrap_or("")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_characters() {
        let lines = Lines::new("p.cedar".into(), "ä b\n\nc".into());
        let at = |offset| {
            let position = lines.position(offset);
            (position.line, position.column)
        };
        assert_eq!(
            [at(0), at(2), at(4), at(5), at(6), at(99)],
            [(1, 1), (1, 2), (1, 4), (2, 1), (3, 1), (3, 2)]
        );
        assert_eq!((lines.width(0, 4), lines.width(0, 99), lines.width(5, 1)), (3, 3, 1));
    }
}
