//! Requests of people who mean no harm, made by rote: prose in many languages, names, code, markdown, JSON. The same
//! number makes the same request.

/// Numbers that look like chance and repeat.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() >> 11) as usize % end.max(1)
    }

    pub(crate) fn of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len())]
    }
}

const PROSE: &[&str] = &[
    "the union of workers will select a new speaker from the list and update everyone where needed order by Friday",
    "please drop me a line or call before noon and like it or not we insert the coin into the machine",
    "I don't know if it's true isn't it what they've said about the dog's bone at St John's",
    "rock 'n' roll at 9 o'clock \u{2013} who's in? one or two of us and maybe three",
    "she said \"it's fine\" and left the house on the hill; nobody asked why",
    "Gr\u{fc}\u{df}e aus M\u{fc}nchen und alles Gute f\u{fc}r das neue Jahr oder wie man hier sagt so geht's auch",
    "Die Patientin kam um 8 Uhr in die Praxis, klagte \u{fc}ber Schmerzen (seit 3 Tagen) und bekam \u{201e}Ibuprofen\u{201c}",
    "l'h\u{f4}pital d'Orl\u{e9}ans n'a qu'une entr\u{e9}e; aujourd'hui c'est ferm\u{e9} jusqu'\u{e0} demain s'il vous pla\u{ee}t",
    "el ni\u{f1}o comi\u{f3} \u{bf}c\u{f3}mo? \u{a1}qu\u{e9} bien! y la se\u{f1}ora se fue o no se fue al mercado",
    "dell'altro mondo un po' di tutto perch\u{e9} l'acqua \u{e8} poca e la papera non galleggia",
    "zaci\u{119}\u{107} gotowo\u{15b}\u{107} ja\u{17a}\u{144} i pch\u{105}\u{107} w t\u{119} \u{142}\u{f3}d\u{17a} je\u{17c}a lub o\u{15b}m skrzy\u{144} fig",
    "a \u{e1}gua est\u{e1} fria e o p\u{e3}o n\u{e3}o chegou ou chegou tarde em S\u{e3}o Paulo",
    "\u{130}stanbul'da ya\u{11f}mur var ve \u{15e}i\u{15f}li'de trafik \u{e7}ok Ankara'ya gidiyorum",
    "\u{441}\u{44a}\u{435}\u{448}\u{44c} \u{435}\u{449}\u{451} \u{44d}\u{442}\u{438}\u{445} \u{43c}\u{44f}\u{433}\u{43a}\u{438}\u{445} \u{444}\u{440}\u{430}\u{43d}\u{446}\u{443}\u{437}\u{441}\u{43a}\u{438}\u{445} \u{431}\u{443}\u{43b}\u{43e}\u{43a} \u{434}\u{430} \u{432}\u{44b}\u{43f}\u{435}\u{439} \u{447}\u{430}\u{44e}",
    "\u{3b7} \u{3b8}\u{3ac}\u{3bb}\u{3b1}\u{3c3}\u{3c3}\u{3b1} \u{3b5}\u{3af}\u{3bd}\u{3b1}\u{3b9} \u{3ae}\u{3c1}\u{3b5}\u{3bc}\u{3b7} \u{3ba}\u{3b1}\u{3b9} \u{3bf} \u{3bf}\u{3c5}\u{3c1}\u{3b1}\u{3bd}\u{3cc}\u{3c2} \u{3b3}\u{3b1}\u{3bb}\u{3b1}\u{3bd}\u{3cc}\u{3c2}",
    "\u{6211}\u{4eec}\u{660e}\u{5929}\u{53bb}\u{533b}\u{9662}\u{770b}\u{75c5}\u{ff0c}\u{597d}\u{5417}\u{ff1f} \u{4e00}\u{8d77} \u{5403}\u{996d}\u{3002}",
    "\u{304a}\u{306f}\u{3088}\u{3046}\u{3054}\u{3056}\u{3044}\u{307e}\u{3059}\u{3002} \u{75c5}\u{9662}\u{306f}\u{300c}\u{6771}\u{4eac}\u{300d}\u{306b}\u{3042}\u{308a}\u{307e}\u{3059}",
    "\u{645}\u{631}\u{62d}\u{628}\u{627} \u{628}\u{643} \u{641}\u{64a} \u{627}\u{644}\u{639}\u{64a}\u{627}\u{62f}\u{629}\u{60c} \u{643}\u{64a}\u{641} \u{62d}\u{627}\u{644}\u{643}\u{61f}",
    "\u{928}\u{92e}\u{938}\u{94d}\u{924}\u{947} \u{906}\u{92a} \u{915}\u{948}\u{938}\u{947} \u{939}\u{948}\u{902} \u{2013} \u{921}\u{949}\u{915}\u{94d}\u{91f}\u{930} \u{915}\u{939}\u{93e}\u{901} \u{939}\u{948}\u{902}",
    "between 5 and 10 people or more than 3 = enough; less than 2 < fine & dandy, 100% sure",
    "the table in the case is not null and void; having said that, group by age or sort as you like",
    "if (and only if) you cannot sleep (more than 2 hours) then call the nurse -- she is there, always",
    "he who laughs last -- laughs best; and so on... #blessed #nofilter @home @work",
    "50/50 chance, a/b testing, and/or whatever, w/o sugar, c/o Mrs. Smith, 3 * 4 = 12, 2^8, ~5km, x > y",
    "exec summary: we declare the case closed, set a date, begin the merge and copy the team in",
];

