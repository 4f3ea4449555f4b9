//! A registry in memory, behind a real socket, that can be made to fail: for tests. It needs nothing of this crate.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::{Value, json};
use tiny_http::{Header, Method, Request, Response, Server};

/// How it answers.
#[derive(Clone, Debug, Default)]
pub(crate) enum Mood {
    #[default]
    Fine,
    /// With this status, and a body that is no JSON.
    Status(u16),
    /// With status 200 and nonsense.
    Garbage,
    /// With status 200 and this JSON.
    Json(Value),
    /// After this time.
    Slow(Duration),
    /// With this many bytes.
    Long(usize),
    /// With a redirect.
    Redirect(String),
}

/// A schema, as it was registered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) id: u32,
    pub(crate) kind: String,
    pub(crate) text: String,
    /// Name, subject, version.
    pub(crate) references: Vec<(String, String, u64)>,
}

#[derive(Debug, Default)]
struct State {
    mood: Mood,
    subjects: HashMap<String, Vec<Entry>>,
    /// Subjects that take no new schema.
    closed: Vec<String>,
    /// Method, path and authorization of each request.
    requests: Vec<(String, String, Option<String>)>,
    next_id: u32,
    /// What a request must bring to be answered.
    password: Option<String>,
}

/// The registry. It ends with its value.
pub(crate) struct FakeRegistry {
    server: Arc<Server>,
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
    pub(crate) url: String,
}

impl FakeRegistry {
    pub(crate) fn start() -> Self {
        let server = Arc::new(Server::http("127.0.0.1:0").unwrap());
        let address: SocketAddr = server.server_addr().to_ip().unwrap();
        let state = Arc::new(Mutex::new(State { next_id: 1, ..State::default() }));
        let (serving, shared) = (server.clone(), state.clone());
        let thread = thread::spawn(move || {
            for request in serving.incoming_requests() {
                answer(request, &shared);
            }
        });
        Self { server, state, thread: Some(thread), url: format!("http://{address}") }
    }

    /// Registers a schema, and gives its id.
    pub(crate) fn add(&self, subject: &str, kind: &str, text: &str, references: &[(&str, &str, u64)]) -> u32 {
        let references =
            references.iter().map(|(name, subject, version)| (name.to_string(), subject.to_string(), *version));
        self.state.lock().unwrap().add(subject, kind, text, references.collect())
    }

    pub(crate) fn add_avro(&self, subject: &str, text: &str) -> u32 {
        self.add(subject, "AVRO", text, &[])
    }

    /// Gives the next schema this id.
    pub(crate) fn next_id(&self, id: u32) {
        self.state.lock().unwrap().next_id = id;
    }

    pub(crate) fn mood(&self, mood: Mood) {
        self.state.lock().unwrap().mood = mood;
    }

    /// From now on no new schema of this subject is compatible.
    pub(crate) fn close(&self, subject: &str) {
        self.state.lock().unwrap().closed.push(subject.to_string());
    }

    /// From now on requests need this as their authorization.
    pub(crate) fn password(&self, authorization: &str) {
        self.state.lock().unwrap().password = Some(authorization.to_string());
    }

    /// Method, path and authorization of each request until now.
    pub(crate) fn requests(&self) -> Vec<(String, String, Option<String>)> {
        self.state.lock().unwrap().requests.clone()
    }

