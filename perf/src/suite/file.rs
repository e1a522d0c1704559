//! The text of a suite: named scenarios with options as `lepus-perf run` has them. Every fault is told with its line.

use std::fmt;
use std::ops::Range;

use clap::{Args as _, FromArgMatches as _};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::campaign::targets::TargetSpec;
use crate::options::{RunArguments, RunOptions};

/// Options of `run` that say where a workload runs; in a suite they belong to a target.
const PLACES: [(&str, &str); 2] = [("uri", "uri"), ("broker-pid", "pid")];

/// A suite as it is written.
#[derive(Debug)]
pub struct Suite {
    /// How often each scenario is run on each target; `None`: it does not say.
    pub rounds: Option<u32>,
    /// Seconds between runs; `None`: it does not say.
    pub pause_seconds: Option<f64>,
    /// Brokers; may be empty.
    pub targets: Vec<TargetSpec>,
    /// At least one, in the order of the text.
    pub scenarios: Vec<Scenario>,
}

/// A workload with a name.
#[derive(Debug)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// What it is for, in words.
    pub about: String,
    /// With the defaults.
    pub options: RunOptions,
    /// As they are given on the command line, with the defaults.
    pub words: Vec<String>,
}

/// What is wrong with a suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuiteFault {
    /// From 1.
    pub line: usize,
    /// A whole sentence, with scenario and option where it is about one.
    pub reason: String,
}

impl fmt::Display for SuiteFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.reason)
    }
}

/// An option with its values.
#[derive(Clone)]
struct Setting {
    name: String,
    values: Vec<String>,
}

/// Reads a suite. `overrides` are options with values that hold for all scenarios, whatever the text says.
///
/// # Errors
/// The first fault.
pub fn parse(text: &str, overrides: &[(String, String)]) -> Result<Suite, SuiteFault> {
    Reader { text }.suite(overrides)
}

struct Reader<'t> {
    text: &'t str,
}

type Entry<'a, 'i> = (&'a Spanned<std::borrow::Cow<'i, str>>, &'a Spanned<DeValue<'i>>);

