//! Words to directives. Everything that the reference accepts is known by name: what has no effect here is said, not silently dropped,
//! and a misspelled directive is an error with its position.

use super::{
    Directive, Finding, Item, OperatorNode, Position, RuleNode, Setting,
    lexer::{self, Line, Word},
    parse_actions, parse_targets,
};

/// Directives that configure logs, storage or another process.
const NO_EFFECT: &[&str] = &[
    "secauditengine",
    "secauditlog",
    "secauditlog2",
    "secauditlogdirmode",
    "secauditlogfilemode",
    "secauditlogformat",
    "secauditlogparts",
    "secauditlogprefix",
    "secauditlogrelevantstatus",
    "secauditlogstoragedir",
    "secauditlogtype",
    "secdebuglog",
    "secdebugloglevel",
    "sectmpdir",
    "secdatadir",
    "secuploaddir",
    "secuploadkeepfiles",
    "secuploadfilelimit",
    "secuploadfilemode",
    "secuploadfilepermissions",
    "seccollectiontimeout",
    "secunicodemap",
    "secunicodemapfile",
    "secunicodecodepage",
    "secpcrematchlimit",
    "secpcrematchlimitrecursion",
    "seccookieformat",
    "seccookiev0separator",
    "secxmlexternalentity",
    "secparsexmlintoargs",
    "secchrootdir",
    "secserversignature",
    "secstatusengine",
    "sechashengine",
    "sechashkey",
    "sechashparam",
    "sechashmethodrx",
    "sechashmethodpm",
    "secgeolookupdb",
    "secgsblookupdb",
    "sechttpblkey",
    "secguardianlog",
    "secinterceptonerror",
    "secconnengine",
    "secconnreadstatelimit",
    "secconnwritestatelimit",
    "secreadstatelimit",
    "secwritestatelimit",
    "secsensorid",
    "secstreaminbodyinspection",
    "secstreamoutbodyinspection",
    "secrulescript",
    "secremoterules",
    "secremoterulesfailaction",
    "secruleinheritance",
    "secruleperftime",
    "seccachetransformations",
    "seccontentinjection",
    "secdisablebackendcompression",
    "secignorerulecompilationerrors",
    "secrequestbodyinmemorylimit",
    "secargumentsparsing",
    "secrxprefilter",
];

/// Parses one file. What is wrong goes to `findings`; the rest is still returned, so that all mistakes are told at once.
pub(crate) fn parse(file: u16, text: &[u8], findings: &mut Vec<Finding>) -> Vec<Item> {
    let mut items = Vec::new();
    for line in lexer::lines(file, text) {
        let line = match line {
            Ok(line) => line,
            Err(position) => {
                findings.push(Finding { position, text: "this directive is longer than 256 KiB".into() });
                continue;
            }
        };
        let words = match lexer::words(&line) {
            Ok(words) => words,
            Err((offset, text)) => {
                findings.push(Finding { position: line.position(offset), text: text.into() });
                continue;
            }
        };
        let Some((name, arguments)) = words.split_first() else { continue };
        match directive(&line, name, arguments) {
            Ok(directive) => items.push(Item { position: line.position(name.offset), directive }),
            Err(finding) => findings.push(finding),
        }
    }
    items
}

