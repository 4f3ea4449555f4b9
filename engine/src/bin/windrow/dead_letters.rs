//! `windrow dead-letters re-drive`: what was rejected goes back to where it came from.

use std::{io::Write, path::PathBuf};

use windrow::connectors::{
    ConnectorError, Secret,
    kafka::{Kafka, Sasl, Tls},
};

use crate::{failure::Failure, output};

const EXAMPLES: &str = "\
Examples:
  windrow dead-letters re-drive payments.dead --brokers kafka:9092               counts, and writes nothing
  windrow dead-letters re-drive payments.dead --brokers kafka:9092 --send        sends what was counted
  windrow dead-letters re-drive payments.dead --brokers kafka:9092 --count 100   sends a hundred, to begin with
  windrow dead-letters re-drive payments.dead --brokers kafka:9093 --tls --user me --password-env KAFKA_PASSWORD --send

A letter goes back as the record that it was (value, key, time, headers) to the topic and partition in its headers; look at the
topics that the count names, for whoever writes to the source can write headers too, or say --to.

What is promised: records and the position of the consumer group (windrow.re-drive.TOPIC, or --group) are committed in the same
transactions of Kafka. Readers of committed records get each letter once for each group, also when this is killed and run again,
and when it is run twice at a time: the later one takes over, and the other fails. Readers of uncommitted records may get some twice. Letters that come
while it runs are left for the next time, so that a job which still rejects them does not go round in circles. The letters
themselves stay where they are. Kafka forgets a group that has done nothing for a week (offsets.retention.minutes), and then all
letters of a partition count again: the output says of which. Letters that were cut (windrow.truncated) hold only the beginning of their
record and cannot be sent, nor can those whose topic or partition is not there: they are counted and named, the group passes them, and
the exit code is 5. While letters do not say where they came from nothing is sent without --to.

Rights: READ on the topic of dead letters and on the group, WRITE on the targets and on the transactional id, which is the group. Without
WRITE on a target it fails, and passes over no letter.";

/// Sends the records of dead letters back to the topics that they came from
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The topic of dead letters
    topic: String,
    /// The cluster: host:port, several of them separated by commas
    #[arg(long, value_name = "HOST:PORT")]
    brokers: String,
    /// Sends them; without this and --count they are only counted
    #[arg(long)]
    send: bool,
    /// Sends at most so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Sends them to this topic, by their keys, instead of where they came from
    #[arg(long, value_name = "TOPIC")]
    to: Option<String>,
    /// The consumer group that remembers how far letters were sent: another one begins at the beginning
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// Encrypts, trusting the authorities of the system
    #[arg(long)]
    tls: bool,
    /// Encrypts, trusting the authorities in this PEM file only
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Logs in as this user
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// The variable with the password
    #[arg(long, value_name = "VARIABLE", requires = "user")]
    password_env: Option<String>,
    /// The file with the password
    #[arg(long, value_name = "FILE", requires = "user", conflicts_with = "password_env")]
    password_file: Option<PathBuf>,
    /// How to log in
    #[arg(long, value_enum, default_value_t = Mechanism::ScramSha512, requires = "user")]
    mechanism: Mechanism,
    /// A setting of librdkafka
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Mechanism {
    Plain,
    #[value(name = "scram-sha-256")]
    ScramSha256,
    #[value(name = "scram-sha-512")]
    ScramSha512,
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let kafka = connection(&args)?;
    for warning in kafka.warnings() {
        // If there is no stderr the command goes on all the same.
        let _ = writeln!(std::io::stderr(), "windrow: {warning}");
    }
    let mut letters = kafka.re_drive(&args.topic);
    letters = args.group.iter().fold(letters, |letters, group| letters.group(group));
    letters = args.to.iter().fold(letters, |letters, to| letters.to(to));
    letters = args.count.iter().fold(letters, |letters, count| letters.at_most(*count));
    let sends = args.send || args.count.is_some();
    let done = if sends { letters.send() } else { letters.count() }.map_err(failed)?;
    let next = match (sends, done.letters()) {
        (false, 1..) => "\nNothing was written. To send them: the same with --send, or --count N for some of them.",
        _ => "",
    };
    output::print(&format!("{done}{next}"))?;
    match done.kept_count {
        0 => Ok(()),
        kept => Err(Failure::left(format!(
            "{kept} letters cannot be sent again. Those that were cut are to be read where they came from, with a larger max_record_bytes; \
             those whose topic was not there can be sent when it is, with another --group, or now with --to"
        ))),
    }
}

fn connection(args: &Args) -> Result<Kafka, Failure> {
    let mut kafka = Kafka::brokers(&args.brokers);
    if let Some(file) = &args.ca_file {
        kafka = kafka.tls(Tls::ca_file(file));
    } else if args.tls {
        kafka = kafka.tls(Tls::system());
    }
    if let Some(user) = &args.user {
        let password = match (&args.password_env, &args.password_file) {
            (Some(variable), _) => Secret::env(variable),
            (None, Some(file)) => Secret::file(file),
            (None, None) => return Err(Failure::usage("--user needs --password-env VARIABLE or --password-file FILE")),
        };
        kafka = kafka.sasl(match args.mechanism {
            Mechanism::Plain => Sasl::plain(user, password),
            Mechanism::ScramSha256 => Sasl::scram_sha_256(user, password),
            Mechanism::ScramSha512 => Sasl::scram_sha_512(user, password),
        });
    }
    for setting in &args.set {
        let Some((name, value)) = setting.split_once('=') else {
            return Err(Failure::usage("--set wants NAME=VALUE, such as --set message.max.bytes=2000000"));
        };
        kafka = kafka.set(name, value);
    }
    Ok(kafka)
}

/// A broker that does not answer is told apart from one that says no.
fn failed(error: ConnectorError) -> Failure {
    match &error {
        ConnectorError::Remote { passes: true, .. } => Failure::not_reachable(error.to_string()),
        _ => Failure::new(error.to_string()),
    }
}