impl Reader<'_> {
    fn fault(&self, span: &Range<usize>, reason: impl Into<String>) -> SuiteFault {
        let line = 1 + self.text.char_indices().filter(|&(at, letter)| at < span.start && letter == '\n').count();
        SuiteFault { line, reason: reason.into() }
    }

    fn suite(&self, overrides: &[(String, String)]) -> Result<Suite, SuiteFault> {
        let document = DeTable::parse(self.text)
            .map_err(|error| self.fault(&error.span().unwrap_or(0..0), error.message().to_owned()))?;
        let (mut rounds, mut pause_seconds, mut targets, mut defaults) = (None, None, Vec::new(), Vec::new());
        let mut scenario_tables = Vec::new();
        for (key, value) in in_order(document.get_ref()) {
            match key.get_ref().as_ref() {
                "rounds" => rounds = Some(self.rounds(value)?),
                "pause" => pause_seconds = Some(self.pause(value)?),
                "target" => targets = self.targets(value)?,
                "defaults" => defaults = self.settings("defaults", self.table(value, "defaults")?)?.1,
                "scenario" => scenario_tables = in_order(self.table(value, "scenario")?),
                other => {
                    let reason = format!(
                        "'{other}' is none of rounds, pause, defaults, target, scenario; options belong to [defaults] or to \
                         [scenario.NAME]"
                    );
                    return Err(self.fault(&key.span(), reason));
                }
            }
        }
        let scenarios = scenario_tables
            .into_iter()
            .map(|(key, value)| self.scenario(key, value, &defaults, overrides))
            .collect::<Result<Vec<_>, _>>()?;
        if scenarios.is_empty() {
            return Err(self.fault(&(0..0), "there is no scenario: [scenario.NAME]"));
        }
        Ok(Suite { rounds, pause_seconds, targets, scenarios })
    }

    fn table<'a, 'i>(&self, value: &'a Spanned<DeValue<'i>>, what: &str) -> Result<&'a DeTable<'i>, SuiteFault> {
        let reason = || format!("'{what}' is a table: [{what}{}]", if what == "scenario" { ".NAME" } else { "" });
        value.get_ref().as_table().ok_or_else(|| self.fault(&value.span(), reason()))
    }

    fn rounds(&self, value: &Spanned<DeValue<'_>>) -> Result<u32, SuiteFault> {
        let rounds =
            scalar(value.get_ref()).and_then(|text| text.parse().ok()).filter(|rounds| (1..=10_000).contains(rounds));
        rounds.ok_or_else(|| self.fault(&value.span(), "rounds: a number from 1 to 10000"))
    }

    fn pause(&self, value: &Spanned<DeValue<'_>>) -> Result<f64, SuiteFault> {
        let text = scalar(value.get_ref()).unwrap_or_default();
        crate::versus::pause_seconds(&text).map_err(|reason| self.fault(&value.span(), format!("pause: {reason}")))
    }

    fn targets(&self, value: &Spanned<DeValue<'_>>) -> Result<Vec<TargetSpec>, SuiteFault> {
        let array = value.get_ref().as_array();
        let array = array.ok_or_else(|| self.fault(&value.span(), "targets are written as [[target]]"))?;
        array.iter().map(|value| self.target(value)).collect()
    }

    fn target(&self, value: &Spanned<DeValue<'_>>) -> Result<TargetSpec, SuiteFault> {
        let table = value.get_ref().as_table();
        let table = table.ok_or_else(|| self.fault(&value.span(), "targets are written as [[target]]"))?;
        let (mut name, mut uri, mut pid) = (None, None, None);
        for (key, value) in in_order(table) {
            let text = scalar(value.get_ref());
            let missing = || self.fault(&value.span(), format!("target: '{}' has no such value", key.get_ref()));
            match key.get_ref().as_ref() {
                "name" => name = Some(text.ok_or_else(missing)?),
                "uri" => uri = Some((text.ok_or_else(missing)?, value.span())),
                "pid" => pid = Some(text.and_then(|text| text.parse().ok()).ok_or_else(missing)?),
                other => return Err(self.fault(&key.span(), format!("target: '{other}' is none of name, uri, pid"))),
            }
        }
        let (uri, span) = uri.ok_or_else(|| self.fault(&value.span(), "target: 'uri' is missing"))?;
        TargetSpec::new(name, &uri, pid).map_err(|reason| self.fault(&span, format!("target: {reason}")))
    }

    fn scenario(
        &self,
        key: &Spanned<std::borrow::Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
        defaults: &[Setting],
        overrides: &[(String, String)],
    ) -> Result<Scenario, SuiteFault> {
        let name = key.get_ref().to_string();
        let what = format!("scenario '{name}'");
        let table = value.get_ref().as_table();
        let table = table.ok_or_else(|| self.fault(&value.span(), format!("{what} is a table: [scenario.{name}]")))?;
        let (about, own) = self.settings(&what, table)?;
        let mut settings: Vec<Setting> = defaults.to_vec();
        let own_names: Vec<String> = own.iter().map(|setting| setting.name.clone()).collect();
        let overrides =
            overrides.iter().map(|(name, value)| Setting { name: name.clone(), values: vec![value.clone()] });
        for setting in own.into_iter().chain(overrides) {
            settings.retain(|other| other.name != setting.name);
            settings.push(setting);
        }
        // What is said for all scenarios is left out where it would do nothing; what one says itself is a mistake there.
        if let Ok(options) = RunOptions::parse_unchecked(words_of_all(&settings)) {
            let idle: Vec<&str> = options.idle().collect();
            settings.retain(|setting| own_names.contains(&setting.name) || !idle.contains(&setting.name.as_str()));
        }
        let words = words_of_all(&settings);
        let options = RunOptions::try_parse_from(words.clone())
            .map_err(|reason| self.fault(&key.span(), format!("{what}: {}", first_sentence(&reason))))?;
        if options.time().is_none() && options.count.is_none() && options.trace.is_none() {
            return Err(self.fault(&key.span(), format!("{what}: time 0 would never end")));
        }
        Ok(Scenario { name, about, options, words })
    }

    /// Options of a table, each checked for itself, and what its `about` says.
    fn settings(&self, what: &str, table: &DeTable<'_>) -> Result<(String, Vec<Setting>), SuiteFault> {
        let (mut about, mut settings) = (String::new(), Vec::new());
        for (key, value) in in_order(table) {
            let (name, span) = (key.get_ref().to_string(), key.span());
            let fault = |reason: String| self.fault(&span, format!("{what}: option '{name}': {reason}"));
            let values = match value.get_ref() {
                DeValue::Array(array) => array.iter().map(|value| scalar(value.get_ref())).collect::<Option<Vec<_>>>(),
                value => scalar(value).map(|text| vec![text]),
            };
            let values =
                values.ok_or_else(|| fault("a number, a text, true or false, or a list of them".to_owned()))?;
            if name == "about" {
                about = values.join(" ");
                continue;
            }
            if let Some((_, own)) = PLACES.iter().find(|(place, _)| *place == name) {
                return Err(fault(format!("it belongs to a target: [[target]], '{own}'")));
            }
            check(&name, &values).map_err(fault)?;
            settings.push(Setting { name, values });
        }
        Ok((about, settings))
    }
}

