//! Schema registries: where producers leave the schemas of their messages, and consumers find them by number.
//!
//! ```text
//!   a message: 0 │ id, four bytes │ content          "orders-value" ──► versions ──► ids ──► schemas
//!                      │                                   ▲                          ▲
//!                      └─► SchemaRegistry::schema ─────────┼──── kept for ever ───────┘
//!   a sink ──────────────► SchemaRegistry::register ───────┘
//! ```
//!
//! Any registry that speaks Confluent's REST API: its own, Karapace, Apicurio, Redpanda. An id means the same schema for ever, so
//! what was fetched once is never fetched again. All calls block: make them where waiting is allowed.
//!
//! That the registry *does not have* an id, or has something for it that is no schema for us, is an answer, and the record with that
//! id is rejected; that the registry *does not answer* is an error, which says nothing of the record.
//!
//! | file | why it exists |
//! |---|---|
//! | `client` | requests, tries again, who asks, and what the answers mean |

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{ConnectorError, Result, Secret};

mod client;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use client::{Answer, Client, LONGEST_ANSWER, Login};

/// How many schemas are kept. A job meets a handful.
const MOST_KEPT: usize = 10_000;
/// How many registered schemas are remembered. More are registered again, which changes nothing.
const MOST_WRITTEN: usize = 1_000;
/// How long an id without a schema is not asked for again: garbage must not become a flood of requests, and a schema that is
/// registered late is found soon.
const UNKNOWN_FOR: Duration = Duration::from_secs(30);
/// So many such ids are asked for within that time as fast as their records come. Then each question waits for its share of it: a
/// record with the id of a new schema may be among the garbage, so it is asked for all the same.
const MOST_UNKNOWN: usize = 1_000;
/// So many are asked for twice: what was just registered is not known to all addresses at once. More of them are garbage.
const ASKED_TWICE: usize = 20;
const MOST_REFERENCES: usize = 1_000;
/// A schema and all that it refers to.
const LONGEST: usize = 16 * LONGEST_ANSWER as usize;

/// What stands in front of a message: a zero, and the id of its schema.
pub(crate) fn frame(id: u32) -> [u8; 5] {
    let [a, b, c, d] = id.to_be_bytes();
    [0, a, b, c, d]
}

/// The id in front of a message, and what is behind it; or why there is none, in words.
pub(crate) fn unframed(message: &[u8]) -> Result<(u32, &[u8]), String> {
    match message.split_first_chunk::<5>() {
        Some(([0, id @ ..], content)) => Ok((u32::from_be_bytes(*id), content)),
        _ => Err("no schema id: a record from a registry begins with a zero and four bytes of it".to_string()),
    }
}

/// The language of a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SchemaKind {
    /// Avro, in JSON.
    Avro,
    /// Protobuf, a `.proto` file.
    Protobuf,
    /// JSON Schema.
    Json,
}

impl SchemaKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Avro => "AVRO",
            Self::Protobuf => "PROTOBUF",
            Self::Json => "JSON",
        }
    }
}

impl fmt::Display for SchemaKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Avro => "Avro",
            Self::Protobuf => "Protobuf",
            Self::Json => "JSON Schema",
        })
    }
}

/// A schema as the registry has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredSchema {
    /// Its number, which stands in front of each message.
    pub id: u32,
    /// Its language.
    pub kind: SchemaKind,
    /// Its text.
    pub text: String,
    /// The schemas it refers to, and those that they refer to: each once, and behind those it needs itself.
    pub references: Vec<ReferencedSchema>,
}

/// A schema that another one refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferencedSchema {
    /// What it is called there: the full name of an Avro type, the path of a Protobuf file.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// A schema registry. A clone is the same one, with the same schemas kept.
///
/// ```
/// use windrow_connectors::{Secret, SchemaRegistry};
///
/// let registry = SchemaRegistry::at("https://registry:8081")
///     .basic_auth("ada", Secret::env("REGISTRY_PASSWORD"))
///     .ca_file("/etc/ssl/our-ca.pem");
/// assert_eq!(registry.name(), "schema registry https://registry:8081");
/// ```
#[derive(Clone)]
pub struct SchemaRegistry {
    client: Client,
    kept: Arc<Mutex<Kept>>,
    written: Arc<Mutex<Written>>,
}

/// The ids of what was registered, by subject, kind and text.
type Written = HashMap<(String, SchemaKind, String), u32>;

/// What need not be asked again.
#[derive(Default)]
struct Kept {
    schemas: BTreeMap<u32, Arc<RegisteredSchema>>,
    /// Ids without a schema: why not, and since when it is known.
    unknown: HashMap<u32, (Instant, String)>,
}

