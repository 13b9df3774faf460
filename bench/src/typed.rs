//! What people type, for measuring what it costs to look through: through the gateway, and by the engine alone
//! (`crates/waf/benches/crs.rs` has this file too).

/// Requests of a kind that are asked in turn. Names of fields and most header values are the same in all, as clients send them; what
/// people typed differs in each, so that nobody is measured by what it remembers of the request before.
pub(crate) const DIFFERENT: u64 = 2048;

/// Words and numbers that are the same in each run: a generator by its state (SplitMix64).
pub(crate) struct Words(pub(crate) u64);

const WORDS: [&str; 32] = [
    "patient", "seen", "Monday", "feels", "better", "than", "next", "week", "blood", "pressure", "was",
    "normal", "fever", "none", "garden", "river", "market", "morning", "Miller", "Okafor", "Lindgren",
    "Tanaka", "Rossi", "Haddad", "window", "paper", "quiet", "yellow", "seven", "holiday", "letter",
    "station",
];

impl Words {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn some(&mut self, count: usize, between: &str) -> String {
        let words: Vec<_> = (0..count).map(|_| WORDS[self.next() as usize % WORDS.len()]).collect();
        words.join(between)
    }
}

/// The target of a GET with four arguments.
pub(crate) fn search(mut words: Words) -> String {
    let (page, q) = (1 + words.below(99), words.some(2, "+"));
    format!("/patients?page={page}&sort=name&order=asc&q={q}")
}

/// A form with an SQL injection.
pub(crate) fn injection(mut words: Words) -> String {
    let (name, n) = (words.some(2, "+"), words.below(10_000));
    format!("name={name}&city={n}%27+OR+{n}%3D{n}+UNION+SELECT+user%2Cpassword+FROM+users--")
}

/// About 2 KB of JSON with a hundred leaves.
pub(crate) fn json(mut words: Words) -> String {
    let people: Vec<String> = (0..13)
        .map(|_| {
            let (name, street, note) = (words.some(2, " "), words.some(2, " "), words.some(2, " "));
            let (id, zip, visits) = (1 + words.below(99_999), 10_000 + words.below(90_000), words.below(40));
            format!(
                "{{\"id\":{id},\"name\":\"{name}\",\"city\":\"Springfield\",\"street\":\"{street} {visits}\",\"zip\":\"{zip}\",\
                 \"active\":true,\"visits\":{visits},\"note\":\"{note}\"}}"
            )
        })
        .collect();
    format!("{{\"page\":1,\"people\":[{}]}}", people.join(","))
}

/// A form of 10 KB: prose in ten fields.
pub(crate) fn prose(mut words: Words) -> String {
    let fields = (0..10).map(|n| {
        let mut text = String::new();
        while text.len() < 1000 {
            text += &format!("The+{}%2C+no+{}.+", words.some(9, "+"), words.some(1, ""));
        }
        format!("field{n}={}", text.trim_end_matches('+'))
    });
    fields.collect::<Vec<_>>().join("&")
}
