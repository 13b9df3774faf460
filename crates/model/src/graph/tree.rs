//! The graph for a terminal: from outside inwards, each service once in full.

use std::collections::HashSet;

use super::{OUTSIDE, summary};
use crate::fence::{Fence, Service};
use crate::suggest::visible;

/// Deeper than anyone reads, and a bound on the size of the picture.
const MAX_DEPTH: usize = 40;

impl Fence {
    /// The graph as a tree; `colour` only when the reader is a terminal.
    #[must_use]
    pub fn graph_tree(&self, colour: bool) -> String {
        let mut tree = Tree { fence: self, colour, seen: HashSet::new(), out: String::new() };
        tree.draw();
        tree.out
    }
}

struct Tree<'f> {
    fence: &'f Fence,
    colour: bool,
    seen: HashSet<&'f str>,
    out: String,
}

/// What stands below a service.
enum Branch<'f> {
    Service(&'f Service, String),
    Leaf(String),
}

impl<'f> Tree<'f> {
    fn draw(&mut self) {
        let fence = self.fence;
        self.line(&format!("{} ({})", self.bold(&fence.name), fence.trust_domain));
        let entries: Vec<Branch<'f>> = fence
            .services
            .iter()
            .filter(|s| !s.routes.is_empty())
            .map(|s| Branch::Service(s, routes(s)))
            .collect();
        if !entries.is_empty() {
            self.line(&self.bold(OUTSIDE));
            self.branches(entries);
        }
        let called: HashSet<&str> = fence.edges().map(|edge| edge.callee.name.as_str()).collect();
        for service in &fence.services {
            if !called.contains(service.name.as_str()) && !self.seen.contains(service.name.as_str()) {
                self.root(service);
            }
        }
        // What is left calls itself in circles that nobody enters.
        for service in &fence.services {
            if !self.seen.contains(service.name.as_str()) {
                self.root(service);
            }
        }
    }

    fn root(&mut self, service: &'f Service) {
        self.seen.insert(&service.name);
        let line = self.title(service, "");
        self.line(&line);
        let below = self.below(service);
        self.branches(below);
    }

    /// Draws branches and what is below them, on an explicit stack: a chain may be as long as the fence.
    fn branches(&mut self, top: Vec<Branch<'f>>) {
        let mut levels = vec![top.into_iter().peekable()];
        while let Some(level) = levels.last_mut() {
            let Some(branch) = level.next() else {
                levels.pop();
                continue;
            };
            let last = level.peek().is_none();
            let depth = levels.len();
            let mut line: String = levels
                .iter_mut()
                .take(depth - 1)
                .map(|l| if l.peek().is_some() { "│  " } else { "   " })
                .collect();
            line.push_str(if last { "└─ " } else { "├─ " });
            match branch {
                Branch::Leaf(text) => line.push_str(&text),
                Branch::Service(service, note) => {
                    let first = depth < MAX_DEPTH && self.seen.insert(&service.name);
                    let below = if first { self.below(service) } else { Vec::new() };
                    line.push_str(&self.title(service, &note));
                    if !first && !self.below(service).is_empty() {
                        line.push_str(if depth < MAX_DEPTH { "  (see above)" } else { "  …" });
                    }
                    levels.push(below.into_iter().peekable());
                }
            }
            self.line(&line);
        }
    }

    fn below(&self, service: &'f Service) -> Vec<Branch<'f>> {
        let calls = service
            .calls
            .iter()
            .filter_map(|c| Some(Branch::Service(self.fence.service(&c.service)?, summary(c))));
        let proposed = service.proposed.iter().map(|c| Branch::Leaf(format!("{} (not accepted)", c.service)));
        let egress = service.egress.iter().map(|e| {
            let notes = [(e.tls, "tls"), (e.allow_private, "private")];
            let notes: Vec<&str> = notes.iter().filter(|(on, _)| *on).map(|(_, word)| *word).collect();
            let notes = if notes.is_empty() { String::new() } else { format!("  {}", notes.join(", ")) };
            Branch::Leaf(format!("↗ {}:{}{notes}", e.host, e.port))
        });
        calls.chain(proposed).chain(egress).collect()
    }

    fn title(&self, service: &Service, note: &str) -> String {
        let mut title = self.bold(&service.name);
        if let Some(port) = service.port {
            title.push_str(&format!(" {}:{port}", service.protocol));
        }
        match super::draw::kind(service) {
            "external" => title.push_str(" (external, not isolated)"),
            "waits" => title.push_str(&format!(" (started by `ringfence run {}`)", service.name)),
            _ => {}
        }
        if !note.is_empty() {
            title.push_str("  ");
            title.push_str(note);
        }
        title
    }

    fn bold(&self, text: &str) -> String {
        if self.colour { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Escape characters are ours: whatever else came from the file is spelled out.
    fn line(&mut self, line: &str) {
        self.out.extend(line.chars().flat_map(|c| {
            let ours = c == '\x1b';
            ours.then_some(c).into_iter().chain((!ours).then(|| visible(c)).into_iter().flatten())
        }));
        self.out.push('\n');
    }
}

fn routes(service: &Service) -> String {
    let routes: Vec<String> = service
        .routes
        .iter()
        .map(|r| format!("{}{}", r.host.as_deref().unwrap_or_default(), r.path))
        .collect();
    routes.join(", ")
}
