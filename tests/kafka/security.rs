//! Who gets in, who does not and is told why, and that no secret shows on the way.
//!
//! ```text
//!   a way in ──► Job: topic ──► topic, at least once ─┐
//!            └─► sink, exactly once: fence … decide ──┴──► read by a consumer that is not the engine's
//!   a wrong way in ──► the same three end soon, with a reason
//! ```

use std::{
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::Command,
    sync::{Arc, OnceLock},
    time::{Duration, Instant, SystemTime},
};

use tests::broker::{
    Broker, Message, Result,
    registry::{Mood, Registry},
    secure::{Listener, NOBODY, PASSWORD, Secure, USER},
};
use windrow::{
    arrow::array::{Int64Array, RecordBatch},
    connectors::{ConnectorError, Epoch, Incarnation, Marker, Sink, kafka::Token},
    prelude::*,
};

use crate::{
    bounded::crash,
    running::{json, store, until},
    starts::{Number, numbers},
};

/// What begins with this is a secret.
const CANARY: &str = "canary-";
const WRONG: &str = "canary-wrong-77e0";
/// What a token of [`token`] begins with: it says that there is no signature.
const TOKEN: &str = "eyJhbGciOiJub25lIn0";
/// Whoever does not get in knows after this.
const SOON: Duration = Duration::from_secs(45);

/// The broker that the tests share.
pub(crate) fn secure() -> Option<&'static Secure> {
    static SECURE: OnceLock<Option<Secure>> = OnceLock::new();
    SECURE.get_or_init(Broker::secure).as_ref()
}

fn connect(secure: &Secure, listener: Listener) -> Result<Kafka> {
    Ok(Kafka::brokers(secure.address(listener)?))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = three.iter().enumerate().fold(0_u32, |bits, (i, byte)| bits | u32::from(*byte) << (16 - 8 * i));
        text.extend((0..=three.len()).map(|i| char::from(DIGITS[(bits >> (18 - 6 * i)) as usize & 63])));
    }
    text
}

/// A token without a signature, as the test's broker takes them.
fn token(who: &str) -> Token {
    let now = SystemTime::now();
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let claims = format!(r#"{{"sub":"{who}","iat":{seconds},"exp":{}}}"#, seconds + 600);
    let value = format!("{}.{}.", base64(br#"{"alg":"none"}"#), base64(claims.as_bytes()));
    Token { value: Secret::new(value), principal: who.into(), expires: now + Duration::from_secs(600) }
}

/// All that get in.
fn ways_in(secure: &Secure, password: &Path) -> Result<Vec<(&'static str, Kafka)>> {
    let tls = || Tls::ca_file(secure.authority());
    let sasl = |sasl| {
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(connect(secure, Listener::SaslTls)?.tls(tls()).sasl(sasl))
    };
    let file = || Secret::file(password);
    let locked =
        tls().client_certificate(secure.client_certificate(), secure.locked_client_key()).key_passphrase(file());
    let mutual = tls().client_certificate(secure.client_certificate(), secure.client_key());
    Ok(vec![
        ("tls", connect(secure, Listener::Tls)?.tls(tls())),
        ("mutual-tls", connect(secure, Listener::MutualTls)?.tls(mutual)),
        ("mutual-tls-locked", connect(secure, Listener::MutualTls)?.tls(locked)),
        ("plain", sasl(Sasl::plain(USER, file()))?),
        ("scram-256", sasl(Sasl::scram_sha_256(USER, file()))?),
        ("scram-512", sasl(Sasl::scram_sha_512(USER, file()))?),
        ("oauthbearer", sasl(Sasl::oauth(|| Ok(token(USER))))?),
        ("unencrypted", connect(secure, Listener::Sasl)?.sasl(Sasl::scram_sha_256(USER, file()))),
    ])
}

/// Reads `from` and writes it to `to`, at least once, by a whole job.
async fn copy(kafka: Kafka, job: &str, from: &str, to: &str) -> windrow::Result<()> {
    let job = Job::new(job);
    job.source(kafka.topic(from).bounded().key_column("key").raw()).sink(kafka.to_topic(to).key("key").raw());
    job.run().await.map(drop)
}

/// Writes a row exactly once, and asks what the newest epoch is.
async fn write_once(kafka: Kafka, job: &str, to: &str) -> Result<Option<Marker>, ConnectorError> {
    let sink = kafka.to_topic(to).json().exactly_once();
    let witness = sink.witness().unwrap();
    let incarnation = Incarnation { job: "00c0ffee".into(), generation: 1, nonce: 1 };
    witness.fence(job, &incarnation, &[to.to_owned()]).await?;
    assert_eq!(witness.newest(job).await?, None);
    let row = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![1])) as _)])?;
    let mut writer = sink.writer(&incarnation, 0, row.schema()).await?;
    writer.write(row).await?;
    writer.stage(Epoch(1)).await?;
    witness.decide(&Marker { incarnation, epoch: Epoch(1) }).await?;
    witness.newest(job).await
}