const NAMES: &[&str] = &[
    "O'Neill",
    "D'Angelo",
    "N'Golo Kant\u{e9}",
    "Jean-Luc",
    "Mc'Donald",
    "M\u{fc}ller-L\u{fc}denscheidt",
    "Null",
    "True",
    "Andrews & Sons",
    "A. B. \"Bob\" Smith, Jr.",
    "Select Comfort (UK) Ltd.",
    "Union Bank; Zurich",
    "Mary-Ann O'Connor-D'Arcy",
    "van der Waals",
    "Bj\u{f6}rk Gu\u{f0}mundsd\u{f3}ttir",
    "\u{738b}\u{5c0f}\u{660e}",
    "Script & Co",
    "T'Challa",
    "X \u{c6} A-12",
    "John \"The Drop\" Tables",
    "Dr. med. h.c. M. O'Hara",
    "'t Hooft",
    "d'",
    "Sant'Anna",
    "L'Or\u{e9}al",
    "Toys 'R' Us",
];

const SEARCHES: &[&str] = &[
    "\"exact phrase\" -without site:example.org",
    "C++ or C#",
    "cats OR dogs",
    "AT&T",
    "union square hotel",
    "drop leaf table",
    "50% off",
    "select * everything",
    "what is 2+2=?",
    "hello (world)",
    "how to: sleep better",
    "price < 100",
    "a -- b",
    "1 or 2",
    "3 and 4",
    "size 10/12",
    "5' 11\"",
    "19\" monitor",
    "it's",
    "'tis the season",
    "user's guide",
    "like new",
    "where is my order",
    "order by phone",
    "group by family",
    "#1 dad",
    "top 10",
    "2 for 1",
    "24/7",
    "1=1",
    "q&a",
    "r&d",
    "insert coin",
    "update windows",
    "delete account",
    "where's waldo",
    "table for 2 and chairs",
    "limit 5",
    "not null",
    "benchmark (2026)",
    "char (fish)",
    "concat",
    "having fun",
    "into the wild",
    "case in point",
    "exists",
    "if only",
    "ON=OFF",
];

const CODE: &[&str] = &[
    "if (a > b && c < d) { return a - b; } else { return \"none\"; }",
    "let x: Vec<u8> = data.iter().map(|b| b ^ 0x20).collect();",
    "for (int i = 0; i < n; i++) sum += v[i] * 2; // adds up",
    "def area(r): return 3.14159 * r ** 2  # of a circle",
    "const f = (x) => x.map(({ id, name }) => `${id}: ${name}`).join(', ');",
    "import { useState } from '../../hooks/state';",
    "const fs = require('fs'); const path = require('path');",
    "func main() { fmt.Println(\"hi\", os.Args[1:]) }",
    "public static void main(String[] args) { System.out.println(args.length); }",
    "#include <stdio.h>\nint main(void) { printf(\"%d\\n\", 1 + 1); }",
    "git commit -m \"fix: don't panic\" && git push origin main",
    "cargo test -p app -- --nocapture | tee log.txt",
    "docker run --rm -e KEY=${KEY:-none} -v $(pwd):/app image:latest",
    "export PATH=\"$HOME/bin:$PATH\"; echo $PATH",
    "a:hover { color: #ff0000; background: url(img/a.png); margin: 0 -1px; }",
    "^[\\w.+-]+@[\\w-]+\\.[a-z]{2,}$",
    "<p class=\"note\">read <em>this</em> &amp; <a href=\"https://example.org/a?b=c&d=e\">that</a></p>",
    "<ul><li>one</li><li>two</li></ul><br/>",
    "SELECT name FROM patients WHERE age > 40 ORDER BY name;",
    "x = y ? 1 : 2; z |= 4; w = ~x & 0xff;",
    "try { await load(); } catch (e) { console.error(e); }",
    "name: app\nports:\n  - 80:80\nenv:\n  - A=1 # one",
    "[section]\nkey = value ; comment\npath = C:\\Program Files\\App\\app.exe",
    "{{ user.name }} has {{ count }} new {% if count == 1 %}message{% endif %}",
    "while read -r line; do echo \"$line\"; done < input.txt",
    "lambda s: s.strip().lower() or None",
    "rsync -av ./src/ host:/srv/app/ ; ls -la",
];

