//! What can be said of a job without changing its code: in a file and in the environment.
//!
//! ```text
//!   environment  >  file: [job.NAME]  >  file  >  code  >  default
//!   WINDROW_…       windrow.toml                  Job::…
//! ```
//!
//! What stands further left goes before: also before what code says after [`Job::configured`](crate::Job::configured). A key or a
//! value that is not known is an error before the first row, with its place; nothing is guessed. A table for a job that this program does
//! not have may be another program's: it is a warning if its name is near that of a job without a table. The chapter
//! `docs/src/configuration.md` of the book has all knobs.
//!
//! * `knobs`: the one table of them. `value`: what they may be.
//! * `file`: TOML with lines. `chosen`: what a job is told in the end.
//!
//! Secrets are not written into a file or shown: a setting names where one is.

mod chosen;
mod file;
mod knobs;
#[cfg(test)]
mod tests;
mod value;

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    fmt, fs, io,
    path::{Path, PathBuf},
};

pub(crate) use chosen::Chosen;
use datafusion_common::utils::datafusion_strsim::levenshtein;
use file::Section;
use knobs::{KNOBS, Knob, PREFIX};
use serde::Serialize;
use value::{Found, Kind, Value};
use windrow_operators::schema::likely;

use crate::{Error, Result, checkpoint::without_secrets};

/// Names the file.
const VARIABLE: &str = "WINDROW_CONFIG";
/// The file, when nobody names one.
const FILE: &str = "windrow.toml";

/// What was said, by the name of the knob.
type Settings = BTreeMap<&'static str, Setting>;

/// A setting, and where it was said.
#[derive(Clone, Debug, PartialEq)]
struct Setting {
    value: Value,
    from: String,
}

/// The configuration of a program: what its file and its environment say. The [module](self) has the order of precedence.
///
/// ```
/// use windrow::{config::Config, prelude::*};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> windrow::Result<()> {
/// # let directory = tempfile::tempdir().unwrap();
/// # let path = directory.path().join("windrow.toml");
/// std::fs::write(&path, "parallelism = 2\n[job.hot-items]\nparallelism = 8\n").unwrap();
/// let config = Config::file(&path)?;
/// assert!(config.shown("hot-items").to_string().contains("parallelism = 8"));
///
/// let job = Job::new("evens").parallelism(1).configured_by(config);   // two tasks, whatever the code says
/// job.source(Sequence::new(10).splits(2)).sink(MemorySink::new());
/// assert!(job.explain().await?.contains("2 tasks"));
///
/// std::fs::write(&path, "paralelism = 2").unwrap();
/// let error = Config::file(&path).unwrap_err().to_string();
/// assert!(error.contains("windrow.toml:1: there is no setting \"paralelism\", did you mean \"parallelism\"?"), "{error}");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    path: Option<PathBuf>,
    environment: Settings,
    jobs: BTreeMap<String, Section>,
    all: Settings,
}

impl Config {
    /// The file that the variable `WINDROW_CONFIG` names, else `windrow.toml` in the working directory if it is there, and the
    /// environment. Fails with [`Error::Config`] and every mistake in them.
    pub fn load() -> Result<Self> {
        let named = env::var_os(VARIABLE).filter(|path| !path.is_empty());
        let path = named.as_ref().map_or_else(|| PathBuf::from(FILE), PathBuf::from);
        match fs::read_to_string(&path) {
            Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => Self::new(None, variables()),
            Err(error) => {
                let named = if named.is_some() { format!("{VARIABLE} names {}", path.display()) } else { FILE.into() };
                Err(Error::Config { mistakes: vec![format!("{named}, which cannot be read: {error}")] })
            }
            Ok(text) => Self::new(Some((&path, &text)), variables()),
        }
    }