#[test]
fn every_way_in_reads_and_writes() -> Result<()> {
    let Some(secure) = secure() else { return Ok(()) };
    let files = tempfile::tempdir()?;
    let password = files.path().join("password");
    fs::write(&password, format!("{PASSWORD}\n"))?;
    let broker = secure.broker();
    let [from, to, once] = [broker.new_topic("from", 2)?, broker.new_topic("to", 1)?, broker.new_topic("once", 1)?];
    broker.produce(&from, [Message::of("a").key("k"), Message::of("b").key("l"), Message::null().key("m")])?;
    let ways = ways_in(secure, &password)?;
    let count = ways.len();
    tests::on_two_threads(async {
        for (name, kafka) in ways {
            copy(kafka.clone(), name, &from, &to).await.map_err(|error| format!("{name}: {error}"))?;
            if name == "oauthbearer" {
                let refused = write_once(kafka.clone(), name, &once).await.unwrap_err().to_string();
                let by_hand = "kafka-topics --create --topic __windrow.oauthbearer.commits --partitions 1";
                assert!(
                    refused.contains("with OAUTHBEARER it is not created") && refused.contains(by_hand),
                    "{refused}"
                );
                broker.create_topic("__windrow.oauthbearer.commits", 1, &[("cleanup.policy", "compact")])?;
            }
            let newest = write_once(kafka, name, &once).await.map_err(|error| format!("{name}: {error}"))?;
            assert_eq!(newest.map(|marker| marker.epoch), Some(Epoch(1)), "{name}");
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    })?;
    let written: Vec<_> = broker.committed(&to)?.into_iter().map(|record| (record.key, record.value)).collect();
    for (key, value) in [("k", Some("a")), ("l", Some("b")), ("m", None)] {
        let record = (Some(key.as_bytes().to_vec()), value.map(|value| value.as_bytes().to_vec()));
        assert_eq!(written.iter().filter(|other| **other == record).count(), count, "{key}");
    }
    assert_eq!(written.len(), 3 * count);
    assert_eq!(broker.committed(&once)?.len(), count);
    Ok(())
}

#[test]
fn a_whole_job_is_exactly_once_behind_a_login_and_tls() -> Result<()> {
    let Some(secure) = secure() else { return Ok(()) };
    let broker = secure.broker();
    let (from, to, place) = (broker.new_topic("from", 2)?, broker.new_topic("to", 2)?, tempfile::tempdir()?);
    broker.produce(&from, numbers(0..20, 0).chain(numbers(100..120, 1)))?;
    let login = Sasl::scram_sha_512(USER, Secret::new(PASSWORD));
    let kafka = connect(secure, Listener::SaslTls)?.tls(Tls::ca_file(secure.authority())).sasl(login);
    let job = || Job::new("locked").checkpoint(store(place.path()), millis(200));
    let write = |numbers: Stream<Number>| numbers.sink(kafka.to_topic(&to).json().exactly_once());
    // It dies in the middle, is fenced and goes on; then it is started once more.
    let report = crash(kafka.topic(&from), job(), 1, write, || {})?;
    assert_eq!(report.warnings, [""; 0]);
    let report = crash(kafka.topic(&from), job(), 1, write, || {})?;
    assert!(report.warnings.concat().contains("has finished"), "{:?}", report.warnings);
    let mut written: Vec<i64> = broker.committed(&to)?.iter().filter_map(|record| json(record)["n"].as_i64()).collect();
    written.sort_unstable();
    assert_eq!(written, (0..20).chain(100..120).collect::<Vec<_>>());
    Ok(())
}

/// An error as it is displayed, and as it is debugged.
fn shown(error: impl std::error::Error) -> String {
    format!("{error} {error:?}")
}

/// The errors of a source, of a sink, and of an exactly-once one; and how long they took.
async fn refusals(kafka: &Kafka, topic: &str) -> Vec<(&'static str, String, Duration)> {
    let begun = Instant::now();
    let source = async {
        let job = Job::new("reads");
        job.source(kafka.topic(topic).raw()).sink(MemorySink::new());
        ("source", shown(job.run().await.unwrap_err()), begun.elapsed())
    };
    let sink = async {
        let job = Job::new("writes");
        job.source(Sequence::new(1)).sink(kafka.to_topic(topic).json());
        ("sink", shown(job.run().await.unwrap_err()), begun.elapsed())
    };
    let once = async {
        let refused = write_once(kafka.clone(), "once", topic).await.unwrap_err();
        ("exactly-once sink", shown(refused), begun.elapsed())
    };
    let (source, sink, once) = tokio::join!(source, sink, once);
    vec![source, sink, once]
}

#[test]
fn who_does_not_get_in_is_told_why_and_soon() -> Result<()> {
    let Some(secure) = secure() else { return Ok(()) };
    let topic = secure.broker().new_topic("private", 1)?;
    let tls = || Tls::ca_file(secure.authority());
    let sasl = |sasl| connect(secure, Listener::SaslTls).map(|kafka| kafka.tls(tls()).sasl(sasl));
    let on = |listener, tls| connect(secure, listener).map(|kafka| kafka.tls(tls));
    let wrong = || Secret::new(WRONG);
    let garbled = || Ok(Token { value: Secret::new(format!("{WRONG}.x.")), ..token(USER) });
    let certificate = "certificate verify failed";
    let cases = [
        ("wrong password, PLAIN", sasl(Sasl::plain(USER, wrong()))?, "Authentication failed"),
        ("wrong password, SCRAM-SHA-256", sasl(Sasl::scram_sha_256(USER, wrong()))?, "Authentication failed"),
        ("wrong password, SCRAM-SHA-512", sasl(Sasl::scram_sha_512(USER, wrong()))?, "Authentication failed"),
        ("a token that is none", sasl(Sasl::oauth(garbled))?, "invalid_token"),
        ("no token", sasl(Sasl::oauth(|| Err("the giver of tokens is away".into())))?, "the giver of tokens is away"),
        ("wrong authority", on(Listener::Tls, Tls::ca_file(secure.stranger()))?, certificate),
        ("authority of the system", on(Listener::Tls, Tls::system())?, certificate),
        ("expired", on(Listener::Expired, tls())?, certificate),
        ("another host", on(Listener::Elsewhere, tls())?, "is for another host than the one that was called"),
        ("no encryption", connect(secure, Listener::Tls)?, "whether the port wants .tls(...)"),
        ("no login", on(Listener::SaslTls, tls())?, "or .sasl(...)"),
        ("no certificate of its own", on(Listener::MutualTls, tls())?, "certificate"),
        ("no authority", on(Listener::Tls, Tls::ca_file("/no/such/ca.pem"))?, "/no/such/ca.pem"),
        ("no password", sasl(Sasl::plain(USER, Secret::file("/no/such/password")))?, "/no/such/password"),
        ("no variable", sasl(Sasl::plain(USER, Secret::env("WINDROW_NO_SUCH")))?, "WINDROW_NO_SUCH"),
        (
            "wrong passphrase",
            on(
                Listener::MutualTls,
                tls()
                    .client_certificate(secure.client_certificate(), secure.locked_client_key())
                    .key_passphrase(wrong()),
            )?,
            "look at the files and the passphrase",
        ),
    ];
    tests::on_two_threads(async {
        let mut running = Vec::new();
        for (name, kafka, why) in cases {
            let topic = topic.clone();
            running.push((name, why, tokio::spawn(async move { Box::pin(refusals(&kafka, &topic)).await })));
        }
        let mut wrong = Vec::new();
        for (name, why, refusals) in running {
            for (what, error, took) in refusals.await? {
                println!("{name}, {what}, {took:.1?}: {error}");
                assert!(!error.contains(CANARY), "{name}, {what}: {error}");
                if !error.contains(why) || took > SOON {
                    wrong.push(format!("{name}, {what}, {took:.1?}: {error}"));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    })
}

#[test]
fn who_gets_in_and_may_do_nothing_is_told_which_rights_are_missing() -> Result<()> {
    let Some(secure) = secure() else { return Ok(()) };
    let topic = secure.broker().new_topic("private", 1)?;
    let kafka = connect(secure, Listener::SaslTls)?.tls(Tls::ca_file(secure.authority()));
    let kafka = kafka.sasl(Sasl::scram_sha_512(NOBODY, Secret::new(PASSWORD)));
    for (what, error, took) in tests::on_two_threads(refusals(&kafka, &topic)) {
        println!("{what}, {took:.1?}: {error}");
        let rights = if what == "source" { "DESCRIBE" } else { "WRITE and DESCRIBE" };
        assert!(error.contains(rights) && error.contains("uthorization"), "{what}: {error}");
        assert!(took < SOON && !error.contains(CANARY), "{what}, {took:?}: {error}");
    }
    Ok(())
}

const ADDRESS: &str = "WINDROW_TEST_ADDRESS";
const FILES: &str = "WINDROW_TEST_FILES";
const TOPIC: &str = "WINDROW_TEST_TOPIC";

/// A whole process with secrets: everything that it says and keeps is searched for them.
#[test]
fn no_secret_shows_anywhere() -> Result<()> {
    let Some(secure) = secure() else { return Ok(()) };
    assert_eq!(base64(br#"{"alg":"none"}"#), TOKEN);
    assert!(holds_secret(base64(format!("{USER}:{PASSWORD}").as_bytes()).as_bytes()));
    let files = tempfile::tempdir()?;
    fs::write(files.path().join("password"), PASSWORD)?;
    fs::copy(secure.authority(), files.path().join("ca.pem"))?;
    let topic = secure.broker().new_topic("orders", 2)?;
    secure.broker().create_topic(&format!("{topic}.out"), 1, &[])?;
    secure.broker().produce(&topic, (0..100).map(|n| Message::of(format!(r#"{{"n":{n}}}"#)).key("k")))?;
    let others = ["avro", "avro.out", "dead"].map(|other| format!("{topic}.{other}"));
    others.iter().try_for_each(|other| secure.broker().create_topic(other, 1, &[]))?;
    // A row of the schema 1, one of a schema that nobody knows, and what is neither.
    let avro: [&[u8]; 3] = [&[0, 0, 0, 0, 1, 10], &[0, 0, 0, 0, 99, 10], b"garbage"];
    secure.broker().produce(&others[0], avro.map(Message::of))?;
    let child = Command::new(env::current_exe()?)
        .args(["security::shows_what_it_can", "--exact", "--nocapture"])
        .envs([
            (ADDRESS, secure.address(Listener::SaslTls)?),
            (TOPIC, topic.clone()),
            ("WINDROW_TEST_PASSWORD", PASSWORD.into()),
        ])
        .envs([(FILES, files.path()), ("WINDROW_TEST_STORE", &files.path().join("store"))])
        .output()?;
    let said = [child.stdout, child.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(child.status.success(), "{said}");
    assert!(!holds_secret(said.as_bytes()), "{said}");
    let all = [
        "SCRAM-SHA-256 as alice",
        "Secret(…)",
        "shown in a panic",
        "source kafka",
        "holds a secret",
        "OAUTHBEARER",
        "invalid_token",
        "can read the login",
        "401",
    ];
    for shown in all {
        assert!(said.contains(shown), "{shown}: {said}");
    }
    let kept = files_below(&files.path().join("store"))?;
    assert!(kept.len() > 2, "{} files", kept.len());
    for file in kept {
        assert!(!holds_secret(&fs::read(&file)?), "{}", file.display());
    }
    let letters = secure.broker().committed(&others[2])?;
    assert_eq!(letters.len(), 2);
    for record in letters.into_iter().chain(secure.broker().committed(&others[1])?) {
        assert!(!holds_secret(format!("{record:?} {}", record.text()).as_bytes()), "{record:?}");
    }
    Ok(())
}

/// A password, a token, or a password as a login by HTTP carries it.
fn holds_secret(bytes: &[u8]) -> bool {
    // Of three bytes at a time, whatever follows them.
    let encoded = base64(&CANARY.as_bytes()[..6]);
    [CANARY, TOKEN, &encoded].iter().any(|secret| bytes.windows(secret.len()).any(|part| part == secret.as_bytes()))
}

fn files_below(directory: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() { files.extend(files_below(&path)?) } else { files.push(path) }
    }
    Ok(files)
}

#[derive(Record)]
struct Order {
    n: i64,
}

/// Tokens: those that are taken, those that are not, and settings that would hold the secret by which they are had.
async fn show_tokens(kafka: &Kafka, topic: &str) -> Result<()> {
    let oauth = |token: fn() -> Token| kafka.clone().sasl(Sasl::oauth(move || Ok(token())));
    let good = oauth(|| token(USER));
    println!("{good:?} {:?} {:?}", good.warnings(), token(USER));
    let job = Job::new("tokens").checkpoint(env::var("WINDROW_TEST_STORE")?, millis(50));
    job.source(good.topic(topic).group("tokens").json::<Order>()).sink(good.to_topic(format!("{topic}.out")).json());
    println!("{job} {job:?}");
    let running = job.start().await?;
    let handle = running.handle();
    until("it has read, and kept where it is", || {
        let metrics = handle.metrics();
        metrics.named("sink").any(|sink| sink.rows_in >= 100) && metrics.checkpoints.completed > 1
    })
    .await;
    println!("{} {:?} {:?}", handle.metrics(), handle.metrics(), handle.warnings());
    handle.stop();
    println!("{:?}", running.wait().await?);
    let bad = [
        oauth(|| Token { value: Secret::new(format!("{WRONG}.x.")), ..token(USER) }),
        oauth(|| Token { value: Secret::new(format!("{TOKEN}.{WRONG}")), ..token(USER) }),
        oauth(|| Token { expires: SystemTime::UNIX_EPOCH, ..token(USER) }),
        kafka.clone().set("sasl.oauthbearer.client.secret", PASSWORD),
        kafka.clone().set("sasl.oauthbearer.config", PASSWORD),
        kafka.clone().set("ssl.keystore.password", PASSWORD),
        kafka.clone().set("ssl.key.password", PASSWORD),
    ];
    show_refusals(bad, topic).await
}

/// What is said to those who do not get in, all at once.
async fn show_refusals<const N: usize>(bad: [Kafka; N], topic: &str) -> Result<()> {
    let tries = bad.map(|bad| {
        let topic = topic.to_owned();
        tokio::spawn(async move { format!("{bad:?} {:?}", Box::pin(refusals(&bad, &topic)).await) })
    });
    for said in tries {
        println!("{}", said.await?);
    }
    Ok(())
}

/// Logins at a schema registry: one that is taken, and those that are not.
async fn show_registry(kafka: &Kafka, topic: &str) -> Result<()> {
    let server = Registry::start()?;
    server.protect(USER, PASSWORD);
    server.register(
        &format!("{topic}.avro-value"),
        "AVRO",
        r#"{"type":"record","name":"Order","fields":[{"name":"n","type":"long"}]}"#,
    )?;
    let at = || SchemaRegistry::at(server.url());
    let place = env::var("WINDROW_TEST_STORE")?;
    let job = |name: &str, registry: &SchemaRegistry| {
        let job = Job::new(format!("schemas-{name}")).checkpoint(&place, millis(50));
        let orders = kafka.topic(format!("{topic}.avro")).bounded().avro::<Order>(registry);
        println!("{registry:?} {:?} {}", registry.warnings(), registry.name());
        let (good, rejected) = job.source(orders).with_rejects();
        good.sink(kafka.to_topic(format!("{topic}.avro.out")).avro(registry));
        rejected.sink(kafka.to_topic(format!("{topic}.dead")).dead_letters());
        job
    };
    let good = || at().basic_auth(USER, Secret::env("WINDROW_TEST_PASSWORD"));
    let well = job("well", &good());
    println!("{well} {well:?} {}", well.explain().await?);
    println!("{:?}", well.run().await?);
    let inside = server.url().replace("http://", &format!("http://{USER}:{PASSWORD}@"));
    for (name, registry, mood) in [
        ("wrong", at().basic_auth(USER, Secret::new(WRONG)), Mood::Well),
        ("token", at().bearer(Secret::new(WRONG)), Mood::Well),
        ("inside", SchemaRegistry::at(inside), Mood::Well),
        ("fails", good(), Mood::Fails(500)),
        ("babbles", good(), Mood::Babbles),
    ] {
        server.set_mood(mood);
        match job(name, &registry).run().await {
            Ok(report) => println!("{report:?}"),
            Err(error) => println!("{}", shown(error)),
        }
    }
    Ok(())
}

/// The process of [`no_secret_shows_anywhere`]. It has nothing to do in a run of the tests.
#[test]
fn shows_what_it_can() -> Result<()> {
    let (Ok(address), Ok(files), Ok(topic)) = (env::var(ADDRESS), env::var(FILES), env::var(TOPIC)) else {
        return Ok(());
    };
    let files = Path::new(&files);
    let tls = || Tls::ca_file(files.join("ca.pem"));
    let from_env = || Sasl::scram_sha_256(USER, Secret::env("WINDROW_TEST_PASSWORD"));
    let from_file = Sasl::plain(USER, Secret::file(files.join("password")));
    let kafka = Kafka::brokers(&address).tls(tls().key_passphrase(Secret::new(WRONG))).sasl(from_env());
    let open = Kafka::brokers(&address).sasl(from_file.clone());
    println!("{kafka:?} {:?} {open:?} {:?}", kafka.warnings(), open.warnings());
    let job = Job::new("shows").checkpoint(env::var("WINDROW_TEST_STORE")?, millis(100));
    let input = kafka.topic(&topic).group("shows");
    println!("{input:?}");
    let output = Kafka::brokers(&address).tls(tls()).sasl(from_file).to_topic(format!("{topic}.out")).json();
    println!("{output:?} {}", Sink::name(&output));
    let held = (kafka.clone(), format!("{output:?}"));
    job.source(input.json::<Order>()).filter_expr(col("n").lt(lit(10))).sink(output);
    println!("{job} {job:?}");
    tests::on_two_threads(async {
        println!("{}", job.explain().await?);
        let running = job.start().await?;
        let handle = running.handle();
        for _ in 0..100 {
            if handle.metrics().checkpoints.completed > 3 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        println!("{} {:?} {:?}", handle.metrics(), handle.metrics(), handle.warnings());
        handle.stop();
        println!("{:?}", running.wait().await?);
        let wrong = Sasl::plain(USER, Secret::new(WRONG));
        let bad = [
            Kafka::brokers(&address).tls(tls()).sasl(wrong),
            kafka.clone().set("sasl.password", PASSWORD),
            kafka.clone().set("ssl.key.pem", PASSWORD),
            Kafka::brokers(&address).tls(tls()).sasl(from_env()).set("no.such.setting", "1"),
        ];
        Box::pin(show_refusals(bad, &topic)).await?;
        Box::pin(show_tokens(&Kafka::brokers(&address).tls(tls()), &topic)).await?;
        Box::pin(show_registry(&Kafka::brokers(&address).tls(tls()).sasl(from_env()), &topic)).await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    })?;
    let caught = catch_unwind(AssertUnwindSafe(|| panic!("shown in a panic: {held:?}")));
    assert!(caught.is_err());
    Ok(())
}
