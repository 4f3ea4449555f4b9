//! A client that sends what it is told, byte for byte, also what no browser would; and waits as long as an answer takes.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use serde_json::Value;
use tests::TOO_LONG;
use windrow::serve::{ExposeSecret, Served};

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// In lower case, with the line of the status.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    fn parse(bytes: Vec<u8>) -> Option<Self> {
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Self { status, head: head.to_ascii_lowercase(), body: body.into() })
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// What a refusal says.
    pub(crate) fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_else(|| panic!("{self:?}")).into()
    }

    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }
}

/// Who asks.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
}

impl Client {
    pub(crate) fn of(served: &Served) -> Self {
        Self { address: served.address(), token: served.token().expose_secret().into() }
    }

    /// Writes these bytes and reads to the end. None when the connection ends without an answer.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Option<Answer> {
        let mut stream = self.connect();
        // Who is refused early may not have been read to the end.
        let _ = stream.write_all(bytes);
        read(stream)
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(TOO_LONG)).unwrap();
        stream
    }

    /// A request with its first line, more headers, and a body.
    #[track_caller]
    pub(crate) fn request(&self, line: &str, headers: &str, body: &str) -> Answer {
        let Self { address, .. } = self;
        let length = match line.starts_with("GET") && body.is_empty() {
            true => String::new(),
            false => format!("content-length: {}\r\n", body.len()),
        };
        let text = format!("{line} HTTP/1.1\r\nhost: {address}\r\n{length}{headers}\r\n{body}");
        self.raw(text.as_bytes()).unwrap_or_else(|| panic!("no answer to {line}"))
    }

    /// As anybody.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.request(&format!("GET {path}"), "", "")
    }

    /// With the token.
    #[track_caller]
    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        self.request(&format!("POST {path}"), &self.headers(), body)
    }

    /// What a change needs.
    pub(crate) fn headers(&self) -> String {
        format!("authorization: Bearer {}\r\ncontent-type: application/json\r\n", self.token)
    }
}

/// An answer, up to the end of the connection. A reset after it does not make it none.
pub(crate) fn read(mut stream: TcpStream) -> Option<Answer> {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    Answer::parse(bytes)
}
