//! A schema registry in memory, which speaks the public REST interface of Confluent's, and can be told to fail.
//!
//! | request | answer |
//! |---|---|
//! | `POST /subjects/S/versions` | registers; the same schema has the same id under every subject |
//! | `POST /subjects/S` | looks up: id and version of a schema |
//! | `GET /subjects`, `/subjects/S/versions`, `/subjects/S/versions/V`, `…/V/schema` | V is a number or `latest` |
//! | `GET /schemas/ids/I`, `/schemas/ids/I/versions`, `/schemas/types` | the schema; where it is used |
//!
//! Written from <https://docs.confluent.io/platform/current/schema-registry/develop/api.html>. Schemas are text here: it
//! refuses those that are not JSON where the kind asks for JSON, and does not judge compatibility.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tiny_http::{Header, Method, Request, Response, Server};

use super::Result;

const CONTENT: &str = "application/vnd.schemaregistry.v1+json";

/// How the registry answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    /// As it should.
    #[default]
    Well,
    /// Every request with this status, such as 500, 429, or 409 for a schema that is not compatible.
    Fails(u16),
    /// As it should, but a while later.
    Slow(Duration),
    /// With a page that is not JSON, as a web server in front of it may.
    Babbles,
}

/// A registry on a free loopback port. It ends when it is dropped.
pub struct Registry {
    server: Arc<Server>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    mood: Mood,
    /// What `Authorization` must say.
    password: Option<String>,
    /// By id, which begins with 1.
    schemas: Vec<Schema>,
    /// In order of registration.
    versions: Vec<Version>,
    requests: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
struct Schema {
    text: String,
    kind: String,
    references: Value,
}

struct Version {
    subject: String,
    version: usize,
    id: usize,
}

/// A status, and what goes with it.
type Answer = (u16, Value);

impl Registry {
    /// Starts one.
    ///
    /// # Errors
    ///
    /// When there is no free port.
    pub fn start() -> Result<Self> {
        let server = Arc::new(Server::http("127.0.0.1:0")?);
        let state = Arc::<Mutex<State>>::default();
        // More than one, so that a slow answer does not hold up the others.
        for _ in 0..4 {
            let (server, state) = (server.clone(), state.clone());
            thread::spawn(move || {
                while let Ok(request) = server.recv() {
                    respond(request, &state);
                }
            });
        }
        Ok(Self { server, state })
    }

    /// Its address: `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.server.server_addr())
    }

    /// Changes how it answers from now on.
    pub fn set_mood(&self, mood: Mood) {
        lock(&self.state).mood = mood;
    }

    /// Asks for a user and password from now on (HTTP Basic).
    pub fn protect(&self, user: &str, password: &str) {
        lock(&self.state).password = Some(format!("Basic {}", base64(format!("{user}:{password}").as_bytes())));
    }

    /// Registers a schema of a kind (`AVRO`, `PROTOBUF` or `JSON`) and returns its id.
    ///
    /// # Errors
    ///
    /// When it is no schema of that kind.
    pub fn register(&self, subject: &str, kind: &str, schema: &str) -> Result<u32> {
        let body = json!({ "schemaType": kind, "schema": schema });
        let (status, answer) = lock(&self.state).register(subject, &body);
        let id = answer["id"].as_u64().ok_or_else(|| format!("{status}: {answer}"))?;
        Ok(u32::try_from(id)?)
    }