/// Why there is no schema.
enum Trouble {
    /// The registry's answer says that what it has is none for us.
    Unusable(String),
    /// There is no answer.
    Error(ConnectorError),
}

impl From<ConnectorError> for Trouble {
    fn from(error: ConnectorError) -> Self {
        Self::Error(error)
    }
}

impl SchemaRegistry {
    /// The registry at this address, `http://host:port` or `https://host:port`. Several, separated by commas, are one registry:
    /// they are tried in this order. Nothing is asked yet; an address that is none is reported by the first call.
    pub fn at(addresses: impl AsRef<str>) -> Self {
        Self { client: Client::new(addresses.as_ref()), kept: Arc::default(), written: Arc::default() }
    }

    /// Asks as this user.
    #[must_use]
    pub fn basic_auth(self, user: impl Into<String>, password: Secret) -> Self {
        self.with(|client| client.login = Login::Basic { user: user.into(), password })
    }

    /// Asks with this token.
    #[must_use]
    pub fn bearer(self, token: Secret) -> Self {
        self.with(|client| client.login = Login::Bearer(token))
    }

    /// Trusts the certificates in this PEM file, and no others.
    #[must_use]
    pub fn ca_file(self, path: impl Into<PathBuf>) -> Self {
        self.with(|client| client.ca_file = Some(path.into()))
    }

    #[cfg(test)]
    pub(crate) fn patience(self, timeout: Duration, pause: Duration) -> Self {
        self.with(|client| {
            client.timeout = timeout;
            client.pause = pause;
        })
    }

    /// Another way of asking is another registry: nothing is shared with clones made before.
    fn with(self, change: impl FnOnce(&mut Client)) -> Self {
        let mut client = self.client.changed();
        change(&mut client);
        Self { client, kept: Arc::default(), written: Arc::default() }
    }

    /// What to call it in messages.
    pub fn name(&self) -> String {
        format!("schema registry {}", self.client.name())
    }

    /// What is allowed and unwise: a password or token that is sent without encryption.
    pub fn warnings(&self) -> Vec<String> {
        let warning = format!(
            "{}: whoever sees the network can read the login: give addresses that begin with https",
            self.name()
        );
        self.client.shows_login().then_some(warning).into_iter().collect()
    }

    /// The schema with this id. The inner error is the reason to reject a record that has it: the registry says that there is no
    /// such schema, or what it has cannot be used. Blocks.
    ///
    /// # Errors
    /// When the registry does not answer after three tries of 5 s each (`Remote`, passes), or refuses the login (does not pass).
    pub fn schema(&self, id: u32) -> Result<Result<Arc<RegisteredSchema>, String>> {
        let unknown = {
            let kept = self.kept();
            if let Some(schema) = kept.schemas.get(&id) {
                return Ok(Ok(schema.clone()));
            }
            if let Some((since, why)) = kept.unknown.get(&id)
                && since.elapsed() < UNKNOWN_FOR
            {
                return Ok(Err(why.clone()));
            }
            kept.unknown.values().filter(|(since, _)| since.elapsed() < UNKNOWN_FOR).count()
        };
        if unknown >= MOST_UNKNOWN {
            thread::sleep(UNKNOWN_FOR / MOST_UNKNOWN as u32);
        }
        let found = match self.ask(id, unknown < ASKED_TWICE) {
            Ok(Some(schema)) => Ok(Arc::new(schema)),
            Ok(None) => Err(format!("schema id {id} is not in the {}", self.name())),
            Err(Trouble::Unusable(why)) => Err(format!("schema id {id} in the {} is unusable: {why}", self.name())),
            Err(Trouble::Error(error)) => return Err(error),
        };
        self.kept().keep(id, &found);
        Ok(found)
    }

    /// Asks for a schema, with `twice` at another time and of another address again if there is none.
    fn ask(&self, id: u32, twice: bool) -> Result<Option<RegisteredSchema>, Trouble> {
        let tries = if twice { self.client.addresses().max(2) } else { 1 };
        for first in 0..tries {
            if first > 0 {
                thread::sleep(self.client.pause);
            }
            match self.client.call_from(first, &["schemas", "ids", &id.to_string()], None)? {
                Answer::Yes(answer) => return self.registered(id, &answer).map(Some),
                // Only this number says "no such schema": 404 alone is what a wrong address answers.
                Answer::No { code: 40403, .. } => {}
                Answer::TooLong => return Err(too_long()),
                no => return Err(self.refused(&format!("schema id {id}"), no).into()),
            }
        }
        Ok(None)
    }