    pub(crate) fn latest(&self, subject: &str) -> Option<Entry> {
        self.state.lock().unwrap().subjects.get(subject)?.last().cloned()
    }
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        self.server.unblock();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl State {
    fn add(&mut self, subject: &str, kind: &str, text: &str, references: Vec<(String, String, u64)>) -> u32 {
        let known = self.subjects.values().flatten().find(|entry| entry.text == text && entry.kind == kind);
        let id = known.map_or(self.next_id, |entry| entry.id);
        self.next_id = self.next_id.max(id + 1);
        let entry = Entry { id, kind: kind.to_string(), text: text.to_string(), references };
        let versions = self.subjects.entry(subject.to_string()).or_default();
        if !versions.contains(&entry) {
            versions.push(entry);
        }
        id
    }
}

fn answer(mut request: Request, state: &Mutex<State>) {
    let authorization = request.headers().iter().find(|header| header.field.equiv("Authorization"));
    let authorization = authorization.map(|header| header.value.to_string());
    let (method, path) = (request.method().clone(), request.url().to_string());
    let mut body = String::new();
    let _ = request.as_reader().read_to_string(&mut body);
    let mut state = state.lock().unwrap();
    state.requests.push((method.to_string(), path.clone(), authorization.clone()));
    let mood = state.mood.clone();
    let (status, text, location) = match mood {
        Mood::Status(status) => (status, "<h1>sorry</h1>".to_string(), None),
        Mood::Garbage => (200, "\u{1}\u{2}{{".to_string(), None),
        Mood::Json(value) => (200, value.to_string(), None),
        Mood::Long(bytes) => (200, " ".repeat(bytes), None),
        Mood::Redirect(to) => (302, String::new(), Some(to)),
        Mood::Slow(time) => {
            drop(state);
            thread::sleep(time);
            (200, "{}".to_string(), None)
        }
        Mood::Fine if state.password.is_some() && state.password != authorization => {
            (401, json!({"error_code": 401, "message": "Unauthorized"}).to_string(), None)
        }
        Mood::Fine => {
            let (status, value) = serve(&mut state, &method, &path, &body);
            (status, value.to_string(), None)
        }
    };
    let mut response = Response::from_string(text).with_status_code(status);
    if let Some(to) = location {
        response.add_header(Header::from_bytes("Location", to).unwrap());
    }
    let _ = request.respond(response);
}

fn serve(state: &mut State, method: &Method, path: &str, body: &str) -> (u16, Value) {
    let parts = path.trim_start_matches('/').split('/');
    let decode = |part| percent_encoding::percent_decode_str(part).decode_utf8().unwrap().to_string();
    let parts: Vec<String> = parts.map(decode).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let no = |status: u16, code: u64, message: &str| (status, json!({"error_code": code, "message": message}));
    match (method, parts.as_slice()) {
        (Method::Get, ["schemas", "ids", id]) => {
            let id: u32 = id.parse().unwrap();
            match state.subjects.values().flatten().find(|entry| entry.id == id) {
                Some(entry) => (200, entry.json(None)),
                None => no(404, 40403, "Schema not found"),
            }
        }
        (Method::Get, ["subjects", subject, "versions", version]) => {
            let Some(versions) = state.subjects.get(*subject) else { return no(404, 40401, "Subject not found.") };
            let version = if *version == "latest" { versions.len() } else { version.parse().unwrap() };
            match versions.get(version - 1) {
                Some(entry) => (200, entry.json(Some((subject, version)))),
                None => no(404, 40402, "Version not found."),
            }
        }
        (Method::Post, ["subjects", subject]) => {
            let body: Value = serde_json::from_str(body).unwrap();
            let Some(versions) = state.subjects.get(*subject) else { return no(404, 40401, "Subject not found.") };
            match versions.iter().position(|entry| body["schema"] == entry.text.as_str()) {
                Some(at) => (200, versions[at].json(Some((subject, at + 1)))),
                None => no(404, 40403, "Schema not found"),
            }
        }
        (Method::Post, ["subjects", subject, "versions"]) => {
            let body: Value = serde_json::from_str(body).unwrap();
            let kind = body.get("schemaType").and_then(Value::as_str).unwrap_or("AVRO");
            let text = body["schema"].as_str().unwrap();
            if kind == "AVRO" && serde_json::from_str::<Value>(text).is_err() {
                return no(422, 42201, "Input schema is an invalid Avro schema");
            }
            if state.closed.iter().any(|closed| closed == subject) {
                return no(409, 409, "READER_FIELD_MISSING_DEFAULT_VALUE at /fields/1");
            }
            let id = state.add(subject, kind, text, Vec::new());
            (200, json!({"id": id}))
        }
        _ => no(404, 404, "HTTP 404 Not Found"),
    }
}

impl Entry {
    fn json(&self, version: Option<(&str, usize)>) -> Value {
        let mut value = json!({"schema": self.text});
        if self.kind != "AVRO" {
            value["schemaType"] = json!(self.kind);
        }
        if !self.references.is_empty() {
            let reference = |(name, subject, version): &(String, String, u64)| json!({"name": name, "subject": subject, "version": version});
            value["references"] = self.references.iter().map(reference).collect();
        }
        if let Some((subject, version)) = version {
            value["subject"] = json!(subject);
            value["version"] = json!(version);
            value["id"] = json!(self.id);
        }
        value
    }
}
