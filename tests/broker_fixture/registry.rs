//! The schema registry answers as the public documentation of Confluent's says.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use tests::broker::{
    Result,
    registry::{Mood, Registry},
};

/// A status and a body, by a client of five lines.
fn http(registry: &Registry, request: &str, password: &str, body: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(registry.url().trim_start_matches("http://"))?;
    let length = body.len();
    write!(stream, "{request} HTTP/1.0\r\n{password}Content-Length: {length}\r\n\r\n{body}")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no body")?;
    Ok((head.split(' ').nth(1).unwrap_or_default().parse()?, body.to_string()))
}

#[test]
fn the_registry_registers() -> Result<()> {
    let registry = Registry::start()?;
    let call = |request: &str, body: &str| http(&registry, request, "", body);
    let schema = r#"{"schema":"\"string\""}"#;
    assert_eq!(call("POST /subjects/a%2Fb/versions", schema)?, (200, r#"{"id":1}"#.into()));
    assert_eq!(registry.register("other", "AVRO", "\"string\"")?, 1, "the same schema has the same id");
    assert_eq!(registry.register("other", "PROTOBUF", "syntax = \"proto3\";")?, 2);
    let (status, latest) = call("GET /subjects/other/versions/latest", "")?;
    let latest: serde_json::Value = serde_json::from_str(&latest)?;
    assert_eq!((status, &latest["version"], &latest["schemaType"]), (200, &2.into(), &"PROTOBUF".into()));
    assert_eq!(call("GET /schemas/ids/1", "")?, (200, r#"{"schema":"\"string\""}"#.into()));
    assert_eq!(call("GET /subjects", "")?.1, r#"["a/b","other"]"#);
    assert_eq!(call("GET /subjects/other/versions", "")?.1, "[1,2]");
    assert_eq!(call("GET /subjects/a%2Fb/versions/1/schema", "")?.1, "\"string\"");
    assert!(call("POST /subjects/other", schema)?.1.contains(r#""version":1"#));
    for (request, body, status, code) in [
        ("GET /schemas/ids/9", "", 404, "40403"),
        ("GET /subjects/none/versions", "", 404, "40401"),
        ("GET /subjects/other/versions/3", "", 404, "40402"),
        ("GET /subjects/other/versions/x", "", 422, "42202"),
        ("POST /subjects/other", r#"{"schema":"\"int\""}"#, 404, "40403"),
        ("POST /subjects/other/versions", r#"{"schema":"not json"}"#, 422, "42201"),
    ] {
        let answer = call(request, body)?;
        assert!(answer.0 == status && answer.1.contains(code), "{request}: {answer:?}");
    }
    registry.set_mood(Mood::Fails(500));
    assert_eq!(call("GET /schemas/ids/1", "")?.0, 500);
    registry.set_mood(Mood::Slow(Duration::from_millis(200)));
    let begin = Instant::now();
    assert!(call("GET /schemas/ids/1", "")?.0 == 200 && begin.elapsed() >= Duration::from_millis(200));
    registry.set_mood(Mood::Well);
    registry.protect("alice", "secret");
    assert_eq!(call("GET /schemas/ids/1", "")?.0, 401);
    let password = "Authorization: Basic YWxpY2U6c2VjcmV0\r\n";
    assert_eq!(http(&registry, "GET /schemas/ids/1", password, "")?.0, 200);
    assert_eq!(registry.requests().iter().filter(|request| *request == "GET /schemas/ids/1").count(), 5);
    Ok(())
}
