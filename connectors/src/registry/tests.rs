//! The client against a registry that is there, down, slow, lost, or somebody else.

use std::time::Instant;

use super::{
    testing::{FakeRegistry, Mood},
    *,
};

const POINT: &str = r#"{"type":"record","name":"Point","fields":[{"name":"x","type":"int"}]}"#;

fn quick(fake: &FakeRegistry) -> SchemaRegistry {
    SchemaRegistry::at(&fake.url).patience(Duration::from_millis(300), Duration::from_millis(5))
}

fn passes(error: &ConnectorError) -> bool {
    matches!(error, ConnectorError::Remote { passes: true, .. })
}

#[test]
fn schemas_by_id_are_asked_for_once() {
    let fake = FakeRegistry::start();
    fake.next_id(u32::MAX - 1);
    let id = fake.add_avro("points-value", POINT);
    let registry = quick(&fake);
    for _ in 0..3 {
        let found = registry.clone().schema(id).unwrap().unwrap();
        assert_eq!((found.id, found.kind, found.text.as_str()), (id, SchemaKind::Avro, POINT));
    }
    assert_eq!(fake.requests().len(), 1);
    assert_eq!(fake.requests()[0].1, format!("/schemas/ids/{id}"));
    // An id means the same for ever, so a registry that is down harms nobody who knows it.
    fake.mood(Mood::Status(500));
    assert!(registry.schema(id).unwrap().is_ok());
}

#[test]
fn an_unknown_id_is_an_answer_and_kept_for_a_while() {
    let fake = FakeRegistry::start();
    let registry = quick(&fake);
    for _ in 0..5 {
        let reason = registry.schema(77).unwrap().unwrap_err();
        assert_eq!(reason, format!("schema id 77 is not in the schema registry {}", fake.url));
    }
    // The second question is for a registry that has it only just now.
    assert_eq!(fake.requests().len(), 2);
    for id in 1_000..(1_000 + MOST_UNKNOWN as u32 - 1) {
        registry.kept().unknown.insert(id, (Instant::now().into(), String::new()));
    }
    let begun = Instant::now();
    for id in 0..10 {
        registry.schema(1_000_000 + id).unwrap().unwrap_err();
    }
    assert!(begun.elapsed() >= 10 * UNKNOWN_FOR / MOST_UNKNOWN as u32, "garbage is no flood of requests");
    assert_eq!(fake.requests().len(), 12);
    let kept = registry.kept();
    assert_eq!(kept.unknown.len(), MOST_UNKNOWN);
    assert!(!kept.unknown.contains_key(&77) && kept.unknown.contains_key(&1_000_009), "the oldest is forgotten");
}

#[test]
fn a_schema_that_was_just_registered_is_found_at_another_address() {
    let (late, early) = (FakeRegistry::start(), FakeRegistry::start());
    let id = early.add_avro("points-value", POINT);
    let both = SchemaRegistry::at(format!("{},{}", late.url, early.url));
    let both = both.patience(Duration::from_millis(300), Duration::from_millis(5));
    assert_eq!(both.schema(id).unwrap().unwrap().id, id);
}

#[test]
fn what_is_no_schema_for_us_is_a_reason_and_no_error() {
    let fake = FakeRegistry::start();
    let lost = fake.add("lost", "AVRO", "\"long\"", &[("x", "nowhere", 1)]);
    let reason = |id| quick(&fake).schema(id).unwrap().unwrap_err();
    assert!(reason(lost).starts_with("schema id 1 in the schema registry http://127.0.0.1:"), "{}", reason(lost));
    assert!(reason(lost).contains("unusable: version 1 of subject \"nowhere\", which it refers to, is not there"));
    let names: Vec<String> = (0..=MOST_REFERENCES).map(|n| format!("r{n}")).collect();
    for name in &names {
        fake.add(name, "AVRO", &format!("\"{name}\""), &[]);
    }
    let references: Vec<_> = names.iter().map(|name| (name.as_str(), name.as_str(), 1)).collect();
    let many = fake.add("many", "AVRO", "\"int\"", &references);
    assert!(reason(many).contains("more than 1000 references"), "{}", reason(many));
    fake.mood(Mood::Json(json!({"schema": "x", "schemaType": "XML"})));
    assert!(reason(7).contains("unusable: its type is \"XML\""), "{}", reason(7));
    fake.mood(Mood::Long(3 << 20));
    assert!(reason(7).contains("longer than 1048576 bytes"), "{}", reason(7));
    // Whoever asks for it by name is told to change that.
    fake.mood(Mood::Json(json!({"id": 7, "schema": "x", "schemaType": "XML"})));
    assert!(matches!(quick(&fake).latest("a"), Err(ConnectorError::Config(_))));
}

