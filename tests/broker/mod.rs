//! A real Kafka for the tests: Apache Kafka 4.1, one node in KRaft mode, which ends with the test.
//!
//! ```no_run
//! use tests::broker::Broker;
//!
//! # fn test() -> tests::broker::Result<()> {
//! let Some(broker) = Broker::shared() else { return Ok(()) };
//! let topic = broker.new_topic("orders", 3)?;
//! # Ok(())
//! # }
//! ```
//!
//! | file | why it exists |
//! |---|---|
//! | `jars` | where Kafka comes from |
//! | `node` | its process |
//! | `admin` | topics, and records put into them by a client that is not the engine's |
//! | `java` | records by Java's producer, with its partitioner |
//! | [`secure`] | certificates, passwords, and listeners that ask for them |
//! | [`rights`] | what a user may do there |
//! | [`verify`] | what others see: a consumer that is not the engine's |
//! | [`proxy`] | a network that loses requests and replies |
//! | [`registry`] | a schema registry |
//!
//! `WINDROW_KAFKA=host:port` names a broker to use in place of one of our own; tests that kill it are skipped then. On a
//! machine without Java or Maven the tests are skipped, and say so; `WINDROW_NO_SKIP=1` makes that a failure.

mod admin;
mod jars;
mod java;
mod node;
pub mod proxy;
pub mod registry;
pub mod rights;
pub mod secure;
pub mod verify;

use std::{collections::BTreeMap, env, error::Error, sync::OnceLock};

pub use self::admin::Message;
use self::{jars::Jars, node::Node, proxy::Proxy};
use crate::{fail, skip};

/// What the fixture returns; its errors are for people.
pub type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

const NONE_HERE: &str = "no Kafka broker (set WINDROW_KAFKA=host:port, or install a Java 17 runtime and Maven: \
                         apt-get install openjdk-17-jre-headless maven)";
const NOT_OURS: &str = "the test stops and starts its broker, or wants it set up in its own way, and the one in \
                        WINDROW_KAFKA is not ours";

/// A broker, or why there is none.
pub enum Started {
    /// It runs and answers.
    Here(Broker),
    /// There is none here; the reason says what to do.
    Skipped(String),
}

/// How a broker of our own is started.
#[derive(Clone, Debug)]
pub struct Options {
    settings: Vec<(String, String)>,
    heap_megabytes: u32,
    thorough: bool,
    proxied: bool,
    /// Beside the plain one: name and protocol.
    listeners: Vec<(&'static str, &'static str)>,
    /// As `--add-scram` takes them.
    users: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            settings: Vec::new(),
            heap_megabytes: 256,
            thorough: false,
            proxied: false,
            listeners: Vec::new(),
            users: Vec::new(),
        }
    }
}

impl Options {
    /// A setting of the broker, such as `transaction.max.timeout.ms`.
    #[must_use]
    pub fn set(mut self, name: &str, value: impl ToString) -> Self {
        self.settings.push((name.into(), value.to_string()));
        self
    }

    /// For measurements: a heap of this size in megabytes (else 256), and code that is compiled as well as Java can, which
    /// takes longer to start.
    #[must_use]
    pub fn fast(mut self, heap_megabytes: u32) -> Self {
        self.heap_megabytes = heap_megabytes;
        self.thorough = true;
        self
    }

    /// With a [`Proxy`] in front of it; see [`Broker::proxy`].
    #[must_use]
    pub fn proxied(mut self) -> Self {
        self.proxied = true;
        self.listener("PROXIED", "PLAINTEXT")
    }

    fn listener(mut self, name: &'static str, protocol: &'static str) -> Self {
        self.listeners.push((name, protocol));
        self
    }