/// Checks one option for itself.
///
/// # Errors
/// What is wrong, in words.
pub fn check(name: &str, values: &[String]) -> Result<(), String> {
    let command = RunArguments::augment_args(clap::Command::new("run")).no_binary_name(true);
    let known = command.get_arguments().find(|argument| argument.get_long() == Some(name));
    let Some(known) = known else {
        let names = command.get_arguments().filter_map(clap::Arg::get_long);
        let nearest = names.map(|known| (distance(name, known), known)).min().filter(|(distance, _)| *distance <= 2);
        let tip = nearest.map_or_else(String::new, |(_, nearest)| format!("; is '{nearest}' meant?"));
        return Err(format!("lepus-perf run has no --{name}{tip}"));
    };
    if !known.get_action().takes_values() && !matches!(values, [value] if value == "true" || value == "false") {
        return Err("true or false".to_owned());
    }
    let matches = command.try_get_matches_from(words_of(name, values));
    let parsed = matches.and_then(|matches| RunArguments::from_arg_matches(&matches));
    parsed.map(drop).map_err(|error| first_sentence(&error.to_string()))
}

/// Option and values as on the command line. A flag that is `false`, and a list without values, are left out.
fn words_of(name: &str, values: &[String]) -> Vec<String> {
    match values {
        [value] if value == "true" && is_flag(name) => vec![format!("--{name}")],
        [value] if value == "false" && is_flag(name) => Vec::new(),
        values => values.iter().map(|value| format!("--{name}={value}")).collect(),
    }
}

fn words_of_all(settings: &[Setting]) -> Vec<String> {
    settings.iter().flat_map(|setting| words_of(&setting.name, &setting.values)).collect()
}

fn is_flag(name: &str) -> bool {
    let command = RunArguments::augment_args(clap::Command::new("run"));
    command.get_arguments().any(|argument| argument.get_long() == Some(name) && !argument.get_action().takes_values())
}

/// Entries as they stand in the text.
fn in_order<'a, 'i>(table: &'a DeTable<'i>) -> Vec<Entry<'a, 'i>> {
    let mut entries: Vec<Entry<'a, 'i>> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

/// A value as it is written on a command line.
fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().to_owned()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(is_so) => Some(is_so.to_string()),
        _ => None,
    }
}

/// What clap says, without its frame.
fn first_sentence(text: &str) -> String {
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

/// Letters to change, add, take away or swap with their neighbours to get from one word to the other (Damerau and Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = changed.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
