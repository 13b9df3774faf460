//! HTML from parts, escaped unless it is already HTML.

use std::fmt::{self, Display, Write};

/// Text that is HTML.
#[derive(Clone, Debug, Default)]
pub(super) struct Html(String);

impl Html {
    /// HTML from the program itself; nothing that came from elsewhere.
    pub(super) fn fixed(text: &'static str) -> Self {
        Self(text.to_owned())
    }

    /// An element around what is already HTML.
    pub(super) fn element(tag: &'static str, inside: Self) -> Self {
        Self(format!("<{tag}>{}</{tag}>", inside.0))
    }

    pub(super) fn link(to: impl Display, text: impl Display) -> Self {
        Self(format!("<a href=\"{}\">{}</a>", escape(to), escape(text)))
    }

    /// A button that posts to `to`.
    pub(super) fn button(to: impl Display, text: &'static str) -> Self {
        Self(format!("<form method=\"post\" action=\"{}\"><button>{text}</button></form>", escape(to)))
    }

    pub(super) fn then(mut self, more: impl Into<Self>) -> Self {
        self.0.push_str(&more.into().0);
        self
    }

    pub(super) fn into_string(self) -> String {
        self.0
    }

    /// A table with one class on its cells per column: `n` for figures, empty for the rest.
    pub(super) fn table(heads: &[(&'static str, &'static str)], rows: Vec<Vec<Self>>) -> Self {
        if rows.is_empty() {
            return Self::fixed("<p class=\"none\">None.</p>");
        }
        let mut table = String::from("<table><thead><tr>");
        for (head, class) in heads {
            push(&mut table, format_args!("<th class=\"{class}\">{head}</th>"));
        }
        table.push_str("</tr></thead><tbody>");
        for row in rows {
            table.push_str("<tr>");
            for (cell, (_, class)) in row.into_iter().zip(heads) {
                push(&mut table, format_args!("<td class=\"{class}\">{}</td>", cell.0));
            }
            table.push_str("</tr>");
        }
        Self(table + "</tbody></table>")
    }
}

impl From<&str> for Html {
    fn from(text: &str) -> Self {
        Self(escape(text))
    }
}

impl From<String> for Html {
    fn from(text: String) -> Self {
        Self(escape(text))
    }
}

fn push(text: &mut String, more: fmt::Arguments<'_>) {
    text.write_fmt(more).expect("invariant: writing to a string does not fail");
}

fn escape(text: impl Display) -> String {
    let (text, mut safe) = (text.to_string(), String::new());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            _ => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_elsewhere_stays_text() {
        let evil = "<script>alert('1')</script>\"&";
        let page = Html::element("p", evil.into()).then(Html::link(evil, evil)).into_string();
        assert!(!page.contains("<script") && !page.contains("'1'"));
        assert!(
            page.starts_with(
                "<p>&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&quot;&amp;</p><a href=\"&lt;"
            )
        );
    }
}