    /// Starts a broker of our own. It takes some three seconds; the first time on a machine, its jars are fetched.
    ///
    /// # Errors
    ///
    /// When the jars cannot be fetched or are not the right ones, and when the broker does not answer within 60 s; the
    /// error shows the end of its log.
    pub fn start(self) -> Result<Started> {
        if external().is_some() {
            return Ok(Started::Skipped(NOT_OURS.into()));
        }
        let Some(jars) = Jars::get()? else { return Ok(Started::Skipped(NONE_HERE.into())) };
        let door = if self.proxied { Some(proxy::Door::open()?) } else { None };
        let advertised: BTreeMap<String, u16> = door.iter().map(|door| ("PROXIED".to_string(), door.port())).collect();
        let node = Node::start(&self, &jars, &advertised)?;
        let port = |name: &str| node.port(name).ok_or_else(|| format!("the broker has no listener {name}"));
        let proxy = match door {
            Some(door) => Some(door.serve(port("PROXIED")?)?),
            None => None,
        };
        let address = format!("127.0.0.1:{}", port("PLAINTEXT")?);
        Ok(Started::Here(Broker { address, proxy, node: Some(node) }))
    }
}

/// A running broker. One of our own is killed, and its data removed, when this is dropped or the test process ends in any
/// way.
pub struct Broker {
    address: String,
    proxy: Option<Proxy>,
    /// None where it is somebody else's.
    node: Option<Node>,
}

impl Broker {
    /// The broker that the tests of this process share, each with topics of its own. None: skip the test, it has been said
    /// why.
    ///
    /// # Panics
    ///
    /// When the broker does not start, and without one where `WINDROW_NO_SKIP=1`.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Result<Started, String>> = OnceLock::new();
        let started = SHARED.get_or_init(|| Self::any().map_err(|error| error.to_string()));
        match started {
            Ok(Started::Here(broker)) => Some(broker),
            Ok(Started::Skipped(reason)) => skip(reason),
            Err(error) => fail(error),
        }
    }

    /// A broker that is the test's own: it may be killed, and have its own settings. None: skip the test.
    ///
    /// # Panics
    ///
    /// As [`Broker::shared`].
    pub fn own(options: Options) -> Option<Self> {
        match options.start() {
            Ok(Started::Here(broker)) => Some(broker),
            Ok(Started::Skipped(reason)) => skip(&reason),
            Err(error) => fail(&error.to_string()),
        }
    }

    /// The broker of `WINDROW_KAFKA`, or one of our own.
    fn any() -> Result<Started> {
        let Some(address) = external() else { return Options::default().start() };
        let found = node::metadata(&address, None);
        found.map_err(|error| format!("the broker of WINDROW_KAFKA={address} does not answer: {error}"))?;
        Ok(Started::Here(Self { address, proxy: None, node: None }))
    }

    /// Where clients reach it: `host:port`, without encryption or password.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The proxy in front of a broker that was started with [`Options::proxied`].
    ///
    /// # Errors
    ///
    /// When it was started without.
    pub fn proxy(&self) -> Result<&Proxy> {
        self.proxy.as_ref().ok_or_else(|| "there is no proxy: start the broker with Options::proxied".into())
    }

    /// Ends it with SIGKILL. Its data stay.
    ///
    /// # Errors
    ///
    /// When it does not run, or is not ours.
    pub fn kill(&self) -> Result<()> {
        self.node()?.kill()
    }

    /// Starts it again, on the same data and ports, and waits until every partition has its leader back. Kills it first if
    /// it runs.
    ///
    /// # Errors
    ///
    /// As [`Options::start`].
    pub fn restart(&self) -> Result<()> {
        self.node()?.restart()
    }

    /// Stops it as it stands (SIGSTOP): connections stay open, nothing is answered.
    ///
    /// # Errors
    ///
    /// When it does not run, or is not ours.
    pub fn pause(&self) -> Result<()> {
        self.node()?.signal("STOP")
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Errors
    ///
    /// When it does not run, or is not ours.
    pub fn resume(&self) -> Result<()> {
        self.node()?.signal("CONT")
    }

    /// The last lines of its log. Empty where it is not ours.
    pub fn log_tail(&self) -> String {
        self.node.as_ref().map(|node| node.log_tail()).unwrap_or_default()
    }

    fn node(&self) -> Result<&Node> {
        self.node.as_ref().ok_or_else(|| NOT_OURS.into())
    }

    fn listener(&self, name: &str) -> Result<String> {
        let port = self.node()?.port(name).ok_or_else(|| format!("the broker has no listener {name}"))?;
        Ok(format!("127.0.0.1:{port}"))
    }
}

fn external() -> Option<String> {
    env::var("WINDROW_KAFKA").ok().filter(|address| !address.is_empty())
}