    /// The file at `path`, and the environment, which goes before it. Fails with [`Error::Config`], also when there is no such file.
    pub fn file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = fs::read_to_string(path);
        let unreadable =
            |error| Error::Config { mistakes: vec![format!("{}: cannot be read: {error}", path.display())] };
        Self::new(Some((path, &text.map_err(unreadable)?)), variables())
    }

    fn new(file: Option<(&Path, &str)>, variables: impl IntoIterator<Item = (String, OsString)>) -> Result<Self> {
        let (mut said, mut mistakes) = (file::Said::default(), Vec::new());
        if let Some((path, text)) = file {
            match file::read(&path.display().to_string(), text) {
                Ok(read) => said = read,
                Err(more) => mistakes = more,
            }
        }
        let environment = environment(variables, &mut mistakes);
        for layer in [&environment, &said.all].into_iter().chain(said.jobs.values().map(|section| &section.settings)) {
            mistakes.extend(two_tokens(layer));
        }
        if !mistakes.is_empty() {
            return Err(Error::Config { mistakes });
        }
        Ok(Self { path: file.map(|(path, _)| path.into()), environment, jobs: said.jobs, all: said.all })
    }

    /// The file it was read from, if there was one.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The names of jobs that have a table of their own in the file.
    pub fn jobs(&self) -> impl Iterator<Item = &str> {
        self.jobs.keys().map(String::as_str)
    }

    /// What holds for the job of this name, and where each value is said. What its code says is not known here: it holds where
    /// this says `default`. Printing it gives lines as they could stand in the file; passwords in URLs are left out.
    pub fn shown(&self, job: &str) -> Shown {
        let setting = |knob: &Knob| match self.found(job, knob.key) {
            Some(Setting { value, from }) => {
                let value = match value {
                    Value::Text(text) => Value::Text(without_secrets(text)).to_string(),
                    value => value.to_string(),
                };
                (Some(value), from.clone())
            }
            None => (None, format!("default: {}", knob.default)),
        };
        let shown = |knob: &Knob| {
            let (value, from) = setting(knob);
            ShownSetting {
                key: knob.key,
                value,
                from,
                meaning: knob.meaning,
                variable: knob.variable(),
                code: knob.code,
            }
        };
        Shown {
            job: job.into(),
            jobs: self.jobs().map(String::from).collect(),
            warning: self.warning(job),
            settings: KNOBS.iter().map(shown).collect(),
        }
    }

    /// That the job of this name has no table of its own in the file, and one is there whose name is near. It may have been meant for it;
    /// or it is for a job of another program that has the same file, so it is no mistake.
    pub(crate) fn warning(&self, job: &str) -> Option<String> {
        if self.jobs.contains_key(job) {
            return None;
        }
        let near = likely(job, self.jobs().filter(|other| is_slip(job, other)))?;
        let Section { from, .. } = self.jobs.get(near)?;
        let is_bare = job.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
        let key = if is_bare { job.to_owned() } else { format!("{job:?}") };
        Some(format!(
            "{from}: the table for job {near:?} does not count for this job, which is called {job:?} and has no table: if it is meant for \
             this one, correct its name; if both names are right, an empty table [{}.{key}] says so",
            file::JOB
        ))
    }

    /// What holds of a knob. There is one token: where a layer says where it is, lower ones do not count, whichever way they say it.
    fn found(&self, job: &str, key: &str) -> Option<&Setting> {
        let own = self.jobs.get(job).map(|section| &section.settings);
        let layers = [Some(&self.environment), own, Some(&self.all)];
        for layer in layers.into_iter().flatten() {
            let found = layer.get(key);
            if found.is_some() || (TOKENS.contains(&key) && TOKENS.iter().any(|token| layer.contains_key(token))) {
                return found;
            }
        }
        None
    }

    /// Over what the code of the job says.
    pub(crate) fn over(&self, job: &str, mut chosen: Chosen) -> Chosen {
        for knob in KNOBS {
            if let Some(setting) = self.found(job, knob.key) {
                (knob.set)(&mut chosen, &setting.value);
            }
        }
        chosen
    }
}

/// The settings of a job, for people. [`Config::shown`] makes it, and [`Config`] has an example.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// The name of the job.
    pub job: String,
    /// The jobs that have a table of their own in the file, of this program and of others.
    pub jobs: Vec<String>,
    /// That there is a table for a job whose name is near, and none for this one: see [`JobHandle::warnings`](crate::JobHandle::warnings).
    pub warning: Option<String>,
    /// Every setting, in the order of the book.
    pub settings: Vec<ShownSetting>,
}

/// One setting of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShownSetting {
    /// Its name in the file.
    pub key: &'static str,
    /// Its value, as it could stand in the file; absent when nothing is configured.
    pub value: Option<String>,
    /// Where it is said: a variable, a file and its line, or what the default is.
    pub from: String,
    /// What it does.
    pub meaning: &'static str,
    /// Its name in the environment.
    pub variable: String,
    /// What says the same in code.
    pub code: &'static str,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = |setting: &ShownSetting| match &setting.value {
            Some(value) => format!("{} = {value}", setting.key),
            None => format!("# {}", setting.key),
        };
        let width = self.settings.iter().map(|setting| said(setting).chars().count()).max().unwrap_or(0);
        for setting in &self.settings {
            writeln!(f, "{:width$}  # {}", said(setting), setting.from)?;
        }
        Ok(())
    }
}

/// The variables of the process whose names begin as ours do.
fn variables() -> impl Iterator<Item = (String, OsString)> {
    let ours = env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    ours.filter(|(name, _)| name.starts_with(PREFIX))
}

/// Both ways to say where the token is, in one place.
fn two_tokens(layer: &Settings) -> Option<String> {
    let [file, env] = TOKENS.map(|token| layer.get(token));
    Some(format!(
        "{} and {}: both serve.token_file and serve.token_env are configured: say one of them",
        file?.from, env?.from
    ))
}

