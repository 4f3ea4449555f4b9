//! Kafka's jars: fetched once per machine with Maven, into a cache outside the repository, and checked.
//!
//! ```text
//! pom.xml ──mvn──> .fetch-XXXX/*.jar ──sha256sum -c jars.sha256──> rename ──> CACHE/kafka-4.1.0-HASH/*.jar
//!                  (in the same folder, so that the rename is one step)
//! ```
//!
//! Every jar is pinned, also those that Kafka asks for. Several test processes may want them at once: a lock on a file
//! beside the folder lets one fetch and the others wait.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::Result;

const POM: &str = include_str!("pom.xml");
const SUMS: &str = include_str!("jars.sha256");
const LOGGING: &str = include_str!("log4j2.xml");

/// With its version, so that Maven does not look for the newest.
const COPY: &str = "org.apache.maven.plugins:maven-dependency-plugin:2.8:copy-dependencies";

/// The folder of Kafka's jars.
#[derive(Clone, Debug)]
pub(super) struct Jars(PathBuf);

impl Jars {
    /// Finds the jars or fetches them. None without Java, or without Maven where they are not there yet.
    pub(super) fn get() -> Result<Option<Self>> {
        if !is_there("java") {
            return Ok(None);
        }
        let cache = cache()?;
        let jars = Self(cache.join(name()));
        if jars.0.exists() {
            return Ok(Some(jars));
        }
        fs::create_dir_all(&cache)?;
        let lock = File::create(cache.join("kafka.lock"))?;
        lock.lock()?;
        // Somebody else may have fetched them while this process waited.
        if !jars.0.exists() {
            if !is_there("mvn") {
                return Ok(None);
            }
            fetch(&cache, &jars.0)?;
        }
        Ok(Some(jars))
    }

    /// A Java virtual machine that runs a class of these jars, with at most so much memory.
    ///
    /// It compiles quickly rather than well, unless it is `thorough`: most brokers here live for seconds.
    pub(super) fn java(&self, class: &str, heap_megabytes: u32, thorough: bool) -> Vec<String> {
        let logging = format!("-Dlog4j2.configurationFile={}", self.0.join("log4j2.xml").display());
        let mut words = vec!["java".into(), format!("-Xmx{heap_megabytes}m"), "-XX:+UseSerialGC".into(), logging];
        if !thorough {
            words.push("-XX:TieredStopAtLevel=1".into());
        }
        words.extend(["-cp".into(), format!("{}/*", self.0.display()), class.into()]);
        words
    }
}

/// Whether a command can be found.
pub(super) fn is_there(command: &str) -> bool {
    let paths = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&paths).any(|folder| folder.join(command).is_file())
}

/// Another pin, another folder.
fn name() -> String {
    let mut hasher = DefaultHasher::new();
    (POM, SUMS, LOGGING).hash(&mut hasher);
    format!("kafka-4.1.0-{:016x}", hasher.finish())
}

fn cache() -> Result<PathBuf> {
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = variable("WINDROW_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("windrow")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/windrow")));
    cache.ok_or_else(|| "nowhere to keep Kafka's jars: set WINDROW_CACHE to a folder".into())
}

fn fetch(cache: &Path, target: &Path) -> Result<()> {
    let folder = tempfile::Builder::new().prefix(".fetch-").tempdir_in(cache)?;
    let place = folder.path();
    fs::write(place.join("pom.xml"), POM)?;
    fs::write(place.join("jars.sha256"), SUMS)?;
    fs::write(place.join("log4j2.xml"), LOGGING)?;
    let libraries = format!("-DoutputDirectory={}", place.display());
    let words = ["600", "mvn", "-B", "-q", COPY, &libraries, "-DincludeScope=runtime"];
    run(place, "timeout", words).map_err(|error| format!("Kafka's jars cannot be fetched with Maven: {error}"))?;
    run(place, "sha256sum", ["--quiet", "--strict", "-c", "jars.sha256"])
        .map_err(|error| format!("Kafka's jars are not what tests/broker/jars.sha256 says: {error}"))?;
    fs::rename(folder.keep(), target)?;
    Ok(())
}

/// Runs a command to its good end.
pub(super) fn run<S: AsRef<OsStr>>(place: &Path, command: &str, words: impl IntoIterator<Item = S>) -> Result<Vec<u8>> {
    let mut process = Command::new(command);
    let output = process.args(words).current_dir(place).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{command}: {error}"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = [output.stdout, output.stderr].concat();
    Err(format!("{command} ended with {}, and said:\n{}", output.status, String::from_utf8_lossy(&said)).into())
}