    /// The newest schema of a subject, as `orders-value`. Blocks.
    ///
    /// # Errors
    /// As [`SchemaRegistry::schema`]; and `Config` if there is no such subject, or its schema cannot be used.
    pub fn latest(&self, subject: &str) -> Result<Arc<RegisteredSchema>> {
        self.find_latest(subject)?.ok_or_else(|| {
            ConnectorError::Config(format!("the {} has no schema for the subject {subject:?}", self.name()))
        })
    }

    /// As [`SchemaRegistry::latest`]; `None` if there is no such subject.
    pub(crate) fn find_latest(&self, subject: &str) -> Result<Option<Arc<RegisteredSchema>>> {
        match self.client.call(&["subjects", subject, "versions", "latest"], None)? {
            Answer::Yes(answer) => {
                let id = self.id(&answer)?;
                match self.registered(id, &answer) {
                    Ok(schema) => Ok(Some(Arc::new(schema))),
                    Err(Trouble::Error(error)) => Err(error),
                    Err(Trouble::Unusable(why)) => Err(ConnectorError::Config(format!(
                        "the newest schema of the subject {subject:?} in the {} is unusable: {why}",
                        self.name()
                    ))),
                }
            }
            Answer::No { code: 40401 | 40402, .. } => Ok(None),
            no => Err(self.refused(&format!("subject {subject:?}"), no)),
        }
    }

    /// Registers a schema, unless it is there already, and gives its id. What was registered once is not asked for again: every
    /// writer of a job asks, and one question is enough. Blocks.
    ///
    /// # Errors
    /// As [`SchemaRegistry::schema`]; and `Config`, with what the registry says, if the schema is not compatible with the former
    /// ones of the subject, or not valid.
    pub fn register(&self, subject: &str, kind: SchemaKind, text: &str) -> Result<u32> {
        let key = (subject.to_string(), kind, text.to_string());
        // Held while the registry is asked: the other writers wait for the same answer.
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = written.get(&key) {
            return Ok(*id);
        }
        let id = match self.client.call(&["subjects", subject, "versions"], Some(&request(kind, text)))? {
            Answer::Yes(answer) => self.id(&answer)?,
            no => return Err(self.refused(&format!("the new schema of subject {subject:?}"), no)),
        };
        if written.len() >= MOST_WRITTEN {
            written.clear();
        }
        written.insert(key, id);
        Ok(id)
    }

