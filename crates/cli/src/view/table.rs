//! Aligned columns. Widths are counted before colour is added, so that colour never shifts a column.

use super::{Paint, clean};

/// Space between columns.
const GAP: &str = "  ";

/// Columns with a heading; those whose heading begins with `>` are aligned to the right.
#[derive(Debug)]
pub(crate) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

/// What stands in one place.
#[derive(Debug)]
pub(crate) struct Cell {
    text: String,
    paint: Paint,
}

impl<T: std::fmt::Display> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: clean(&text.to_string()), paint: Paint::Plain }
    }
}

impl Cell {
    pub(crate) fn paint(self, paint: Paint) -> Self {
        Self { paint, ..self }
    }
}

impl Table {
    pub(crate) fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The lines, the heading first.
    pub(crate) fn lines(&self, colour: bool) -> Vec<String> {
        let heading: Vec<Cell> =
            self.headings.iter().map(|h| Cell::from(h.trim_start_matches('>')).paint(Paint::Dim)).collect();
        let all = || std::iter::once(&heading).chain(&self.rows);
        let widths: Vec<usize> = (0..self.headings.len())
            .map(|at| {
                all().filter_map(|row| row.get(at)).map(|cell| cell.text.chars().count()).max().unwrap_or(0)
            })
            .collect();
        all().map(|row| self.line(row, &widths, colour)).collect()
    }

    fn line(&self, row: &[Cell], widths: &[usize], colour: bool) -> String {
        let mut line = String::new();
        let last = row.iter().rposition(|cell| !cell.text.is_empty()).unwrap_or(0);
        for (at, cell) in row.iter().enumerate().take(last + 1) {
            let room = widths.get(at).copied().unwrap_or(0).saturating_sub(cell.text.chars().count());
            let right = self.headings.get(at).is_some_and(|h| h.starts_with('>'));
            if at > 0 {
                line.push_str(GAP);
            }
            if right {
                line.push_str(&" ".repeat(room));
            }
            line.push_str(&cell.paint.on(&cell.text, colour));
            if !right && at < last {
                line.push_str(&" ".repeat(room));
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_colour_does_not_move_them() {
        let mut table = Table::new(&["NAME", ">PID", "DETAIL"]);
        table.row(["portal".into(), 7.into(), "".into()]);
        table.row(["a".into(), 12345.into(), Cell::from("x").paint(Paint::Bad)]);
        assert_eq!(table.lines(false), ["NAME      PID  DETAIL", "portal      7", "a       12345  x"]);
        let coloured = table.lines(true);
        assert_eq!(coloured[2], "a       12345  \x1b[31mx\x1b[0m");
    }
}