    /// The requests so far, such as `GET /schemas/ids/1`.
    pub fn requests(&self) -> Vec<String> {
        lock(&self.state).requests.clone()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        (0..4).for_each(|_| self.server.unblock());
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn respond(mut request: Request, state: &Mutex<State>) {
    let mut body = String::new();
    // A body that is not text is no schema, which it is told below.
    let _ = request.as_reader().read_to_string(&mut body);
    let mood = {
        let mut state = lock(state);
        state.requests.push(format!("{} {}", request.method(), request.url()));
        state.mood
    };
    if let Mood::Slow(delay) = mood {
        thread::sleep(delay);
    }
    let (status, answer) = match mood {
        Mood::Fails(status) => error(status, u32::from(status), "The registry has been told to fail."),
        _ => lock(state).answer(&request, &body),
    };
    let text = if mood == Mood::Babbles { "<html>It works!</html>".into() } else { answer.to_string() };
    let mut response = Response::from_string(text).with_status_code(status);
    if let Ok(header) = Header::from_bytes("Content-Type", CONTENT) {
        response.add_header(header);
    }
    // The client may have gone.
    let _ = request.respond(response);
}

impl State {
    fn answer(&mut self, request: &Request, body: &str) -> Answer {
        let said = request.headers().iter().find(|header| header.field.equiv("Authorization"));
        if self.password.as_deref().is_some_and(|password| said.is_none_or(|said| said.value.as_str() != password)) {
            return error(401, 401, "Unauthorized");
        }
        let path = request.url().split('?').next().unwrap_or_default();
        let parts: Vec<String> = path.split('/').filter(|part| !part.is_empty()).map(decoded).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match (request.method(), parts.as_slice()) {
            (Method::Get, ["subjects"]) => (200, json!(self.subjects())),
            (Method::Get, ["subjects", subject, "versions"]) => self.versions(subject),
            (Method::Get, ["subjects", subject, "versions", version]) => self.version(subject, version),
            (Method::Get, ["subjects", subject, "versions", version, "schema"]) => match self.version(subject, version)
            {
                (200, found) => (200, found["schema"].as_str().map_or(Value::Null, raw)),
                other => other,
            },
            (Method::Get, ["schemas", "types"]) => (200, json!(["AVRO", "JSON", "PROTOBUF"])),
            (Method::Get, ["schemas", "ids", id]) => self.schema(id),
            (Method::Get, ["schemas", "ids", id, "versions"]) => self.uses(id),
            (Method::Post, ["subjects", subject, "versions"]) => match serde_json::from_str(body) {
                Ok(body) => self.register(subject, &body),
                Err(why) => error(400, 400, &why.to_string()),
            },
            (Method::Post, ["subjects", subject]) => match serde_json::from_str(body) {
                Ok(body) => self.look_up(subject, &body),
                Err(why) => error(400, 400, &why.to_string()),
            },
            _ => error(404, 404, "HTTP 404 Not Found"),
        }
    }

    fn register(&mut self, subject: &str, body: &Value) -> Answer {
        let schema = match Schema::of(body) {
            Ok(schema) => schema,
            Err(why) => return error(422, 42201, &why),
        };
        let index = self.schemas.iter().position(|known| *known == schema).unwrap_or_else(|| {
            self.schemas.push(schema);
            self.schemas.len() - 1
        });
        let id = index + 1;
        let versions = self.of(subject).count();
        if !self.of(subject).any(|version| version.id == id) {
            self.versions.push(Version { subject: subject.into(), version: versions + 1, id });
        }
        (200, json!({ "id": id }))
    }

    fn look_up(&self, subject: &str, body: &Value) -> Answer {
        if self.of(subject).next().is_none() {
            return no_subject(subject);
        }
        let schema = Schema::of(body).ok();
        let found = self.of(subject).find(|version| self.schemas.get(version.id - 1) == schema.as_ref());
        found.map_or_else(|| error(404, 40403, "Schema not found"), |version| (200, self.whole(version)))
    }

    fn of<'a>(&'a self, subject: &'a str) -> impl Iterator<Item = &'a Version> {
        self.versions.iter().filter(move |version| version.subject == subject)
    }

    fn subjects(&self) -> Vec<&str> {
        let mut subjects: Vec<&str> = self.versions.iter().map(|version| version.subject.as_str()).collect();
        subjects.sort_unstable();
        subjects.dedup();
        subjects
    }

    fn versions(&self, subject: &str) -> Answer {
        let versions: Vec<usize> = self.of(subject).map(|version| version.version).collect();
        if versions.is_empty() { no_subject(subject) } else { (200, json!(versions)) }
    }

    fn version(&self, subject: &str, version: &str) -> Answer {
        if self.of(subject).next().is_none() {
            return no_subject(subject);
        }
        let found = match version.parse::<usize>() {
            Ok(number) => self.of(subject).find(|version| version.version == number),
            Err(_) if version == "latest" || version == "-1" => self.of(subject).last(),
            Err(_) => return error(422, 42202, "The specified version is not a valid version id."),
        };
        found.map_or_else(|| error(404, 40402, "Version not found."), |version| (200, self.whole(version)))
    }

    fn whole(&self, version: &Version) -> Value {
        let mut whole = self.schemas.get(version.id - 1).map(Schema::said).unwrap_or_default();
        whole["subject"] = json!(version.subject);
        whole["version"] = json!(version.version);
        whole["id"] = json!(version.id);
        whole
    }

    fn schema(&self, id: &str) -> Answer {
        let index = id.parse::<usize>().ok().and_then(|id| id.checked_sub(1));
        match index.and_then(|index| self.schemas.get(index)) {
            Some(schema) => (200, schema.said()),
            None => error(404, 40403, &format!("Schema {id} not found")),
        }
    }

    fn uses(&self, id: &str) -> Answer {
        let uses = self.versions.iter().filter(|version| version.id.to_string() == id);
        let uses = uses.map(|version| json!({ "subject": version.subject, "version": version.version }));
        (200, Value::Array(uses.collect()))
    }
}

impl Schema {
    fn of(body: &Value) -> Result<Self, String> {
        let text = body["schema"].as_str().ok_or("Empty schema")?;
        let kind = body["schemaType"].as_str().unwrap_or("AVRO");
        let known = ["AVRO", "JSON", "PROTOBUF"].contains(&kind);
        if !known || (kind != "PROTOBUF" && serde_json::from_str::<Value>(text).is_err()) {
            return Err(format!("Invalid schema of type {kind}"));
        }
        let references = body.get("references").filter(|all| all.as_array().is_some_and(|all| !all.is_empty()));
        Ok(Self { text: text.into(), kind: kind.into(), references: references.cloned().unwrap_or_default() })
    }

    /// Avro is not named: it is what a client expects.
    fn said(&self) -> Value {
        let mut said = json!({ "schema": self.text });
        if self.kind != "AVRO" {
            said["schemaType"] = json!(self.kind);
        }
        if !self.references.is_null() {
            said["references"] = self.references.clone();
        }
        said
    }
}

fn no_subject(subject: &str) -> Answer {
    error(404, 40401, &format!("Subject '{subject}' not found."))
}

fn error(status: u16, code: u32, message: &str) -> Answer {
    (status, json!({ "error_code": code, "message": message }))
}

/// A schema that is JSON is sent as it is, not as a string in JSON.
fn raw(schema: &str) -> Value {
    serde_json::from_str(schema).unwrap_or_else(|_| json!(schema))
}

/// A part of a path without its `%2F`.
fn decoded(part: &str) -> String {
    percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned()
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let letters = |chunk: &[u8]| {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        let letter = |index: usize| char::from(LETTERS[(bits >> (18 - 6 * index)) as usize & 63]);
        let used = chunk.len() + 1;
        (0..4).map(|index| if index < used { letter(index) } else { '=' }).collect::<String>()
    };
    bytes.chunks(3).map(letters).collect()
}