    /// The id of a schema that is registered already; `None` if it is not. Blocks.
    ///
    /// # Errors
    /// As [`SchemaRegistry::register`].
    pub fn lookup(&self, subject: &str, kind: SchemaKind, text: &str) -> Result<Option<u32>> {
        match self.client.call(&["subjects", subject], Some(&request(kind, text)))? {
            Answer::Yes(answer) => self.id(&answer).map(Some),
            Answer::No { code: 40401 | 40403, .. } => Ok(None),
            no => Err(self.refused(&format!("subject {subject:?}"), no)),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn registered(&self, id: u32, answer: &Value) -> Result<RegisteredSchema, Trouble> {
        let kind = match answer.get("schemaType").and_then(Value::as_str) {
            None | Some("AVRO") => SchemaKind::Avro,
            Some("PROTOBUF") => SchemaKind::Protobuf,
            Some("JSON") => SchemaKind::Json,
            Some(other) => {
                return Err(Trouble::Unusable(format!("its type is {:?}", crate::format::excerpt(other))));
            }
        };
        let mut references = Vec::new();
        let text = self.text(answer)?;
        self.references(answer, &mut references, &mut HashSet::new())?;
        Ok(RegisteredSchema { id, kind, text, references })
    }

    /// What the schema in `answer` refers to, those without needs of their own first. Depth first, with a stack of its own: how
    /// deep references go is the registry's choice.
    fn references(
        &self,
        answer: &Value,
        found: &mut Vec<ReferencedSchema>,
        seen: &mut HashSet<(String, String, u64)>,
    ) -> Result<(), Trouble> {
        enum Task {
            Visit(Reference),
            Done(ReferencedSchema),
        }
        let mut bytes = 0;
        let mut tasks: Vec<Task> = self.referred(answer)?.into_iter().rev().map(Task::Visit).collect();
        while let Some(task) = tasks.pop() {
            match task {
                Task::Done(schema) => found.push(schema),
                Task::Visit(Reference { name, subject, version }) => {
                    if !seen.insert((name.clone(), subject.clone(), version)) {
                        continue;
                    }
                    if seen.len() > MOST_REFERENCES {
                        return Err(Trouble::Unusable(format!("it has more than {MOST_REFERENCES} references")));
                    }
                    let what = format!("version {version} of subject {subject:?}, which it refers to");
                    let answer =
                        match self.client.call(&["subjects", &subject, "versions", &version.to_string()], None)? {
                            Answer::Yes(answer) => answer,
                            // 404 alone is what a wrong address answers.
                            Answer::No { code: 40400..=40499, message } => {
                                return Err(Trouble::Unusable(format!("{what}, is not there: {message}")));
                            }
                            Answer::TooLong => return Err(too_long()),
                            no => return Err(self.refused(&what, no).into()),
                        };
                    let text = self.text(&answer)?;
                    bytes += text.len();
                    if bytes > LONGEST {
                        return Err(Trouble::Unusable(format!("with its references it has more than {LONGEST} bytes")));
                    }
                    tasks.push(Task::Done(ReferencedSchema { name, text }));
                    tasks.extend(self.referred(&answer)?.into_iter().rev().map(Task::Visit));
                }
            }
        }
        Ok(())
    }

    fn referred(&self, answer: &Value) -> Result<Vec<Reference>> {
        let Some(list) = answer.get("references").and_then(Value::as_array) else { return Ok(Vec::new()) };
        list.iter()
            .map(|reference| {
                Some(Reference {
                    name: reference.get("name")?.as_str()?.to_string(),
                    subject: reference.get("subject")?.as_str()?.to_string(),
                    version: reference.get("version")?.as_u64()?,
                })
            })
            .collect::<Option<_>>()
            .ok_or_else(|| self.senseless("a reference without a name, subject and version"))
    }

    fn text(&self, answer: &Value) -> Result<String> {
        let text = answer.get("schema").and_then(Value::as_str);
        text.map(str::to_string).ok_or_else(|| self.senseless("no schema"))
    }

    fn id(&self, answer: &Value) -> Result<u32> {
        let id = answer.get("id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| self.senseless("no id"))
    }

    fn senseless(&self, what: &str) -> ConnectorError {
        self.client.remote(format!("it answered with {what}: is this the address of a schema registry?"), true)
    }

    fn refused(&self, what: &str, answer: Answer) -> ConnectorError {
        let (code, message) = match answer {
            Answer::No { code, message } => (code, message),
            Answer::TooLong => {
                return self.client.remote(format!("its answer is longer than {LONGEST_ANSWER} bytes"), false);
            }
            Answer::Yes(_) => return self.senseless("a surprise"),
        };
        match code {
            409 | 40901 => ConnectorError::Config(format!(
                "{what} is not compatible with the former ones, says the {}: {message}. Change the columns, the subject, or its \
                 compatibility level",
                self.name()
            )),
            422 | 42200..=42299 => {
                ConnectorError::Config(format!("{what} is not valid, says the {}: {message}", self.name()))
            }
            _ => self.client.remote(format!("{what}: {message} (error {code})"), true),
        }
    }
}

fn too_long() -> Trouble {
    Trouble::Unusable(format!("it, or a schema that it refers to, is longer than {LONGEST_ANSWER} bytes"))
}

impl Kept {
    fn keep(&mut self, id: u32, found: &Result<Arc<RegisteredSchema>, String>) {
        match found {
            Ok(schema) => {
                if self.schemas.len() >= MOST_KEPT {
                    self.schemas.pop_first();
                }
                self.unknown.remove(&id);
                self.schemas.insert(id, schema.clone());
            }
            Err(why) => {
                if self.unknown.len() >= MOST_UNKNOWN {
                    self.unknown.retain(|_, (since, _)| since.elapsed() < UNKNOWN_FOR);
                }
                // Of those that are left the one that would be forgotten first.
                let oldest = self.unknown.iter().min_by_key(|(_, (since, _))| *since).map(|(id, _)| *id);
                if let Some(oldest) = oldest.filter(|_| self.unknown.len() >= MOST_UNKNOWN) {
                    self.unknown.remove(&oldest);
                }
                self.unknown.insert(id, (Instant::now(), why.clone()));
            }
        }
    }
}

impl fmt::Debug for SchemaRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SchemaRegistry").field(&self.client.name()).finish()
    }
}

struct Reference {
    name: String,
    subject: String,
    version: u64,
}

fn request(kind: SchemaKind, text: &str) -> Value {
    match kind {
        // Registries from before there were other kinds do not know the field.
        SchemaKind::Avro => json!({ "schema": text }),
        kind => json!({ "schema": text, "schemaType": kind.as_str() }),
    }
}