/// What the environment says. Names that are near to that of a knob are mistakes; others may be somebody else's.
fn environment(variables: impl IntoIterator<Item = (String, OsString)>, mistakes: &mut Vec<String>) -> Settings {
    let (names, mut settings): (Vec<String>, _) = (KNOBS.iter().map(Knob::variable).collect(), Settings::new());
    // Compose and its like set what is not set to nothing.
    for (name, value) in variables.into_iter().filter(|(_, value)| !value.is_empty()) {
        let knob = KNOBS.iter().zip(&names).find(|(_, own)| **own == name).map(|(knob, _)| knob);
        let said = match knob {
            Some(knob) => match value.to_str() {
                Some(value) => setting(knob, &Found::Text(value), name).map(|setting| Some((knob.key, setting))),
                None => Err(format!("{name}: {} is not UTF-8", knob.key)),
            },
            None if name == NO_TOKEN => Err(format!(
                "there is no variable {NO_TOKEN}: name the variable or the file that holds the token, with {NO_TOKEN}_ENV or {NO_TOKEN}_FILE"
            )),
            None if OTHERS.contains(&name.as_str()) => Ok(None),
            None => match likely(&name, names.iter().map(String::as_str)).filter(|near| is_typo(&name, near)) {
                Some(near) => Err(format!("there is no variable {name}, did you mean {near}?")),
                None => Ok(None),
            },
        };
        match said {
            Ok(said) => settings.extend(said),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    settings
}

/// The knobs that say where the token is.
const TOKENS: [&str; 2] = ["serve.token_file", "serve.token_env"];
/// Variables that have to do with Windrow and are no knobs of jobs.
const OTHERS: [&str; 2] = [VARIABLE, "WINDROW_TOKEN"];
/// What is not to be set: it would be shown with the environment of the process, and handed on to others.
const NO_TOKEN: &str = "WINDROW_SERVE_TOKEN";

/// Whether one was meant by the other: their names have the same beginning in common, so what differs is all the more likely a slip.
fn is_typo(name: &str, near: &str) -> bool {
    let own = |name: &'_ str| name.strip_prefix(PREFIX).unwrap_or_default().to_owned();
    name.len().abs_diff(near.len()) <= 2 && likely(&own(name), std::iter::once(own(near).as_str())).is_some()
}

/// Whether one of two names of jobs may be a slip for the other. `orders-eu` and `orders-us` are two jobs, and so are `orders_1` and
/// `orders_2`: names that differ in one part alone do so on purpose, unless it is a single slip in a word.
fn is_slip(job: &str, other: &str) -> bool {
    if job.eq_ignore_ascii_case(other) {
        return true;
    }
    let undigited = |name: &str| name.replace(|c: char| c.is_ascii_digit(), "");
    let has_a_part_more =
        |long: &str, short: &str| long.strip_prefix(short).is_some_and(|rest| rest.starts_with(SEPARATORS));
    if undigited(job) == undigited(other) || has_a_part_more(job, other) || has_a_part_more(other, job) {
        return false;
    }
    let [own, its] = [job, other].map(|name| name.split(SEPARATORS).collect::<Vec<_>>());
    let mut differ = own.iter().zip(&its).filter(|(own, its)| own != its);
    match (own.len() > 1 && own.len() == its.len(), differ.next(), differ.next()) {
        (true, Some((own, its)), None) => own.len().min(its.len()) >= WORD && is_single_slip(own, its),
        _ => levenshtein(job, other) <= 2,
    }
}

/// One letter too many, too few or another one, or two that have changed places.
fn is_single_slip(one: &str, other: &str) -> bool {
    let letters = |name: &str| {
        let mut letters: Vec<char> = name.chars().collect();
        letters.sort_unstable();
        letters
    };
    match levenshtein(one, other) {
        0 | 1 => true,
        2 => letters(one) == letters(other),
        _ => false,
    }
}

/// What parts the names of jobs.
const SEPARATORS: [char; 3] = ['-', '_', '.'];
/// So many bytes are a word; fewer are a sign, such as that of a country.
const WORD: usize = 4;

/// A setting, or what is wrong with its value.
fn setting(knob: &Knob, found: &Found<'_>, from: String) -> Result<Setting, String> {
    match knob.kind.read(found) {
        Some(value) => Ok(Setting { value, from }),
        // It may be the token itself.
        None if knob.kind == Kind::Name => Err(format!(
            "{from}: {} is not {}: it names the variable that holds the token, and does not hold it",
            knob.key,
            knob.expected()
        )),
        None => Err(format!("{from}: {} is {found}, which is not {}", knob.key, knob.expected())),
    }
}

/// Why a key that would hold a secret is none. Its value is not looked at.
fn refused_secret(key: &str) -> Option<String> {
    let key = key.to_lowercase();
    let holds = ["password", "passphrase", "secret", "token"].iter().any(|part| key.contains(part));
    let names = key.ends_with("_file") || key.ends_with("_env");
    (holds && !names).then(|| {
        format!("{key:?} would hold a secret, and files are copied and shown: name a file or a variable that holds it")
    })
}

fn did_you_mean(key: &str, known: &[&str]) -> String {
    match likely(key, known.iter().copied()) {
        Some(near) => format!(", did you mean {near:?}?"),
        None => format!("; there are {}", known.join(", ")),
    }
}