fn directive(line: &Line, word: &Word, arguments: &[Word]) -> Result<Directive, Finding> {
    let written = String::from_utf8_lossy(&word.text).into_owned();
    let name = written.to_ascii_lowercase();
    let reader = Reader { line, name: &written, at: word.offset, arguments };
    match name.as_str() {
        "secrule" => reader.rule(),
        "secaction" => {
            reader.expect(1)?;
            Ok(Directive::Rule(RuleNode {
                targets: Vec::new(),
                operator: None,
                actions: reader.actions(0)?,
                actions_at: reader.position(0, 0),
            }))
        }
        "secmarker" => Ok(Directive::Marker(reader.text(0)?)),
        "secdefaultaction" => Ok(Directive::DefaultAction(reader.actions(0)?)),
        "secruleupdatetargetbyid" => Ok(Directive::UpdateTargetById(reader.ids(0..1)?, reader.targets(1)?)),
        "secruleupdatetargetbytag" => Ok(Directive::UpdateTargetByTag(reader.text(0)?, reader.targets(1)?)),
        "secruleupdatetargetbymsg" => Ok(Directive::UpdateTargetByMsg(reader.text(0)?, reader.targets(1)?)),
        "secruleupdateactionbyid" => {
            let text = reader.text(0)?;
            let (id, link) = text.split_once(':').unwrap_or((&text, "0"));
            match (id.parse(), link.parse()) {
                (Ok(id), Ok(link)) => Ok(Directive::UpdateActionById(id, link, reader.actions(1)?)),
                _ => Err(reader.finding(0, 0, "expected a rule id, or ID:LINK for a link of a chain")),
            }
        }
        "secruleremovebyid" => Ok(Directive::RemoveById(reader.ids(0..arguments.len().max(1))?)),
        "secruleremovebytag" => Ok(Directive::RemoveByTag(reader.text(0)?)),
        "secruleremovebymsg" => Ok(Directive::RemoveByMsg(reader.text(0)?)),
        "include" => Ok(Directive::Include { path: reader.text(0)?, optional: false }),
        "includeoptional" => Ok(Directive::Include { path: reader.text(0)?, optional: true }),
        "secruleengine" => {
            Ok(Directive::Set(Setting::RuleEngine(reader.word(&["on", "off", "detectiononly"])?)))
        }
        "secrequestbodyaccess" => Ok(Directive::Set(Setting::RequestBodyAccess(reader.switch()?))),
        "secrequestbodylimit" => Ok(Directive::Set(Setting::RequestBodyLimit(reader.number()?))),
        "secrequestbodynofileslimit" => {
            Ok(Directive::Set(Setting::RequestBodyNoFilesLimit(reader.number()?)))
        }
        "secrequestbodylimitaction" => {
            Ok(Directive::Set(Setting::RequestBodyLimitAction(reader.word(&["reject", "processpartial"])?)))
        }
        "secrequestbodyjsondepthlimit" => {
            Ok(Directive::Set(Setting::RequestBodyJsonDepthLimit(reader.number()?)))
        }
        "secresponsebodyaccess" => Ok(Directive::Set(Setting::ResponseBodyAccess(reader.switch()?))),
        "secresponsebodylimit" => Ok(Directive::Set(Setting::ResponseBodyLimit(reader.number()?))),
        "secresponsebodylimitaction" => {
            Ok(Directive::Set(Setting::ResponseBodyLimitAction(reader.word(&["reject", "processpartial"])?)))
        }
        "secresponsebodymimetype" => Ok(Directive::Set(Setting::ResponseBodyMimeTypes(
            arguments.iter().map(|word| String::from_utf8_lossy(&word.text).to_ascii_lowercase()).collect(),
        ))),
        "secresponsebodymimetypesclear" => Ok(Directive::Set(Setting::ResponseBodyMimeTypesClear)),
        "secargumentslimit" => Ok(Directive::Set(Setting::ArgumentsLimit(reader.number()?))),
        "secargumentseparator" => match reader.text(0)?.as_bytes() {
            [byte] => Ok(Directive::Set(Setting::ArgumentSeparator(*byte))),
            _ => Err(reader.finding(0, 0, "expected one character")),
        },
        "secwebappid" => Ok(Directive::Set(Setting::WebAppId(reader.text(0)?))),
        "seccomponentsignature" => Ok(Directive::Set(Setting::ComponentSignature(reader.text(0)?))),
        other if NO_EFFECT.contains(&other) => Ok(Directive::NoEffect(written)),
        _ => Err(Finding {
            position: line.position(word.offset),
            text: format!("unknown directive '{written}'; only SecLang directives may stand in a rule file"),
        }),
    }
}

struct Reader<'a> {
    line: &'a Line,
    name: &'a str,
    at: usize,
    arguments: &'a [Word],
}