const MARKDOWN: &[&str] = &[
    "# Title\n\nSome *text* with `code`, a [link](https://example.org/a_(b)?c=d#e) and **more**.\n\n- one\n- two -- or three\n",
    "| a | b |\n|---|---|\n| 1 | `x || y` |\n\n> quoted; said \"he\" & left\n",
    "Run `ls -la` or `cat README.md`, then:\n\n```sh\ncurl https://example.org/install | less\nexport A=1; echo $A\n```\n",
    "1. First\n2. Second (see `../docs/a.md`)\n\n---\n\n*Note:* 2 < 3 && 3 > 2 <!-- hidden -->\n",
    "## FAQ\n\n**Q:** what's `null`?\n**A:** nothing; it isn't `0` or `''`.\n\n[^1]: see ../notes/b.md#c\n",
    "```js\nconst a = [1, 2, 3].map(x => x * 2);\nif (a[0] == 1 || a[1] != 2) { alert; }\n```\nthat's it!\n",
];

const DATA: &[&str] = &[
    "2026-11-23T10:00:00+01:00",
    "550e8400-e29b-41d4-a716-446655440000",
    "+49 (89) 123-456/78",
    "jo.o'hara+tag@example.org",
    "https://example.org/a/b?c=d&e=f%20g#h",
    "http://localhost:3000/callback?code=abc",
    "R0lGODlhAQABAIAAAAAAAP8=",
    "-1.5e-10",
    "1,234.56",
    "$1,000.00 (net)",
    "12:30-14:00",
    "#ff00aa",
    "en-US,en;q=0.9,de;q=0.8",
    "a,b;c|d",
    "v1.2.3-rc.1+build.5",
    "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl",
    "GA1.2.1234567890.1700000000",
    "true",
    "null",
    "[]",
    "{}",
    "0",
    "",
    "{\"a\": [1, 2, {\"b\": \"c's\"}], \"d\": null}",
    "[\"x\", \"y\"]",
    "a=b&c=d",
    "10.0.0.1/24",
    "::1",
    "../up.png",
    "./a/b.txt",
    "/var/app/data.csv",
    "C:\\Users\\me\\file.txt",
    "3 < 5 > 2",
    "100%",
    "50%+",
    "\u{1f600} :-) <3 ;)",
    "x^2 + y^2 = z^2",
    "N/A",
    "--",
    "-",
    "*",
    "SGVsbG8sIHdvcmxkIQ==",
    "1e5",
    "0x1f",
    "$2b$12$abcdefghijklmnopqrstuv",
    "key:value;other:1",
    "a || b",
    "1;2;3",
    "(1)",
    "'",
    "\"",
];

/// Something that a person or a program sends as a value.
pub(crate) fn value(chance: &mut Chance) -> String {
    match chance.below(12) {
        0..=3 => prose(chance),
        4 => chance.of(NAMES).to_owned(),
        5 | 6 => chance.of(SEARCHES).to_owned(),
        7 => {
            let lines = 1 + chance.below(3);
            (0..lines).map(|_| chance.of(CODE)).collect::<Vec<_>>().join("\n")
        }
        8 => {
            let parts = 1 + chance.below(2);
            (0..parts).map(|_| format!("{}\n{}", chance.of(MARKDOWN), prose(chance))).collect()
        }
        9 => format!("{} {}", chance.of(NAMES), chance.of(SEARCHES)),
        _ => chance.of(DATA).to_owned(),
    }
}

/// Some words of a sentence, or of two, with what people put between.
fn prose(chance: &mut Chance) -> String {
    const BETWEEN: &[&str] = &[
        " ", " ", " ", ", ", "; ", " - ", " -- ", ". ", "! ", "? ", " (", ") ", " & ", ": ", "\n", " \"",
        "\" ", " '", "' ", "...",
    ];
    let mut text = String::new();
    for _ in 0..1 + chance.below(3) {
        let words: Vec<&str> = chance.of(PROSE).split(' ').collect();
        let from = chance.below(words.len());
        let to = from + 1 + chance.below(words.len() - from);
        text.push_str(&words[from..to].join(" "));
        text.push_str(chance.of(BETWEEN));
        if chance.below(6) == 0 {
            text.push_str(chance.of(NAMES));
        }
    }
    text
}
