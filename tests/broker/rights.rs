//! What a user may do at a [`Secure`] broker: access control lists, asked for in Kafka's protocol, because the client of the tests has
//! no words for them.
//!
//! ```text
//!   secure.allow(NOBODY, Operation::Read, &Resource::Topic("letters")) ──CreateAcls──► the plain listener
//! ```

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use kafka_protocol::{
    messages::{
        ApiKey, CreateAclsRequest, CreateAclsResponse, DescribeAclsRequest, DescribeAclsResponse, RequestHeader,
        ResponseHeader, create_acls_request::AclCreation,
    },
    protocol::{Decodable, Encodable, HeaderVersion, StrBytes},
};

use super::{Result, secure::Secure};

/// The version of all these requests.
const VERSION: i16 = 3;
/// How long it may take until what was allowed is known.
const PATIENCE: Duration = Duration::from_secs(30);

/// What may be done, as Kafka counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// To read, and to see that it is there.
    Read = 3,
    /// To write, and to see that it is there.
    Write = 4,
}

/// With what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource<'a> {
    /// A topic.
    Topic(&'a str),
    /// A consumer group.
    Group(&'a str),
    /// A transactional id.
    TransactionalId(&'a str),
}

impl<'a> Resource<'a> {
    fn parts(self) -> (i8, &'a str) {
        match self {
            Self::Topic(name) => (2, name),
            Self::Group(name) => (3, name),
            Self::TransactionalId(name) => (5, name),
        }
    }
}

impl Secure {
    /// Allows a user something that it was not before. When this returns, the broker knows it.
    ///
    /// # Errors
    ///
    /// When the broker refuses, or does not know it in time.
    pub fn allow(&self, user: &str, operation: Operation, resource: Resource<'_>) -> Result<()> {
        const LITERAL: i8 = 3;
        const ALLOW: i8 = 3;
        let (kind, name) = resource.parts();
        let text = |text: String| StrBytes::from_string(text);
        let mut right = AclCreation::default();
        (right.resource_type, right.resource_name, right.resource_pattern_type) = (kind, text(name.into()), LITERAL);
        (right.principal, right.host) = (text(format!("User:{user}")), text("*".into()));
        (right.operation, right.permission_type) = (operation as i8, ALLOW);
        let request = CreateAclsRequest::default().with_creations(vec![right.clone()]);
        let answer: CreateAclsResponse = self.ask(ApiKey::CreateAcls, &request)?;
        if let Some(refused) = answer.results.iter().find(|result| result.error_code != 0) {
            return Err(format!("it cannot be allowed: {refused:?}").into());
        }
        let mut look = DescribeAclsRequest::default();
        (look.resource_type_filter, look.resource_name_filter) = (kind, Some(right.resource_name));
        (look.pattern_type_filter, look.principal_filter) = (LITERAL, Some(right.principal));
        (look.operation, look.permission_type, look.host_filter) = (right.operation, ALLOW, None);
        let end = Instant::now() + PATIENCE;
        while self.ask::<_, DescribeAclsResponse>(ApiKey::DescribeAcls, &look)?.resources.is_empty() {
            if Instant::now() > end {
                return Err(format!("after {PATIENCE:?} the broker does not know what was allowed").into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Asks as the superuser of the plain listener.
    fn ask<Q, A>(&self, key: ApiKey, request: &Q) -> Result<A>
    where
        Q: Encodable + HeaderVersion,
        A: Decodable + HeaderVersion,
    {
        let header = RequestHeader::default().with_request_api_key(key as i16).with_request_api_version(VERSION);
        let mut frame = Vec::new();
        header.encode(&mut frame, Q::header_version(VERSION))?;
        request.encode(&mut frame, VERSION)?;
        let mut stream = TcpStream::connect(self.broker().address())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&[&i32::try_from(frame.len())?.to_be_bytes(), frame.as_slice()].concat())?;
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut answer = vec![0; usize::try_from(i32::from_be_bytes(length))?];
        stream.read_exact(&mut answer)?;
        let mut answer = answer.as_slice();
        ResponseHeader::decode(&mut answer, A::header_version(VERSION))?;
        Ok(A::decode(&mut answer, VERSION)?)
    }
}