#[test]
fn a_login_without_encryption_is_a_warning() {
    let at = |address: &str| SchemaRegistry::at(address).basic_auth("ada", Secret::new("canary"));
    assert!(at("http://a:1").warnings()[0].contains("https"));
    assert!(at("https://a:1").warnings().is_empty());
    assert!(SchemaRegistry::at("http://a:1").warnings().is_empty());
}

#[test]
fn references_come_before_what_needs_them() {
    let fake = FakeRegistry::start();
    fake.add("c", "PROTOBUF", "c", &[]);
    fake.add("b", "PROTOBUF", "b", &[("c.proto", "c", 1)]);
    fake.add("a", "PROTOBUF", "a", &[("b.proto", "b", 1), ("c.proto", "c", 1)]);
    let found = quick(&fake).latest("a").unwrap();
    assert_eq!(found.kind, SchemaKind::Protobuf);
    let names: Vec<_> =
        found.references.iter().map(|reference| (reference.name.as_str(), reference.text.as_str())).collect();
    assert_eq!(names, [("c.proto", "c"), ("b.proto", "b")]);
    // A circle ends.
    let id = fake.add("ring", "AVRO", "\"int\"", &[("ring", "ring", 1)]);
    assert_eq!(quick(&fake).schema(id).unwrap().unwrap().references.len(), 1);
}

#[test]
fn registering_and_finding_again() {
    let fake = FakeRegistry::start();
    let registry = quick(&fake);
    let subject = "odd/ subject?-value";
    assert_eq!(registry.lookup(subject, SchemaKind::Avro, POINT).unwrap(), None);
    assert!(matches!(registry.latest(subject), Err(ConnectorError::Config(_))));
    let id = registry.register(subject, SchemaKind::Avro, POINT).unwrap();
    assert_eq!(registry.register(subject, SchemaKind::Avro, POINT).unwrap(), id);
    assert_eq!(registry.lookup(subject, SchemaKind::Avro, POINT).unwrap(), Some(id));
    assert_eq!(registry.lookup(subject, SchemaKind::Avro, "\"int\"").unwrap(), None);
    assert_eq!(registry.latest(subject).unwrap().id, id);
    registry.register("proto", SchemaKind::Protobuf, "syntax").unwrap();
    assert_eq!(fake.latest("proto").unwrap().kind, "PROTOBUF");

    fake.close(subject);
    let error = registry.register(subject, SchemaKind::Avro, "\"int\"").unwrap_err();
    assert!(matches!(error, ConnectorError::Config(_)));
    assert!(error.to_string().contains("READER_FIELD_MISSING_DEFAULT_VALUE"), "{error}");
    let error = registry.register("new", SchemaKind::Avro, "not json").unwrap_err();
    assert!(matches!(error, ConnectorError::Config(_)) && error.to_string().contains("invalid Avro"), "{error}");
}