impl Reader<'_> {
    fn position(&self, argument: usize, offset: usize) -> Position {
        // Escapes inside the word may shift this by some bytes: near enough to find it.
        self.line.position(self.arguments.get(argument).map_or(self.at, |word| word.offset + offset))
    }

    fn finding(&self, argument: usize, offset: usize, text: impl Into<String>) -> Finding {
        Finding { position: self.position(argument, offset), text: text.into() }
    }

    fn expect(&self, count: usize) -> Result<(), Finding> {
        if self.arguments.len() == count {
            return Ok(());
        }
        let found = self.arguments.len();
        Err(self.finding(
            0,
            0,
            format!("{} takes {count} argument(s), found {found}; quote arguments with spaces", self.name),
        ))
    }

    fn argument(&self, index: usize) -> Result<&Word, Finding> {
        self.arguments
            .get(index)
            .ok_or_else(|| self.finding(index, 0, format!("{} needs an argument more", self.name)))
    }

    fn text(&self, index: usize) -> Result<String, Finding> {
        Ok(String::from_utf8_lossy(&self.argument(index)?.text).into_owned())
    }

    fn word(&self, allowed: &[&str]) -> Result<String, Finding> {
        let text = self.text(0)?.to_ascii_lowercase();
        if allowed.contains(&text.as_str()) {
            return Ok(text);
        }
        Err(self.finding(0, 0, format!("expected one of: {}", allowed.join(", "))))
    }

    fn switch(&self) -> Result<bool, Finding> {
        Ok(self.word(&["on", "off"])? == "on")
    }

    fn number(&self) -> Result<u64, Finding> {
        self.text(0)?.trim().parse().map_err(|_| self.finding(0, 0, "expected a number"))
    }

    /// Ids and ranges: `1`, `1-9`, `"1,5-7"`, as words or in a list.
    fn ids(&self, words: std::ops::Range<usize>) -> Result<Vec<(u64, u64)>, Finding> {
        let mut out = Vec::new();
        for index in words {
            let text = self.text(index)?;
            for part in text.split([',', ' ']).filter(|part| !part.is_empty()) {
                let (from, to) = part.split_once('-').unwrap_or((part, part));
                match (from.trim_matches('\'').trim().parse(), to.trim_matches('\'').trim().parse()) {
                    (Ok(from), Ok(to)) if from <= to => out.push((from, to)),
                    _ => {
                        return Err(self.finding(
                            index,
                            0,
                            format!("'{part}' is no rule id and no range of ids"),
                        ));
                    }
                }
            }
        }
        Ok(out)
    }

    fn targets(&self, index: usize) -> Result<Vec<super::Target>, Finding> {
        parse_targets(&self.argument(index)?.text).map_err(|(offset, text)| self.finding(index, offset, text))
    }

    fn actions(&self, index: usize) -> Result<Vec<super::ActionNode>, Finding> {
        parse_actions(&self.argument(index)?.text).map_err(|(offset, text)| self.finding(index, offset, text))
    }

    fn rule(&self) -> Result<Directive, Finding> {
        if !(2..=3).contains(&self.arguments.len()) {
            let found = self.arguments.len();
            return Err(self.finding(
                0,
                0,
                format!("SecRule takes variables, operator and actions, found {found} words"),
            ));
        }
        let actions = if self.arguments.len() == 3 { self.actions(2)? } else { Vec::new() };
        Ok(Directive::Rule(RuleNode {
            targets: self.targets(0)?,
            operator: Some(self.operator(1)?),
            actions,
            actions_at: self.position(2, 0),
        }))
    }

    fn operator(&self, index: usize) -> Result<OperatorNode, Finding> {
        let text = self.argument(index)?.text.trim_ascii_start();
        let (negated, text) = match text.strip_prefix(b"!") {
            Some(rest) => (true, rest.trim_ascii_start()),
            None => (false, text),
        };
        let position = self.position(index, 0);
        let Some(named) = text.strip_prefix(b"@") else {
            return Ok(OperatorNode { negated, name: "rx".into(), argument: text.to_vec(), position });
        };
        let end = named.iter().position(u8::is_ascii_whitespace).unwrap_or(named.len());
        if end == 0 {
            return Err(self.finding(index, 0, "the name of an operator is missing after '@'"));
        }
        let name = String::from_utf8_lossy(&named[..end]).into_owned();
        Ok(OperatorNode { negated, name, argument: named[end..].trim_ascii_start().to_vec(), position })
    }
}