#[test]
fn a_registry_that_does_not_answer_rejects_nothing() {
    let fake = FakeRegistry::start();
    let id = fake.add_avro("points-value", POINT);
    let moods = [
        Mood::Status(500),
        Mood::Status(503),
        Mood::Status(429),
        Mood::Status(404),
        Mood::Garbage,
        Mood::Json(json!([])),
        Mood::Json(json!({"schema": 7})),
        Mood::Json(json!({"schema": "x", "references": [{}]})),
        Mood::Slow(Duration::from_millis(600)),
    ];
    for mood in moods {
        fake.mood(mood.clone());
        let error = quick(&fake).schema(id).unwrap_err();
        assert!(passes(&error), "{mood:?}: {error}");
        assert!(error.to_string().contains(&fake.url), "{mood:?}: {error}");
    }
    fake.mood(Mood::Fine);
    assert!(quick(&fake).schema(id).unwrap().is_ok());
    let gone = fake.url.clone();
    drop(fake);
    let begun = Instant::now();
    let error =
        SchemaRegistry::at(gone).patience(Duration::from_secs(1), Duration::from_millis(5)).schema(1).unwrap_err();
    assert!(passes(&error) && error.to_string().contains("3 times"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn failures_are_tried_again_and_then_elsewhere() {
    let (down, up) = (FakeRegistry::start(), FakeRegistry::start());
    down.mood(Mood::Status(502));
    let id = up.add_avro("points-value", POINT);
    let both = SchemaRegistry::at(format!("{}, {}/", down.url, up.url));
    assert!(both.schema(id).unwrap().is_ok());
    assert_eq!((down.requests().len(), up.requests().len()), (1, 1));
    assert!(quick(&down).schema(id).is_err());
    assert_eq!(down.requests().len(), 4);
}

#[test]
fn answers_without_end_and_redirects_are_refused() {
    let (fake, other) = (FakeRegistry::start(), FakeRegistry::start());
    fake.mood(Mood::Long(3 << 20));
    let error = quick(&fake).register("a", SchemaKind::Avro, POINT).unwrap_err();
    assert!(error.to_string().contains("longer than"), "{error}");
    fake.mood(Mood::Redirect(format!("{}/schemas/ids/1", other.url)));
    let error = quick(&fake).basic_auth("ada", Secret::new("canary")).schema(1).unwrap_err();
    assert!(matches!(error, ConnectorError::Remote { passes: false, .. }), "{error}");
    assert_eq!(other.requests(), []);
}

#[test]
fn who_asks_is_said_to_the_registry_and_to_nobody_else() {
    let fake = FakeRegistry::start();
    let id = fake.add_avro("points-value", POINT);
    fake.password("Basic YWRhOmNhbmFyeS1w");
    let right = quick(&fake).basic_auth("ada", Secret::new("canary-p"));
    assert!(right.schema(id).unwrap().is_ok());
    fake.password("Bearer canary-t");
    assert!(quick(&fake).bearer(Secret::new("canary-t")).schema(id).unwrap().is_ok());

    let wrong = [
        quick(&fake),
        quick(&fake).basic_auth("ada", Secret::new("canary-w")),
        quick(&fake).bearer(Secret::new("canary-w")),
    ];
    for registry in &wrong {
        let error = registry.schema(id).unwrap_err();
        assert!(matches!(error, ConnectorError::Remote { passes: false, .. }), "{error}");
        assert!(!format!("{error} {error:?} {registry:?}").contains("canary"));
        assert!(!format!("{error} {error:?} {registry:?}").contains("Y2FuYXJ5"));
    }
    let unusable = quick(&fake).bearer(Secret::new("canary\n\u{e9}")).schema(id).unwrap_err();
    assert!(matches!(unusable, ConnectorError::Config(_)) && !unusable.to_string().contains("canary"));
    let missing = quick(&fake).bearer(Secret::env("WINDROW_NO_SUCH_VARIABLE")).schema(id).unwrap_err();
    assert!(matches!(missing, ConnectorError::Config(_)));
    let error = SchemaRegistry::at("http://ada:canary@localhost:1").schema(1).unwrap_err();
    assert!(matches!(error, ConnectorError::Config(_)) && !error.to_string().contains("canary"), "{error}");
}

#[test]
fn certificates_must_be_there() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let registry = SchemaRegistry::at("https://localhost:1").ca_file(file.path());
    assert!(matches!(registry.schema(1), Err(ConnectorError::Config(_))));
    let registry = SchemaRegistry::at("https://localhost:1").ca_file("/nowhere/ca.pem");
    assert!(matches!(registry.schema(1), Err(ConnectorError::Io { .. })));
}
